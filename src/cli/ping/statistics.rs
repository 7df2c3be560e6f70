//! Round trips in figures.

use std::time::Duration;

/// Round trips that are kept to tell percentiles: exact up to here, of a fair sample beyond it. It
/// keeps a ping that runs for weeks in 80 KB.
const KEPT: usize = 10_000;

/// Round trips as they come in.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    count: u64,
    min: Duration,
    max: Duration,
    /// Mean and sum of squared deviations from it, in seconds (Welford's way: no large squares to
    /// take from each other).
    mean: f64,
    squares: f64,
    kept: Vec<Duration>,
}

/// Round trips summed up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    pub(super) min: Duration,
    pub(super) avg: Duration,
    pub(super) max: Duration,
    /// Of the whole population, as ping(8) has it.
    pub(super) stddev: Duration,
    pub(super) p50: Duration,
    pub(super) p90: Duration,
    pub(super) p99: Duration,
}

impl RoundTrips {
    /// `dice` draws uniformly from `0..n`.
    pub(super) fn add(&mut self, rtt: Duration, dice: impl FnOnce(u64) -> u64) {
        self.min = match self.count {
            0 => rtt,
            _ => self.min.min(rtt),
        };
        self.max = self.max.max(rtt);
        self.count += 1;
        let seconds = rtt.as_secs_f64();
        let before = seconds - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (seconds - self.mean);
        if self.kept.len() < KEPT {
            self.kept.push(rtt);
        } else if let Ok(place) = usize::try_from(dice(self.count))
            && let Some(kept) = self.kept.get_mut(place)
        {
            // Every round trip so far is kept with the same probability.
            *kept = rtt;
        }
    }

    /// `None` if there was none.
    pub(super) fn figures(&self) -> Option<Figures> {
        if self.count == 0 {
            return None;
        }
        let mut sorted = self.kept.clone();
        sorted.sort_unstable();
        // The nearest rank: the smallest of which this share is not above it.
        let percentile = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted[rank.clamp(1, sorted.len()) - 1]
        };
        let variance = self.squares / self.count as f64;
        Some(Figures {
            min: self.min,
            avg: Duration::from_secs_f64(self.mean.max(0.0)),
            max: self.max,
            stddev: Duration::from_secs_f64(variance.max(0.0).sqrt()),
            p50: percentile(0.5),
            p90: percentile(0.9),
            p99: percentile(0.99),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn of(millis: impl IntoIterator<Item = u64>) -> RoundTrips {
        let mut trips = RoundTrips::default();
        for millis in millis {
            trips.add(ms(millis), |_| unreachable!("all of them are kept"));
        }
        trips
    }

    #[test]
    fn figures_are_those_of_the_textbook() {
        let figures = of([2, 4, 4, 4, 5, 5, 7, 9]).figures().unwrap();
        let micros = |duration: Duration| (duration.as_secs_f64() * 1e6).round();
        assert_eq!((figures.min, figures.max), (ms(2), ms(9)));
        assert_eq!(
            (micros(figures.avg), micros(figures.stddev)),
            (5_000.0, 2_000.0)
        );
        assert_eq!((figures.p50, figures.p90), (ms(4), ms(9)));
        let hundred = of(1..=100).figures().unwrap();
        let percentiles = [hundred.p50, hundred.p90, hundred.p99];
        assert_eq!(percentiles, [ms(50), ms(90), ms(99)]);
        assert_eq!(of([]).figures(), None);
        let one = of([3]).figures().unwrap();
        assert_eq!((one.stddev, one.p99), (Duration::ZERO, ms(3)));
    }

    #[test]
    fn a_long_run_keeps_a_sample() {
        let mut trips = of((0..KEPT as u64).map(|_| 1));
        trips.add(ms(500), |n| {
            assert_eq!(n, KEPT as u64 + 1);
            7
        });
        trips.add(ms(900), |n| n - 1);
        assert_eq!(trips.kept.len(), KEPT);
        assert_eq!(trips.kept[7], ms(500));
        let figures = trips.figures().unwrap();
        assert_eq!(figures.max, ms(900), "seen although it is not kept");
        assert_eq!(figures.p99, ms(1));
    }
}
