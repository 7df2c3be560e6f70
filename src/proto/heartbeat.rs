//! When to ping, when to ping again, when to give up.
//!
//! Call [`Heartbeat::deadline`] to learn when to wake up, [`Heartbeat::poll`] at (or after) that
//! time until it answers `None`, and the `handle_*` methods for everything that arrives. Spurious
//! wake-ups are harmless. One `Heartbeat` is made with its connection and dies with it, so nothing
//! it remembers can survive a reconnect.

use std::time::{Duration, Instant};

/// When pings leave, how long a pong is waited for, and how often a lost one is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeartbeatPolicy {
    /// Time from an answered ping to the next one. Default 10 s.
    pub interval: Duration,
    /// How long a pong is waited for before the ping is sent again. Default twice the interval.
    pub pong_timeout: Duration,
    /// How many times an unanswered ping is sent again before the connection is given up.
    /// Default 3. A dead peer is noticed after `interval + pong_timeout * (max_retries + 1)`.
    pub max_retries: u32,
    /// Whether a peer that sends traffic is pinged at all.
    pub mode: PingMode,
}

/// Which connections are pinged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PingMode {
    /// Ping every interval, whatever else arrives: the client, which measures round trips.
    Always,
    /// Ping only a peer that has been silent for one interval: the server.
    WhenSilent,
    /// Never ping, never give up: the idle canary.
    Never,
    /// Send every interval what no peer answers: protocols whose beats are one-way.
    OneWay,
}

impl HeartbeatPolicy {
    /// The client's policy for `interval`: pong awaited for twice that, three retries.
    pub fn every(interval: Duration) -> Self {
        Self {
            interval,
            pong_timeout: interval * 2,
            max_retries: 3,
            mode: PingMode::Always,
        }
    }
}

impl Default for HeartbeatPolicy {
    fn default() -> Self {
        Self::every(Duration::from_secs(10))
    }
}

/// What a target itself says of its timing. Where it says nothing a dialect's own holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Wishes {
    pub(crate) interval: Option<Duration>,
    pub(crate) pong_timeout: Option<Duration>,
    pub(crate) max_retries: Option<u32>,
    /// The longest time without a beat that the peer begins.
    pub(crate) max_silence: Option<Duration>,
}

impl Wishes {
    /// A policy of beats that are answered, for a protocol in which they leave every `interval`
    /// and are waited for `timeout`. Another interval of the target's own takes twice itself for
    /// the wait. No resends unless the target sets them: one missed answer is the end.
    pub(crate) fn asking(&self, interval: Duration, timeout: Duration) -> HeartbeatPolicy {
        let usual = self.interval.map_or(timeout, |own| own * 2);
        HeartbeatPolicy {
            interval: self.interval.unwrap_or(interval),
            pong_timeout: self.pong_timeout.unwrap_or(usual),
            max_retries: self.max_retries.unwrap_or(0),
            mode: PingMode::Always,
        }
    }

    /// A policy of beats that nobody answers.
    pub(crate) fn telling(&self, interval: Duration) -> HeartbeatPolicy {
        HeartbeatPolicy {
            mode: PingMode::OneWay,
            ..self.asking(interval, interval)
        }
    }

    /// The policy where only the peer beats.
    pub(crate) fn listening(&self) -> HeartbeatPolicy {
        let usual = HeartbeatPolicy::default();
        HeartbeatPolicy {
            mode: PingMode::Never,
            ..self.asking(usual.interval, usual.pong_timeout)
        }
    }
}

/// What the driver has to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send a ping with [`payload`]`(nonce, seq)`; it counts as sent at the `now` that was passed.
    Ping { seq: u32, retry: bool },
    /// The peer is silent: end the connection.
    GiveUp,
    /// Our own wake-up came this late; the wait was started again instead of blaming the peer.
    Stalled { late: Duration },
}

/// What a pong meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pong {
    /// It answered an outstanding ping. `rtt` is known when it is clear which ping that was.
    Answer {
        rtt: Option<Duration>,
        mismatch: bool,
    },
    /// No ping was outstanding: traffic (RFC 6455 section 5.5.3, unsolicited pong).
    Stray,
}

/// A ping's payload: it names the connection and the ping, so that a pong that carries another
/// payload is recognised as the peer's own.
pub(crate) fn payload(nonce: u32, seq: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&nonce.to_be_bytes());
    bytes[4..].copy_from_slice(&seq.to_be_bytes());
    bytes
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// No ping is outstanding; the next one leaves at `next`.
    Idle { next: Instant },
    /// Pings are outstanding, the last of them judged at `deadline`.
    Waiting { deadline: Instant, retries: u32 },
    /// Given up: nothing more will be said. The counts are kept for the evidence.
    Over { outstanding: u32, retries: u32 },
}

/// Unanswered pings remembered besides the last one. A peer that answers none but keeps sending
/// data is pinged for ever; a pong to a ping older than these yields no round trip.
const REMEMBERED: usize = 16;

/// Number and time of pings.
type Earlier = Vec<(u32, Instant)>;

/// The keepalive machine of one connection.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    policy: HeartbeatPolicy,
    state: State,
    /// When the last ping left; the start of the connection before the first.
    last_sent: Instant,
    last_traffic: Instant,
    /// Pings sent so far; also the number of the last one.
    seq: u32,
    nonce: u32,
    /// Pings still outstanding besides the last one, oldest first. No memory of its own as long as
    /// every ping is answered.
    earlier: Option<Box<Earlier>>,
}

impl Heartbeat {
    /// A machine for a connection that came up at `now` and is first pinged after `first`.
    /// `nonce` makes this connection's payloads its own.
    pub(crate) fn new(policy: HeartbeatPolicy, now: Instant, first: Duration, nonce: u32) -> Self {
        Self {
            policy,
            state: State::Idle { next: now + first },
            last_sent: now,
            last_traffic: now,
            seq: 0,
            nonce,
            earlier: None,
        }
    }

    /// When [`Self::poll`] has something to say next; `None` if never.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.policy.mode == PingMode::Never {
            return None;
        }
        match self.state {
            State::Idle { next } => Some(next),
            State::Waiting { deadline, .. } => Some(deadline),
            State::Over { .. } => None,
        }
    }

    /// Pings that wait for an answer.
    pub(crate) fn outstanding(&self) -> u32 {
        match self.state {
            State::Waiting { .. } => 1 + self.earlier().len() as u32,
            State::Idle { .. } => 0,
            State::Over { outstanding, .. } => outstanding,
        }
    }

    /// How often the ping that waits has been sent again.
    pub(crate) fn retries(&self) -> u32 {
        match self.state {
            State::Waiting { retries, .. } | State::Over { retries, .. } => retries,
            State::Idle { .. } => 0,
        }
    }

    /// What is due at `now`. Call again until `None`.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Action> {
        let due = self.deadline().filter(|due| *due <= now)?;
        // We slept through more than an interval (a suspend, a debugger, a starved machine): what
        // the peer did in that time is unknown, so it is given the whole wait again.
        let late = now - due;
        if late > self.policy.interval {
            match &mut self.state {
                State::Idle { next } => *next = now,
                State::Waiting { deadline, .. } => *deadline = now + self.policy.pong_timeout,
                State::Over { .. } => {}
            }
            return Some(Action::Stalled { late });
        }
        match self.state {
            State::Idle { .. } if self.policy.mode == PingMode::OneWay => {
                let sent = self.send(now, None);
                self.state = State::Idle {
                    next: now + self.policy.interval,
                };
                Some(sent)
            }
            State::Idle { .. } => Some(self.send(now, None)),
            State::Waiting { retries, .. } => {
                let traffic = now - self.last_traffic < self.policy.pong_timeout;
                if retries >= self.policy.max_retries && !traffic {
                    self.state = State::Over {
                        outstanding: self.outstanding(),
                        retries,
                    };
                    return Some(Action::GiveUp);
                }
                let earlier = self.earlier.get_or_insert_default();
                if earlier.len() == REMEMBERED {
                    earlier.remove(0);
                }
                earlier.push((self.seq, self.last_sent));
                Some(self.send(now, Some(retries)))
            }
            State::Over { .. } => None,
        }
    }

    fn send(&mut self, now: Instant, retries: Option<u32>) -> Action {
        self.seq = self.seq.wrapping_add(1);
        self.last_sent = now;
        self.state = State::Waiting {
            deadline: now + self.policy.pong_timeout,
            retries: retries.map_or(0, |n| n.saturating_add(1)),
        };
        Action::Ping {
            seq: self.seq,
            retry: retries.is_some(),
        }
    }

    /// A pong arrived at `now`. Whatever its payload, it answers the ping that waits: peers in the
    /// field answer with a payload of their own.
    pub(crate) fn handle_pong(&mut self, pong: &[u8], now: Instant) -> Pong {
        let ours = self.seq_of(pong);
        match self.handle_answer(ours, now) {
            Pong::Answer { rtt, .. } => Pong::Answer {
                rtt,
                mismatch: ours.is_none(),
            },
            Pong::Stray => Pong::Stray,
        }
    }

    /// An answer to the beat numbered `ours` arrived at `now`, or one that carries no number.
    pub(crate) fn handle_answer(&mut self, ours: Option<u32>, now: Instant) -> Pong {
        let State::Waiting { .. } = self.state else {
            self.handle_traffic(now);
            return Pong::Stray;
        };
        let only_one = self.earlier.is_none();
        let (answered, rtt) = match ours {
            Some(seq) if seq == self.seq => (self.last_sent, Some(now - self.last_sent)),
            Some(seq) => match self.earlier().iter().find(|(earlier, _)| *earlier == seq) {
                Some((_, sent)) => (*sent, Some(now - *sent)),
                // A late answer to a ping that a pong has settled already: life, but no measure.
                None => (self.last_sent, None),
            },
            None => (self.last_sent, only_one.then(|| now - self.last_sent)),
        };
        self.earlier = None;
        let next = match self.policy.mode {
            PingMode::Always | PingMode::Never | PingMode::OneWay => {
                answered + self.policy.interval
            }
            PingMode::WhenSilent => {
                self.last_traffic = now;
                now + self.policy.interval
            }
        };
        // Never in the past: that would look like a stall of ours.
        self.state = State::Idle {
            next: next.max(now),
        };
        Pong::Answer {
            rtt,
            mismatch: false,
        }
    }

    /// Anything else arrived at `now`: data, or a ping of the peer's. It puts off giving up, and
    /// is never an answer.
    pub(crate) fn handle_traffic(&mut self, now: Instant) {
        self.last_traffic = now;
        if let (PingMode::WhenSilent, State::Idle { next }) = (self.policy.mode, &mut self.state) {
            *next = now + self.policy.interval;
        }
    }

    /// Applies a new policy to the standing connection: the present wait is measured anew from
    /// where it began. One that was over before `now` stays as overdue as it is, for `poll` to judge
    /// whose fault that is.
    pub(crate) fn retune(&mut self, policy: HeartbeatPolicy, now: Instant) {
        self.policy = policy;
        let pinged = self.seq > 0;
        match &mut self.state {
            State::Idle { next } => {
                let due = match policy.mode {
                    PingMode::WhenSilent => self.last_traffic + policy.interval,
                    PingMode::Always | PingMode::Never | PingMode::OneWay if pinged => {
                        self.last_sent + policy.interval
                    }
                    PingMode::Always | PingMode::Never | PingMode::OneWay => {
                        (*next).min(now + policy.interval)
                    }
                };
                *next = due.max((*next).min(now));
            }
            State::Waiting { deadline, .. } => {
                *deadline = (self.last_sent + policy.pong_timeout).max((*deadline).min(now));
            }
            State::Over { .. } => {}
        }
    }

    /// The payload of ping `seq` of this connection.
    pub(crate) fn payload(&self, seq: u32) -> [u8; 8] {
        payload(self.nonce, seq)
    }

    fn earlier(&self) -> &[(u32, Instant)] {
        self.earlier.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The number of the ping of ours that `pong` repeats.
    fn seq_of(&self, pong: &[u8]) -> Option<u32> {
        let (nonce, seq) = pong.split_at_checked(4)?;
        let seq = u32::from_be_bytes(seq.try_into().ok()?);
        (nonce == self.nonce.to_be_bytes() && seq <= self.seq && seq > 0).then_some(seq)
    }
}

/// A point of (0, `interval`] given by `name`: where in the interval this target's first ping
/// leaves, so that the pings of many targets do not leave together.
pub(crate) fn spread(name: &str, interval: Duration) -> Duration {
    // FNV-1a with a final mix: stable across versions and machines, unlike std's hasher.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^= hash >> 32;
    let nanos = interval.as_nanos() * (u128::from(hash) + 1) / (u128::from(u64::MAX) + 1);
    Duration::from_nanos(nanos as u64).clamp(Duration::from_nanos(1), interval)
}

#[cfg(test)]
mod tests;
