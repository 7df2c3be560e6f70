//! One event stream from its 200 to its end: what comes in is told, signals are heard. Nothing is
//! sent: a stream goes one way.

use std::io::Write;
use std::time::Instant;

use super::arrivals::Arrival;
use super::drive::{Halt, Interrupts, alarm, clock};
use super::report::{Ended, Report};
use crate::config::Target;
use crate::proto::close::{Asked, Cause, Ending};
use crate::proto::silence::{Silence, Silent};
use crate::transport::link::{Incoming, Link};

/// A stream that is listened to.
pub(super) struct Listening<'a, W, I> {
    link: Link,
    /// Of bytes, as it is of a stream that is held: what `ping` gives up is given up by the daemon.
    silence: Option<Silence>,
    /// Arrivals that were asked for.
    count: Option<u32>,
    report: &'a mut Report<W>,
    interrupts: &'a mut I,
    since: Instant,
    /// When the last event or comment came, or the stream stood.
    last: Instant,
}

/// Why the listening is over.
enum Over {
    /// As much came as was asked for.
    Done,
    /// A signal asked for the end.
    Asked,
    /// The stream is lost.
    Lost(Ending),
}

impl<'a, W: Write, I: Interrupts> Listening<'a, W, I> {
    pub(super) fn new(
        target: &Target,
        count: Option<u32>,
        link: Link,
        report: &'a mut Report<W>,
        interrupts: &'a mut I,
    ) -> Self {
        let now = clock();
        let heartbeat = &target.connection.heartbeat;
        let timing = heartbeat.timing(&target.policy.wishes);
        let limit = timing.and_then(|timing| timing.max_silence);
        Self {
            link,
            silence: limit.map(|limit| Silence::new(limit, now)),
            count,
            report,
            interrupts,
            since: now,
            last: now,
        }
    }

    pub(super) async fn run(mut self) -> Result<(), Halt> {
        let over = self.listen().await?;
        let (by_wish, mut verdict) = match &over {
            Over::Done | Over::Asked => (true, Ending::Asked(Asked::Shutdown).classify()),
            Over::Lost(ending) => (false, ending.classify()),
        };
        match over {
            Over::Done => verdict.message = "as much came as was asked for".to_owned(),
            Over::Asked => {}
            // A response that is complete has not failed, unless more of it was asked for.
            Over::Lost(_) if verdict.cause == Cause::ClosedNormal && self.count.is_none() => {}
            Over::Lost(_) => self.report.stream_failed(),
        }
        // By the name of the flag that sets it.
        verdict.message = verdict.message.replace("(max_silence)", "(-w)");
        self.report.over(&Ended {
            verdict: &verdict,
            received: None,
            sent: None,
            age: clock().saturating_duration_since(self.since),
            waiting: &[],
            by_wish,
        })?;
        Ok(())
    }

    async fn listen(&mut self) -> Result<Over, Halt> {
        loop {
            if let Some(ending) = self.poll_silence() {
                return Ok(Over::Lost(ending));
            }
            let alarm = alarm(self.silence.as_ref().map(Silence::deadline));
            let incoming = tokio::select! {
                biased;
                _ = self.interrupts.next() => return Ok(Over::Asked),
                incoming = self.link.recv() => incoming,
                () = alarm => continue,
            };
            let arrival = match incoming {
                Ok(Incoming::Bytes) => {
                    if let Some(silence) = &mut self.silence {
                        silence.heard(clock());
                    }
                    continue;
                }
                Ok(Incoming::Message(message)) => Arrival::Event(message.as_bytes().len()),
                Ok(Incoming::Comment) => Arrival::Comment,
                // A stream has none of these.
                Ok(Incoming::Ping | Incoming::Pong(_) | Incoming::Close(_)) => continue,
                Err(ending) => return Ok(Over::Lost(ending)),
            };
            let now = clock();
            let gap = now.saturating_duration_since(self.last);
            let age = now.saturating_duration_since(self.since);
            self.last = now;
            let seq = self.report.arrived(arrival, gap, age)?;
            if self.count.is_some_and(|count| seq >= u64::from(count)) {
                return Ok(Over::Done);
            }
        }
    }

    /// The end of a stream that has been silent for too long.
    fn poll_silence(&mut self) -> Option<Ending> {
        match self.silence.as_mut()?.poll(clock())? {
            Silent::GiveUp(limit) => Some(Ending::Silence(limit)),
            Silent::Stalled { late } => {
                let seconds = late.as_secs_f64();
                tracing::warn!(
                    event = "stalled",
                    late_seconds = seconds,
                    "this program stood still for {seconds:.1} s; the stream is given its time \
                     again"
                );
                None
            }
        }
    }
}
