//! The composition root of `run`: configuration -> logs -> listeners -> supervisor -> shutdown.

mod engine;
mod listeners;
mod standing;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::client::gate::DialGate;
use crate::client::hold::{Desired, FirstPing, Observer, hold};
use crate::config::Target;
use crate::config::load::{Loaded, Report, Sources, load};
use crate::config::watch::{Seen, Watch};
use crate::memory;
use crate::os;
use crate::otlp::lines::within;
use crate::otlp::live;
use crate::otlp::spans::{Spans, Traces};
use crate::proto::close::{Asked, Cause, Initiator};
use crate::proto::event::{End, Event, Passed};
use crate::server::admin::{Admin, Readiness};
use crate::signal::{Signal, Signals};
use crate::stats::{Registry, State, TargetStats};
use crate::supervisor::{Control, Hold, Reporter, Supervisor};
use crate::systemd::take_passed;
use crate::telemetry::{logs, observe::observe};

use engine::Engine;
use listeners::{Listeners, metrics_in_words};

/// Reloads that may wait for their turn; more wait to be asked for.
const RELOAD_QUEUE: usize = 16;

/// Descriptors needed beside those of the targets: listeners, scrapes, files, the runtime.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Why the daemon did not end as it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Said before anything was opened.
    Config(Report),
    /// A listener that cannot bind, or the like; it has been logged.
    Start,
    /// A second signal cut the drain short.
    Forced(Signal),
}

/// Runs the daemon until a signal asks it to stop.
pub(crate) fn run(sources: Sources) -> Result<(), Failure> {
    memory::keep_no_large_pieces();
    let seen = Seen::new(&sources);
    let loaded = load(&sources).map_err(Failure::Config)?;
    memory::give_back();
    let log = loaded.config.log;
    let traces = Arc::new(Traces::default());
    let spans = live::layer(traces.clone());
    let guard = logs::init_with(log.level, log.format, Some(spans));
    let started = start_runtime();
    let outcome = match started {
        Ok(runtime) => {
            let outcome = runtime.block_on(daemon(sources, seen, loaded, traces));
            // A lookup that hangs in the resolver must not hold the exit.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(cannot_start(&error)),
    };
    drop(guard);
    outcome
}

fn start_runtime() -> io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build()
}

fn cannot_start(why: &impl std::fmt::Display) -> Failure {
    error!("cannot start: {}", os::words(why));
    Failure::Start
}

async fn daemon(
    sources: Sources,
    seen: Arc<Seen>,
    loaded: Loaded,
    traces: Arc<Traces>,
) -> Result<(), Failure> {
    // First, so that a signal during the start is a request to stop and not a sudden end.
    let mut signals = Signals::to_stop_or_reload().map_err(|error| cannot_start(&error))?;
    let registry = Registry::new();
    let readiness = Readiness::new();
    let (reload, requests) = mpsc::channel(RELOAD_QUEUE);
    let passed = take_passed().map_err(|error| cannot_start(&error))?;
    let mut listeners = Listeners::new(
        registry.clone(),
        readiness.clone(),
        reload.clone(),
        passed,
        traces.clone(),
    );
    let change = listeners.prepare(&loaded.config);
    let committed = change.and_then(|change| listeners.commit(change));
    committed.map_err(|error| cannot_start(&error))?;

    say_what_starts(&loaded, &listeners);
    listeners.warn_of_unserved();
    warn_of_descriptors(loaded.config.targets.len());

    let gate = DialGate::new(loaded.config.dial);
    let holder = Holder {
        gate: gate.clone(),
        traces,
    };
    let supervisor = Supervisor::new(holder, registry.clone());
    let mut engine = Engine::new(
        sources,
        seen.clone(),
        requests,
        supervisor,
        listeners,
        gate,
        registry,
    );
    engine.start_with(loaded);
    readiness.set_ready(true);
    engine.say_ready();
    let watch = Watch::start(seen, reload.clone());
    if let Err(error) = &watch {
        let error = os::words(error);
        warn!(
            error,
            "cannot watch the configuration; SIGHUP and `ws-keepalive reload` work"
        );
    }

    let signal = engine.serve(&mut signals, &reload).await;
    info!(
        event = "stopping",
        signal = signal.as_str(),
        "{} received: closing every connection",
        signal.as_str()
    );
    readiness.set_ready(false);
    drop(watch);
    tokio::select! {
        ended = engine.drain() => {
            info!(event = "stopped", targets = ended, "stopped");
            Ok(())
        }
        signal = signal_to_stop(&mut signals) => {
            warn!(event = "forced", signal = signal.as_str(), "{} again: ending at once", signal.as_str());
            Err(Failure::Forced(signal))
        }
    }
}

async fn signal_to_stop(signals: &mut Signals) -> Signal {
    loop {
        match signals.next().await {
            Signal::Hangup => {}
            signal @ (Signal::Interrupt | Signal::Terminate) => return signal,
        }
    }
}

fn say_what_starts(loaded: &Loaded, listeners: &Listeners) {
    say_version();
    for file in &loaded.files {
        let file = file.display();
        info!(event = "config", %file, "configuration read from {file}");
    }
    for warning in &loaded.warnings {
        warn!(event = "config_warning", "{warning}");
    }
    for listener in listeners.in_words() {
        info!(event = "listening", "{listener}");
    }
    if let Some(pushed) = listeners.pushed_in_words() {
        info!(event = "pushing", "{pushed}");
    }
    let targets = loaded.config.targets.len();
    let plural = if targets == 1 { "" } else { "s" };
    info!(
        event = "targets",
        targets, "{targets} target{plural} to hold"
    );
}

/// The first line of every command that stays.
pub(crate) fn say_version() {
    let version = env!("CARGO_PKG_VERSION");
    info!(event = "starting", version, "ws-keepalive {version} starts");
}

/// Where the metrics are served, with the port that was assigned.
pub(crate) fn say_metrics(metrics: &Admin) {
    for listener in metrics_in_words(metrics) {
        info!(event = "listening", "{listener}");
    }
}

/// Raises the soft limit of open files to the hard one, as each connection takes one and the usual
/// soft limit is 1,024. Returns the limit as it is then, `None` where it cannot be read.
pub(crate) fn raise_descriptor_limit() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let raised = soft == hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    Some(if raised { hard } else { soft })
}

/// Makes room for `targets` connections, and says if there is too little.
fn warn_of_descriptors(targets: usize) {
    let need = u64::try_from(targets).unwrap_or(u64::MAX);
    let need = need.saturating_add(DESCRIPTORS_BESIDE);
    // Where there is no limit to be read, a dial that fails says so itself.
    let Some(limit) = raise_descriptor_limit() else {
        return;
    };
    if limit < need {
        warn!(
            event = "descriptors",
            need,
            limit,
            "{targets} targets need {need} file descriptors and {limit} are allowed: raise \
             LimitNOFILE= of the unit, or ulimit -n",
        );
    }
}

/// Runs each target as a reconnecting client.
#[derive(Clone)]
struct Holder {
    gate: Arc<DialGate>,
    traces: Arc<Traces>,
}

impl Hold for Holder {
    type Control = Arc<Desired>;

    fn control(&self, target: &Arc<Target>) -> Arc<Desired> {
        Desired::new(target.clone())
    }

    fn hold(
        self,
        control: Arc<Desired>,
        stats: Arc<TargetStats>,
        reporter: Reporter,
    ) -> impl Future<Output = ()> + Send + 'static {
        let told = Told {
            spans: Spans::new(self.traces),
            stats,
            _reporter: reporter,
        };
        hold(control, self.gate, FirstPing::Spread, told)
    }

    fn lost(stats: &TargetStats, message: &str) {
        if stats.state() != State::Established {
            return;
        }
        let at = SystemTime::now();
        let age = stats
            .connection_start()
            .and_then(|up| at.duration_since(up).ok());
        // Neither the peer's doing nor the path's: of the closed set, the machine's own fault.
        observe(
            stats,
            &Event::Ended(Box::new(End {
                at,
                outage_id: rand::random(),
                cause: Cause::LocalNetwork,
                initiator: Initiator::Us,
                message: format!("this program's own fault: its task panicked ({message})").into(),
                received: None,
                sent: None,
                age: age.unwrap_or(Duration::ZERO),
                since_last_frame_in: None,
                since_last_frame_out: None,
                outstanding_pings: 0,
                retries: 0,
                local: None,
                peer: None,
                facts: None,
                tcp_info: None,
            })),
        );
    }
}

impl Control for Arc<Desired> {
    fn set(&self, target: Arc<Target>) {
        Desired::set(self, target);
    }

    fn stop(&self, asked: Asked) {
        Desired::stop(self, asked);
    }
}

/// Tells what happens to a target to its numbers, the log and its spans. It ends with its task.
struct Told {
    spans: Spans,
    stats: Arc<TargetStats>,
    _reporter: Reporter,
}

impl Observer for Told {
    fn observe(&mut self, event: Event) {
        let span = self.spans.event(&self.stats, &event);
        within(span, || observe(&self.stats, &event));
    }

    fn dialing(&mut self, target: &Target) -> Option<Box<Passed>> {
        self.spans.dialing(target)
    }

    fn passed(&mut self, passed: Box<Passed>) {
        self.spans.passed(passed);
    }
}
