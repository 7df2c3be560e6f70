//! Whether and when to dial again.
//!
//! The count of failures lives here and nowhere else: it grows with every failed dial and with
//! every connection that ended before `reset_after`, so a peer that accepts and closes at once
//! is met with growing waits, and is forgotten after a connection that stood.

use std::time::{Duration, Instant};

use super::backoff::{BackoffPolicy, SHORTEST};

/// The longest `Retry-After` that is obeyed (RFC 9110 section 10.2.3 sets no limit).
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// What a failure says about the next dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// The usual growing wait.
    Backoff,
    /// The peer refused us: 1008, 3xxx, 4xxx, 401, 403. Asking again soon is no use; wait `max`.
    Refused,
    /// The peer named a time (`Retry-After`).
    After(Duration),
    /// Never again: an event stream answered 204 (HTML Living Standard, section 9.2.3).
    Stop,
}

/// Counts failures in a row and turns them into waits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reconnect {
    failures: u32,
}

impl Reconnect {
    /// Failed dials and short-lived connections in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// A dial failed: how long to wait. `dice` is a uniform draw from `0.0..=1.0`.
    pub(crate) fn dial_failed(
        &mut self,
        policy: &BackoffPolicy,
        advice: Advice,
        dice: f64,
    ) -> Duration {
        let wait = self.wait(policy, advice, dice);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// A connection that came up at `since` ended at `now`: how long to wait.
    pub(crate) fn ended(
        &mut self,
        policy: &BackoffPolicy,
        advice: Advice,
        since: Instant,
        now: Instant,
        dice: f64,
    ) -> Duration {
        if now.saturating_duration_since(since) >= policy.reset_after {
            self.failures = 0;
            self.wait(policy, advice, dice)
        } else {
            self.dial_failed(policy, advice, dice)
        }
    }

    fn wait(&self, policy: &BackoffPolicy, advice: Advice, dice: f64) -> Duration {
        match advice {
            Advice::Backoff => policy.wait(self.failures, dice),
            // Whoever is told to stop does not wait; one that dials all the same waits longest.
            Advice::Refused | Advice::Stop => policy.max.max(SHORTEST),
            // Not sooner than asked, and no hot loop for a peer that names no time at all.
            Advice::After(named) => {
                let backoff = policy.wait(self.failures, dice);
                named.min(LONGEST_RETRY_AFTER).max(backoff)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BackoffPolicy = BackoffPolicy {
        initial: Duration::from_secs(1),
        max: Duration::from_secs(30),
        factor: 2.0,
        jitter: 0.0,
        reset_after: Duration::from_secs(5),
    };

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn accept_then_close_is_never_a_hot_loop() {
        let mut reconnect = Reconnect::default();
        let up = Instant::now();
        let waits: Vec<u64> = (0..7)
            .map(|_| {
                reconnect
                    .ended(&POLICY, Advice::Backoff, up, up + secs(4), 0.0)
                    .as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn failures_are_forgotten_exactly_at_reset_after() {
        let up = Instant::now();
        let mut reconnect = Reconnect { failures: 4 };
        let early = up + POLICY.reset_after - Duration::from_nanos(1);
        assert_eq!(
            reconnect.ended(&POLICY, Advice::Backoff, up, early, 0.0),
            secs(16)
        );
        assert_eq!(reconnect.failures(), 5);
        let stood = up + POLICY.reset_after;
        assert_eq!(
            reconnect.ended(&POLICY, Advice::Backoff, up, stood, 0.0),
            secs(1)
        );
        assert_eq!(reconnect.failures(), 0);
        assert_eq!(
            reconnect.dial_failed(&POLICY, Advice::Backoff, 0.0),
            secs(1)
        );
        assert_eq!(
            reconnect.dial_failed(&POLICY, Advice::Backoff, 0.0),
            secs(2)
        );
    }

    #[test]
    fn a_refusal_waits_max_and_retry_after_is_obeyed_up_to_five_minutes() {
        let mut reconnect = Reconnect::default();
        assert_eq!(
            reconnect.dial_failed(&POLICY, Advice::Refused, 0.9),
            secs(30)
        );
        assert_eq!(
            reconnect.dial_failed(&POLICY, Advice::After(secs(7)), 0.9),
            secs(7)
        );
        assert_eq!(
            reconnect.dial_failed(&POLICY, Advice::After(secs(7_200)), 0.9),
            secs(300)
        );
        assert_eq!(
            reconnect.dial_failed(&POLICY, Advice::After(secs(0)), 0.9),
            secs(8),
            "the usual wait, if that is longer"
        );
        assert_eq!(reconnect.failures(), 4);
        assert_eq!(reconnect.dial_failed(&POLICY, Advice::Stop, 0.9), secs(30));
        let none = BackoffPolicy {
            max: Duration::ZERO,
            ..POLICY
        };
        for advice in [Advice::Refused, Advice::Stop] {
            assert_eq!(reconnect.dial_failed(&none, advice, 0.9), SHORTEST);
        }
    }
}
