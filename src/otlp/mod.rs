//! Metrics, spans and log lines pushed to a collector.
//!
//! Whoever has something to tell puts it, encoded, into a bounded queue and goes on. All that can
//! take time - names, TLS, a collector that hangs - happens on a thread of this module's own, with
//! a loop for each signal, so that none waits for another, and no ping for any.

mod client;
pub(crate) mod lines;
pub(crate) mod live;
mod metrics;
mod queue;
pub(crate) mod spans;
#[cfg(test)]
#[path = "../../tests/support/collector.rs"]
mod testing;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use client::{Client, ExportError, Taken};
use lines::Lines;
use metrics::{Anchor, Exported};
use queue::Queue;
use spans::Traces;
use wire::{Envelope, attribute};

use crate::config::Otlp;
use crate::config::otlp::{Collector, Signal};
use crate::os;
use crate::stats::{Registry, TargetStats};
use crate::telemetry::logs;

/// How long the last export may take: an exit does not wait for a collector that hangs.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// Of thread and runtime, beyond it.
const MARGIN: Duration = Duration::from_millis(500);

/// What is wrong is said once in this time.
const SILENCE: Duration = Duration::from_secs(60);

/// The first and the longest wait before something is sent again.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What lives as long as the process, whatever the configuration says of exporting.
#[derive(Debug)]
struct Shared {
    registry: Arc<Registry>,
    traces: Arc<Traces>,
    lines: Arc<Queue>,
    anchor: Anchor,
    exported: Mutex<Exported>,
    trouble: Mutex<Trouble>,
}

/// What was said of exports that fail.
#[derive(Debug, Default)]
struct Trouble {
    failing: [bool; Signal::ALL.len()],
    warned: Option<Instant>,
    /// Whether what is failing was told: then its end is, too.
    told: bool,
}

/// A panic elsewhere leaves nothing half done here: every change is complete in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Exports what the configuration wants, and nothing as long as it wants nothing.
#[derive(Debug)]
pub(crate) struct Exporter {
    shared: Arc<Shared>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    config: Arc<Otlp>,
    end: CancellationToken,
    /// Who is exported a last time; `None` if there is to be no last time.
    last: Arc<Mutex<Option<Vec<Arc<TargetStats>>>>>,
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl Exporter {
    /// `traces` is where spans go, now and after every reload.
    pub(crate) fn new(registry: Arc<Registry>, traces: Arc<Traces>) -> Self {
        let shared = Shared {
            registry,
            traces,
            lines: Arc::default(),
            anchor: Anchor::now(),
            exported: Mutex::default(),
            trouble: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            running: None,
        }
    }

    #[cfg(test)]
    fn traces(&self) -> &Arc<Traces> {
        &self.shared.traces
    }

    /// From now on this is exported. Says what changed, if anything did. What waits in the queues
    /// goes on waiting.
    pub(crate) fn apply(&mut self, config: Option<&Arc<Otlp>>) -> Result<Option<String>, String> {
        let same = |running: &Running| Some(&running.config) == config;
        if self.running.as_ref().is_some_and(same) {
            return Ok(None);
        }
        let before = self.running.take().map(|running| {
            running.end.cancel();
            running.thread
        });
        let was_on = before.is_some();
        self.shared.switch(config.map(|config| &**config));
        let Some(config) = config else {
            return Ok(was_on.then(|| "nothing is pushed by OTLP any more".to_owned()));
        };
        if config.logs.is_some() {
            logs::tell(Arc::new(Lines(self.shared.lines.clone())));
        }
        let (end, last) = (CancellationToken::new(), Arc::default());
        let (ending, ended) = oneshot::channel();
        let work = Work {
            shared: self.shared.clone(),
            config: config.clone(),
            envelope: Envelope::new(resource(config)),
            end: end.clone(),
            last: Arc::clone(&last),
        };
        let spawned = std::thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || {
                // The one before takes from the same queues.
                if let Some(before) = before {
                    drop(before.join());
                }
                work.run();
                // Who waits for the end may have gone.
                let _ = ending.send(());
            });
        let thread = spawned.map_err(|error| {
            self.shared.switch(None);
            format!("cannot start exporting by OTLP: {}", os::words(&error))
        })?;
        self.running = Some(Running {
            config: config.clone(),
            end,
            last,
            thread,
            ended,
        });
        Ok(self.in_words())
    }

    /// What is pushed where, in one phrase.
    pub(crate) fn in_words(&self) -> Option<String> {
        let config = &self.running.as_ref()?.config;
        let to = |signal: Signal| {
            let collector = config.collector(signal)?;
            let place = &collector.place;
            Some(format!("{} to {place}", signal.as_str()))
        };
        let all: Vec<String> = Signal::ALL.into_iter().filter_map(to).collect();
        Some(format!("pushed by OTLP: {}", all.join(", ")))
    }

    /// The end begins: who is there now is exported once more at the very end.
    pub(crate) fn keep_for_the_last(&self) {
        if let Some(running) = &self.running {
            *lock(&running.last) = Some(self.shared.registry.targets());
        }
    }

    /// How long [`Exporter::shutdown`] may take.
    pub(crate) fn longest_end(&self) -> Duration {
        match self.running {
            Some(_) => LAST_EXPORT + MARGIN,
            None => Duration::ZERO,
        }
    }

    /// Exports a last time, and ends within a little more than 2 s.
    pub(crate) async fn shutdown(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        lock(&running.last).get_or_insert_default();
        running.end.cancel();
        if timeout(LAST_EXPORT + MARGIN, running.ended).await.is_err() {
            warn!("the last export by OTLP did not end in time");
        }
        self.shared.switch(None);
    }
}

impl Shared {
    fn switch(&self, config: Option<&Otlp>) {
        let wants = |signal| config.is_some_and(|config| config.collector(signal).is_some());
        if let Some(config) = config {
            self.traces.sample(config.sampled);
        }
        self.traces.queue.switch(wants(Signal::Traces));
        self.lines.switch(wants(Signal::Logs));
        let on = Signal::ALL.map(wants);
        for signal in Signal::ALL {
            let push = &self.registry.pushes[signal.index()];
            push.is_on.store(on[signal.index()], Relaxed);
        }
        lock(&self.trouble).only(on);
    }

    fn queue(&self, signal: Signal) -> Option<&Queue> {
        match signal {
            Signal::Metrics => None,
            Signal::Traces => Some(&self.traces.queue),
            Signal::Logs => Some(&self.lines),
        }
    }

    /// Books an export, the last of all if `is_last`, and says what there is to say of it.
    fn book(
        &self,
        signal: Signal,
        collector: &Collector,
        outcome: &Result<Taken, ExportError>,
        is_last: bool,
    ) {
        let push = &self.registry.pushes[signal.index()];
        let signal_words = signal.as_str();
        let place = &collector.place;
        match outcome {
            Ok(taken) => {
                if let Some((count, words)) = taken
                    && lock(&self.trouble).may_warn()
                {
                    warn!(
                        event = "otlp_refused",
                        signal = signal_words,
                        endpoint = %place,
                        refused = count,
                        "{place} refused {count} of the {signal_words} it was sent: {words}"
                    );
                }
                if lock(&self.trouble).works(signal) {
                    info!(
                        event = "otlp_back",
                        signal = signal_words,
                        endpoint = %place,
                        "{signal_words} are pushed to {place} again"
                    );
                }
            }
            Err(error) => {
                push.failures.fetch_add(1, Relaxed);
                let says = {
                    let mut trouble = lock(&self.trouble);
                    // One under way may end after a reload turned its signal off.
                    push.is_on.load(Relaxed) && trouble.fails(signal)
                };
                if says {
                    let message = &error.message;
                    let kept = kept(signal, error.may_retry, is_last);
                    warn!(
                        event = "otlp_failed",
                        signal = signal_words,
                        endpoint = %place,
                        "cannot push {signal_words} to {place}: {message}; {kept}; is the \
                         collector up, and otlp.endpoint right?"
                    );
                }
            }
        }
    }
}

/// What becomes of what a failed export carried.
fn kept(signal: Signal, may_retry: bool, is_last: bool) -> &'static str {
    match (signal, may_retry) {
        (Signal::Traces | Signal::Logs, false) => "these are lost",
        _ if is_last => "these are lost: the program ends",
        (Signal::Metrics, true) => "the next export has them all",
        (Signal::Metrics, false) => "what it refused is sent again at the next interval",
        (Signal::Traces | Signal::Logs, true) => "up to 1 MiB of them wait",
    }
}

impl Trouble {
    fn may_warn(&mut self) -> bool {
        let silent = self.warned.is_some_and(|at| at.elapsed() < SILENCE);
        if !silent {
            self.warned = Some(Instant::now());
        }
        !silent
    }

    /// Whether to say so.
    fn fails(&mut self, signal: Signal) -> bool {
        self.failing[signal.index()] = true;
        let says = self.may_warn();
        self.told |= says;
        says
    }

    /// Whether this ends what was told.
    fn works(&mut self, signal: Signal) -> bool {
        self.failing[signal.index()] = false;
        let over = self.told && self.failing == [false; Signal::ALL.len()];
        self.told &= !over;
        over
    }

    /// Only these signals are exported from now on: nobody will hear of the others that they work.
    fn only(&mut self, on: [bool; Signal::ALL.len()]) {
        for (failing, on) in std::iter::zip(&mut self.failing, on) {
            *failing &= on;
        }
        self.told &= self.failing.contains(&true);
    }
}

/// Who speaks: what the configuration and the variables say, and what can be known without them.
fn resource(config: &Otlp) -> Vec<KeyValue> {
    let mut attributes: Vec<KeyValue> = Vec::new();
    let said = |name: &str| config.resource.iter().any(|(known, _)| **known == *name);
    if !said("service.name") {
        attributes.push(attribute("service.name", "ws-keepalive"));
    }
    if !said("service.version") {
        attributes.push(attribute("service.version", env!("CARGO_PKG_VERSION")));
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if !said("service.instance.id") && !host.trim().is_empty() {
        attributes.push(attribute("service.instance.id", host.trim()));
    }
    let said = config.resource.iter();
    attributes.extend(said.map(|(name, value)| attribute(&**name, &**value)));
    attributes
}

/// What the thread does.
struct Work {
    shared: Arc<Shared>,
    config: Arc<Otlp>,
    envelope: Envelope,
    end: CancellationToken,
    last: Arc<Mutex<Option<Vec<Arc<TargetStats>>>>>,
}

impl Work {
    fn run(&self) {
        let runtime = match start_runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                let why = os::words(&error);
                return warn!(event = "otlp_failed", "nothing is pushed by OTLP: {why}");
            }
        };
        runtime.block_on(async {
            tokio::join!(
                self.metrics(),
                self.queued(Signal::Traces, self.config.span_delay),
                self.queued(Signal::Logs, self.config.log_delay),
            );
        });
        // A file system that hangs under a TLS file must not hold the exit.
        runtime.shutdown_background();
    }

    /// By when the last export has to be done, if there is one.
    fn last_until(&self) -> Option<tokio::time::Instant> {
        let until = tokio::time::Instant::now() + LAST_EXPORT;
        lock(&self.last).is_some().then_some(until)
    }

    async fn metrics(&self) {
        let Some(collector) = &self.config.metrics else {
            return;
        };
        let mut client = Client::new(collector);
        let mut next = tokio::time::Instant::now() + self.config.interval;
        loop {
            tokio::select! {
                biased;
                () = self.end.cancelled() => break,
                () = tokio::time::sleep_until(next) => {}
            }
            let targets = self.shared.registry.targets();
            let outcome = tokio::select! {
                biased;
                () = self.end.cancelled() => break,
                outcome = self.export_metrics(&mut client, &targets) => outcome,
            };
            drop(targets);
            let wait = outcome.as_ref().err().and_then(|error| error.wait);
            self.shared
                .book(Signal::Metrics, collector, &outcome, false);
            lock(&self.shared.exported).forget_gone();
            // Late by an export that took long: the next one is not hurried.
            let now = tokio::time::Instant::now();
            while next <= now {
                next += self.config.interval;
            }
            next = next.max(now + wait.unwrap_or_default());
        }
        if let Some(until) = self.last_until() {
            let targets = lock(&self.last).clone().unwrap_or_default();
            let last = timeout_at(until, self.export_metrics(&mut client, &targets)).await;
            let last = last.unwrap_or_else(|_| Err(too_late()));
            self.shared.book(Signal::Metrics, collector, &last, true);
        }
    }

    /// Everything, in as many requests as it takes. One that is refused for good holds up none
    /// behind it; after one that may be taken later the rest is left to the next export, which has
    /// it all. The error is the first.
    async fn export_metrics(
        &self,
        client: &mut Client<'_>,
        targets: &[Arc<TargetStats>],
    ) -> Result<Taken, ExportError> {
        let Shared {
            registry,
            anchor,
            exported,
            ..
        } = &*self.shared;
        let items = metrics::of_program(registry, anchor);
        let mut refused = None;
        let mut failed = None;
        match self.send(Signal::Metrics, client, &items).await {
            Ok(taken) => refused = taken,
            Err(error) if error.may_retry => return Err(error),
            Err(error) => failed = Some(error),
        }
        for part in metrics::parts(targets) {
            let rtt = self.config.rtt;
            let (items, befores) = {
                let exported = lock(exported);
                metrics::of_targets(part, registry, anchor, rtt, &exported)
            };
            match self.send(Signal::Metrics, client, &items).await {
                Ok(taken) => {
                    lock(exported).take(befores);
                    refused = refused.or(taken);
                }
                Err(error) if error.may_retry => return Err(failed.unwrap_or(error)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(refused), Err)
    }

    /// One request. What the collector refuses of one that it takes is counted here.
    async fn send(
        &self,
        signal: Signal,
        client: &mut Client<'_>,
        items: &[impl AsRef<[u8]>],
    ) -> Result<Taken, ExportError> {
        let taken = client.export(self.envelope.around(items)).await?;
        if let Some((count, _)) = &taken {
            let push = &self.shared.registry.pushes[signal.index()];
            push.dropped.fetch_add(*count, Relaxed);
        }
        Ok(taken)
    }

    /// Spans and log lines.
    async fn queued(&self, signal: Signal, delay: Duration) {
        let collector = self.config.collector(signal);
        let (Some(collector), Some(queue)) = (collector, self.shared.queue(signal)) else {
            return;
        };
        let mut client = Client::new(collector);
        let mut wait = None;
        loop {
            let full = async {
                match wait {
                    Some(_) => std::future::pending().await,
                    None => queue.full().await,
                }
            };
            tokio::select! {
                biased;
                () = self.end.cancelled() => break,
                () = full => {}
                () = sleep(wait.unwrap_or(delay)) => {}
            }
            let outcome = tokio::select! {
                biased;
                () = self.end.cancelled() => break,
                outcome = self.empty(signal, collector, queue, &mut client, false) => outcome,
            };
            wait = outcome.err().map(|error| next_wait(wait, error.wait));
            let push = &self.shared.registry.pushes[signal.index()];
            push.dropped.fetch_add(queue.take_dropped(), Relaxed);
        }
        if let Some(until) = self.last_until() {
            let last = self.empty(signal, collector, queue, &mut client, true);
            if timeout_at(until, last).await.is_err() {
                self.shared.book(signal, collector, &Err(too_late()), true);
            }
            let left = queue.forget();
            let push = &self.shared.registry.pushes[signal.index()];
            push.dropped.fetch_add(queue.take_dropped() + left, Relaxed);
            if left > 0 {
                let (signal, place) = (signal.as_str(), &collector.place);
                warn!(
                    event = "otlp_lost",
                    signal,
                    endpoint = %place,
                    lost = left,
                    "{left} of the {signal} that waited for {place} are lost: the program ends"
                );
            }
        }
    }

    /// Exports until nothing waits, or what waits has to wait on.
    async fn empty(
        &self,
        signal: Signal,
        collector: &Collector,
        queue: &Queue,
        client: &mut Client<'_>,
        is_last: bool,
    ) -> Result<(), ExportError> {
        loop {
            let batch = queue.batch();
            if batch.is_empty() {
                return Ok(());
            }
            let outcome = self.send(signal, client, &batch).await;
            self.shared.book(signal, collector, &outcome, is_last);
            match outcome {
                Ok(_) => queue.done(batch.len()),
                Err(error) if error.may_retry => return Err(error),
                Err(_) => {
                    queue.done(batch.len());
                    let push = &self.shared.registry.pushes[signal.index()];
                    push.dropped.fetch_add(batch.len() as u64, Relaxed);
                }
            }
        }
    }
}

/// How long to wait after an export that failed: longer than before, and what the collector asks
/// for at least.
fn next_wait(before: Option<Duration>, asked: Option<Duration>) -> Duration {
    let longer = before
        .map_or(FIRST_WAIT, |before| before * 2)
        .min(LONGEST_WAIT);
    // Half of it random: many instances that lost one collector come back apart.
    let apart = longer.mul_f64(1.0 - rand::random::<f64>() / 2.0);
    apart.max(FIRST_WAIT / 2).max(asked.unwrap_or_default())
}

fn too_late() -> ExportError {
    ExportError {
        message: format!("the last export was not done within {LAST_EXPORT:?}"),
        may_retry: false,
        wait: None,
    }
}

fn start_runtime() -> io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build()
}
