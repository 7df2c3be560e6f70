//! What `ping` tells of an event stream.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use super::{Output, Report, counted};
use crate::cli::ping::arrivals::{Arrival, Arrivals};
use crate::cli::ping::records::{self, ArrivalKind, Record, rfc3339};

/// What came of a stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    arrivals: Arrivals,
    /// Whether it broke, was silent for too long, or ended before the count was reached.
    failed: bool,
}

impl Stream {
    /// Whether something came, and nothing is to be complained of.
    pub(super) fn is_good(&self) -> bool {
        self.arrivals.count() > 0 && !self.failed
    }

    pub(super) fn events(&self) -> u64 {
        self.arrivals.events
    }

    /// Lines of the summary.
    pub(super) fn lines(&self, duration: Duration) -> Vec<String> {
        let arrivals = &self.arrivals;
        let events = counted(arrivals.events, "event");
        let comments = counted(arrivals.comments, "comment");
        let time = duration.as_secs_f64();
        let mut lines = vec![format!("{events}, {comments}, time {time:.1} s")];
        let first = match (arrivals.first_event, arrivals.first) {
            (Some(delay), _) => Some(("event", delay)),
            (None, delay) => delay.map(|delay| ("comment", delay)),
        };
        lines.extend(first.map(|(kind, delay)| format!("first {kind} after {} s", seconds(delay))));
        if let Some(gaps) = arrivals.gaps() {
            let spread = [gaps.min, gaps.avg, gaps.max].map(seconds).join("/");
            lines.push(format!("gap min/avg/max = {spread} s"));
        }
        lines
    }
}

impl From<&Stream> for records::Stream {
    fn from(stream: &Stream) -> Self {
        let arrivals = &stream.arrivals;
        Self {
            events: arrivals.events,
            comments: arrivals.comments,
            first_arrival_seconds: arrivals.first.map(|delay| delay.as_secs_f64()),
            first_event_seconds: arrivals.first_event.map(|delay| delay.as_secs_f64()),
            gap: arrivals.gaps().map(Into::into),
        }
    }
}

impl<W: Write> Report<W> {
    /// Something came `gap` after the one before, when the stream had stood for `age`: its number.
    pub(in crate::cli::ping) fn arrived(
        &mut self,
        arrival: Arrival,
        gap: Duration,
        age: Duration,
    ) -> io::Result<u64> {
        let stream = self.stream.get_or_insert_default();
        stream.arrivals.add(arrival, gap, age);
        let seq = stream.arrivals.count();
        if self.quiet {
            return Ok(seq);
        }
        let (kind, bytes) = match arrival {
            Arrival::Event(bytes) => (ArrivalKind::Event, Some(bytes)),
            Arrival::Comment => (ArrivalKind::Comment, None),
        };
        if self.output == Output::Json {
            self.record(&Record::Arrival(records::Arrival {
                time: rfc3339(SystemTime::now()),
                seq,
                kind,
                bytes,
                gap_seconds: gap.as_secs_f64(),
            }))?;
            return Ok(seq);
        }
        let kind = match kind {
            ArrivalKind::Event => "event",
            ArrivalKind::Comment => "comment",
        };
        let bytes = bytes.map_or(String::new(), |bytes| format!(" bytes={bytes}"));
        let gap = seconds(gap);
        self.line(&format!(
            "{kind} from {}: seq={seq}{bytes} gap={gap} s",
            self.from
        ))?;
        Ok(seq)
    }

    /// The stream is over, and not as it should be.
    pub(in crate::cli::ping) fn stream_failed(&mut self) {
        self.stream.get_or_insert_default().failed = true;
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}
