//! Pings that are only counted: each is sent once, is answered or not, and nothing is given up.
//! The heartbeat of `ws-keepalive ping`, in the manner of ping(8).
//!
//! Call [`Probe::deadline`] to learn when to wake up, [`Probe::poll`] at (or after) that time until
//! it answers `None`, and [`Probe::handle_pong`] for every pong.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::heartbeat::payload;

/// How often is pinged, and how long an answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbePolicy {
    /// From one ping to the next, answered or not.
    pub(crate) interval: Duration,
    /// A ping that is not answered within this is unanswered.
    pub(crate) wait: Duration,
    /// Pings in all; `None`: until [`Probe::stop`].
    pub(crate) count: Option<u32>,
}

/// What is to be done or told now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send a ping with [`Probe::payload`]; it counts as sent at the `now` that was passed.
    Ping { seq: u32 },
    /// No answer came in time. One may still come.
    NoAnswer { seq: u32 },
    /// Our own wake-up came this late: what the peer did meanwhile is unknown. The pings that wait
    /// are given their whole time again, and no round trip is made of their answers.
    Stalled { late: Duration },
}

/// What a pong meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It answered ping `seq`. `rtt` is known when it is clear that it did.
    InTime {
        seq: u32,
        rtt: Option<Duration>,
        /// Whether it carries a payload of the peer's own.
        mismatch: bool,
    },
    /// The same, after [`Action::NoAnswer`] was said of that ping.
    Late { seq: u32, rtt: Option<Duration> },
    /// That ping was answered before.
    Again { seq: u32 },
    /// It answers nothing we sent (RFC 6455 section 5.5.3, unsolicited pong).
    Stray,
}

/// What was sent, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Pings sent.
    pub(crate) sent: u32,
    /// Of them, those that were answered, late ones included.
    pub(crate) answered: u32,
    /// Of them, those that were answered too late.
    pub(crate) late: u32,
    /// Of those answered, those whose pong had a payload of the peer's own.
    pub(crate) mismatched: u32,
    /// Pongs to pings that had been answered before.
    pub(crate) repeated: u32,
}

/// Pings whose answer may still come although it is late; older ones are forgotten, and a pong to
/// one of those is taken for a repetition.
const REMEMBERED: usize = 1024;

/// A wake-up later than an interval, and than this, is a stall: a scheduler is seldom that late.
const STALL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Ping {
    seq: u32,
    /// When it left; `None` if we slept meanwhile, so that no round trip can be told.
    sent: Option<Instant>,
    deadline: Instant,
}

/// The pings of one connection.
#[derive(Debug)]
pub(crate) struct Probe {
    policy: ProbePolicy,
    nonce: u32,
    /// When the next ping leaves; `None` if there is none.
    next: Option<Instant>,
    /// Pings that wait for their answer, oldest first; as many as fit into the wait.
    waiting: VecDeque<Ping>,
    /// Pings that were not answered in time, oldest first.
    overdue: VecDeque<Ping>,
    counts: Counts,
    /// A stall that is still to be told.
    stalled: Option<Duration>,
}

impl Probe {
    /// The first ping is due at `now`. `nonce` makes this connection's payloads its own.
    pub(crate) fn new(policy: ProbePolicy, now: Instant, nonce: u32) -> Self {
        Self {
            policy,
            nonce,
            next: (policy.count != Some(0)).then_some(now),
            waiting: VecDeque::new(),
            overdue: VecDeque::new(),
            counts: Counts::default(),
            stalled: None,
        }
    }

    /// When [`Self::poll`] has something to say next; `None` if never.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let first = self.waiting.front().map(|ping| ping.deadline);
        [first, self.next].into_iter().flatten().min()
    }

    /// What is due at `now`, in the order of time. Call again until `None`.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Action> {
        self.notice_stall(now);
        if let Some(late) = self.stalled.take() {
            return Some(Action::Stalled { late });
        }
        let due = self.deadline().filter(|due| *due <= now)?;
        let overdue = self
            .waiting
            .front()
            .is_some_and(|ping| ping.deadline == due);
        if overdue && let Some(ping) = self.waiting.pop_front() {
            if self.overdue.len() == REMEMBERED {
                self.overdue.pop_front();
            }
            self.overdue.push_back(ping);
            return Some(Action::NoAnswer { seq: ping.seq });
        }
        let seq = self.counts.sent.wrapping_add(1);
        self.counts.sent = seq;
        self.waiting.push_back(Ping {
            seq,
            sent: Some(now),
            deadline: now + self.policy.wait,
        });
        // A wake-up that is a little late does not move the pings after it; those that a longer
        // sleep has left no room for are not made up for.
        let on_time = due + self.policy.interval;
        let next = if on_time > now {
            on_time
        } else {
            now + self.policy.interval
        };
        let more = self.policy.count.is_none_or(|count| seq < count);
        self.next = more.then_some(next);
        Some(Action::Ping { seq })
    }

    /// Whether nobody looked for so long that nothing can be said of the pings that wait.
    fn notice_stall(&mut self, now: Instant) {
        let due = self.deadline().unwrap_or(now);
        let late = now.saturating_duration_since(due);
        if late <= self.policy.interval.max(STALL) {
            return;
        }
        for ping in self.waiting.iter_mut().chain(&mut self.overdue) {
            ping.sent = None;
            ping.deadline = now + self.policy.wait;
        }
        self.next = self.next.map(|next| next.max(now));
        self.stalled = Some(late);
    }

    /// A pong arrived at `now`.
    pub(crate) fn handle_pong(&mut self, pong: &[u8], now: Instant) -> Answer {
        // The answers that waited through a stall may be read before the alarm is looked at.
        self.notice_stall(now);
        let Some(seq) = self.seq_of(pong) else {
            return self.handle_foreign_pong(now);
        };
        if let Some(ping) = take(&mut self.waiting, seq) {
            self.counts.answered += 1;
            let rtt = ping.sent.map(|sent| now.saturating_duration_since(sent));
            return Answer::InTime {
                seq,
                rtt,
                mismatch: false,
            };
        }
        if let Some(ping) = take(&mut self.overdue, seq) {
            self.counts.answered += 1;
            self.counts.late += 1;
            let rtt = ping.sent.map(|sent| now.saturating_duration_since(sent));
            return Answer::Late { seq, rtt };
        }
        self.counts.repeated = self.counts.repeated.saturating_add(1);
        Answer::Again { seq }
    }

    /// A payload of the peer's own: it answers the oldest ping that waits, and measures it only if
    /// it can have been no other.
    fn handle_foreign_pong(&mut self, now: Instant) -> Answer {
        let only_one = self.waiting.len() == 1 && self.overdue.is_empty();
        let Some(ping) = self.waiting.pop_front() else {
            return Answer::Stray;
        };
        // Which ping it was for cannot be told; those before are settled with it, or their memory
        // would keep every later one from being measured.
        self.overdue.clear();
        self.counts.answered += 1;
        self.counts.mismatched += 1;
        let sent = ping.sent.filter(|_| only_one);
        Answer::InTime {
            seq: ping.seq,
            rtt: sent.map(|sent| now.saturating_duration_since(sent)),
            mismatch: true,
        }
    }

    /// No more pings are sent; those that wait are waited for.
    pub(crate) fn stop(&mut self) {
        self.next = None;
    }

    /// Whether every ping was sent, and answered or waited for in vain.
    pub(crate) fn is_done(&self) -> bool {
        self.next.is_none() && self.waiting.is_empty()
    }

    /// Pings that wait for their answer, oldest first.
    pub(crate) fn unanswered(&self) -> Vec<u32> {
        self.waiting.iter().map(|ping| ping.seq).collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The payload of ping `seq` of this connection.
    pub(crate) fn payload(&self, seq: u32) -> [u8; 8] {
        payload(self.nonce, seq)
    }

    /// The number of the ping of ours that `pong` repeats.
    fn seq_of(&self, pong: &[u8]) -> Option<u32> {
        let (nonce, seq) = pong.split_at_checked(4)?;
        let seq = u32::from_be_bytes(seq.try_into().ok()?);
        let sent = seq > 0 && seq <= self.counts.sent;
        (nonce == self.nonce.to_be_bytes() && sent).then_some(seq)
    }
}

/// Takes ping `seq` out of `pings`.
fn take(pings: &mut VecDeque<Ping>, seq: u32) -> Option<Ping> {
    let index = pings.binary_search_by_key(&seq, |ping| ping.seq).ok()?;
    pings.remove(index)
}

#[cfg(test)]
mod tests;
