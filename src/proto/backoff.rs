//! How long to stay away before dialing again.

use std::time::Duration;

/// No wait is shorter than this, whatever the policy and the dice say.
pub(crate) const SHORTEST: Duration = Duration::from_millis(100);

/// The waits between dials: `min(max, initial * factor^n)`, times a uniform draw from
/// `1 - jitter ..= 1`, never under 100 ms. `n` counts the failures in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BackoffPolicy {
    /// The wait after the first failure. Default 1 s.
    pub initial: Duration,
    /// No wait is longer. Default 30 s.
    pub max: Duration,
    /// Growth from one failure to the next, at least 1. Default 2.
    pub factor: f64,
    /// Share of the wait that is random: 0 none, 1 full jitter. Default 0.5.
    pub jitter: f64,
    /// A connection that stood this long was no failure; the count is forgotten. Default 5 s.
    pub reset_after: Duration,
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(30),
            factor: 2.0,
            jitter: 0.5,
            reset_after: Duration::from_secs(5),
        }
    }
}

impl BackoffPolicy {
    /// The wait after `failures` failures in a row. `dice` is a uniform draw from `0.0..=1.0`.
    pub fn wait(&self, failures: u32, dice: f64) -> Duration {
        let grown = self.initial.as_secs_f64() * self.factor.powi(failures.min(1_000) as i32);
        let base = grown.min(self.max.as_secs_f64());
        let share = 1.0 - self.jitter * dice.clamp(0.0, 1.0);
        Duration::from_secs_f64((base * share).max(0.0)).max(SHORTEST)
    }

    /// The same with another beginning, as a peer wishes for it: not before our own, and not
    /// beyond the longest wait.
    pub(crate) fn beginning_at(self, initial: Duration) -> Self {
        Self {
            initial: initial.min(self.max).max(self.initial),
            ..self
        }
    }
}

// Compared and hashed for sharing equal policies; the floats are finite by construction.
impl Eq for BackoffPolicy {}

impl std::hash::Hash for BackoffPolicy {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.initial, self.max, self.reset_after).hash(state);
        (self.factor.to_bits(), self.jitter.to_bits()).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(jitter: f64) -> BackoffPolicy {
        BackoffPolicy {
            jitter,
            ..BackoffPolicy::default()
        }
    }

    #[test]
    fn without_jitter_the_wait_doubles_up_to_max() {
        let waits: Vec<u64> = (0..8).map(|n| policy(0.0).wait(n, 0.7).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn jitter_takes_away_at_most_its_share() {
        assert_eq!(policy(0.5).wait(2, 0.0), Duration::from_secs(4));
        assert_eq!(policy(0.5).wait(2, 1.0), Duration::from_secs(2));
        assert_eq!(
            policy(1.0).wait(2, 1.0),
            SHORTEST,
            "full jitter, never under 100 ms"
        );
    }

    #[test]
    fn a_peers_beginning_is_clamped_and_grows() {
        let begun = |secs| policy(0.0).beginning_at(Duration::from_secs(secs));
        let waits = |policy: BackoffPolicy| [0, 1, 2].map(|n| policy.wait(n, 0.0).as_secs());
        assert_eq!(waits(begun(5)), [5, 10, 20]);
        assert_eq!(waits(begun(0)), [1, 2, 4]);
        assert_eq!(waits(begun(u64::MAX)), [30, 30, 30]);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_outside_its_bounds(
            initial_ms in 0_u64..100_000, max_ms in 0_u64..10_000_000, factor in 1.0_f64..100.0,
            jitter in 0.0_f64..=1.0, failures: u32, dice in 0.0_f64..=1.0,
        ) {
            let policy = BackoffPolicy {
                initial: Duration::from_millis(initial_ms),
                max: Duration::from_millis(max_ms),
                factor,
                jitter,
                reset_after: Duration::ZERO,
            };
            let wait = policy.wait(failures, dice);
            prop_assert!(wait >= SHORTEST);
            prop_assert!(wait <= policy.max.max(SHORTEST));
        }
    }
}
