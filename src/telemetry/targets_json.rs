//! The JSON of `/api/v1/targets`, and the table `ws-keepalive status` makes of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::words;
use crate::proto::close::{Cause, CloseFrame};
use crate::proto::event::DialFailure;
use crate::stats::{History, PastEnd, Registry, TargetStats};

/// Every target, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TargetsJson {
    pub(crate) targets: Vec<TargetJson>,
}

/// One target. Times are RFC 3339 with milliseconds; what is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TargetJson {
    pub(crate) name: String,
    /// Which of the target's addresses, if it fans out.
    pub(crate) address_index: Option<u32>,
    /// Without userinfo and query.
    pub(crate) url: String,
    pub(crate) protocol: Cow<'static, str>,
    /// `connecting`, `established`, `waiting` or `stopped`.
    pub(crate) state: Cow<'static, str>,
    pub(crate) since: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) last_rtt_seconds: Option<f64>,
    /// `{version, cipher, not_after}`; null without TLS.
    pub(crate) tls: Option<Value>,
    pub(crate) last_error: Option<ErrorJson>,
    /// Newest first, at most 20.
    pub(crate) ends: Vec<EndJson>,
}

/// The newest thing that went wrong: a failed dial has a phase, an end has a cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ErrorJson {
    pub(crate) at: String,
    pub(crate) phase: Option<Cow<'static, str>>,
    pub(crate) cause: Option<Cow<'static, str>>,
    pub(crate) message: String,
    /// Failed dials in a row; null for an end.
    pub(crate) attempts: Option<u32>,
}

/// How a connection ended, with the evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EndJson {
    pub(crate) at: String,
    /// 16 hexadecimal digits, as in the log.
    pub(crate) outage_id: String,
    pub(crate) cause: Cow<'static, str>,
    /// `peer`, `us` or `path`.
    pub(crate) initiator: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) received: Option<CloseJson>,
    pub(crate) sent: Option<CloseJson>,
    pub(crate) age_seconds: f64,
    pub(crate) since_last_frame_in_seconds: Option<f64>,
    pub(crate) since_last_frame_out_seconds: Option<f64>,
    pub(crate) outstanding_pings: u32,
    pub(crate) retries: u32,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) proxy: Option<Value>,
    pub(crate) tls: Option<Value>,
    pub(crate) headers: Option<Value>,
    pub(crate) tcp_info: Option<Value>,
    /// From detection to the next connection; null while it is not back.
    pub(crate) recovered_after_seconds: Option<f64>,
}

/// A Close frame. Code 1005 is a Close without a code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CloseJson {
    pub(crate) code: u16,
    /// Control characters are escaped.
    pub(crate) reason: String,
}

/// What the registry knows of every target.
pub(crate) fn targets(registry: &Registry) -> TargetsJson {
    let targets = registry.targets();
    TargetsJson {
        targets: targets.iter().map(|stats| target(stats)).collect(),
    }
}

fn target(stats: &TargetStats) -> TargetJson {
    let identity = stats.identity();
    let labels = identity.labels.iter();
    let (last_error, ends) = stats.with_history(|history| match history {
        None => (None, Vec::new()),
        Some(history) => (
            last_error(history),
            history.ends.iter().map(end).collect::<Vec<_>>(),
        ),
    });
    TargetJson {
        name: identity.target().as_ref().to_owned(),
        address_index: identity.address_index(),
        url: identity.url.as_ref().to_owned(),
        protocol: identity.protocol.into(),
        state: stats.state().as_str().into(),
        since: rfc3339(stats.state_since()),
        labels: labels
            .map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned()))
            .collect(),
        last_rtt_seconds: stats.last_rtt().map(|rtt| rtt.as_secs_f64()),
        tls: None,
        last_error,
        ends,
    }
}

/// What we ended ourselves on request is no error.
fn last_error(history: &History) -> Option<ErrorJson> {
    let wrong = |past: &&PastEnd| !asked_for(past.end.cause);
    let end = history.ends.iter().find(wrong).map(|past| &past.end);
    let dial = history.last_failure.as_ref();
    match (dial, end) {
        (Some(dial), Some(end)) if dial.at < end.at => Some(ended(end)),
        (Some(dial), _) => Some(failed(dial)),
        (None, end) => end.map(ended),
    }
}

/// Whether an end is somebody's wish and nobody's fault.
pub(crate) fn asked_for(cause: Cause) -> bool {
    matches!(cause, Cause::Replaced | Cause::Removed | Cause::Shutdown)
}

fn failed(dial: &DialFailure) -> ErrorJson {
    ErrorJson {
        at: rfc3339(dial.at),
        phase: Some(dial.phase.as_str().into()),
        cause: None,
        message: dial.message.as_ref().to_owned(),
        attempts: Some(dial.attempts),
    }
}

fn ended(end: &crate::proto::event::End) -> ErrorJson {
    ErrorJson {
        at: rfc3339(end.at),
        phase: None,
        cause: Some(end.cause.as_str().into()),
        message: end.message.as_ref().to_owned(),
        attempts: None,
    }
}

fn end(past: &PastEnd) -> EndJson {
    let PastEnd {
        end,
        recovered_after,
    } = past;
    let seconds = |duration: Option<Duration>| duration.map(|d| d.as_secs_f64());
    EndJson {
        at: rfc3339(end.at),
        outage_id: words::outage_id(end.outage_id),
        cause: end.cause.as_str().into(),
        initiator: end.initiator.as_str().into(),
        message: end.message.as_ref().to_owned(),
        received: end.received.as_ref().map(close),
        sent: end.sent.as_ref().map(close),
        age_seconds: end.age.as_secs_f64(),
        since_last_frame_in_seconds: seconds(end.since_last_frame_in),
        since_last_frame_out_seconds: seconds(end.since_last_frame_out),
        outstanding_pings: end.outstanding_pings,
        retries: end.retries,
        local: end.local,
        peer: end.peer,
        proxy: None,
        tls: None,
        headers: None,
        tcp_info: None,
        recovered_after_seconds: seconds(*recovered_after),
    }
}

fn close(frame: &CloseFrame) -> CloseJson {
    CloseJson {
        code: frame.code,
        reason: words::escape(&frame.reason).into_owned(),
    }
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// The targets as a table for people: TARGET STATE SINCE RTT DROPS URL.
pub(crate) fn table(json: &TargetsJson) -> String {
    table_at(json, SystemTime::now())
}

fn table_at(json: &TargetsJson, now: SystemTime) -> String {
    let header = ["TARGET", "STATE", "SINCE", "RTT", "DROPS", "URL"].map(str::to_owned);
    let rows = json.targets.iter().map(|target| row(target, now));
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(rows).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(target: &TargetJson, now: SystemTime) -> [String; 6] {
    let since = humantime::parse_rfc3339(&target.since).ok();
    let ago = since.and_then(|since| now.duration_since(since).ok());
    // The history holds no more than this many; there may have been others.
    let drops = match target.ends.len() {
        20.. => "20+".to_owned(),
        n => n.to_string(),
    };
    let last = target.ends.first();
    let rtt = target.last_rtt_seconds;
    let name = words::escape(&target.name);
    [
        match target.address_index {
            Some(index) => format!("{name}[{index}]"),
            None => name.into_owned(),
        },
        target.state.clone().into_owned(),
        ago.map_or("-".to_owned(), |ago| format!("{} ago", words::coarse(ago))),
        rtt.map_or("-".to_owned(), |rtt| format!("{:.1} ms", rtt * 1e3)),
        last.map_or(drops.clone(), |end| format!("{drops} ({})", end.cause)),
        words::escape(&target.url).into_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::close::Initiator;
    use crate::proto::event::{End, Event, Phase};
    use crate::proto::reconnect::Advice;
    use crate::stats::{Buckets, EntryGuard, Identity};
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    fn target(registry: &Arc<Registry>, name: &str) -> EntryGuard {
        let identity = Identity {
            name: name.into(),
            url: format!("ws://{name}.example.com/ws").into(),
            protocol: "websocket",
            labels: [("region".into(), "eu".into())].into(),
            fan_out: None,
        };
        registry.target(Arc::new(identity), &Buckets::default())
    }

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis)
    }

    fn end(millis: u64, cause: Cause) -> Event {
        Event::Ended(Box::new(End {
            at: at(millis),
            outage_id: 0xabc,
            cause,
            initiator: Initiator::Peer,
            message: "peer closed".into(),
            received: Some(CloseFrame::new(1001, "by\u{1b}e")),
            sent: None,
            age: Duration::from_millis(3_723_500),
            since_last_frame_in: Some(Duration::from_secs(60)),
            since_last_frame_out: None,
            outstanding_pings: 2,
            retries: 1,
            local: None,
            peer: Some(([10, 0, 0, 7], 443).into()),
            facts: None,
            tcp_info: None,
        }))
    }

    fn dial(millis: u64) -> Event {
        Event::DialFailed(Box::new(DialFailure {
            at: at(millis),
            phase: Phase::Upgrade,
            message: "503 Service Unavailable".into(),
            status: Some(503),
            times: Default::default(),
            attempts: 4,
            certificate_not_after: None,
            advice: Advice::Backoff,
        }))
    }

    #[test]
    fn the_whole_json_of_a_target_with_an_end() {
        let registry = Registry::new();
        let edge = self::target(&registry, "edge");
        edge.stats().apply(&end(0, Cause::ClosedGoingAway));
        let json = targets(&registry);
        let since = json.targets[0].since.clone();
        let text = serde_json::to_string(&json).expect("JSON");
        let golden = r#"{"targets":[{"name":"edge","address_index":null,"url":"ws://edge.example.com/ws","protocol":"websocket","state":"waiting","since":"SINCE","labels":{"region":"eu"},"last_rtt_seconds":null,"tls":null,"last_error":{"at":"2023-11-14T22:13:20.000Z","phase":null,"cause":"closed_going_away","message":"peer closed","attempts":null},"ends":[{"at":"2023-11-14T22:13:20.000Z","outage_id":"0000000000000abc","cause":"closed_going_away","initiator":"peer","message":"peer closed","received":{"code":1001,"reason":"by\\u{1b}e"},"sent":null,"age_seconds":3723.5,"since_last_frame_in_seconds":60.0,"since_last_frame_out_seconds":null,"outstanding_pings":2,"retries":1,"local":null,"peer":"10.0.0.7:443","proxy":null,"tls":null,"headers":null,"tcp_info":null,"recovered_after_seconds":null}]}]}"#;
        assert_eq!(text.replace(&since, "SINCE"), golden);
        let read: TargetsJson = serde_json::from_str(&text).expect("what we wrote");
        assert_eq!(read, json);
    }

    #[test]
    fn nothing_wrong_means_no_error_and_no_ends() {
        let registry = Registry::new();
        let _edge = self::target(&registry, "edge");
        let json = targets(&registry);
        assert_eq!(
            (&json.targets[0].last_error, json.targets[0].ends.len()),
            (&None, 0)
        );
    }

    #[test]
    fn the_last_error_is_the_newest_of_dial_and_end_and_never_what_we_were_asked_to_do() {
        let registry = Registry::new();
        let edge = self::target(&registry, "edge");
        let error = |event: &Event| {
            edge.stats().apply(event);
            let error = targets(&registry).targets.remove(0).last_error;
            error.map(|e| (e.phase, e.cause, e.attempts))
        };
        let dialing = Some((Some("upgrade".into()), None, Some(4)));
        let reset = Some((None, Some("reset".into()), None));
        assert_eq!(error(&end(0, Cause::Replaced)), None);
        assert_eq!(error(&dial(10)), dialing);
        assert_eq!(error(&end(20, Cause::Reset)), reset);
        assert_eq!(error(&end(30, Cause::Shutdown)), reset);
        assert_eq!(error(&dial(40)), dialing);
    }

    #[test]
    fn the_table_is_aligned_and_counts_drops() {
        let registry = Registry::new();
        let edge = self::target(&registry, "edge-tokyo");
        let flaky = self::target(&registry, "flaky");
        edge.stats().apply(&Event::Pong {
            rtt: Some(Duration::from_micros(12_340)),
            mismatch: false,
        });
        for n in 0..21 {
            flaky.stats().apply(&end(n, Cause::PongTimeout));
        }
        let mut json = targets(&registry);
        json.targets[0].since = rfc3339(at(0));
        json.targets[1].since = rfc3339(at(0) + Duration::from_secs(190));
        let text = table_at(&json, at(0) + Duration::from_secs(192));
        let expected = "\
TARGET      STATE       SINCE      RTT      DROPS               URL
edge-tokyo  connecting  3m12s ago  12.3 ms  0                   ws://edge-tokyo.example.com/ws
flaky       waiting     2s ago     -        20+ (pong_timeout)  ws://flaky.example.com/ws
";
        assert_eq!(text, expected, "{text}");
    }
}
