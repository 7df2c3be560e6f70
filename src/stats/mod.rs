//! Per-target numbers. Each has one writer, the target's own task; exporters only read.
//!
//! A target's series live exactly as long as its [`EntryGuard`]: when the supervisor drops the
//! guard, the next scrape no longer has them.

mod arrival_gap;
mod histogram;
mod history;
mod registry;

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrival_gap::ArrivalGap;
pub(crate) use histogram::{Buckets, Histogram, HistogramSnapshot};
pub(crate) use history::{History, PastEnd};
pub(crate) use registry::{EntryGuard, ListenerGuard, ListenerStats, PushStats, Registry};

use crate::proto::event::{Event, Facts, Phase};

/// Whom the numbers are about: what exporters show of a target. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// Unique. The `target` label, or of a target that fans out `NAME[INDEX]`.
    pub(crate) name: Arc<str>,
    /// The URL without userinfo and query.
    pub(crate) url: Box<str>,
    pub(crate) protocol: Protocol,
    /// Whether the peer begins the heartbeats, so that the gaps between arrivals tell of the path.
    pub(crate) server_beats: bool,
    /// Whether a want of application messages is watched for.
    pub(crate) watches_staleness: bool,
    /// The target's own labels, sorted by name.
    pub(crate) labels: Arc<[(Box<str>, Box<str>)]>,
    /// Of which target's addresses it is one.
    pub(crate) fan_out: Option<Box<FanOut>>,
}

/// One address among those of a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FanOut {
    /// The target's name: the `target` label.
    pub(crate) target: Arc<str>,
    /// The `address_index` label.
    pub(crate) index: u32,
    /// The address; none as long as the name has none.
    pub(crate) address: Option<IpAddr>,
}

impl Identity {
    /// The `target` label: the same for all addresses of a target.
    pub(crate) fn target(&self) -> &Arc<str> {
        self.fan_out.as_ref().map_or(&self.name, |one| &one.target)
    }

    /// Which address it is, of a target that fans out.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.fan_out.as_ref().and_then(|one| one.address)
    }

    /// The `address_index` label.
    pub(crate) fn address_index(&self) -> Option<u32> {
        self.fan_out.as_ref().map(|one| one.index)
    }
}

/// What is spoken with a target: the values of the `protocol` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// With RFC 6455's pings, no heartbeat, or one of the user's own making.
    WebSocket,
    Sse,
    ActionCable,
    EngineIo,
    GraphqlTransportWs,
    Phoenix,
    Stomp,
    Mqtt,
    SignalR,
    JsonRpc,
}

impl Protocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::ActionCable => "actioncable",
            Self::EngineIo => "engineio",
            Self::GraphqlTransportWs => "graphql-transport-ws",
            Self::Phoenix => "phoenix",
            Self::Stomp => "stomp",
            Self::Mqtt => "mqtt",
            Self::SignalR => "signalr",
            Self::JsonRpc => "json-rpc",
        }
    }
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
    /// Whether the present connection is stale: up, but without application messages.
    stale: AtomicBool,
    /// Whether `rare` has `beats`, so that whoever reads all targets needs no lock to know.
    has_beats: AtomicBool,
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
    rare: Mutex<Option<Box<Rare>>>,
    fleet: Arc<Fleet>,
}

/// What the targets of a registry have in common.
#[derive(Debug)]
struct Fleet {
    /// The instant time is counted from.
    epoch: Instant,
    /// Targets whose connection stands, counted as they come and go: whoever wants to know it every
    /// second does not walk them all.
    established: AtomicUsize,
}

impl Fleet {
    fn new(epoch: Instant) -> Arc<Self> {
        let established = AtomicUsize::new(0);
        Arc::new(Self { epoch, established })
    }
}

/// How long a connection was up in sum, in nanoseconds of the registry's monotonic clock.
#[derive(Debug, Default)]
struct Uptime {
    /// Of the connections that ended.
    sum: u64,
    /// When the present connection came up.
    since: Option<NonZeroU64>,
    /// The target was removed; its connection, which is being closed, counts no longer.
    retired: bool,
}

/// What a plain connection that never failed does not have, and takes no memory for.
#[derive(Debug, Default)]
struct Rare {
    /// When the certificate that was last presented ends. One that ended before 1970 has ended as
    /// well at its beginning.
    certificate_not_after: Option<SystemTime>,
    /// Of the present connection, or of the last when it was made.
    facts: Option<Arc<Facts>>,
    history: Option<Box<History>>,
    beats: Option<Box<Beats>>,
}

/// What only a target has whose peer begins heartbeats, or streams events.
#[derive(Debug, Default)]
struct Beats {
    received: u64,
    /// Of one whose peer begins the heartbeats.
    gaps: Option<ArrivalGap>,
    /// Of the present connection, from its establishment.
    first_event: Option<Duration>,
}

impl TargetStats {
    /// Fresh numbers for `identity`, in no registry; `epoch` is the instant time is counted from.
    #[cfg(test)]
    pub(crate) fn new(identity: Arc<Identity>, buckets: &Buckets, epoch: Instant) -> Self {
        Self::in_fleet(identity, buckets, Fleet::new(epoch))
    }

    fn in_fleet(identity: Arc<Identity>, buckets: &Buckets, fleet: Arc<Fleet>) -> Self {
        let stats = Self {
            identity: Mutex::new(identity),
            state: AtomicU8::new(State::Connecting as u8),
            stale: AtomicBool::new(false),
            has_beats: AtomicBool::new(false),
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
            born: nanos(fleet.epoch.elapsed()),
            uptime: Mutex::default(),
            connection_start: Number::default(),
            last_disconnect: Number::default(),
            last_rtt: Number(AtomicU64::new(u64::MAX)),
            failures: Default::default(),
            phase_micros: std::array::from_fn(|_| AtomicU32::new(u32::MAX)),
            rtt: Mutex::new(Histogram::new(buckets)),
            rare: Mutex::new(None),
            fleet,
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

    /// When the target was registered: what its counters count from.
    pub(crate) fn born(&self) -> Instant {
        self.fleet.epoch + Duration::from_nanos(self.born)
    }

    /// Time up and time down until now. Neither ever goes back.
    pub(crate) fn availability(&self) -> (Duration, Duration) {
        let uptime = lock(&self.uptime);
        let now = nanos(self.fleet.epoch.elapsed());
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
        let rare = lock(&self.rare);
        read(rare.as_ref().and_then(|rare| rare.history.as_deref()))
    }

    /// When the certificate that was last presented ends, whether or not it was accepted.
    pub(crate) fn certificate_not_after(&self) -> Option<SystemTime> {
        lock(&self.rare).as_ref()?.certificate_not_after
    }

    /// What was learned of the present connection, or of the last when it was made.
    pub(crate) fn facts(&self) -> Option<Arc<Facts>> {
        lock(&self.rare).as_ref()?.facts.clone()
    }

    /// Whether the connection is up, but without application messages for too long.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.load(Relaxed)
    }

    /// Heartbeats that the peer began.
    pub(crate) fn heartbeats_received(&self) -> u64 {
        self.with_beats(|beats| beats.received).unwrap_or(0)
    }

    /// The largest gap between arrivals over the last 5 minutes, the running one included; of a
    /// target whose peer begins the heartbeats.
    pub(crate) fn arrival_gap(&self) -> Option<Duration> {
        let now = self.fleet.epoch.elapsed();
        self.with_beats(|beats| beats.gaps.as_mut()?.largest(now))?
    }

    /// How long after it came up the present event stream brought its first event.
    pub(crate) fn first_event_delay(&self) -> Option<Duration> {
        self.with_beats(|beats| beats.first_event)?
    }

    /// Reads what has to do with the peer's heartbeats; takes no lock where there is none.
    fn with_beats<T>(&self, read: impl FnOnce(&mut Beats) -> T) -> Option<T> {
        if !self.has_beats.load(Relaxed) {
            return None;
        }
        let mut rare = lock(&self.rare);
        rare.as_mut()?.beats.as_deref_mut().map(read)
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
                // A dial that got no certificate to see leaves the last one standing.
                if let Some(at) = failure.certificate_not_after {
                    let mut rare = lock(&self.rare);
                    rare.get_or_insert_default().certificate_not_after = Some(at.max(UNIX_EPOCH));
                }
                self.with_history_mut(|history| history.last_failure = Some((**failure).clone()));
            }
            Event::Established(up) => {
                self.set_phase_times(&up.times);
                self.connects.add(1);
                self.connection_start.set(unix_nanos(up.at));
                self.set_state(State::Established);
                // A connection without a certificate leaves none of an earlier one to watch.
                let tls = up.facts.as_ref().and_then(|facts| facts.tls);
                let not_after = tls.and_then(|tls| tls.not_after);
                let not_after = not_after.map(|at| at.max(UNIX_EPOCH));
                let mut rare = lock(&self.rare);
                if rare.is_some() || up.facts.is_some() {
                    let rare = rare.get_or_insert_default();
                    rare.certificate_not_after = not_after;
                    rare.facts.clone_from(&up.facts);
                }
                drop(rare);
                self.begin_beats();
                if let Some(recovered) = up.recovered {
                    self.with_history_mut(|history| history.recovered(recovered));
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
                let now = self.fleet.epoch.elapsed();
                self.with_beats(|beats| beats.ended(now));
                self.with_history_mut(|history| history.ended(end));
            }
            Event::Waiting { .. } => self.set_state(State::Waiting),
            Event::Stopped => self.set_state(State::Stopped),
            Event::HeartbeatReceived => self.with_beats_mut(|beats| beats.received += 1),
            Event::Arrived { gap } => {
                let now = self.fleet.epoch.elapsed();
                let arrived = |gaps: &mut ArrivalGap| gaps.arrived(*gap, now);
                self.with_beats_mut(|beats| arrived(beats.gaps.get_or_insert_default()));
            }
            Event::FirstEvent { delay } => {
                self.with_beats_mut(|beats| beats.first_event = Some(*delay));
            }
            Event::Stale { .. } => self.stale.store(true, Relaxed),
            Event::Fresh { .. } => self.stale.store(false, Relaxed),
            Event::Stalled { .. } => {
                let now = self.fleet.epoch.elapsed();
                self.with_beats(|beats| beats.gaps.as_mut().map(|gaps| gaps.stalled(now)));
            }
            Event::PingReceived | Event::Missed { .. } => {}
        }
    }

    /// A connection came up: what is counted from then.
    fn begin_beats(&self) {
        let now = self.fleet.epoch.elapsed();
        if self.identity().server_beats {
            // Before the first arrival: a path that lets nothing through shows by that.
            self.with_beats_mut(|beats| {
                beats.first_event = None;
                beats.gaps.get_or_insert_default().up(now);
            });
        } else {
            // The target may have been another one before a reload.
            self.with_beats(|beats| (beats.first_event, beats.gaps) = (None, None));
        }
    }

    fn set_state(&self, state: State) {
        self.book_uptime(state == State::Established);
        if state != State::Established {
            self.connection_start.set(0);
        }
        // Staleness is a state of an established connection, and none begins with it.
        self.stale.store(false, Relaxed);
        self.state.store(state as u8, Relaxed);
        self.state_since.set(unix_nanos(SystemTime::now()));
    }

    fn book_uptime(&self, is_up: bool) {
        let mut uptime = lock(&self.uptime);
        let now = nanos(self.fleet.epoch.elapsed());
        match (uptime.since, is_up) {
            (None, true) => {
                uptime.since = NonZeroU64::new(now.max(1));
                if !uptime.retired {
                    self.fleet.established.fetch_add(1, Relaxed);
                }
            }
            (Some(since), false) => {
                uptime.sum += now.saturating_sub(since.get());
                uptime.since = None;
                if !uptime.retired {
                    self.fleet.established.fetch_sub(1, Relaxed);
                }
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// Its target is one no longer.
    fn retire(&self) {
        let mut uptime = lock(&self.uptime);
        if !std::mem::replace(&mut uptime.retired, true) && uptime.since.is_some() {
            self.fleet.established.fetch_sub(1, Relaxed);
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

    fn with_beats_mut(&self, write: impl FnOnce(&mut Beats)) {
        let mut rare = lock(&self.rare);
        write(rare.get_or_insert_default().beats.get_or_insert_default());
        self.has_beats.store(true, Relaxed);
    }

    fn with_history_mut(&self, write: impl FnOnce(&mut History)) {
        let mut rare = lock(&self.rare);
        write(rare.get_or_insert_default().history.get_or_insert_default());
    }
}

impl Beats {
    /// The connection is gone, and its first event with it.
    fn ended(&mut self, now: Duration) {
        self.first_event = None;
        if let Some(gaps) = &mut self.gaps {
            gaps.down(now);
        }
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
mod tests;
