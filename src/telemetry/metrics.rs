//! The metrics as Prometheus scrapes them. `families` has every one of them in one table,
//! `points` reads their values.
//!
//! The numbers live in [`crate::stats`]; an OpenTelemetry observable instrument per metric reads
//! them. A scrape makes provider, exporter and Prometheus registry anew for each metric and drops
//! them afterwards: the SDK fixes its cardinality limit when the provider is built and never gives
//! memory back, and one metric of every target at a time is all that is ever held beside the text.

pub(crate) mod families;
pub(crate) mod points;

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use families::{FAMILIES, Family};
use points::{Attributes, Points, Snapshot};

use crate::stats::{HistogramSnapshot, Registry};

/// The `Content-Type` of [`scrape`]'s text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A scrape that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScrapeError {
    #[error("cannot encode the metrics: {0}")]
    Prometheus(#[from] prometheus::Error),
    #[error("cannot collect the metrics: {0}")]
    OpenTelemetry(#[from] OTelSdkError),
}

/// Everything the registry knows, in Prometheus' text format. Blocks for as long as it takes to
/// walk every target: never call it on the thread that pings.
pub(crate) fn scrape(registry: &Arc<Registry>) -> Result<String, ScrapeError> {
    encoded(&Snapshot::take(registry), FAMILIES.iter())
}

/// The series of the targets that are named so, and nothing of the listeners and the process: scrapes
/// of some targets each have no series twice.
pub(crate) fn scrape_of(
    registry: &Arc<Registry>,
    names: &[Box<str>],
) -> Result<String, ScrapeError> {
    let snapshot = Snapshot::take_of(registry, names);
    encoded(
        &snapshot,
        FAMILIES.iter().filter(|f| f.series.is_of_targets()),
    )
}

fn encoded(
    snapshot: &Snapshot,
    families: impl Iterator<Item = &'static Family>,
) -> Result<String, ScrapeError> {
    let encoder = TextEncoder::new();
    // About what a target takes, so that the text is not moved many times while it grows.
    let mut text = String::with_capacity(16 * 1024 + snapshot.target_count() * 4 * 1024);
    for family in families {
        let families = family.gather(family.points(snapshot))?;
        encoder.encode_utf8(&families, &mut text)?;
    }
    Ok(text)
}

impl Family {
    /// The family as Prometheus has it.
    fn gather(&self, points: Points) -> Result<Vec<MetricFamily>, ScrapeError> {
        let limit = points.len().max(1);
        let registry = prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .scope_info_enabled(false)
            .build()?;
        let provider = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_resource(Resource::builder_empty().build())
            // A limit the SDK refuses would leave its default of 2,000; ours is from 1 to a few
            // times the number of targets, which it takes.
            .with_view(move |_: &Instrument| {
                Stream::builder().with_cardinality_limit(limit).build().ok()
            })
            .build();
        let meter = provider.meter("ws_keepalive");
        // The exporter makes the scraped name of name, unit and kind.
        match points {
            Points::Counts(points) => {
                meter
                    .u64_observable_counter(self.otel)
                    .with_unit(self.unit)
                    .with_description(self.help)
                    .with_callback(move |instrument| report(instrument, &points))
                    .build();
            }
            Points::Sums(points) => {
                meter
                    .f64_observable_counter(self.otel)
                    .with_unit(self.unit)
                    .with_description(self.help)
                    .with_callback(move |instrument| report(instrument, &points))
                    .build();
            }
            Points::Gauges(points) => {
                meter
                    .f64_observable_gauge(self.otel)
                    .with_unit(self.unit)
                    .with_description(self.help)
                    .with_callback(move |instrument| report(instrument, &points))
                    .build();
            }
            Points::Histograms(points) => return Ok(self.histograms(points)),
        }
        Ok(registry.gather())
    }

    /// No OpenTelemetry instrument: an observable histogram does not exist, and a synchronous one
    /// outlives its target.
    fn histograms(&self, points: Vec<(HistogramSnapshot, Attributes)>) -> Vec<MetricFamily> {
        if points.is_empty() {
            return Vec::new();
        }
        let metrics = points.into_iter().map(|(snapshot, attributes)| {
            let mut metric = Metric::default();
            metric.set_label(attributes.iter().map(label).collect());
            metric.set_histogram(histogram(&snapshot));
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(self.name.into());
        family.set_help(self.help.into());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

fn report<T: Copy>(instrument: &dyn AsyncInstrument<T>, points: &[(T, Attributes)]) {
    for (value, attributes) in points {
        instrument.observe(*value, attributes);
    }
}

fn label(attribute: &KeyValue) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(attribute.key.to_string());
    label.set_value(attribute.value.to_string());
    label
}

fn histogram(snapshot: &HistogramSnapshot) -> Histogram {
    let buckets = snapshot.cumulative.iter().map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound.as_secs_f64());
        bucket.set_cumulative_count(*count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(snapshot.count);
    histogram.set_sample_sum(snapshot.sum.as_secs_f64());
    histogram
}

#[cfg(test)]
mod docs;
#[cfg(test)]
mod tests;
