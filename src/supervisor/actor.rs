//! Applies plans: starts, tells, stops and restarts the one task of each target.
//!
//! The supervisor's own memory per target is one map entry of about 80 bytes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{error, info, warn};

use super::plan::plan;
use crate::config::Target;
use crate::proto::close::Asked;
use crate::reload::Changes;
use crate::stats::{EntryGuard, Registry, TargetStats};
use crate::transport::tls;

/// From a task's panic to its restart.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// How often a drain says who still stands.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// A task may take this much longer than its `close_timeout` to end.
const DRAIN_MARGIN: Duration = Duration::from_secs(1);

/// Targets added at once from which on it is worth packing what holds them.
const MANY: usize = 1_000;

/// Names shown of a longer list.
const NAMES_SHOWN: usize = 10;

/// What a target's task runs. The daemon's is the reconnecting client; tests have their own.
pub(crate) trait Hold: Clone + Send + 'static {
    /// Through which the task is told what is wanted of it.
    type Control: Control;

    fn control(&self, target: &Arc<Target>) -> Self::Control;

    /// Runs until the control says stop, and drops `reporter` when it ends. Not an `async fn`, and
    /// not wrapped in one: the task holds this future alone, no second layer of arguments.
    fn hold(
        self,
        control: Self::Control,
        stats: Arc<TargetStats>,
        reporter: Reporter,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// The task panicked while its connection stood: books the end it could not book itself.
    fn lost(stats: &TargetStats, message: &str);
}

/// Tells a running task what is wanted of it.
pub(crate) trait Control: Clone + Send + 'static {
    /// The target changed; whether its connection may stand is the task's to see.
    fn set(&self, target: Arc<Target>);

    /// Close, await the reply, end.
    fn stop(&self, asked: Asked);
}

/// One task per target name.
pub(crate) struct Supervisor<H: Hold> {
    hold: H,
    registry: Arc<Registry>,
    /// A B-tree, because it wastes less than a hash table just past a power of two.
    entries: BTreeMap<Arc<str>, Entry<H::Control>>,
    /// Removed targets whose task still closes its connection.
    closing: BTreeMap<Arc<str>, Closing>,
    /// Names to restart after a panic, in order of time.
    restarts: VecDeque<(Instant, Arc<str>)>,
    /// Unbounded, and bounded all the same: a task sends once, when it ends.
    ended: mpsc::UnboundedReceiver<Ended>,
    report: mpsc::UnboundedSender<Ended>,
}

struct Entry<C> {
    target: Arc<Target>,
    guard: EntryGuard,
    task: Task<C>,
}

enum Task<C> {
    Running {
        control: C,
        handle: JoinHandle<()>,
    },
    /// The removed predecessor of the same name still closes its connection.
    AwaitsPredecessor,
    /// Panicked; starts again when its time comes.
    Restarting,
    /// Ended by itself.
    Finished,
}

struct Closing {
    handle: JoinHandle<()>,
    deadline: Instant,
}

/// How a drain went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Drained {
    /// Tasks that ended.
    pub(crate) ended: usize,
    /// Names of those that did not end in time.
    pub(crate) stragglers: Vec<Arc<str>>,
}

impl<H: Hold> Supervisor<H> {
    /// Holds nothing yet.
    pub(crate) fn new(hold: H, registry: Arc<Registry>) -> Self {
        let (report, ended) = mpsc::unbounded_channel();
        Self {
            hold,
            registry,
            entries: BTreeMap::new(),
            closing: BTreeMap::new(),
            restarts: VecDeque::new(),
            ended,
            report,
        }
    }

    /// Makes what runs what is wanted; names in `desired` are unique. Returns at once: connections
    /// are closed and dialled by their own tasks.
    pub(crate) fn apply(&mut self, desired: &[Arc<Target>]) -> Changes {
        let over_tls = |target: &&Arc<Target>| {
            let url = &target.identity.url;
            url.starts_with("wss:") || url.starts_with("https:")
        };
        let over_tls = desired.iter().filter(over_tls).count();
        tls::expect_targets(over_tls);
        if over_tls > 0 {
            // Before the first dial is timed; one that needs it says what is wrong.
            tls::gather_randomness();
        }
        let running: Vec<_> = self.entries.values().map(|e| e.target.clone()).collect();
        let plan = plan(desired, &running);
        drop(running);
        for name in &plan.stop {
            self.remove(name);
        }
        for target in plan.replace.iter().chain(&plan.retune) {
            self.change(target);
        }
        for target in &plan.start {
            self.add(target);
        }
        if plan.start.len() >= MANY {
            self.entries = std::mem::take(&mut self.entries).into_iter().collect();
            self.registry.pack();
        }
        let names = |targets: &[Arc<Target>]| -> Vec<_> {
            targets.iter().map(|t| t.identity.name.clone()).collect()
        };
        Changes {
            kept: plan.kept,
            retuned: names(&plan.retune),
            replaced: names(&plan.replace),
            added: names(&plan.start),
            removed: plan.stop,
            ..Changes::default()
        }
    }

    /// Waits for a task to end or a restart to fall due, and deals with it. Nothing is lost when
    /// it is dropped while it waits; call it again and again.
    pub(crate) async fn turn(&mut self) {
        let restart = self.restarts.front().map(|(at, _)| *at);
        let due = async {
            match restart {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The supervisor keeps a sender, so the channel cannot close.
            Some(ended) = self.ended.recv() => self.handle_ended(ended),
            () = due => self.restart_due(),
        }
    }

    /// How long a drain may take.
    pub(crate) fn longest_drain(&self) -> Duration {
        let close = |entry: &Entry<H::Control>| entry.target.policy.timeouts.close;
        let longest = self.entries.values().map(close).max();
        // Those that a reload removed are waited for, too.
        let now = Instant::now();
        let left = |closing: &Closing| closing.deadline.saturating_duration_since(now);
        let closing = self.closing.values().map(left).max();
        (longest.unwrap_or_default() + DRAIN_MARGIN).max(closing.unwrap_or_default())
    }

    /// Stops every task and waits until all have ended, for as long as the largest
    /// `close_timeout` and a margin. Says every 5 s who still stands.
    pub(crate) async fn drain(&mut self) -> Drained {
        self.restarts.clear();
        let now = Instant::now();
        let mut deadline = now;
        let entries = std::mem::take(&mut self.entries);
        let mut guards = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            if let Task::Running { control, handle } = entry.task {
                control.stop(Asked::Shutdown);
                let closing = Closing::new(handle, &entry.target);
                self.closing.insert(name, closing);
            }
            // Series stay until the process ends: the last scrape sees how the drain went.
            guards.push(entry.guard);
        }
        for closing in self.closing.values() {
            deadline = deadline.max(closing.deadline);
        }

        let mut say = now + SAY_EVERY;
        let mut count = 0;
        while !self.closing.is_empty() {
            match timeout_at(deadline.min(say), self.ended.recv()).await {
                Ok(Some(ended)) => {
                    self.handle_ended(ended);
                    count += 1;
                }
                Ok(None) => break,
                Err(_) if Instant::now() >= deadline => break,
                Err(_) => {
                    let remain = self.closing.len();
                    info!(
                        remain,
                        "draining: waiting for {}",
                        Names(self.closing.keys())
                    );
                    say += SAY_EVERY;
                }
            }
        }
        let stragglers: Vec<_> = self.closing.keys().cloned().collect();
        if !stragglers.is_empty() {
            warn!(
                stragglers = stragglers.len(),
                "did not end in time: {}",
                Names(stragglers.iter())
            );
        }
        for closing in std::mem::take(&mut self.closing).into_values() {
            closing.handle.abort();
        }
        Drained {
            ended: count,
            stragglers,
        }
    }

    fn add(&mut self, target: &Arc<Target>) {
        let name = target.identity.name.clone();
        let buckets = &target.policy.rtt_buckets;
        let guard = self.registry.target(target.identity.clone(), buckets);
        let task = if self.closing.contains_key(&name) {
            Task::AwaitsPredecessor
        } else {
            start(&self.hold, &self.report, target, &guard)
        };
        let target = target.clone();
        let entry = Entry {
            target,
            guard,
            task,
        };
        self.entries.insert(name, entry);
    }

    fn change(&mut self, target: &Arc<Target>) {
        let Some(entry) = self.entries.get_mut(&target.identity.name) else {
            return;
        };
        let before = std::mem::replace(&mut entry.target, target.clone());
        let buckets = &target.policy.rtt_buckets;
        if before.identity != target.identity || before.policy.rtt_buckets != *buckets {
            let stats = entry.guard.stats();
            stats.retune(target.identity.clone(), buckets);
        }
        match &entry.task {
            Task::Running { control, .. } => control.set(target.clone()),
            // They start with what the entry says then.
            Task::AwaitsPredecessor | Task::Restarting => {}
            Task::Finished => entry.task = start(&self.hold, &self.report, target, &entry.guard),
        }
    }

    fn remove(&mut self, name: &Arc<str>) {
        let Some(entry) = self.entries.remove(name) else {
            return;
        };
        if let Task::Running { control, handle } = entry.task {
            control.stop(Asked::Removed);
            let closing = Closing::new(handle, &entry.target);
            self.closing.insert(name.clone(), closing);
        }
        // The guard goes with the entry: the next scrape has no series of this target.
    }

    fn handle_ended(&mut self, ended: Ended) {
        let Ended { name, panicked } = ended;
        if let Some(closing) = self.closing.remove(&name) {
            if panicked {
                let message = panic_message(closing.handle);
                self.count_panic(&name, &message, "it was closing");
            }
            if let Some(entry) = self.entries.get_mut(&name)
                && let Task::AwaitsPredecessor = entry.task
            {
                entry.task = start(&self.hold, &self.report, &entry.target, &entry.guard);
            }
            return;
        }
        let Some(entry) = self.entries.get_mut(&name) else {
            return;
        };
        let Task::Running { handle, .. } = std::mem::replace(&mut entry.task, Task::Finished)
        else {
            return;
        };
        if panicked {
            entry.task = Task::Restarting;
            let message = panic_message(handle);
            H::lost(entry.guard.stats(), &message);
            self.count_panic(&name, &message, "starts again in 1 s");
            let at = Instant::now() + RESTART_AFTER;
            self.restarts.push_back((at, name));
        }
    }

    fn count_panic(&self, name: &str, message: &str, then: &str) {
        let panics = &self.registry.task_panics;
        panics.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        error!(
            target_name = name,
            panic = message,
            "the target's task panicked; {then}"
        );
    }

    fn restart_due(&mut self) {
        let now = Instant::now();
        while let Some((at, name)) = self.restarts.front()
            && *at <= now
        {
            // Removed, or removed and added again, meanwhile: another state, nothing to restart.
            if let Some(entry) = self.entries.get_mut(name)
                && let Task::Restarting = entry.task
            {
                entry.task = start(&self.hold, &self.report, &entry.target, &entry.guard);
            }
            self.restarts.pop_front();
        }
    }
}

fn start<H: Hold>(
    hold: &H,
    report: &mpsc::UnboundedSender<Ended>,
    target: &Arc<Target>,
    guard: &EntryGuard,
) -> Task<H::Control> {
    let control = hold.control(target);
    let (hold, stats) = (hold.clone(), guard.stats().clone());
    let reporter = Reporter {
        name: target.identity.name.clone(),
        report: report.clone(),
    };
    let handle = tokio::spawn(hold.hold(control.clone(), stats, reporter));
    Task::Running { control, handle }
}

impl Closing {
    fn new(handle: JoinHandle<()>, target: &Target) -> Self {
        let deadline = Instant::now() + target.policy.timeouts.close + DRAIN_MARGIN;
        Self { handle, deadline }
    }
}

/// A task is over.
struct Ended {
    name: Arc<str>,
    panicked: bool,
}

/// Tells the supervisor that the task it lives in has ended, by return or by panic, when it is
/// dropped.
pub(crate) struct Reporter {
    name: Arc<str>,
    report: mpsc::UnboundedSender<Ended>,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let ended = Ended {
            name: self.name.clone(),
            panicked: std::thread::panicking(),
        };
        // Without a supervisor nobody waits for it.
        let _ = self.report.send(ended);
    }
}

/// The words of a panic. The task has told of its end while it unwound, so on the one I/O thread
/// its handle is ready by now; elsewhere the words may be missing, never the fact.
fn panic_message(handle: JoinHandle<()>) -> String {
    let payload = match handle.now_or_never() {
        Some(Err(error)) if error.is_panic() => error.into_panic(),
        _ => return "unknown".to_owned(),
    };
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => match payload.downcast_ref::<&str>() {
            Some(text) => (*text).to_owned(),
            None => "unknown".to_owned(),
        },
    }
}

/// The first ten names, and how many more.
struct Names<I>(I);

impl<'a, I: ExactSizeIterator<Item = &'a Arc<str>> + Clone> fmt::Display for Names<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.clone().take(NAMES_SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}")?;
        }
        match self.0.len().saturating_sub(NAMES_SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
