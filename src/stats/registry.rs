//! Who has numbers: every target and listener of the process, each for as long as its guard lives.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use super::{Buckets, Fleet, Identity, TargetStats, lock, unix_nanos};

/// Numbers of one embedded listener: the server's side of the heartbeat.
#[derive(Debug)]
pub(crate) struct ListenerStats {
    /// The `listener` label.
    pub(crate) name: Box<str>,
    pub(crate) pings_received: AtomicU64,
    pub(crate) pongs_sent: AtomicU64,
    pub(crate) connections: AtomicU64,
}

/// Numbers of one signal that is pushed to a collector.
#[derive(Debug)]
pub(crate) struct PushStats {
    /// The `signal` label.
    pub(crate) signal: &'static str,
    /// Whether it is pushed at all; without it there are no series.
    pub(crate) is_on: AtomicBool,
    pub(crate) failures: AtomicU64,
    /// Spans, log lines or points that will never arrive.
    pub(crate) dropped: AtomicU64,
}

impl PushStats {
    fn new(signal: &'static str) -> Self {
        Self {
            signal,
            is_on: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }
}

/// Every number of the process, and the only thing exporters look at.
#[derive(Debug)]
pub(crate) struct Registry {
    targets: Mutex<BTreeMap<Arc<str>, Arc<TargetStats>>>,
    listeners: Mutex<Vec<Arc<ListenerStats>>>,
    fleet: Arc<Fleet>,
    pub(crate) accept_errors: AtomicU64,
    pub(crate) task_panics: AtomicU64,
    /// 1 if the last reload succeeded.
    pub(crate) reload_successful: AtomicU8,
    /// Unix seconds of the last configuration that was applied.
    pub(crate) reload_success_time: AtomicU64,
    /// Metrics, traces, logs.
    pub(crate) pushes: [PushStats; 3],
}

impl Registry {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            targets: Mutex::default(),
            listeners: Mutex::default(),
            fleet: Fleet::new(Instant::now()),
            accept_errors: AtomicU64::new(0),
            task_panics: AtomicU64::new(0),
            reload_successful: AtomicU8::new(0),
            reload_success_time: AtomicU64::new(0),
            pushes: ["metrics", "traces", "logs"].map(PushStats::new),
        })
    }

    /// Registers a target; its series live as long as the guard.
    pub(crate) fn target(
        self: &Arc<Self>,
        identity: Arc<Identity>,
        buckets: &Buckets,
    ) -> EntryGuard {
        let name = identity.name.clone();
        let stats = TargetStats::in_fleet(identity, buckets, self.fleet.clone());
        let stats = Arc::new(stats);
        lock(&self.targets).insert(name, stats.clone());
        EntryGuard {
            registry: self.clone(),
            stats,
        }
    }

    /// Registers a listener; its series live as long as the guard.
    pub(crate) fn listener(self: &Arc<Self>, name: &str) -> ListenerGuard {
        let stats = Arc::new(ListenerStats {
            name: name.into(),
            pings_received: AtomicU64::new(0),
            pongs_sent: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        lock(&self.listeners).push(stats.clone());
        ListenerGuard {
            registry: self.clone(),
            stats,
        }
    }

    /// To be called when many targets were added: a tree that grew in the order of its keys is
    /// little more than half full.
    pub(crate) fn pack(&self) {
        let mut targets = lock(&self.targets);
        *targets = std::mem::take(&mut *targets).into_iter().collect();
    }

    /// All targets, by name.
    pub(crate) fn targets(&self) -> Vec<Arc<TargetStats>> {
        lock(&self.targets).values().cloned().collect()
    }

    /// How many of the targets have a connection that stands.
    pub(crate) fn established_count(&self) -> usize {
        self.fleet.established.load(Relaxed)
    }

    /// Whether a target is named so, or fans out under that name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        !named(&lock(&self.targets), name).is_empty()
    }

    /// The targets that are named so, or fan out under such a name, by name. Those that nobody has
    /// are left out.
    pub(crate) fn targets_named(&self, names: &[Box<str>]) -> Vec<Arc<TargetStats>> {
        let targets = lock(&self.targets);
        let found = names.iter().flat_map(|name| named(&targets, name));
        let found: BTreeMap<_, _> = found.collect();
        found.into_values().collect()
    }

    pub(crate) fn target_count(&self) -> usize {
        lock(&self.targets).len()
    }

    pub(crate) fn listeners(&self) -> Vec<Arc<ListenerStats>> {
        lock(&self.listeners).clone()
    }

    /// A configuration was applied, or refused.
    pub(crate) fn reloaded(&self, successful: bool) {
        self.reload_successful.store(successful.into(), Relaxed);
        if successful {
            let now = unix_nanos(SystemTime::now()) / 1_000_000_000;
            self.reload_success_time.store(now, Relaxed);
        }
    }
}

/// The target of that name, or those of its addresses: `NAME[0]`, `NAME[1]`, ..
fn named(
    targets: &BTreeMap<Arc<str>, Arc<TargetStats>>,
    name: &str,
) -> Vec<(Arc<str>, Arc<TargetStats>)> {
    if let Some((name, stats)) = targets.get_key_value(name) {
        return vec![(name.clone(), stats.clone())];
    }
    let first: Arc<str> = format!("{name}[").into();
    let indexed = targets.range(first.clone()..);
    let indexed = indexed.take_while(|(key, _)| key.starts_with(&*first));
    let own = indexed.filter(|(_, stats)| **stats.identity().target() == *name);
    own.map(|(key, stats)| (key.clone(), stats.clone()))
        .collect()
}

/// Keeps a target's numbers in the registry.
#[derive(Debug)]
pub(crate) struct EntryGuard {
    registry: Arc<Registry>,
    stats: Arc<TargetStats>,
}

impl EntryGuard {
    pub(crate) fn stats(&self) -> &Arc<TargetStats> {
        &self.stats
    }
}

impl Drop for EntryGuard {
    fn drop(&mut self) {
        self.stats.retire();
        let name = &self.stats.identity().name;
        let mut targets = lock(&self.registry.targets);
        // A successor of the same name may have taken the place.
        if targets
            .get(name)
            .is_some_and(|s| Arc::ptr_eq(s, &self.stats))
        {
            targets.remove(name);
        }
    }
}

/// Keeps a listener's numbers in the registry.
#[derive(Debug)]
pub(crate) struct ListenerGuard {
    registry: Arc<Registry>,
    stats: Arc<ListenerStats>,
}

impl ListenerGuard {
    /// Accepting failed, as for want of file descriptors.
    pub(crate) fn accept_failed(&self) {
        self.registry.accept_errors.fetch_add(1, Relaxed);
    }

    /// The task of a connection panicked.
    pub(crate) fn task_panicked(&self) {
        self.registry.task_panics.fetch_add(1, Relaxed);
    }

    pub(crate) fn stats(&self) -> &Arc<ListenerStats> {
        &self.stats
    }
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        lock(&self.registry.listeners).retain(|s| !Arc::ptr_eq(s, &self.stats));
    }
}
