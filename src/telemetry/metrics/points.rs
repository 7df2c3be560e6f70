//! The values of one family at one moment: what the scrape and OTLP read alike.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use opentelemetry::{Key, KeyValue, StringValue, Value};
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{MetricFamily, MetricType};

use super::families::{Family, Series};
use crate::proto::close::Cause;
use crate::proto::event::Phase;
use crate::stats::{HistogramSnapshot, Identity, ListenerStats, Registry, TargetStats};

/// Sorted by key: the SDK keeps a second copy of a set that is not.
pub(crate) type Attributes = Arc<[KeyValue]>;

/// The targets and listeners of one moment, with the attributes of their series. Their numbers run
/// on until [`Family::points`] reads them.
pub(crate) struct Snapshot {
    registry: Arc<Registry>,
    targets: Vec<(Arc<TargetStats>, Arc<Identity>, Attributes)>,
    listeners: Vec<(Arc<ListenerStats>, Attributes)>,
    /// What the kernel keeps of this process.
    process: Vec<MetricFamily>,
}

/// The values of a family. Which of them it has never changes: it is the kind of its instrument.
pub(crate) enum Points {
    /// Of a counter: it never goes back as long as its series lives.
    Counts(Vec<(u64, Attributes)>),
    /// Of a counter that is no whole number.
    Sums(Vec<(f64, Attributes)>),
    Gauges(Vec<(f64, Attributes)>),
    /// Counted since the series began, as counters are.
    Histograms(Vec<(HistogramSnapshot, Attributes)>),
}

impl Snapshot {
    pub(crate) fn take(registry: &Arc<Registry>) -> Self {
        Self::with(registry, registry.targets())
    }

    /// With the targets alone that are named so.
    pub(crate) fn take_of(registry: &Arc<Registry>, names: &[Box<str>]) -> Self {
        Self::with(registry, registry.targets_named(names))
    }

    fn with(registry: &Arc<Registry>, targets: Vec<Arc<TargetStats>>) -> Self {
        let targets = targets.into_iter().map(|stats| {
            let identity = stats.identity();
            let attributes = target_attributes(&identity, []);
            (stats, identity, attributes)
        });
        Self {
            targets: targets.collect(),
            ..Self::without_targets(registry)
        }
    }

    /// One target, and nothing else.
    pub(crate) fn of_target(registry: &Arc<Registry>, stats: &Arc<TargetStats>) -> Self {
        let identity = stats.identity();
        let attributes = target_attributes(&identity, []);
        Self {
            registry: registry.clone(),
            targets: vec![(stats.clone(), identity, attributes)],
            listeners: Vec::new(),
            process: Vec::new(),
        }
    }

    /// Everything but the targets.
    pub(crate) fn without_targets(registry: &Arc<Registry>) -> Self {
        let listeners = registry.listeners().into_iter().map(|stats| {
            let name = KeyValue::new("listener", stats.name.to_string());
            (stats, Arc::from([name]))
        });
        Self {
            registry: registry.clone(),
            targets: Vec::new(),
            listeners: listeners.collect(),
            process: ProcessCollector::for_self().collect(),
        }
    }

    pub(super) fn target_count(&self) -> usize {
        self.targets.len()
    }

    /// What the kernel keeps of this process under this name.
    fn of_process(&self, name: &str) -> Vec<(f64, Attributes)> {
        let family = self.process.iter().find(|family| family.name() == name);
        let metrics = family.into_iter().flat_map(|family| {
            let is_counter = family.get_field_type() == MetricType::COUNTER;
            let metrics = family.get_metric().iter();
            metrics.map(move |metric| match is_counter {
                true => metric.get_counter().get_value(),
                false => metric.get_gauge().get_value(),
            })
        });
        metrics.map(|value| (value, [].into())).collect()
    }
}

impl Family {
    /// The values now. Blocks for as long as it takes to walk every target.
    pub(crate) fn points(&self, snapshot: &Snapshot) -> Points {
        let targets = || snapshot.targets.iter();
        match &self.series {
            Series::Count(read) => {
                Points::Counts(targets().map(|(s, _, a)| (read(s), a.clone())).collect())
            }
            Series::Seconds(read) => {
                let seconds = |s: &TargetStats| read(s).as_secs_f64();
                Points::Sums(targets().map(|(s, _, a)| (seconds(s), a.clone())).collect())
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
            Series::Rtt => {
                Points::Histograms(targets().map(|(s, _, a)| (s.rtt(), a.clone())).collect())
            }
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
            Series::PushCount(read) => {
                let pushes = snapshot.registry.pushes.iter();
                let pushes = pushes.filter(|push| push.is_on.load(Relaxed));
                let points = pushes.map(|push| {
                    let signal = KeyValue::new("signal", push.signal);
                    (read(push), Arc::from([signal]))
                });
                Points::Counts(points.collect())
            }
            Series::OwnCount => Points::Sums(snapshot.of_process(self.name)),
            Series::OwnGauge => Points::Gauges(snapshot.of_process(self.name)),
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
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Counts(points) => points.len(),
            Self::Sums(points) | Self::Gauges(points) => points.len(),
            Self::Histograms(points) => points.len(),
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
