//! The supervisor over tasks that do as they are told, under a paused clock.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::super::plan::tests::target;
use super::*;

/// What the tasks did, in order.
#[derive(Default)]
pub(in crate::supervisor) struct World {
    log: Mutex<Vec<String>>,
    /// Names with a task, to see that there are never two.
    alive: Mutex<HashSet<Arc<str>>>,
    /// Tasks whose name starts with `slow` take this long to close.
    slowness: Mutex<Duration>,
}

#[derive(Clone)]
pub(in crate::supervisor) struct Fake(Arc<World>);

pub(in crate::supervisor) struct Cell {
    world: Arc<World>,
    target: Mutex<Arc<Target>>,
    asked: Mutex<Option<Asked>>,
    notify: Notify,
}

#[derive(Clone)]
pub(in crate::supervisor) struct FakeControl(Arc<Cell>);

impl World {
    fn say(&self, words: String) {
        self.log.lock().unwrap().push(words);
    }

    pub(in crate::supervisor) fn said(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

impl Control for FakeControl {
    fn set(&self, target: Arc<Target>) {
        let name = &target.identity.name;
        self.0.world.say(format!("set {name}"));
        *self.0.target.lock().unwrap() = target;
    }

    fn stop(&self, asked: Asked) {
        *self.0.asked.lock().unwrap() = Some(asked);
        self.0.notify.notify_one();
    }
}

/// Dies with its task.
struct Alive(Arc<World>, Arc<str>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.lock().unwrap().remove(&self.1);
    }
}

impl Hold for Fake {
    type Control = FakeControl;

    fn control(&self, target: &Arc<Target>) -> FakeControl {
        FakeControl(Arc::new(Cell {
            world: self.0.clone(),
            target: Mutex::new(target.clone()),
            asked: Mutex::new(None),
            notify: Notify::new(),
        }))
    }

    async fn hold(self, control: FakeControl, _stats: Arc<TargetStats>, reporter: Reporter) {
        let _reporter = reporter;
        let world = self.0;
        let name = control.0.target.lock().unwrap().identity.name.clone();
        assert!(
            world.alive.lock().unwrap().insert(name.clone()),
            "two of {name}"
        );
        let _alive = Alive(world.clone(), name.clone());
        world.say(format!("start {name}"));
        if name.starts_with("panics") {
            sleep(Duration::from_millis(10)).await;
            panic!("{name} fell over");
        }
        if name.starts_with("finishes") {
            return;
        }
        control.0.notify.notified().await;
        let asked = *control.0.asked.lock().unwrap();
        if name.starts_with("slow") {
            let slowness = *world.slowness.lock().unwrap();
            sleep(slowness).await;
        }
        world.say(format!("end {name} {:?}", asked.unwrap()));
    }

    fn lost(_stats: &TargetStats, message: &str) {
        assert_ne!(message, "unknown");
    }
}

pub(in crate::supervisor) fn supervisor() -> (Supervisor<Fake>, Arc<World>, Arc<Registry>) {
    let world = Arc::new(World {
        slowness: Mutex::new(Duration::from_secs(3)),
        ..World::default()
    });
    let registry = Registry::new();
    let supervisor = Supervisor::new(Fake(world.clone()), registry.clone());
    (supervisor, world, registry)
}

/// Drives the supervisor for `time` of the paused clock.
async fn drive(supervisor: &mut Supervisor<Fake>, time: Duration) {
    let end = Instant::now() + time;
    while timeout_at(end, supervisor.turn()).await.is_ok() {}
}

fn plain(names: &[&str]) -> Vec<Arc<Target>> {
    names.iter().map(|name| target(name, 0, 10, 0)).collect()
}

const TICK: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_plan_reaches_the_tasks_it_names_and_no_other() {
    let (mut supervisor, world, registry) = supervisor();
    let changes = supervisor.apply(&plain(&["a", "b", "c", "d"]));
    assert_eq!(changes.added.len(), 4);
    drive(&mut supervisor, TICK).await;
    assert_eq!(world.said(), ["start a", "start b", "start c", "start d"]);

    let stats = |name: &str| {
        let all = registry.targets();
        all.into_iter().find(|s| &*s.identity().name == name)
    };
    let counters = stats("b").unwrap();
    let changes = supervisor.apply(&[
        target("a", 0, 10, 0),
        target("b", 0, 10, 7),
        target("c", 9, 10, 0),
        target("e", 0, 10, 0),
    ]);
    assert_eq!(
        changes.to_string(),
        "kept 1, retuned 1, replaced 1, added 1, removed 1"
    );
    // Gone before the task has ended, so that the very next scrape has no series of it.
    assert!(stats("d").is_none());
    drive(&mut supervisor, TICK).await;
    assert_eq!(world.said(), ["set c", "set b", "end d Removed", "start e"]);
    // The retuned target keeps its numbers under its new labels.
    assert!(Arc::ptr_eq(&counters, &stats("b").unwrap()));
    assert_eq!(&*counters.identity().labels[0].1, "7");
}

#[tokio::test(start_paused = true)]
async fn a_target_added_again_waits_for_the_end_of_its_predecessor() {
    let (mut supervisor, world, registry) = supervisor();
    supervisor.apply(&plain(&["slow", "b"]));
    drive(&mut supervisor, TICK).await;
    supervisor.apply(&plain(&["b"]));
    assert_eq!(registry.target_count(), 1);
    drive(&mut supervisor, TICK).await;
    supervisor.apply(&[target("b", 0, 10, 0), target("slow", 1, 10, 0)]);
    assert_eq!(registry.target_count(), 2);
    // Changed, gone and back again while it waits: still one task at a time.
    supervisor.apply(&[target("b", 0, 10, 0), target("slow", 2, 10, 0)]);
    supervisor.apply(&plain(&["b"]));
    supervisor.apply(&[target("b", 0, 10, 0), target("slow", 3, 10, 0)]);
    world.said();
    drive(&mut supervisor, Duration::from_secs(2)).await;
    assert_eq!(world.said(), [""; 0]);
    drive(&mut supervisor, Duration::from_secs(2)).await;
    assert_eq!(world.said(), ["end slow Removed", "start slow"]);
    assert_eq!(registry.target_count(), 2);
    // The guard of the predecessor, dropped late, did not take its successor's series with it.
    let urls: Vec<_> = registry.targets().iter().map(|s| s.identity()).collect();
    assert_eq!(&*urls[1].url, "ws://localhost:1/3");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_and_its_task_alone_starts_again_after_a_second() {
    let (mut supervisor, world, registry) = supervisor();
    supervisor.apply(&plain(&["a", "panics"]));
    drive(&mut supervisor, Duration::from_millis(500)).await;
    assert_eq!(world.said(), ["start a", "start panics"]);
    assert_eq!(registry.task_panics.load(Relaxed), 1);
    drive(&mut supervisor, Duration::from_millis(490)).await;
    assert_eq!(world.said(), [""; 0]);
    drive(&mut supervisor, Duration::from_millis(50)).await;
    assert_eq!(world.said(), ["start panics"]);
    assert_eq!(registry.task_panics.load(Relaxed), 2);
    // Removed while it waits for its restart: it does not come back.
    supervisor.apply(&plain(&["a"]));
    drive(&mut supervisor, Duration::from_secs(5)).await;
    assert_eq!(world.said(), [""; 0]);
    assert_eq!(registry.target_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_ended_by_itself_starts_again_when_it_is_changed() {
    let (mut supervisor, world, registry) = supervisor();
    supervisor.apply(&plain(&["finishes"]));
    drive(&mut supervisor, Duration::from_secs(5)).await;
    supervisor.apply(&plain(&["finishes"]));
    drive(&mut supervisor, Duration::from_secs(5)).await;
    assert_eq!(world.said(), ["start finishes"]);
    supervisor.apply(&[target("finishes", 1, 10, 0)]);
    drive(&mut supervisor, Duration::from_secs(5)).await;
    assert_eq!(world.said(), ["start finishes"]);
    assert_eq!(registry.target_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_asks_all_and_waits_for_the_slowest() {
    let (mut supervisor, world, registry) = supervisor();
    supervisor.apply(&plain(&["a", "slow-a", "slow-removed", "panics"]));
    drive(&mut supervisor, Duration::from_millis(100)).await;
    supervisor.apply(&plain(&["a", "slow-a", "panics"]));
    world.said();
    let before = Instant::now();
    let drained = supervisor.drain().await;
    assert_eq!(before.elapsed(), Duration::from_secs(3));
    assert_eq!((drained.ended, drained.stragglers), (3, vec![]));
    assert_eq!(registry.task_panics.load(Relaxed), 1);
    let mut said = world.said();
    said.sort();
    let expected = [
        "end a Shutdown",
        "end slow-a Shutdown",
        "end slow-removed Removed",
    ];
    assert_eq!(said, expected);
    assert!(world.alive.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn how_long_a_drain_may_take_counts_those_who_are_still_closing() {
    let (mut supervisor, world, _registry) = supervisor();
    *world.slowness.lock().unwrap() = Duration::from_secs(3600);
    supervisor.apply(&[target("a", 0, 10, 0), target("slow-removed", 0, 60, 0)]);
    drive(&mut supervisor, TICK).await;
    supervisor.apply(&[target("a", 0, 10, 0)]);
    drive(&mut supervisor, Duration::from_secs(20)).await;
    let longest = supervisor.longest_drain();
    let before = Instant::now();
    supervisor.drain().await;
    assert_eq!(before.elapsed(), longest);
    assert!(longest > Duration::from_secs(40), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_names_those_who_do_not_end() {
    let (mut supervisor, world, _registry) = supervisor();
    *world.slowness.lock().unwrap() = Duration::from_secs(3600);
    supervisor.apply(&[
        target("a", 0, 10, 0),
        target("slow-a", 0, 12, 0),
        target("slow-b", 0, 7, 0),
    ]);
    drive(&mut supervisor, TICK).await;
    let before = Instant::now();
    let drained = supervisor.drain().await;
    // The largest close_timeout and the margin.
    assert_eq!(before.elapsed(), Duration::from_secs(13));
    let stragglers = vec!["slow-a".into(), "slow-b".into()];
    let expected = Drained {
        ended: 1,
        stragglers,
    };
    assert_eq!(drained, expected);
}

#[test]
fn a_long_list_of_names_is_cut() {
    let names: Vec<Arc<str>> = (0..12).map(|n| n.to_string().into()).collect();
    let shown = Names(names.iter()).to_string();
    assert_eq!(shown, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
    assert_eq!(Names(names[..1].iter()).to_string(), "0");
}
