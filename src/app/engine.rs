//! The daemon while it runs: signals, reloads and the supervisor's turns, one at a time.
//!
//! A reload, whoever asks for it, goes one way: load, bind, plan, apply. Until the last bind has
//! succeeded nothing that runs is touched.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tracing::{Span, error, error_span, field, info, warn};

use super::listeners::Listeners;
use super::standing::Standing;
use crate::client::gate::DialGate;
use crate::config::load::{Loaded, Sources, load};
use crate::config::watch::Seen;
use crate::config::{DialLimits, Log, Target};
use crate::memory;
use crate::otlp::live::LIVE;
use crate::reload::{Changes, ReloadOutcome, ReloadRequest, ReloadSender, Trigger};
use crate::signal::{Signal, Signals};
use crate::stats::Registry;
use crate::supervisor::{FanOuts, Hold, Supervisor, system_look_up};
use crate::systemd::Manager;

/// What the end takes beside the drain: the last scrape, the log, the process itself.
const BESIDE_DRAIN: Duration = Duration::from_secs(5);

/// Everything that runs, and where its configuration comes from.
pub(super) struct Engine<H: Hold> {
    sources: Arc<Sources>,
    seen: Arc<Seen>,
    requests: mpsc::Receiver<ReloadRequest>,
    /// The reload under way: one at a time.
    loading: Option<Loading>,
    supervisor: Supervisor<H>,
    fan_outs: FanOuts,
    listeners: Listeners,
    gate: Arc<DialGate>,
    registry: Arc<Registry>,
    manager: Manager,
    standing: Standing,
    /// What the process was started with, and what the gate was last told.
    log: Option<Log>,
    dial: Option<DialLimits>,
    /// What was warned of: not again at every reload.
    warned: Vec<String>,
}

struct Loading {
    request: ReloadRequest,
    span: Span,
    task: JoinHandle<Result<Loaded, String>>,
}

impl<H: Hold> Engine<H> {
    pub(super) fn new(
        sources: Sources,
        seen: Arc<Seen>,
        requests: mpsc::Receiver<ReloadRequest>,
        supervisor: Supervisor<H>,
        listeners: Listeners,
        gate: Arc<DialGate>,
        registry: Arc<Registry>,
    ) -> Self {
        Self {
            sources: Arc::new(sources),
            seen,
            requests,
            loading: None,
            supervisor,
            fan_outs: FanOuts::new(system_look_up()),
            listeners,
            gate,
            standing: Standing::new(registry.clone()),
            registry,
            manager: Manager::of_environment(),
            log: None,
            dial: None,
            warned: Vec::new(),
        }
    }

    /// Starts the targets of the first configuration, whose listeners are bound already, and whose
    /// warnings have been said.
    pub(super) fn start_with(&mut self, loaded: Loaded) {
        // A file that was there may not be missing later: its targets would be gone with it.
        if loaded.files.iter().any(|file| file == self.sources.path()) {
            Arc::make_mut(&mut self.sources).required = true;
        }
        self.log = Some(loaded.config.log);
        self.dial = Some(loaded.config.dial);
        self.warned = loaded.warnings;
        let desired = self.fan_outs.set(&loaded.config.targets);
        self.supervisor.apply(&desired);
        self.registry.reloaded(true);
    }

    /// Everything that was to be started is.
    pub(super) fn say_ready(&mut self) {
        self.manager.ready(&self.standing.to_string());
    }

    /// Runs until a signal asks for the end: which.
    pub(super) async fn serve(&mut self, signals: &mut Signals, reload: &ReloadSender) -> Signal {
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Interrupt | Signal::Terminate => return signal,
                    Signal::Hangup => {
                        let request = ReloadRequest { trigger: Trigger::Signal, reply: None };
                        // A full queue is a reload that is still to come: it will see the files.
                        let _ = reload.try_send(request);
                    }
                },
                () = self.turn() => {}
            }
        }
    }

    /// Waits for the next thing to do and does it. Cancel safe.
    async fn turn(&mut self) {
        let idle = self.loading.is_none();
        let loaded = async {
            match &mut self.loading {
                Some(loading) => (&mut loading.task).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            loaded = loaded => self.loaded(loaded),
            () = self.supervisor.turn() => {}
            // What thousands took while they waited to dial is free now, and would stay ours.
            () = self.gate.crowd_dispersed() => drop(tokio::task::spawn_blocking(memory::give_back)),
            desired = self.fan_outs.turn() => self.hold(&desired),
            () = self.manager.due() => self.manager.status(&self.standing.to_string()),
            Some(request) = self.requests.recv(), if idle => self.begin(request),
        }
    }

    /// Closes every connection, then the listeners. Returns how many connections were closed.
    pub(super) async fn drain(&mut self) -> usize {
        // Who waits for a reload learns from the dropped reply that there is none.
        self.requests.close();
        while self.requests.try_recv().is_ok() {}
        self.loading = None;
        self.fan_outs.stop();
        self.standing.stopping();
        self.listeners.begin_drain();
        let Self {
            supervisor,
            listeners,
            manager,
            standing,
            ..
        } = self;
        let longest = supervisor.longest_drain().max(listeners.longest_drain());
        manager.stopping(longest + BESIDE_DRAIN, &standing.to_string());
        let draining = async {
            let (drained, ()) = tokio::join!(supervisor.drain(), listeners.drain_peer());
            listeners.shutdown().await;
            drained.ended
        };
        let mut draining = pin!(draining);
        loop {
            tokio::select! {
                ended = &mut draining => return ended,
                () = manager.due() => manager.status(&standing.to_string()),
            }
        }
    }

    /// The addresses of a target that fans out have changed.
    fn hold(&mut self, desired: &[Arc<Target>]) {
        let changes = self.supervisor.apply(desired);
        if !changes.added.is_empty() {
            super::warn_of_descriptors(desired.len());
        }
    }

    /// Loads on another thread: a large file takes longer than a ping may wait.
    fn begin(&mut self, request: ReloadRequest) {
        self.manager.reloading();
        let (seen, sources) = (self.seen.clone(), self.sources.clone());
        let span = reload_span(request.trigger);
        let load = error_span!(target: LIVE, parent: &span, "load");
        let task = tokio::task::spawn_blocking(move || {
            let _load = load.entered();
            // What is loaded now needs no second reload by the watch.
            seen.look();
            load_again(&sources)
        });
        self.loading = Some(Loading {
            request,
            span,
            task,
        });
    }

    fn loaded(&mut self, loaded: Result<Result<Loaded, String>, JoinError>) {
        let Some(Loading { request, span, .. }) = self.loading.take() else {
            return;
        };
        let span = span.entered();
        let by = request.trigger.as_str();
        let outcome = self.decide(loaded);
        self.registry.reloaded(outcome.is_ok());
        tell_span(&span, &outcome);
        match &outcome {
            Ok(changes) => info!(
                event = "reloaded",
                trigger = by,
                kept = changes.kept,
                retuned = changes.retuned.len(),
                replaced = changes.replaced.len(),
                added = changes.added.len(),
                removed = changes.removed.len(),
                "reloaded by {by}: {changes}",
            ),
            Err(mistakes) => {
                for mistake in mistakes.lines() {
                    error!(event = "mistake", trigger = by, "{mistake}");
                }
                error!(
                    event = "reload_refused",
                    trigger = by,
                    "reload by {by} refused; what ran before runs on",
                );
            }
        }
        let mistakes = outcome
            .as_ref()
            .err()
            .map(|mistakes| mistakes.lines().count());
        self.standing.reloaded(mistakes);
        // Before the answer: when `systemctl reload` returns, the status is the new one.
        self.manager.ready(&self.standing.to_string());
        drop(span);
        if let Some(reply) = request.reply {
            // Who asked may have gone.
            let _ = reply.send(outcome);
        }
    }

    fn decide(&mut self, loaded: Result<Result<Loaded, String>, JoinError>) -> ReloadOutcome {
        let Loaded {
            config, warnings, ..
        } = match loaded {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(mistakes)) => return Err(mistakes),
            Err(error) => return Err(format!("loading failed: {error}")),
        };
        let bind = error_span!(target: LIVE, "bind");
        let change = bind.in_scope(|| self.listeners.prepare(&config))?;
        drop(bind);
        let _apply = error_span!(target: LIVE, "apply").entered();
        for warning in new_warnings(&self.warned, &warnings) {
            warn!(event = "config_warning", "{warning}");
        }
        self.warned = warnings;
        let listeners = self.listeners.commit(change)?;
        if !listeners.is_empty() {
            self.listeners.warn_of_unserved();
        }
        let desired = self.fan_outs.set(&config.targets);
        let changes = self.supervisor.apply(&desired);
        if self.dial != Some(config.dial) {
            self.gate.set_limits(config.dial);
            self.dial = Some(config.dial);
        }
        let mut pending = Vec::new();
        if self.log.is_some_and(|log| log != config.log) {
            pending.push("log: changes at the next restart".to_owned());
        }
        super::warn_of_descriptors(desired.len());
        Ok(Changes {
            listeners,
            pending,
            ..changes
        })
    }
}

/// What lasts as long as a reload. Its level is that which no `log.level` leaves out.
fn reload_span(trigger: Trigger) -> Span {
    error_span!(
        target: LIVE,
        "reload",
        "ws_keepalive.trigger" = trigger.as_str(),
        "ws_keepalive.kept" = field::Empty,
        "ws_keepalive.retuned" = field::Empty,
        "ws_keepalive.replaced" = field::Empty,
        "ws_keepalive.added" = field::Empty,
        "ws_keepalive.removed" = field::Empty,
        "ws_keepalive.mistakes" = field::Empty,
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
    )
}

fn tell_span(span: &Span, outcome: &ReloadOutcome) {
    match outcome {
        Ok(changes) => {
            span.record("ws_keepalive.kept", changes.kept);
            span.record("ws_keepalive.retuned", changes.retuned.len());
            span.record("ws_keepalive.replaced", changes.replaced.len());
            span.record("ws_keepalive.added", changes.added.len());
            span.record("ws_keepalive.removed", changes.removed.len());
        }
        Err(mistakes) => {
            span.record("ws_keepalive.mistakes", mistakes.lines().count());
            span.record("otel.status_code", "ERROR");
            span.record("otel.status_description", &**mistakes);
        }
    }
}

/// Those of `now` that were not said `before`.
fn new_warnings<'a>(before: &[String], now: &'a [String]) -> impl Iterator<Item = &'a String> {
    now.iter().filter(|warning| !before.contains(warning))
}

/// A pipe can be read once: read again it would be an empty configuration.
fn load_again(sources: &Sources) -> Result<Loaded, String> {
    let path = sources.path();
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let path = path.display();
        return Err(format!("{path}: cannot be read again: not a regular file"));
    }
    let loaded = load(sources).map_err(|report| report.to_string());
    memory::give_back();
    loaded
}

#[cfg(test)]
mod tests;
