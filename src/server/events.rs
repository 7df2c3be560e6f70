//! `GET /events`: a stream of Server-Sent Events, with heartbeats in comments.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, HeaderName};
use tokio::time::Instant;
use url::form_urlencoded;

use super::faults::{Cut, Schedule, Served};
use super::peer::{Connection, WRITE_TIMEOUT};
use super::wire::{ENOUGH, Step, Wire};
use crate::config::faults::Faults;
use crate::config::judge;

/// The keys of the query that are the stream's own.
pub(super) const KEYS: [&str; 4] = ["interval", "heartbeat", "events", "retry"];

/// HTML Living Standard, section 9.2.4: what a client that comes back has seen.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    /// From one event to the next. The first is sent at once.
    interval: Duration,
    /// From one comment to the next.
    heartbeat: Duration,
    /// How many events, until the stream is complete.
    events: Option<u64>,
    /// Milliseconds, for the `retry` field.
    retry: Option<u64>,
    /// The number of the last event the client has seen.
    last: u64,
}

impl Stream {
    /// The error is what to answer.
    pub(super) fn parse(query: &str, headers: &HeaderMap) -> Result<Self, String> {
        // A number of somebody else's is no place in our stream.
        let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        let last = last.and_then(|id| id.trim().parse().ok());
        let mut stream = Self {
            interval: Duration::from_secs(5),
            heartbeat: Duration::from_secs(15),
            events: None,
            retry: None,
            last: last.unwrap_or(0),
        };
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |why: &str| format!("{key}: {why}");
            let number = |example| {
                let why = format!("expected a number, such as {example}");
                value.parse::<u64>().map(Some).map_err(|_| wrong(&why))
            };
            match &*key {
                "interval" => {
                    stream.interval = judge::interval(&value).map_err(|why| wrong(&why))?
                }
                "heartbeat" => {
                    stream.heartbeat = judge::interval(&value).map_err(|why| wrong(&why))?
                }
                "events" => stream.events = number("10")?,
                "retry" => stream.retry = number("3000 (milliseconds)")?,
                // Fault switches, or nobody's.
                _ => {}
            }
        }
        Ok(stream)
    }
}

/// What is sent, and when. Pure.
#[derive(Debug)]
struct Events {
    stream: Stream,
    next_event: Instant,
    next_comment: Instant,
    sent: u64,
    seq: u64,
}

impl Events {
    fn new(stream: Stream, now: Instant) -> Self {
        Self {
            stream,
            next_event: now,
            next_comment: now + stream.heartbeat,
            sent: 0,
            seq: stream.last,
        }
    }

    fn is_over(&self) -> bool {
        self.stream.events.is_some_and(|events| self.sent >= events)
    }

    fn next(&self) -> Instant {
        self.next_event.min(self.next_comment)
    }

    /// Writes what is due.
    fn due(&mut self, now: Instant, time: SystemTime, text: &mut String) {
        if self.next_comment <= now {
            text.push_str(": heartbeat\n\n");
            self.next_comment = (self.next_comment + self.stream.heartbeat).max(now);
        }
        if self.next_event <= now && !self.is_over() {
            self.event(time, text);
            // Those that were missed are not made up for.
            self.next_event = (self.next_event + self.stream.interval).max(now);
        }
    }

    fn event(&mut self, time: SystemTime, text: &mut String) {
        self.sent += 1;
        self.seq = self.seq.wrapping_add(1);
        let (seq, time) = (self.seq, humantime::format_rfc3339_millis(time));
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "id: {seq}\ndata: {{\"seq\":{seq},\"time\":\"{time}\"}}\n\n"
        );
    }
}

/// Text on its way, in bursts if that is asked for.
struct Body {
    /// HTTP/1.1; a client of 1.0 is told the end by FIN.
    chunked: bool,
    /// From one burst to the next, and when that is.
    bursts: Option<(Duration, Instant)>,
    held: String,
}

impl Body {
    fn next(&self) -> Option<Instant> {
        self.bursts
            .map(|(_, at)| at)
            .filter(|_| !self.held.is_empty())
    }

    /// Sends what is held, if it is time; whether anything left.
    fn release(&mut self, now: Instant, wire: &mut Wire) -> bool {
        // A buffer that is full is sent, as a proxy does it.
        let full = self.held.len() >= ENOUGH;
        if self.bursts.is_some_and(|(_, at)| at > now) && !full {
            return false;
        }
        self.send(wire)
    }

    /// Moves on to the next burst, before anything is held for it.
    fn turn(&mut self, now: Instant) {
        if let Some((every, at)) = &mut self.bursts
            && *at <= now
            && self.held.is_empty()
        {
            let late = (now - *at).as_nanos() % every.as_nanos();
            // Less than `every`, which fits.
            *at = now + *every - Duration::from_nanos(u64::try_from(late).unwrap_or(0));
        }
    }

    fn send(&mut self, wire: &mut Wire) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let output = wire.output();
        if self.chunked {
            output.extend_from_slice(format!("{:x}\r\n", self.held.len()).as_bytes());
        }
        output.extend_from_slice(self.held.as_bytes());
        if self.chunked {
            output.extend_from_slice(b"\r\n");
        }
        self.held.clear();
        true
    }

    /// The end of a complete body.
    fn end(&mut self, wire: &mut Wire) {
        self.send(wire);
        if self.chunked {
            wire.output().extend_from_slice(b"0\r\n\r\n");
        }
    }
}

/// Serves a stream, whose head was sent, until it ends.
pub(super) async fn serve(
    connection: &Connection,
    mut wire: Wire,
    stream: Stream,
    chunked: bool,
    faults: &Faults,
) {
    let start = Instant::now();
    let schedule = Schedule::new(faults, start);
    let mut served = Served::new(&connection.config.name, connection.from, faults);
    let mut events = Events::new(stream, start);
    let mut body = Body {
        chunked,
        bursts: faults.buffer.map(|every| (every, start + every)),
        held: String::new(),
    };
    for (set, switch) in [
        (faults.silent, "silent"),
        (faults.flood, "flood"),
        (faults.buffer.is_some(), "buffer"),
    ] {
        if set {
            served.tell(switch);
        }
    }
    if let Some(retry) = stream.retry.filter(|_| !faults.silent) {
        body.held = format!("retry: {retry}\n\n");
    }
    let mut sent = start;
    let cut = loop {
        let now = Instant::now();
        let cut = schedule.next(sent);
        let cut_at = cut.as_ref().map(|(at, ..)| *at);
        if let Some((_, cut, switch)) = cut.filter(|(at, ..)| *at <= now) {
            served.tell(switch);
            break Some(cut);
        }
        let free = !wire.is_full();
        body.turn(now);
        if free && !faults.silent {
            events.due(now, SystemTime::now(), &mut body.held);
            while faults.flood && !events.is_over() && body.held.len() < ENOUGH {
                events.event(SystemTime::now(), &mut body.held);
            }
        }
        if free && body.release(now, &mut wire) {
            sent = now;
        }
        if events.is_over() {
            break None;
        }
        let next_event = Some(events.next()).filter(|_| free && !faults.silent);
        let next_burst = body.next().filter(|_| free);
        let wake = [cut_at, next_event, next_burst].into_iter().flatten().min();
        match wire.step(true, wake, &connection.shutdown).await {
            // Nothing is expected from a client that has asked.
            Step::Read => wire.input.clear(),
            Step::Drained | Step::Due => {}
            Step::Shutdown => break None,
            Step::Gone(gone) => {
                tracing::debug!(listener = %connection.config.name, from = %connection.from, "{gone}");
                return;
            }
        }
    };
    match cut {
        None => {
            body.end(&mut wire);
            wire.drain(connection.config.close_timeout.min(WRITE_TIMEOUT))
                .await;
            wire.hang_up().await;
        }
        Some(Cut::Reset) => wire.reset(),
        Some(Cut::Stall) => wire.stall(&connection.shutdown).await,
        // There is no Close here.
        Some(Cut::Fin | Cut::Close(_)) => wire.hang_up().await,
    }
}

#[cfg(test)]
mod tests;
