//! The other direction: heartbeats the peer begins, and messages that ought to come.
//!
//! [`Silence`] ends a connection whose peer stopped beating; [`Staleness`] only tells that nothing
//! of use comes any more. Used as [`super::heartbeat::Heartbeat`] is.

use std::time::{Duration, Instant};

/// Watches for the peer's beats.
#[derive(Debug)]
pub(crate) struct Silence {
    limit: Duration,
    last: Instant,
    /// When the limit was set: a deadline before it is no sign of a late clock.
    set: Instant,
}

/// What is to be done about a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silent {
    /// The peer said nothing for this long: end the connection.
    GiveUp(Duration),
    /// Our own wake-up came this late; the wait was started again instead of blaming the peer.
    Stalled { late: Duration },
}

impl Silence {
    /// Watches a connection that came up at `now`; a peer silent for `limit` is given up.
    pub(crate) fn new(limit: Duration, now: Instant) -> Self {
        Self {
            limit,
            last: now,
            set: now,
        }
    }

    /// When [`Self::poll`] has something to say, unless the peer beats before.
    pub(crate) fn deadline(&self) -> Instant {
        self.last + self.limit
    }

    /// A beat came in: how long after the one before.
    pub(crate) fn heard(&mut self, now: Instant) -> Duration {
        let gap = now.saturating_duration_since(self.last);
        self.last = now;
        gap
    }

    /// What is due at `now`.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Silent> {
        let deadline = self.deadline();
        if deadline > now {
            return None;
        }
        let late = now.saturating_duration_since(deadline.max(self.set));
        if late > self.limit {
            self.last = now;
            return Some(Silent::Stalled { late });
        }
        Some(Silent::GiveUp(self.limit))
    }

    /// Applies another limit to the standing connection.
    pub(crate) fn retune(&mut self, limit: Duration, now: Instant) {
        if limit != self.limit {
            (self.limit, self.set) = (limit, now);
        }
    }
}

/// Watches for application messages.
#[derive(Debug)]
pub(crate) struct Staleness {
    limit: Duration,
    last: Instant,
    is_stale: bool,
}

impl Staleness {
    /// Watches a connection that came up at `now` and is stale after `limit` without a message.
    pub(crate) fn new(limit: Duration, now: Instant) -> Self {
        Self {
            limit,
            last: now,
            is_stale: false,
        }
    }

    /// When [`Self::poll`] has something to say; `None` as long as it is stale.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (!self.is_stale).then(|| self.last + self.limit)
    }

    /// A message came in: how long there was none, if the connection was stale.
    pub(crate) fn heard(&mut self, now: Instant) -> Option<Duration> {
        let quiet = now.saturating_duration_since(self.last);
        self.last = now;
        std::mem::take(&mut self.is_stale).then_some(quiet)
    }

    /// How long there was no message, if the connection turns stale at `now`.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Duration> {
        self.deadline().filter(|due| *due <= now)?;
        self.is_stale = true;
        Some(now.saturating_duration_since(self.last))
    }

    /// Applies another limit: with a longer one the connection may be fresh again.
    pub(crate) fn retune(&mut self, limit: Duration, now: Instant) -> Option<Duration> {
        self.limit = limit;
        let quiet = now.saturating_duration_since(self.last);
        if quiet >= limit {
            return None;
        }
        std::mem::take(&mut self.is_stale).then_some(quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_silence_is_counted_from_the_last_beat() {
        let up = Instant::now();
        let mut silence = Silence::new(secs(6), up);
        assert_eq!(silence.deadline(), up + secs(6));
        assert_eq!(silence.heard(up + secs(3)), secs(3));
        assert_eq!(silence.heard(up + secs(8)), secs(5));
        assert_eq!(silence.poll(up + secs(13)), None);
        assert_eq!(
            silence.poll(up + secs(14)),
            Some(Silent::GiveUp(secs(6))),
            "exactly at the limit"
        );
    }

    #[test]
    fn a_late_clock_is_not_the_peers_fault() {
        let up = Instant::now();
        let mut silence = Silence::new(secs(6), up);
        let late = secs(7);
        assert_eq!(silence.poll(up + secs(13)), Some(Silent::Stalled { late }));
        assert_eq!(silence.poll(up + secs(18)), None);
        assert_eq!(silence.poll(up + secs(19)), Some(Silent::GiveUp(secs(6))));
        // Late by the limit itself is not too late.
        assert_eq!(silence.poll(up + secs(25)), Some(Silent::GiveUp(secs(6))));
    }

    #[test]
    fn a_limit_that_is_past_when_it_is_set_is_no_late_clock() {
        let up = Instant::now();
        let mut silence = Silence::new(secs(45), up);
        silence.retune(secs(5), up + secs(40));
        let gone = Some(Silent::GiveUp(secs(5)));
        assert_eq!(silence.poll(up + secs(40)), gone);
        let mut silence = Silence::new(secs(45), up);
        silence.retune(secs(5), up + secs(40));
        let late = secs(6);
        assert_eq!(silence.poll(up + secs(46)), Some(Silent::Stalled { late }));
    }

    #[test]
    fn staleness_is_told_once_and_so_is_its_end() {
        let up = Instant::now();
        let mut staleness = Staleness::new(secs(30), up);
        assert_eq!(staleness.heard(up + secs(20)), None);
        assert_eq!(staleness.poll(up + secs(49)), None);
        assert_eq!(staleness.poll(up + secs(50)), Some(secs(30)));
        assert_eq!(staleness.deadline(), None);
        assert_eq!(staleness.poll(up + secs(60)), None);
        assert_eq!(staleness.heard(up + secs(61)), Some(secs(41)));
        assert_eq!(staleness.deadline(), Some(up + secs(91)));
    }

    #[test]
    fn a_longer_limit_makes_a_stale_connection_fresh() {
        let up = Instant::now();
        let mut staleness = Staleness::new(secs(10), up);
        assert_eq!(staleness.poll(up + secs(10)), Some(secs(10)));
        assert_eq!(staleness.retune(secs(12), up + secs(13)), None);
        assert_eq!(staleness.retune(secs(13), up + secs(13)), None);
        assert_eq!(staleness.retune(secs(20), up + secs(14)), Some(secs(14)));
        assert_eq!(staleness.deadline(), Some(up + secs(20)));
    }
}
