//! Every metric of the program: names, help and where the number comes from, in one table.
//!
//! The numbers live in [`crate::stats`]; an OpenTelemetry observable instrument per metric reads
//! them. A scrape makes provider, exporter and Prometheus registry anew for each metric and drops
//! them afterwards: the SDK fixes its cardinality limit when the provider is built and never gives
//! memory back, and one metric of every target at a time is all that is ever held beside the text.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::metrics::{AsyncInstrument, Meter, MeterProvider};
use opentelemetry::{Key, KeyValue, StringValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use prometheus::TextEncoder;
use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::config::tls_files;
use crate::proto::close::Cause;
use crate::proto::event::Phase;
use crate::stats::{
    HistogramSnapshot, Identity, ListenerStats, Protocol, Registry, State, TargetStats,
};

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
    let snapshot = Snapshot::take(registry);
    let encoder = TextEncoder::new();
    // About what a target takes, so that the text is not moved many times while it grows.
    let mut text = String::with_capacity(16 * 1024 + snapshot.targets.len() * 4 * 1024);
    for family in FAMILIES {
        let families = family.gather(&snapshot)?;
        encoder.encode_utf8(&families, &mut text)?;
    }
    let ours = prometheus::Registry::new();
    ours.register(Box::new(RttCollector::new(snapshot)?))?;
    encoder.encode_utf8(&ours.gather(), &mut text)?;
    let process = prometheus::Registry::new();
    process.register(Box::new(ProcessCollector::for_self()))?;
    encoder.encode_utf8(&process.gather(), &mut text)?;
    Ok(text)
}

/// One metric: what Prometheus calls a family.
struct Family {
    name: &'static str,
    help: &'static str,
    series: Series,
}

/// Which series a family has, and how their values are read. `Option` is for a series that is
/// there only once its value is known.
enum Series {
    /// A counter per target.
    Count(fn(&TargetStats) -> u64),
    /// A counter of seconds per target.
    Seconds(fn(&TargetStats) -> Duration),
    /// A gauge per target.
    Gauge(fn(&TargetStats) -> Option<f64>),
    /// A gauge per target that is of this kind. The others cost a look at what they are.
    GaugeOf(fn(&Identity) -> bool, fn(&TargetStats) -> Option<f64>),
    /// A counter per target and `phase`, each there from the start.
    PhaseCount(fn(&TargetStats, Phase) -> u64),
    /// A gauge per target and `phase`.
    PhaseGauge(fn(&TargetStats, Phase) -> Option<f64>),
    /// Ends per target and `cause`, each there from its first.
    Causes,
    /// 1 per target, with `url` and `protocol`.
    TargetInfo,
    /// A counter per `listener`.
    ListenerCount(fn(&ListenerStats) -> u64),
    /// A gauge per `listener`.
    ListenerGauge(fn(&ListenerStats) -> u64),
    /// A counter of the process.
    ProcessCount(fn(&Registry) -> u64),
    /// A gauge of the process.
    ProcessGauge(fn(&Registry) -> f64),
    /// 1 with these labels; those without a value are left out.
    Info(&'static [(&'static str, Option<&'static str>)]),
}

const FAMILIES: &[Family] = &[
    Family {
        name: "established",
        help: "Whether the connection is up (1) or not (0).",
        series: Series::Gauge(|s| Some(f64::from(s.state() == State::Established))),
    },
    Family {
        name: "ping_retry_count_total",
        help: "Pings that were sent again because no pong came.",
        series: Series::Count(|s| s.ping_retries.get()),
    },
    Family {
        name: "sent_ping_total",
        help: "Pings sent to the target.",
        series: Series::Count(|s| s.pings_sent.get()),
    },
    Family {
        name: "received_pong_total",
        help: "Pongs received from the target.",
        series: Series::Count(|s| s.pongs_received.get()),
    },
    Family {
        name: "received_ping_total",
        help: "Pings the listener received from its clients.",
        series: Series::ListenerCount(|l| l.pings_received.load(Relaxed)),
    },
    Family {
        name: "sent_pong_total",
        help: "Pongs the listener sent to its clients.",
        series: Series::ListenerCount(|l| l.pongs_sent.load(Relaxed)),
    },
    Family {
        name: "ws_keepalive_server_connections",
        help: "Connections the listener holds.",
        series: Series::ListenerGauge(|l| l.connections.load(Relaxed)),
    },
    Family {
        name: "ws_keepalive_connects_total",
        help: "Connections that were established.",
        series: Series::Count(|s| s.connects.get()),
    },
    Family {
        name: "ws_keepalive_disconnects_total",
        help: "Established connections that ended.",
        series: Series::Count(|s| s.disconnects.get()),
    },
    Family {
        name: "ws_keepalive_disconnects_by_cause_total",
        help: "Established connections that ended, by cause.",
        series: Series::Causes,
    },
    Family {
        name: "ws_keepalive_connect_failures_total",
        help: "Dials that failed, by the phase that failed.",
        series: Series::PhaseCount(|s, phase| s.failures(phase).into()),
    },
    Family {
        name: "ws_keepalive_connect_duration_seconds",
        help: "How long each phase of the last dial took.",
        series: Series::PhaseGauge(|s, phase| seconds(s.phase_time(phase))),
    },
    Family {
        name: "ws_keepalive_last_rtt_seconds",
        help: "Round trip of the last ping whose answer was clear.",
        series: Series::Gauge(|s| seconds(s.last_rtt())),
    },
    Family {
        name: "ws_keepalive_pong_mismatch_total",
        help: "Pongs that carried another payload than the ping they answered.",
        series: Series::Count(|s| s.pong_mismatches.get()),
    },
    Family {
        name: "ws_keepalive_connected_seconds_total",
        help: "Time the connection was up.",
        series: Series::Seconds(|s| s.availability().0),
    },
    Family {
        name: "ws_keepalive_disconnected_seconds_total",
        help: "Time the connection was down, counted from when its end was detected.",
        series: Series::Seconds(|s| s.availability().1),
    },
    Family {
        name: "ws_keepalive_connection_start_time_seconds",
        help: "Unix time at which the connection came up; 0 while it is down.",
        series: Series::Gauge(|s| Some(unix_seconds(s.connection_start()))),
    },
    Family {
        name: "ws_keepalive_last_disconnect_time_seconds",
        help: "Unix time at which the last connection ended; 0 before the first end.",
        series: Series::Gauge(|s| Some(unix_seconds(s.last_disconnect()))),
    },
    Family {
        name: "ws_keepalive_messages_received_total",
        help: "Application messages received.",
        series: Series::Count(|s| s.messages_received.get()),
    },
    Family {
        name: "ws_keepalive_received_bytes_total",
        help: "Payload bytes of the application messages received.",
        series: Series::Count(|s| s.received_bytes.get()),
    },
    Family {
        name: "ws_keepalive_sent_bytes_total",
        help: "Payload bytes of the application messages sent.",
        series: Series::Count(|s| s.sent_bytes.get()),
    },
    Family {
        name: "ws_keepalive_heartbeats_received_total",
        help: "Heartbeats received that the target began.",
        series: Series::Count(TargetStats::heartbeats_received),
    },
    Family {
        name: "ws_keepalive_arrival_gap_seconds",
        help: "The longest time without an arrival within the last 5 minutes of the connection.",
        series: Series::GaugeOf(|i| i.server_beats, |s| seconds(s.arrival_gap())),
    },
    Family {
        name: "ws_keepalive_first_event_delay_seconds",
        help: "How long after it came up the event stream brought its first event.",
        series: Series::GaugeOf(
            |i| i.protocol == Protocol::Sse,
            |s| seconds(s.first_event_delay()),
        ),
    },
    Family {
        name: "ws_keepalive_stale",
        help: "Whether the connection is up without application messages (1) or not (0).",
        series: Series::GaugeOf(|i| i.watches_staleness, |s| Some(s.is_stale().into())),
    },
    Family {
        name: "ws_keepalive_tls_certificate_not_after_seconds",
        help: "Unix time at which the certificate chain that was last presented ends.",
        series: Series::Gauge(|s| s.certificate_not_after().map(|at| unix_seconds(Some(at)))),
    },
    Family {
        name: "ws_keepalive_target_info",
        help: "What the target is: its URL without userinfo and query, and its protocol.",
        series: Series::TargetInfo,
    },
    Family {
        name: "ws_keepalive_config_last_reload_successful",
        help: "Whether the last configuration that was read could be applied (1) or not (0).",
        series: Series::ProcessGauge(|r| r.reload_successful.load(Relaxed).into()),
    },
    Family {
        name: "ws_keepalive_config_last_reload_success_timestamp_seconds",
        help: "Unix time at which a configuration was last applied; 0 before the first.",
        series: Series::ProcessGauge(|r| r.reload_success_time.load(Relaxed) as f64),
    },
    Family {
        name: "ws_keepalive_tls_files_last_reload_successful",
        help: "Whether the TLS files could be used when they were last read (1) or not (0).",
        series: Series::ProcessGauge(|_| tls_files::files_are_good().into()),
    },
    Family {
        name: "ws_keepalive_accept_errors_total",
        help: "Connections that a listener could not accept.",
        series: Series::ProcessCount(|r| r.accept_errors.load(Relaxed)),
    },
    Family {
        name: "ws_keepalive_task_panics_total",
        help: "Tasks of targets that panicked and were started again.",
        series: Series::ProcessCount(|r| r.task_panics.load(Relaxed)),
    },
    Family {
        name: "ws_keepalive_rtt_clock_info",
        help: "Which clock stamps the arrival of a pong: the kernel's or this program's.",
        series: Series::Info(&[("source", Some("user"))]),
    },
    Family {
        name: "ws_keepalive_build_info",
        help: "What was built: the program's version, and where known revision and compiler.",
        series: Series::Info(&[
            ("version", Some(env!("CARGO_PKG_VERSION"))),
            ("revision", option_env!("WS_KEEPALIVE_REVISION")),
            ("rustc", option_env!("WS_KEEPALIVE_RUSTC")),
        ]),
    },
];

/// The RTT histogram is not an OpenTelemetry instrument: an observable histogram does not exist,
/// and a synchronous one outlives its target.
const RTT_NAME: &str = "ws_keepalive_rtt_seconds";
const RTT_HELP: &str = "Round trips of pings whose answers were clear.";

/// The targets and listeners of one scrape, with the attributes of their series.
struct Snapshot {
    registry: Arc<Registry>,
    targets: Vec<(Arc<TargetStats>, Arc<Identity>, Attributes)>,
    listeners: Vec<(Arc<ListenerStats>, Attributes)>,
}

/// Sorted by key: the SDK keeps a second copy of a set that is not.
type Attributes = Arc<[KeyValue]>;

impl Snapshot {
    fn take(registry: &Arc<Registry>) -> Self {
        let targets = registry.targets().into_iter().map(|stats| {
            let identity = stats.identity();
            let attributes = target_attributes(&identity, []);
            (stats, identity, attributes)
        });
        let listeners = registry.listeners().into_iter().map(|stats| {
            let name = KeyValue::new("listener", stats.name.to_string());
            (stats, Arc::from([name]))
        });
        Self {
            registry: registry.clone(),
            targets: targets.collect(),
            listeners: listeners.collect(),
        }
    }
}

/// `target`, `address_index` of one that fans out, the target's own labels, and `more`, which wins
/// over a label of the same name.
fn target_attributes<const N: usize>(
    identity: &Identity,
    more: [(&'static str, Arc<str>); N],
) -> Attributes {
    let ours = |name: &str| name == "target" || more.iter().any(|(key, _)| *key == name);
    let mut attributes = Vec::with_capacity(2 + identity.labels.len() + N);
    for (name, value) in identity.labels.iter().filter(|(name, _)| !ours(name)) {
        attributes.push(attribute(Key::new(Arc::from(&**name)), Arc::from(&**value)));
    }
    attributes.push(attribute(
        Key::from_static_str("target"),
        identity.target().clone(),
    ));
    if let Some(index) = identity.address_index() {
        let key = Key::from_static_str("address_index");
        attributes.push(attribute(key, index.to_string().into()));
    }
    for (name, value) in more.iter() {
        attributes.push(attribute(Key::from_static_str(name), value.clone()));
    }
    attributes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    attributes.into()
}

fn attribute(key: Key, value: Arc<str>) -> KeyValue {
    KeyValue::new(key, Value::String(StringValue::from(value)))
}

/// The values of one family at one moment.
enum Points {
    Counts(Vec<(u64, Attributes)>),
    Seconds(Vec<(f64, Attributes)>),
    Gauges(Vec<(f64, Attributes)>),
}

impl Family {
    /// The family as Prometheus has it, by way of an OpenTelemetry instrument.
    fn gather(&self, snapshot: &Snapshot) -> Result<Vec<MetricFamily>, ScrapeError> {
        let points = self.points(snapshot);
        let limit = points.len().max(1);
        let registry = prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .scope_info_enabled(false)
            // The table has the names as they are scraped.
            .without_units()
            .without_counter_suffixes()
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
        self.instrument(&provider.meter("ws_keepalive"), points);
        Ok(registry.gather())
    }

    fn instrument(&self, meter: &Meter, points: Points) {
        match points {
            Points::Counts(points) => {
                meter
                    .u64_observable_counter(self.name)
                    .with_description(self.help)
                    .with_callback(move |instrument| report(instrument, &points))
                    .build();
            }
            Points::Seconds(points) => {
                meter
                    .f64_observable_counter(self.name)
                    .with_description(self.help)
                    .with_callback(move |instrument| report(instrument, &points))
                    .build();
            }
            Points::Gauges(points) => {
                meter
                    .f64_observable_gauge(self.name)
                    .with_description(self.help)
                    .with_callback(move |instrument| report(instrument, &points))
                    .build();
            }
        }
    }

    fn points(&self, snapshot: &Snapshot) -> Points {
        let targets = || snapshot.targets.iter();
        match &self.series {
            Series::Count(read) => {
                Points::Counts(targets().map(|(s, _, a)| (read(s), a.clone())).collect())
            }
            Series::Seconds(read) => {
                let seconds = |s: &TargetStats| read(s).as_secs_f64();
                Points::Seconds(targets().map(|(s, _, a)| (seconds(s), a.clone())).collect())
            }
            Series::Gauge(read) => Points::Gauges(
                targets()
                    .filter_map(|(s, _, a)| Some((read(s)?, a.clone())))
                    .collect(),
            ),
            Series::GaugeOf(is_one, read) => Points::Gauges(
                targets()
                    .filter(|(_, identity, _)| is_one(identity))
                    .filter_map(|(s, _, a)| Some((read(s)?, a.clone())))
                    .collect(),
            ),
            Series::PhaseCount(read) => {
                Points::Counts(by_phase(snapshot, |stats, phase| Some(read(stats, phase))))
            }
            Series::PhaseGauge(read) => Points::Gauges(by_phase(snapshot, read)),
            Series::Causes => Points::Counts(by_cause(snapshot)),
            Series::TargetInfo => Points::Gauges(
                targets()
                    .map(|(_, identity, _)| {
                        let url = ("url", Arc::from(&*identity.url));
                        let protocol = ("protocol", Arc::from(identity.protocol.as_str()));
                        (1.0, target_attributes(identity, [url, protocol]))
                    })
                    .collect(),
            ),
            Series::ListenerCount(read) => {
                let listeners = snapshot.listeners.iter();
                Points::Counts(listeners.map(|(l, a)| (read(l), a.clone())).collect())
            }
            Series::ListenerGauge(read) => {
                let listeners = snapshot.listeners.iter();
                let points = listeners.map(|(l, a)| (read(l) as f64, a.clone()));
                Points::Gauges(points.collect())
            }
            Series::ProcessCount(read) => {
                Points::Counts(vec![(read(&snapshot.registry), [].into())])
            }
            Series::ProcessGauge(read) => {
                Points::Gauges(vec![(read(&snapshot.registry), [].into())])
            }
            Series::Info(labels) => {
                let known = labels
                    .iter()
                    .filter_map(|(name, value)| Some(KeyValue::new(*name, (*value)?)));
                let mut attributes: Vec<KeyValue> = known.collect();
                attributes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
                Points::Gauges(vec![(1.0, attributes.into())])
            }
        }
    }
}

impl Points {
    fn len(&self) -> usize {
        match self {
            Self::Counts(points) => points.len(),
            Self::Seconds(points) | Self::Gauges(points) => points.len(),
        }
    }
}

fn report<T: Copy>(instrument: &dyn AsyncInstrument<T>, points: &[(T, Attributes)]) {
    for (value, attributes) in points {
        instrument.observe(*value, attributes);
    }
}

fn by_phase<T>(
    snapshot: &Snapshot,
    read: impl Fn(&TargetStats, Phase) -> Option<T>,
) -> Vec<(T, Attributes)> {
    let names = Phase::ALL.map(|phase| Arc::<str>::from(phase.as_str()));
    let mut points = Vec::with_capacity(snapshot.targets.len() * Phase::ALL.len());
    for (stats, identity, _) in &snapshot.targets {
        for (phase, name) in std::iter::zip(Phase::ALL, &names) {
            if let Some(value) = read(stats, phase) {
                let attributes = target_attributes(identity, [("phase", name.clone())]);
                points.push((value, attributes));
            }
        }
    }
    points
}

fn by_cause(snapshot: &Snapshot) -> Vec<(u64, Attributes)> {
    let names = Cause::ALL.map(|cause| Arc::<str>::from(cause.as_str()));
    let mut points = Vec::new();
    for (stats, identity, _) in &snapshot.targets {
        let causes = stats.with_history(|history| history.map(|history| history.causes));
        for (count, name) in std::iter::zip(causes.into_iter().flatten(), &names) {
            if count > 0 {
                let attributes = target_attributes(identity, [("cause", name.clone())]);
                points.push((count, attributes));
            }
        }
    }
    points
}

/// The RTT histograms of every target: there from the start, with their zero buckets.
struct RttCollector {
    desc: Desc,
    snapshot: Snapshot,
}

impl RttCollector {
    fn new(snapshot: Snapshot) -> Result<Self, prometheus::Error> {
        let labels = vec!["target".to_owned()];
        let desc = Desc::new(RTT_NAME.into(), RTT_HELP.into(), labels, Default::default())?;
        Ok(Self { desc, snapshot })
    }
}

impl fmt::Debug for RttCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RttCollector").finish_non_exhaustive()
    }
}

impl Collector for RttCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut metrics = Vec::with_capacity(self.snapshot.targets.len());
        for (stats, _, attributes) in &self.snapshot.targets {
            let mut metric = Metric::default();
            metric.set_label(attributes.iter().map(label).collect());
            metric.set_histogram(histogram(&stats.rtt()));
            metrics.push(metric);
        }
        let mut family = MetricFamily::default();
        family.set_name(RTT_NAME.into());
        family.set_help(RTT_HELP.into());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(metrics);
        vec![family]
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

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

/// 0 for a time that is not.
fn unix_seconds(at: Option<SystemTime>) -> f64 {
    at.and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests;
