//! The largest gap between arrivals over the last 5 minutes.
//!
//! A proxy that buffers does not lose an event stream's heartbeats; it lets them wait and come
//! together. Nothing ends, nothing is counted as an error, and only the gaps tell.
//!
//! Pure: the time is an argument, counted from any fixed moment.

use std::time::Duration;

/// How long a gap counts after it ended, and at most one [`SLOT`] longer.
pub(crate) const WINDOW: Duration = Duration::from_secs(300);

/// What the window is counted in.
const SLOT: Duration = Duration::from_secs(10);

/// Those of the window, and the one that is being filled.
const SLOTS: usize = (WINDOW.as_secs() / SLOT.as_secs()) as usize + 1;

/// The gaps of one target, whatever the number of arrivals: 152 bytes.
#[derive(Debug, Default)]
pub(crate) struct ArrivalGap {
    /// The longest gap that ended in a slot, in whole milliseconds and one more, so that 0 is a
    /// slot without an arrival. Longer ones than 49 days count as that.
    longest: [u32; SLOTS],
    /// The newest slot, counted from the beginning of time.
    newest: u64,
    /// When the last thing came in, or the connection came up; `None` while it is down.
    since: Option<Duration>,
}

impl ArrivalGap {
    /// The connection came up: time away is no gap.
    pub(crate) fn up(&mut self, now: Duration) {
        self.since = Some(now);
    }

    /// Something came in, `gap` after the last.
    pub(crate) fn arrived(&mut self, gap: Duration, now: Duration) {
        self.note(gap, now);
        self.since = Some(now);
    }

    /// Our own machine stood still: what it did not hear meanwhile is nobody's gap.
    pub(crate) fn stalled(&mut self, now: Duration) {
        self.since = self.since.map(|_| now);
    }

    /// The connection ended. Nothing came in up to now, so this was a gap as well.
    pub(crate) fn down(&mut self, now: Duration) {
        if let Some(since) = self.since.take() {
            self.note(now.saturating_sub(since), now);
        }
    }

    /// The largest gap of the window, the one still running included. `None` if there is none to
    /// tell of: down for all of the window.
    pub(crate) fn largest(&mut self, now: Duration) -> Option<Duration> {
        self.turn(now);
        let past = self.longest.iter().filter(|longest| **longest > 0).max();
        let past = past.map(|longest| Duration::from_millis(u64::from(longest - 1)));
        let running = self.since.map(|since| now.saturating_sub(since));
        past.max(running)
    }

    fn note(&mut self, gap: Duration, now: Duration) {
        self.turn(now);
        let millis = u32::try_from(gap.as_millis()).unwrap_or(u32::MAX);
        let slot = &mut self.longest[place(self.newest)];
        *slot = (*slot).max(millis.saturating_add(1));
    }

    /// Makes the slot of `now` the newest, and forgets those that left the window.
    fn turn(&mut self, now: Duration) {
        let slot = now.as_secs() / SLOT.as_secs();
        let passed = slot.saturating_sub(self.newest).min(SLOTS as u64);
        for back in 0..passed {
            self.longest[place(slot - back)] = 0;
        }
        self.newest = self.newest.max(slot);
    }
}

/// Where in the ring a slot is kept.
fn place(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_gap_counts_for_five_minutes_after_its_end_and_then_no_more() {
        for end in [0, 7, 10, 1_234_567] {
            let mut gaps = ArrivalGap::default();
            gaps.arrived(secs(42), secs(end));
            for after in 1..=400 {
                let now = secs(end + after);
                // Something comes in each second.
                gaps.arrived(secs(1), now);
                let expected = match after {
                    ..300 => secs(42),
                    // No later than one slot.
                    300..310 => continue,
                    310.. => secs(1),
                };
                assert_eq!(gaps.largest(now), Some(expected), "{after} s after {end}");
            }
        }
    }

    #[test]
    fn the_gap_that_still_runs_counts_as_far_as_it_got() {
        let mut gaps = ArrivalGap::default();
        gaps.up(secs(100));
        assert_eq!(gaps.largest(secs(100)), Some(secs(0)));
        assert_eq!(gaps.largest(secs(104)), Some(secs(4)));
        gaps.arrived(secs(5), secs(105));
        assert_eq!(gaps.largest(secs(109)), Some(secs(5)));
        assert_eq!(gaps.largest(secs(111)), Some(secs(6)));
        // Longer than the window, and so are those before.
        assert_eq!(gaps.largest(secs(1_105)), Some(secs(1_000)));
    }

    #[test]
    fn time_away_is_no_gap_and_what_ran_at_the_end_was_one() {
        let mut gaps = ArrivalGap::default();
        assert_eq!(gaps.largest(secs(50)), None, "never up");
        gaps.up(secs(100));
        gaps.arrived(secs(1), secs(101));
        gaps.down(secs(146));
        assert_eq!(gaps.largest(secs(200)), Some(secs(45)));
        gaps.up(secs(445));
        assert_eq!(
            gaps.largest(secs(445)),
            Some(secs(45)),
            "across connections"
        );
        assert_eq!(gaps.largest(secs(456)), Some(secs(11)));
        gaps.down(secs(457));
        gaps.down(secs(500));
        assert_eq!(gaps.largest(secs(740)), Some(secs(12)));
        assert_eq!(gaps.largest(secs(760)), None, "down for all of the window");
    }

    #[test]
    fn a_machine_that_stood_still_made_no_gap() {
        let mut gaps = ArrivalGap::default();
        gaps.stalled(secs(5));
        assert_eq!(gaps.largest(secs(9)), None, "not up");
        gaps.up(secs(10));
        gaps.stalled(secs(110));
        assert_eq!(gaps.largest(secs(112)), Some(secs(2)));
    }

    #[test]
    fn gaps_are_told_to_the_millisecond_however_long() {
        let mut gaps = ArrivalGap::default();
        let short = Duration::from_micros(900);
        gaps.arrived(short, secs(1));
        assert_eq!(gaps.longest[0], 1, "an arrival without a gap is one");
        gaps.arrived(Duration::from_millis(1_234), secs(1));
        let largest = gaps.largest(secs(1));
        assert_eq!(largest, Some(Duration::from_millis(1_234)));
        gaps.arrived(Duration::MAX, secs(1));
        assert!(gaps.largest(secs(1)) > Some(secs(49 * 86_400)));
    }

    #[test]
    fn the_memory_is_as_small_as_it_says() {
        assert_eq!(size_of::<ArrivalGap>(), 152);
    }

    proptest! {
        /// Against a list of all gaps.
        #[test]
        fn it_tells_what_a_list_of_all_gaps_tells(
            steps in proptest::collection::vec((0_u64..400, 0_u64..60), 1..200),
        ) {
            let mut gaps = ArrivalGap::default();
            let mut all = VecDeque::new();
            let mut now = 0;
            for (wait, gap) in steps {
                now += wait;
                gaps.arrived(secs(gap), secs(now));
                all.push_back((now, gap));
                let within = |limit: u64| {
                    let young = all.iter().filter(|(end, _)| now - end < limit);
                    young.map(|(_, gap)| secs(*gap)).max()
                };
                let told = gaps.largest(secs(now));
                prop_assert!(told >= within(300), "{told:?} at {now}");
                prop_assert!(told <= within(310), "{told:?} at {now}");
            }
        }
    }
}
