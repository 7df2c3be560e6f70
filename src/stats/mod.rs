//! Per-target numbers. Each has one writer, the target's own task; exporters only read.
//!
//! A target's series live exactly as long as its [`EntryGuard`]: when the supervisor drops the
//! guard, the next scrape no longer has them.

mod histogram;

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use histogram::{Buckets, Histogram, HistogramSnapshot};

use crate::proto::close::Cause;
use crate::proto::event::{DialFailure, End, Event, Phase};

/// Ends remembered per target.
const HISTORY: usize = 20;

/// Whom the numbers are about: what exporters show of a target. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// The `target` label.
    pub(crate) name: Arc<str>,
    /// The URL without userinfo and query.
    pub(crate) url: Box<str>,
    /// `websocket`, `sse`, or a dialect's name.
    pub(crate) protocol: &'static str,
    /// The target's own labels, sorted by name.
    pub(crate) labels: Arc<[(Box<str>, Box<str>)]>,
}

/// What a target's task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Established,
    Waiting,
    Stopped,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Established => "established",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        }
    }

    fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::Connecting,
            1 => Self::Established,
            2 => Self::Waiting,
            _ => Self::Stopped,
        }
    }
}

/// A number with one writer and any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Number(AtomicU64);

impl Number {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn add(&self, n: u64) {
        // One writer: a plain load and store, no locked instruction.
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }
}

/// The numbers of one target.
#[derive(Debug)]
pub(crate) struct TargetStats {
    identity: Mutex<Arc<Identity>>,
    state: AtomicU8,
    /// Since when `state` is what it is, Unix nanoseconds.
    state_since: Number,
    pub(crate) ping_retries: Number,
    pub(crate) pings_sent: Number,
    pub(crate) pongs_received: Number,
    pub(crate) pong_mismatches: Number,
    pub(crate) connects: Number,
    pub(crate) disconnects: Number,
    pub(crate) messages_received: Number,
    pub(crate) received_bytes: Number,
    pub(crate) sent_bytes: Number,
    /// Nanoseconds of the registry's monotonic clock at which the target was registered.
    born: u64,
    /// A lock, for a reader that saw half a turn would report a counter that goes back.
    uptime: Mutex<Uptime>,
    /// Unix nanoseconds; 0 when down.
    connection_start: Number,
    /// Unix nanoseconds; 0 before the first.
    last_disconnect: Number,
    /// Nanoseconds; `u64::MAX` before the first.
    last_rtt: Number,
    failures: [AtomicU32; Phase::ALL.len()],
    /// Microseconds of the last dial; `u32::MAX` for a phase it did not have.
    phase_micros: [AtomicU32; Phase::ALL.len()],
    rtt: Mutex<Histogram>,
    history: Mutex<Option<Box<History>>>,
    epoch: Instant,
}

/// How long a connection was up in sum, in nanoseconds of the registry's monotonic clock.
#[derive(Debug, Default)]
struct Uptime {
    /// Of the connections that ended.
    sum: u64,
    /// When the present connection came up.
    since: Option<NonZeroU64>,
}

/// What is only there once something went wrong.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Ends by cause, in the order of [`Cause::ALL`].
    pub(crate) causes: [u64; Cause::ALL.len()],
    /// Newest first.
    pub(crate) ends: VecDeque<PastEnd>,
    pub(crate) last_failure: Option<DialFailure>,
}

/// An end, and when the connection came back.
#[derive(Debug)]
pub(crate) struct PastEnd {
    pub(crate) end: End,
    pub(crate) recovered_after: Option<Duration>,
}

impl TargetStats {
    /// Fresh numbers for `identity`; `epoch` is the instant time is counted from.
    pub(crate) fn new(identity: Arc<Identity>, buckets: &Buckets, epoch: Instant) -> Self {
        let stats = Self {
            identity: Mutex::new(identity),
            state: AtomicU8::new(State::Connecting as u8),
            state_since: Number::default(),
            ping_retries: Number::default(),
            pings_sent: Number::default(),
            pongs_received: Number::default(),
            pong_mismatches: Number::default(),
            connects: Number::default(),
            disconnects: Number::default(),
            messages_received: Number::default(),
            received_bytes: Number::default(),
            sent_bytes: Number::default(),
            born: nanos(epoch.elapsed()),
            uptime: Mutex::default(),
            connection_start: Number::default(),
            last_disconnect: Number::default(),
            last_rtt: Number(AtomicU64::new(u64::MAX)),
            failures: Default::default(),
            phase_micros: std::array::from_fn(|_| AtomicU32::new(u32::MAX)),
            rtt: Mutex::new(Histogram::new(buckets)),
            history: Mutex::new(None),
            epoch,
        };
        stats.set_state(State::Connecting);
        stats
    }

    pub(crate) fn identity(&self) -> Arc<Identity> {
        lock(&self.identity).clone()
    }

    pub(crate) fn state(&self) -> State {
        State::from_u8(self.state.load(Relaxed))
    }

    pub(crate) fn state_since(&self) -> SystemTime {
        from_unix_nanos(self.state_since.get())
    }

    /// When the present connection came up.
    pub(crate) fn connection_start(&self) -> Option<SystemTime> {
        Some(self.connection_start.get())
            .filter(|n| *n > 0)
            .map(from_unix_nanos)
    }

    pub(crate) fn last_disconnect(&self) -> Option<SystemTime> {
        Some(self.last_disconnect.get())
            .filter(|n| *n > 0)
            .map(from_unix_nanos)
    }

    pub(crate) fn last_rtt(&self) -> Option<Duration> {
        Some(self.last_rtt.get())
            .filter(|n| *n != u64::MAX)
            .map(Duration::from_nanos)
    }

    /// Time up and time down until now. Neither ever goes back.
    pub(crate) fn availability(&self) -> (Duration, Duration) {
        let uptime = lock(&self.uptime);
        let now = nanos(self.epoch.elapsed());
        let running = uptime.since.map_or(0, |since| now - since.get().min(now));
        let up = uptime.sum + running;
        let down = (now - self.born.min(now)).saturating_sub(up);
        (Duration::from_nanos(up), Duration::from_nanos(down))
    }

    /// Failed dials at `phase`.
    pub(crate) fn failures(&self, phase: Phase) -> u32 {
        self.failures[phase as usize].load(Relaxed)
    }

    /// How long `phase` of the last dial took.
    pub(crate) fn phase_time(&self, phase: Phase) -> Option<Duration> {
        let micros = self.phase_micros[phase as usize].load(Relaxed);
        (micros != u32::MAX).then(|| Duration::from_micros(micros.into()))
    }

    pub(crate) fn rtt(&self) -> HistogramSnapshot {
        lock(&self.rtt).snapshot()
    }

    /// Reads the history; `None` as long as nothing went wrong.
    pub(crate) fn with_history<T>(&self, read: impl FnOnce(Option<&History>) -> T) -> T {
        read(lock(&self.history).as_deref())
    }

    /// A reload gave the target another name, label or set of buckets.
    pub(crate) fn retune(&self, identity: Arc<Identity>, buckets: &Buckets) {
        *lock(&self.identity) = identity;
        lock(&self.rtt).rebucket(buckets);
    }

    /// Takes an event into the numbers. Called by the target's own task only.
    pub(crate) fn apply(&self, event: &Event) {
        match event {
            Event::Connecting => self.set_state(State::Connecting),
            Event::DialFailed(failure) => {
                let count = &self.failures[failure.phase as usize];
                count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
                self.set_phase_times(&failure.times);
                self.with_history_mut(|history| history.last_failure = Some((**failure).clone()));
            }
            Event::Established(up) => {
                self.set_phase_times(&up.times);
                self.connects.add(1);
                self.connection_start.set(unix_nanos(up.at));
                self.set_state(State::Established);
                if let Some(recovered) = up.recovered {
                    self.with_history_mut(|history| {
                        let newest = history.ends.front_mut();
                        if let Some(past) =
                            newest.filter(|p| p.end.outage_id == recovered.outage_id)
                        {
                            past.recovered_after = Some(recovered.after);
                        }
                    });
                }
            }
            Event::PingSent { retry, .. } => {
                self.pings_sent.add(1);
                self.ping_retries.add((*retry).into());
            }
            Event::Pong { rtt, mismatch } => {
                self.pongs_received.add(1);
                self.pong_mismatches.add((*mismatch).into());
                if let Some(rtt) = rtt {
                    self.last_rtt.set(nanos(*rtt).min(u64::MAX - 1));
                    lock(&self.rtt).observe(*rtt);
                }
            }
            Event::Message(message) => {
                self.messages_received.add(1);
                self.received_bytes.add(message.as_bytes().len() as u64);
            }
            Event::MessageSent { bytes } => self.sent_bytes.add(*bytes as u64),
            Event::Ended(end) => {
                self.disconnects.add(1);
                self.last_disconnect.set(unix_nanos(end.at));
                self.set_state(State::Waiting);
                self.with_history_mut(|history| {
                    history.causes[end.cause as usize] += 1;
                    history.ends.truncate(HISTORY - 1);
                    history.ends.push_front(PastEnd {
                        end: (**end).clone(),
                        recovered_after: None,
                    });
                });
            }
            Event::Waiting { .. } => self.set_state(State::Waiting),
            Event::Stopped => self.set_state(State::Stopped),
            Event::PingReceived | Event::Stalled { .. } | Event::Missed { .. } => {}
        }
    }

    fn set_state(&self, state: State) {
        self.book_uptime(state == State::Established);
        if state != State::Established {
            self.connection_start.set(0);
        }
        self.state.store(state as u8, Relaxed);
        self.state_since.set(unix_nanos(SystemTime::now()));
    }

    fn book_uptime(&self, is_up: bool) {
        let mut uptime = lock(&self.uptime);
        let now = nanos(self.epoch.elapsed());
        match (uptime.since, is_up) {
            (None, true) => uptime.since = NonZeroU64::new(now.max(1)),
            (Some(since), false) => {
                uptime.sum += now.saturating_sub(since.get());
                uptime.since = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    fn set_phase_times(&self, times: &[Option<Duration>; Phase::ALL.len()]) {
        for (slot, time) in self.phase_micros.iter().zip(times) {
            let micros = time.map_or(u32::MAX, |t| {
                u32::try_from(t.as_micros()).unwrap_or(u32::MAX - 1)
            });
            slot.store(micros, Relaxed);
        }
    }

    fn with_history_mut(&self, write: impl FnOnce(&mut History)) {
        write(lock(&self.history).get_or_insert_default());
    }
}

/// Numbers of one embedded listener: the server's side of the heartbeat.
#[derive(Debug)]
pub(crate) struct ListenerStats {
    /// The `listener` label.
    pub(crate) name: Box<str>,
    pub(crate) pings_received: AtomicU64,
    pub(crate) pongs_sent: AtomicU64,
    pub(crate) connections: AtomicU64,
}

/// Every number of the process, and the only thing exporters look at.
#[derive(Debug)]
pub(crate) struct Registry {
    targets: Mutex<std::collections::BTreeMap<Arc<str>, Arc<TargetStats>>>,
    listeners: Mutex<Vec<Arc<ListenerStats>>>,
    epoch: Instant,
    pub(crate) accept_errors: AtomicU64,
    pub(crate) task_panics: AtomicU64,
    /// 1 if the last reload succeeded.
    pub(crate) reload_successful: AtomicU8,
    /// Unix seconds of the last configuration that was applied.
    pub(crate) reload_success_time: AtomicU64,
}

impl Registry {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            targets: Mutex::default(),
            listeners: Mutex::default(),
            epoch: Instant::now(),
            accept_errors: AtomicU64::new(0),
            task_panics: AtomicU64::new(0),
            reload_successful: AtomicU8::new(0),
            reload_success_time: AtomicU64::new(0),
        })
    }

    /// Registers a target; its series live as long as the guard.
    pub(crate) fn target(
        self: &Arc<Self>,
        identity: Arc<Identity>,
        buckets: &Buckets,
    ) -> EntryGuard {
        let name = identity.name.clone();
        let stats = Arc::new(TargetStats::new(identity, buckets, self.epoch));
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

    /// All targets, by name.
    pub(crate) fn targets(&self) -> Vec<Arc<TargetStats>> {
        lock(&self.targets).values().cloned().collect()
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

/// A panic elsewhere cannot leave these numbers inconsistent: every update is complete in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn unix_nanos(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, nanos)
}

fn from_unix_nanos(n: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::close::Initiator;
    use crate::proto::event::{Established, Recovered};

    fn identity() -> Arc<Identity> {
        Arc::new(Identity {
            name: "edge".into(),
            url: "ws://example.com/ws".into(),
            protocol: "websocket",
            labels: [].into(),
        })
    }

    fn up() -> Event {
        Event::Established(Box::new(Established {
            at: SystemTime::now(),
            times: Default::default(),
            local: None,
            peer: None,
            subprotocol: None,
            recovered: None,
            attempts: 1,
        }))
    }

    fn end(outage_id: u64) -> End {
        End {
            at: SystemTime::now(),
            outage_id,
            cause: Cause::Fin,
            initiator: Initiator::Peer,
            message: "peer vanished".into(),
            received: None,
            sent: None,
            age: Duration::from_secs(1),
            since_last_frame_in: None,
            since_last_frame_out: None,
            outstanding_pings: 0,
            retries: 0,
            local: None,
            peer: None,
        }
    }

    #[test]
    fn time_up_and_time_down_add_up_and_never_go_back() {
        let epoch = Instant::now();
        let stats = TargetStats::new(identity(), &Buckets::default(), epoch);
        let mut before = (Duration::ZERO, Duration::ZERO);
        for round in 0..1_000 {
            match round % 3 {
                0 => stats.apply(&up()),
                1 => stats.apply(&Event::Ended(Box::new(end(round)))),
                _ => stats.apply(&Event::Connecting),
            }
            let now = stats.availability();
            assert!(now.0 >= before.0 && now.1 >= before.1, "{before:?} {now:?}");
            if round % 3 == 0 {
                let later = stats.availability();
                assert_eq!(later.1, now.1, "no time down while up");
            } else {
                assert_eq!(stats.availability().0, now.0, "no time up while down");
            }
            before = now;
        }
        let elapsed = epoch.elapsed();
        let (up, down) = stats.availability();
        let born = Duration::from_nanos(stats.born);
        assert!(born + up + down >= elapsed && born + up + down <= epoch.elapsed());
    }

    #[test]
    fn a_reader_on_another_thread_never_sees_time_up_go_back() {
        let stats = Arc::new(TargetStats::new(
            identity(),
            &Buckets::default(),
            Instant::now(),
        ));
        let writer = stats.clone();
        let turning = std::thread::spawn(move || {
            for id in 0..20_000 {
                writer.apply(&up());
                writer.apply(&Event::Ended(Box::new(end(id))));
            }
        });
        let mut before = stats.availability();
        while !turning.is_finished() {
            let now = stats.availability();
            assert!(now.0 >= before.0 && now.1 >= before.1, "{before:?} {now:?}");
            before = now;
        }
        turning.join().expect("the writer ran through");
    }

    #[test]
    fn a_recovery_is_written_to_the_end_it_follows_and_only_twenty_ends_are_kept() {
        let stats = TargetStats::new(identity(), &Buckets::default(), Instant::now());
        for id in 1..=25 {
            stats.apply(&up());
            stats.apply(&Event::Ended(Box::new(end(id))));
        }
        let Event::Established(mut back) = up() else {
            unreachable!("up() is Established");
        };
        back.recovered = Some(Recovered {
            outage_id: 25,
            after: Duration::from_secs(3),
        });
        stats.apply(&Event::Established(back));
        stats.with_history(|history| {
            let history = history.expect("something ended");
            assert_eq!(history.ends.len(), HISTORY);
            let ids: Vec<u64> = history.ends.iter().map(|p| p.end.outage_id).collect();
            assert_eq!((ids[0], ids[19]), (25, 6));
            let recovered: Vec<_> = history.ends.iter().map(|p| p.recovered_after).collect();
            assert_eq!(recovered[0], Some(Duration::from_secs(3)));
            assert!(recovered[1..].iter().all(Option::is_none));
            assert_eq!(history.causes[Cause::Fin as usize], 25);
        });
        assert_eq!((stats.connects.get(), stats.disconnects.get()), (26, 25));
    }

    #[test]
    fn a_successor_of_the_same_name_survives_its_predecessors_guard() {
        let registry = Registry::new();
        let first = registry.target(identity(), &Buckets::default());
        let second = registry.target(identity(), &Buckets::default());
        drop(first);
        assert_eq!(registry.target_count(), 1);
        drop(second);
        assert_eq!(registry.target_count(), 0);
    }
}
