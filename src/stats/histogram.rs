//! Round trips, counted by bucket.

use std::sync::Arc;
use std::time::Duration;

/// Upper bounds of the buckets, ascending, shared by every target with the same setting.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Buckets(Arc<[Duration]>);

impl Buckets {
    /// Buckets with these upper bounds, which must ascend.
    pub(crate) fn new(bounds: impl Into<Arc<[Duration]>>) -> Self {
        Self(bounds.into())
    }

    pub(crate) fn bounds(&self) -> &[Duration] {
        &self.0
    }
}

impl Default for Buckets {
    /// 0.5 ms to 10 s.
    fn default() -> Self {
        let micros = [
            500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
            2_500_000, 5_000_000, 10_000_000,
        ];
        Self(micros.map(Duration::from_micros).into())
    }
}

/// A histogram of durations.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Buckets,
    /// One more than there are bounds: the last is for everything above. 32 bits, since every
    /// target has them: a ping a second fills one in 136 years.
    counts: Box<[u32]>,
    sum: Duration,
}

/// A histogram as it was at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HistogramSnapshot {
    /// Upper bound and number of observations at or below it.
    pub(crate) cumulative: Vec<(Duration, u64)>,
    pub(crate) count: u64,
    pub(crate) sum: Duration,
}

impl Histogram {
    pub(crate) fn new(buckets: &Buckets) -> Self {
        Self {
            buckets: buckets.clone(),
            counts: vec![0; buckets.0.len() + 1].into(),
            sum: Duration::ZERO,
        }
    }

    pub(crate) fn observe(&mut self, value: Duration) {
        let index = self.buckets.0.partition_point(|bound| *bound < value);
        if self.counts[index] == u32::MAX {
            // Full: begin again as after a restart, which every scraper knows how to read.
            *self = Self::new(&self.buckets.clone());
        }
        self.counts[index] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Starts again with other buckets; a scraper sees a counter reset.
    pub(crate) fn rebucket(&mut self, buckets: &Buckets) {
        if self.buckets != *buckets {
            *self = Self::new(buckets);
        }
    }

    pub(crate) fn snapshot(&self) -> HistogramSnapshot {
        let mut count = 0;
        let cumulative = std::iter::zip(self.buckets.bounds(), &self.counts)
            .map(|(bound, n)| {
                count += u64::from(*n);
                (*bound, count)
            })
            .collect();
        HistogramSnapshot {
            cumulative,
            count: self.counts.iter().copied().map(u64::from).sum(),
            sum: self.sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_that_bucket() {
        let ms = Duration::from_millis;
        let mut histogram = Histogram::new(&Buckets::new([ms(1), ms(5)]));
        for value in [ms(1), ms(5), Duration::from_micros(5_001)] {
            histogram.observe(value);
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.cumulative, [(ms(1), 1), (ms(5), 2)]);
        assert_eq!(
            (snapshot.count, snapshot.sum),
            (3, Duration::from_micros(11_001))
        );
    }

    #[test]
    fn a_full_bucket_begins_the_whole_histogram_again() {
        let ms = Duration::from_millis;
        let mut histogram = Histogram::new(&Buckets::new([ms(1), ms(5)]));
        histogram.observe(ms(3));
        histogram.counts[0] = u32::MAX;
        histogram.observe(ms(1));
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.cumulative, [(ms(1), 1), (ms(5), 1)]);
        assert_eq!((snapshot.count, snapshot.sum), (1, ms(1)));
    }

    #[test]
    fn the_documented_buckets_are_the_default() {
        let seconds: Vec<f64> = Buckets::default()
            .bounds()
            .iter()
            .map(Duration::as_secs_f64)
            .collect();
        let documented = [
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ];
        assert_eq!(seconds, documented);
    }
}
