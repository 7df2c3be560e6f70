//! What `ping` tells, line by line as it happens: for people, or as JSON.

mod stream;

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use super::chart::{Ink, chart, row, total};
use super::handshake;
use super::records::{self, HeartbeatResult, Record, rfc3339};
use super::statistics::RoundTrips;
use super::{Output, PingArgs};
use crate::cli::connection::in_flags;
use crate::config::{Heartbeat, Target, mask};
use crate::proto::close::{CloseFrame, Verdict};
use crate::proto::event::{Facts, Phase, PhaseTimes, TlsFacts};
use crate::proto::probe::{Answer, Counts};
use crate::telemetry::words::{counted, escape};
use crate::transport::dial::{DialError, Dialed};
use crate::transport::trace::Trace;
use stream::Stream;

/// Tells what happens, and keeps what the summary is made of.
pub(super) struct Report<W> {
    out: W,
    output: Output,
    verbose: bool,
    quiet: bool,
    ink: Ink,
    /// The URL without userinfo and query.
    url: String,
    host: String,
    /// What must not be shown when the peer repeats it.
    secrets: Vec<String>,
    /// Who answers, as the lines have it.
    from: String,
    round_trips: RoundTrips,
    counts: Counts,
    pings_received: u64,
    messages_received: u64,
    /// Of an event stream, which is not pinged.
    stream: Option<Stream>,
}

/// How a connection ended.
pub(super) struct Ended<'a> {
    pub(super) verdict: &'a Verdict,
    pub(super) received: Option<&'a CloseFrame>,
    pub(super) sent: Option<&'a CloseFrame>,
    /// How long it had stood.
    pub(super) age: Duration,
    /// Pings that waited for an answer.
    pub(super) waiting: &'a [u32],
    /// Whether we ended it because there was nothing more to do.
    pub(super) by_wish: bool,
}

impl<W: Write> Report<W> {
    pub(super) fn new(out: W, args: &PingArgs, target: &Target) -> Self {
        let host = target.identity.name.to_string();
        Self {
            out,
            output: args.output,
            verbose: args.verbose,
            quiet: args.quiet,
            ink: Ink::of_locale(|name| std::env::var_os(name)),
            url: target.identity.url.to_string(),
            from: host.clone(),
            host,
            secrets: target.secrets(),
            round_trips: RoundTrips::default(),
            counts: Counts::default(),
            pings_received: 0,
            messages_received: 0,
            stream: (target.connection.heartbeat == Heartbeat::Sse).then(Stream::default),
        }
    }

    /// Whether the handshake is to be shown.
    pub(super) fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Whether any ping was answered; of an event stream, whether something came and it did not
    /// fail.
    pub(super) fn answered(&self) -> bool {
        match &self.stream {
            Some(stream) => stream.is_good(),
            None => self.counts.answered > 0,
        }
    }

    /// Text of the peer's without what is secret.
    pub(super) fn conceal(&self, text: &str) -> Box<str> {
        mask(text, &self.secrets).into()
    }

    pub(super) fn connected(&mut self, dialed: &Dialed, trace: &Trace) -> io::Result<()> {
        if let Some(peer) = dialed.peer {
            self.from = peer.to_string();
        }
        let facts = dialed.facts.as_deref();
        if self.output == Output::Json {
            let mut record = self.connect(&dialed.times, facts);
            record.peer = dialed.peer.map(|peer| peer.to_string());
            record.redirects = trace.redirects.clone();
            record.handshake = self.verbose.then(|| trace.into());
            record.local = dialed.link.local_addr().map(|local| local.to_string());
            return self.record(&Record::Connect(Box::new(record)));
        }
        self.chart(&dialed.times, None)?;
        let mut about = vec![match dialed.peer {
            Some(peer) => format!("via {peer}"),
            None => "via a unix socket".to_owned(),
        }];
        about.extend(
            trace
                .redirects
                .iter()
                .map(|to| format!("redirected to {to}")),
        );
        if let Some(facts) = facts {
            let now = SystemTime::now();
            about.extend(facts.proxy.iter().map(|proxy| format!("through {proxy}")));
            about.extend(facts.tls.iter().map(|tls| tls_words(tls, now)));
            let chosen = facts.subprotocol.iter();
            about.extend(chosen.map(|name| format!("subprotocol {}", escape(name))));
        }
        let first = row("total", total(&dialed.times));
        let indent = " ".repeat(first.chars().count());
        for (n, about) in about.iter().enumerate() {
            let before = if n == 0 { &first } else { &indent };
            self.line(&format!("{before}{about}"))?;
        }
        self.handshake(trace)
    }

    fn handshake(&mut self, trace: &Trace) -> io::Result<()> {
        if self.verbose {
            for line in handshake::lines(trace) {
                self.line(&line)?;
            }
        }
        Ok(())
    }

    pub(super) fn not_connected(&mut self, error: &DialError, trace: &Trace) -> io::Result<()> {
        if self.output == Output::Text {
            self.chart(&error.times, Some(error.phase))?;
            return self.handshake(trace);
        }
        let mut record = self.connect(&error.times, None);
        record.peer = error.peer.map(|peer| peer.to_string());
        record.redirects = trace.redirects.clone();
        record.handshake = self.verbose.then(|| trace.into());
        record.error = Some(records::DialFailed {
            phase: error.phase.as_str().to_owned(),
            message: in_flags(&error.message),
            status: error.status,
        });
        self.record(&Record::Connect(Box::new(record)))?;
        self.summary(Duration::ZERO)
    }

    fn connect(&self, times: &PhaseTimes, facts: Option<&Facts>) -> records::Connect {
        let mut headers = std::collections::BTreeMap::<String, String>::new();
        for (name, value) in facts.iter().flat_map(|facts| &facts.headers) {
            let value = mask(value, &self.secrets);
            // As a list is written (RFC 9110 section 5.3).
            let there = headers.entry(name.to_string()).or_default();
            if !there.is_empty() {
                there.push_str(", ");
            }
            there.push_str(&escape(&value));
        }
        let text = |text: Option<&Box<str>>| text.map(|text| escape(text).into_owned());
        records::Connect {
            time: rfc3339(SystemTime::now()),
            url: self.url.clone(),
            peer: None,
            local: None,
            phases: times.into(),
            proxy: text(facts.and_then(|facts| facts.proxy.as_ref())),
            tls: facts.and_then(|facts| facts.tls.as_ref()).map(Into::into),
            subprotocol: text(facts.and_then(|facts| facts.subprotocol.as_ref())),
            headers,
            redirects: Vec::new(),
            handshake: None,
            error: None,
        }
    }

    fn chart(&mut self, times: &PhaseTimes, failed: Option<Phase>) -> io::Result<()> {
        self.line(&format!("ping {}", self.url))?;
        for line in chart(times, failed, self.ink) {
            self.line(&line)?;
        }
        Ok(())
    }

    /// A pong, and what it meant; `counts` are those after it.
    pub(super) fn pong(&mut self, answer: Answer, counts: Counts) -> io::Result<()> {
        self.counts = counts;
        let (seq, result, rtt, mismatch) = match answer {
            Answer::InTime { seq, rtt, mismatch } => {
                (seq, HeartbeatResult::Answered, rtt, mismatch)
            }
            Answer::Late { seq, rtt } => (seq, HeartbeatResult::Late, rtt, false),
            Answer::Again { seq } => (seq, HeartbeatResult::Repeated, None, false),
            // Nothing we asked for: traffic of the peer's.
            Answer::Stray => return Ok(()),
        };
        if let Some(rtt) = rtt {
            self.round_trips.add(rtt, |n| rand::random_range(0..n));
        }
        if self.quiet {
            return Ok(());
        }
        if self.output == Output::Json {
            return self.heartbeat(seq, result, rtt, None, mismatch);
        }
        let rtt = match rtt {
            Some(rtt) => format!(" rtt={} ms", digits(rtt)),
            None => String::new(),
        };
        let remark = match (result, mismatch) {
            (_, true) => " (another payload)",
            (HeartbeatResult::Late, false) => " (late)",
            (HeartbeatResult::Repeated, false) => " (again)",
            (
                HeartbeatResult::Answered | HeartbeatResult::TimedOut | HeartbeatResult::CutOff,
                false,
            ) => "",
        };
        self.line(&format!("pong from {}: seq={seq}{rtt}{remark}", self.from))
    }

    pub(super) fn sent(&mut self, counts: Counts) {
        self.counts = counts;
    }

    /// No answer came within `wait`.
    pub(super) fn no_answer(&mut self, seq: u32, wait: Duration) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        if self.output == Output::Json {
            return self.heartbeat(seq, HeartbeatResult::TimedOut, None, Some(wait), false);
        }
        let wait = wait.as_secs_f64();
        self.line(&format!("no answer: seq={seq} after {wait} s"))
    }

    /// The connection ended before an answer came.
    fn cut_off(&mut self, seq: u32) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        if self.output == Output::Json {
            return self.heartbeat(seq, HeartbeatResult::CutOff, None, None, false);
        }
        self.line(&format!("no answer: seq={seq}, the connection ended"))
    }

    fn heartbeat(
        &mut self,
        seq: u32,
        result: HeartbeatResult,
        rtt: Option<Duration>,
        waited: Option<Duration>,
        mismatch: bool,
    ) -> io::Result<()> {
        self.record(&Record::Heartbeat(records::Heartbeat {
            time: rfc3339(SystemTime::now()),
            seq,
            result,
            rtt_seconds: rtt.map(|rtt| rtt.as_secs_f64()),
            waited_seconds: waited.map(|waited| waited.as_secs_f64()),
            mismatch,
        }))
    }

    /// The peer pinged us; it is answered.
    pub(super) fn pinged(&mut self) {
        self.pings_received += 1;
    }

    /// A message came in; it is ignored.
    pub(super) fn message(&mut self) {
        self.messages_received += 1;
    }

    /// Who ended the connection and how, and the summary.
    pub(super) fn over(&mut self, ended: &Ended<'_>) -> io::Result<()> {
        let verdict = ended.verdict;
        for seq in ended.waiting {
            self.cut_off(*seq)?;
        }
        if self.output == Output::Json {
            self.record(&Record::End(Box::new(records::End {
                time: rfc3339(SystemTime::now()),
                cause: verdict.cause.as_str().to_owned(),
                initiator: verdict.initiator.as_str().to_owned(),
                message: escape(&verdict.message).into_owned(),
                received: ended.received.map(Into::into),
                sent: ended.sent.map(Into::into),
                age_seconds: ended.age.as_secs_f64(),
            })))?;
        } else if !ended.by_wish {
            let words = escape(&verdict.message).into_owned();
            self.line(&format!("ended by {}: {words}", verdict.initiator))?;
        }
        self.summary(ended.age)
    }

    fn summary(&mut self, duration: Duration) -> io::Result<()> {
        let counts = self.counts;
        let figures = self.round_trips.figures();
        let lost = counts.sent.saturating_sub(counts.answered);
        let loss = (counts.sent > 0).then(|| f64::from(lost) / f64::from(counts.sent));
        if self.output == Output::Json {
            return self.record(&Record::Summary(Box::new(records::Summary {
                time: rfc3339(SystemTime::now()),
                url: self.url.clone(),
                sent: counts.sent,
                received: counts.answered,
                loss,
                late: counts.late,
                mismatched: counts.mismatched,
                repeated: counts.repeated,
                pings_received: self.pings_received,
                messages_received: match &self.stream {
                    Some(stream) => stream.events(),
                    None => self.messages_received,
                },
                duration_seconds: duration.as_secs_f64(),
                rtt: figures.map(Into::into),
                stream: self.stream.as_ref().map(Into::into),
            })));
        }
        self.line(&format!("--- {} ping statistics ---", escape(&self.host)))?;
        if let Some(stream) = &self.stream {
            for line in stream.lines(duration) {
                self.line(&line)?;
            }
            return Ok(());
        }
        let mut line = format!(
            "{} sent, {} answered",
            counted(counts.sent, "ping"),
            counts.answered
        );
        for (count, what) in [
            (counts.late, "late"),
            (counts.mismatched, "with another payload"),
        ] {
            if count > 0 {
                line.push_str(&format!(" ({count} {what})"));
            }
        }
        if counts.repeated > 0 {
            line.push_str(&format!(", {} again", counts.repeated));
        }
        if let Some(loss) = loss {
            line.push_str(&format!(", {} % loss", percent(loss)));
        }
        let time = duration.as_secs_f64();
        self.line(&format!("{line}, time {time:.1} s"))?;
        if let Some(figures) = figures {
            let ms = |rtt: Duration| format!("{:.3}", rtt.as_secs_f64() * 1e3);
            let spread = [figures.min, figures.avg, figures.max, figures.stddev].map(ms);
            let spread = spread.join("/");
            self.line(&format!("rtt min/avg/max/stddev = {spread} ms"))?;
            let ranks = [figures.p50, figures.p90, figures.p99].map(ms);
            self.line(&format!("rtt p50/p90/p99 = {} ms", ranks.join("/")))?;
        }
        if self.pings_received + self.messages_received > 0 {
            let pings = counted(self.pings_received, "ping");
            let messages = counted(self.messages_received, "message");
            self.line(&format!(
                "the peer sent {pings} (answered) and {messages} (ignored)"
            ))?;
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        let line = serde_json::to_string(record)?;
        self.line(&line)
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }
}

fn tls_words(tls: &TlsFacts, now: SystemTime) -> String {
    let mut words = format!("{} {}", tls.version, tls.cipher);
    let Some(end) = tls.not_after else {
        return words;
    };
    let until = match end.duration_since(now) {
        Ok(left) => format!(", certificate ends in {}", days(left)),
        Err(past) => format!(", certificate ended {} ago", days(past.duration())),
    };
    words.push_str(&until);
    words
}

/// Whole days; below two of them hours.
fn days(duration: Duration) -> String {
    match duration.as_secs() / 3_600 {
        hours @ 0..48 => format!("{hours} h"),
        hours => format!("{} d", hours / 24),
    }
}

/// Milliseconds in three digits, as ping(8) has it: `0.123`, `1.23`, `12.3`, `123`.
fn digits(rtt: Duration) -> String {
    let ms = rtt.as_secs_f64() * 1e3;
    let decimals = match ms {
        ms if ms < 1.0 => 3,
        ms if ms < 10.0 => 2,
        ms if ms < 100.0 => 1,
        _ => 0,
    };
    format!("{ms:.decimals$}")
}

/// A share in percent, with a decimal where it has one.
fn percent(share: f64) -> String {
    let tenths = (share * 1e3).round();
    match tenths % 10.0 == 0.0 {
        true => format!("{:.0}", tenths / 10.0),
        false => format!("{:.1}", tenths / 10.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let micros = Duration::from_micros;
        for (rtt, words) in [
            (123, "0.123"),
            (1_234, "1.23"),
            (12_345, "12.3"),
            (123_456, "123"),
        ] {
            assert_eq!(digits(micros(rtt)), words);
        }
        assert_eq!(percent(0.25), "25");
        assert_eq!(percent(1.0 / 3.0), "33.3");
        assert_eq!(percent(0.0), "0");
        assert_eq!(percent(1.0), "100");
    }

    #[test]
    fn the_certificates_end_is_told_in_days() {
        let day = Duration::from_secs(86_400);
        let now = SystemTime::UNIX_EPOCH + 1_000 * day;
        let words = |not_after| {
            let tls = TlsFacts {
                version: "TLSv1.3",
                cipher: "TLS13_AES_256_GCM_SHA384",
                not_after,
            };
            tls_words(&tls, now)
        };
        let agreed = "TLSv1.3 TLS13_AES_256_GCM_SHA384";
        assert_eq!(words(None), agreed);
        let ends = words(Some(now + 43 * day));
        assert_eq!(ends, format!("{agreed}, certificate ends in 43 d"));
        let ends = words(Some(now + day));
        assert_eq!(ends, format!("{agreed}, certificate ends in 24 h"));
        let ended = words(Some(now - 3 * day));
        assert_eq!(ended, format!("{agreed}, certificate ended 3 d ago"));
    }
}
