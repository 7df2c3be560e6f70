//! The families as OTLP's metrics, some targets at a time.
//!
//! Not by the SDK's readers: what they collect cannot be made by others, and a reader that lives
//! long enough to count from the right moment has a cardinality limit that was fixed at its start.
//! So the points are those of the scrape, and the messages opentelemetry-proto's.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};
use prost::Message;

use super::spans::nanos;
use crate::config::otlp::Temporality;
use crate::stats::{HistogramSnapshot, Registry, TargetStats};
use crate::telemetry::metrics::families::{FAMILIES, Family};
use crate::telemetry::metrics::points::{Attributes, Points, Snapshot};

/// Targets in one request: about 200 KB. A collector takes 4 MiB at least; what it costs here is a
/// few times that while it is put together.
const TARGETS: usize = 40;

/// One moment by two clocks: what counters count from is known by the one, and told by the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    instant: Instant,
    time: SystemTime,
}

impl Anchor {
    pub(super) fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }

    fn time_of(&self, instant: Instant) -> SystemTime {
        match instant.checked_duration_since(self.instant) {
            Some(after) => self.time + after,
            None => self.time - self.instant.saturating_duration_since(instant),
        }
    }
}

/// What round trips were at the last export that succeeded, target by target.
#[derive(Debug, Default)]
pub(super) struct Exported(HashMap<usize, Before>);

#[derive(Debug)]
struct Before {
    /// Of whom. As long as this is here nobody else has its address, which is the key.
    of: Weak<TargetStats>,
    at: SystemTime,
    cumulative: Box<[u64]>,
    count: u64,
    sum: Duration,
}

impl Exported {
    pub(super) fn forget_gone(&mut self) {
        self.0.retain(|_, before| before.of.strong_count() > 0);
    }

    /// The request was taken.
    pub(super) fn take(&mut self, befores: Befores) {
        self.0.extend(befores.0);
    }
}

/// What becomes of [`Exported`] when the request succeeds.
#[derive(Debug, Default)]
pub(super) struct Befores(Vec<(usize, Before)>);

/// The metrics that are not about targets, each encoded.
pub(super) fn of_program(registry: &Arc<Registry>, anchor: &Anchor) -> Vec<Vec<u8>> {
    let snapshot = Snapshot::without_targets(registry);
    let now = SystemTime::now();
    let mut metrics = Building::new();
    for (slot, family) in FAMILIES.iter().enumerate() {
        if !family.series.is_of_targets() {
            metrics.add(slot, family.points(&snapshot), anchor.time, now);
        }
    }
    metrics.encoded()
}

/// Requests' worths of targets.
pub(super) fn parts(targets: &[Arc<TargetStats>]) -> impl Iterator<Item = &[Arc<TargetStats>]> {
    targets.chunks(TARGETS)
}

/// The metrics of some targets, each encoded.
pub(super) fn of_targets(
    targets: &[Arc<TargetStats>],
    registry: &Arc<Registry>,
    anchor: &Anchor,
    rtt: Temporality,
    exported: &Exported,
) -> (Vec<Vec<u8>>, Befores) {
    let mut metrics = Building::new();
    let mut befores = Befores::default();
    for stats in targets {
        let snapshot = Snapshot::of_target(registry, stats);
        let born = anchor.time_of(stats.born());
        let now = SystemTime::now();
        for (slot, family) in FAMILIES.iter().enumerate() {
            if !family.series.is_of_targets() {
                continue;
            }
            match (family.points(&snapshot), rtt) {
                (Points::Histograms(points), Temporality::Delta) => {
                    for (point, attributes) in points {
                        let key = Arc::as_ptr(stats).addr();
                        let before = exported.0.get(&key);
                        let (from, delta) = delta(&point, before, born);
                        metrics.add_histogram(slot, rtt, &delta, &attributes, from, now);
                        let before = Before {
                            of: Arc::downgrade(stats),
                            at: now,
                            cumulative: point.cumulative.iter().map(|(_, n)| *n).collect(),
                            count: point.count,
                            sum: point.sum,
                        };
                        befores.0.push((key, before));
                    }
                }
                (points, _) => metrics.add(slot, points, born, now),
            }
        }
    }
    (metrics.encoded(), befores)
}

/// What came in since, and since when. A histogram that began again meanwhile is all new.
fn delta(
    now: &HistogramSnapshot,
    before: Option<&Before>,
    born: SystemTime,
) -> (SystemTime, HistogramSnapshot) {
    let Some(before) = before else {
        return (born, now.clone());
    };
    let mut delta = now.clone();
    let grew = now.cumulative.len() == before.cumulative.len()
        && std::iter::zip(&now.cumulative, &before.cumulative).all(|((_, n), b)| n >= b)
        && now.count >= before.count
        && now.sum >= before.sum;
    if grew {
        for ((_, n), b) in std::iter::zip(&mut delta.cumulative, &before.cumulative) {
            *n -= b;
        }
        delta.count -= before.count;
        delta.sum -= before.sum;
    }
    (before.at, delta)
}

/// The metrics of one request, in the order of the families.
struct Building(Vec<Option<Metric>>);

impl Building {
    fn new() -> Self {
        Self(vec![None; FAMILIES.len()])
    }

    fn add(&mut self, slot: usize, points: Points, from: SystemTime, now: SystemTime) {
        match points {
            Points::Counts(points) => {
                for (value, attributes) in points {
                    let value = Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX));
                    self.add_sum(slot, value, &attributes, from, now);
                }
            }
            Points::Sums(points) => {
                for (value, attributes) in points {
                    self.add_sum(slot, Value::AsDouble(value), &attributes, from, now);
                }
            }
            Points::Gauges(points) => {
                for (value, attributes) in points {
                    let metric = self.metric(slot, || Data::Gauge(Gauge::default()));
                    if let Some(Data::Gauge(gauge)) = &mut metric.data {
                        gauge.data_points.push(NumberDataPoint {
                            attributes: proto(&attributes),
                            time_unix_nano: nanos(now),
                            value: Some(Value::AsDouble(value)),
                            ..NumberDataPoint::default()
                        });
                    }
                }
            }
            Points::Histograms(points) => {
                for (point, attributes) in points {
                    let rtt = Temporality::Cumulative;
                    self.add_histogram(slot, rtt, &point, &attributes, from, now);
                }
            }
        }
    }

    fn add_sum(
        &mut self,
        slot: usize,
        value: Value,
        attributes: &Attributes,
        from: SystemTime,
        now: SystemTime,
    ) {
        let metric = self.metric(slot, || {
            Data::Sum(Sum {
                data_points: Vec::new(),
                aggregation_temporality: AggregationTemporality::Cumulative as i32,
                is_monotonic: true,
            })
        });
        if let Some(Data::Sum(sum)) = &mut metric.data {
            sum.data_points.push(NumberDataPoint {
                attributes: proto(attributes),
                start_time_unix_nano: nanos(from),
                time_unix_nano: nanos(now),
                value: Some(value),
                ..NumberDataPoint::default()
            });
        }
    }

    fn add_histogram(
        &mut self,
        slot: usize,
        temporality: Temporality,
        point: &HistogramSnapshot,
        attributes: &Attributes,
        from: SystemTime,
        now: SystemTime,
    ) {
        // Of a delta in which nothing happened there is nothing to tell.
        if temporality == Temporality::Delta && point.count == 0 {
            return;
        }
        let temporality = match temporality {
            Temporality::Delta => AggregationTemporality::Delta,
            Temporality::Cumulative => AggregationTemporality::Cumulative,
        };
        let metric = self.metric(slot, || {
            Data::Histogram(Histogram {
                data_points: Vec::new(),
                aggregation_temporality: temporality as i32,
            })
        });
        // OTLP's buckets are not cumulative, and the last is what lies above all bounds.
        let mut below = 0;
        let buckets = point.cumulative.iter().map(|(_, n)| *n);
        let buckets = buckets.chain([point.count]).map(|n| {
            let within = n - below;
            below = n;
            within
        });
        if let Some(Data::Histogram(histogram)) = &mut metric.data {
            histogram.data_points.push(HistogramDataPoint {
                attributes: proto(attributes),
                start_time_unix_nano: nanos(from),
                time_unix_nano: nanos(now),
                count: point.count,
                sum: Some(point.sum.as_secs_f64()),
                bucket_counts: buckets.collect(),
                explicit_bounds: point
                    .cumulative
                    .iter()
                    .map(|(b, _)| b.as_secs_f64())
                    .collect(),
                ..HistogramDataPoint::default()
            });
        }
    }

    fn metric(&mut self, slot: usize, data: impl FnOnce() -> Data) -> &mut Metric {
        let Family {
            otel, unit, help, ..
        } = &FAMILIES[slot];
        self.0[slot].get_or_insert_with(|| Metric {
            name: (*otel).to_owned(),
            description: (*help).to_owned(),
            unit: (*unit).to_owned(),
            data: Some(data()),
            ..Metric::default()
        })
    }

    fn encoded(self) -> Vec<Vec<u8>> {
        let metrics = self.0.into_iter().flatten();
        metrics.map(|metric| metric.encode_to_vec()).collect()
    }
}

fn proto(attributes: &Attributes) -> Vec<KeyValue> {
    attributes.iter().map(KeyValue::from).collect()
}
