//! Names whose addresses the tests say, over the supervisor with its tasks that do as they are
//! told, under a paused clock.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::time::timeout_at;

use super::super::actor::Supervisor;
use super::super::actor::tests::{Fake, World, supervisor};
use super::super::plan::tests::target;
use super::*;
use crate::config::Secret;
use crate::reload::Changes;
use crate::stats::Registry;

const INTERVAL: Duration = Duration::from_secs(30);

/// What is said of a name.
#[derive(Clone)]
enum Answer {
    At(Vec<&'static str>),
    Unknown,
    Hangs,
}

#[derive(Default)]
struct Names {
    answers: Mutex<HashMap<String, Answer>>,
    /// Every lookup that was begun, and how many are under way.
    asked: Mutex<Vec<(Instant, String)>>,
    under_way: Arc<()>,
}

impl Names {
    fn say(&self, name: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(name.to_owned(), answer);
    }

    fn at(&self, name: &str, addresses: &[&'static str]) {
        self.say(name, Answer::At(addresses.to_vec()));
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

struct Bench {
    names: Arc<Names>,
    fan_outs: FanOuts,
    supervisor: Supervisor<Fake>,
    world: Arc<World>,
    registry: Arc<Registry>,
}

impl Bench {
    fn new() -> Self {
        let names = Arc::new(Names::default());
        let asking = names.clone();
        let look_up: LookUp = Arc::new(move |host, _| {
            let now = Instant::now();
            asking.asked.lock().unwrap().push((now, host.to_string()));
            let answer = asking.answers.lock().unwrap()[&*host].clone();
            let under_way = asking.under_way.clone();
            Box::pin(async move {
                let _under_way = under_way;
                match answer {
                    Answer::At(addresses) => {
                        let address = |a: &&str| SocketAddr::new(a.parse().unwrap(), 0);
                        Ok(addresses.iter().map(address).collect())
                    }
                    Answer::Unknown => Err(io::Error::other("no such name")),
                    Answer::Hangs => std::future::pending().await,
                }
            })
        });
        let (supervisor, world, registry) = supervisor();
        Self {
            names,
            fan_outs: FanOuts::new(look_up),
            supervisor,
            world,
            registry,
        }
    }

    fn set(&mut self, targets: &[Arc<Target>]) -> Changes {
        let desired = self.fan_outs.set(targets);
        self.supervisor.apply(&desired)
    }

    /// Turns as the engine does, for `time` of the paused clock.
    async fn drive(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let turning = async {
            loop {
                tokio::select! {
                    () = self.supervisor.turn() => {}
                    desired = self.fan_outs.turn() => {
                        self.supervisor.apply(&desired);
                    }
                }
            }
        };
        let _: Result<(), _> = timeout_at(end, turning).await;
    }

    /// What the tasks did meanwhile, without what they were told.
    async fn did(&mut self, time: Duration) -> Vec<String> {
        self.drive(time).await;
        self.world.said()
    }

    /// Index and address of each connection of `name`.
    fn held(&self, name: &str) -> Vec<(u32, String)> {
        let expanded = self.fan_outs.by_name[name].expanded.iter();
        let pair = |target: &Arc<Target>| {
            let address = target.connection.address.resolve.first();
            let address = address.map_or("by the url".to_owned(), shown);
            (target.identity.address_index().unwrap(), address)
        };
        expanded.map(pair).collect()
    }

    fn series(&self) -> Vec<String> {
        let targets = self.registry.targets();
        let name = |stats: &Arc<crate::stats::TargetStats>| stats.identity().name.to_string();
        targets.iter().map(name).collect()
    }
}

/// A target of this name at `ws://HOST/`.
fn fanning_out(name: &str, host: &str) -> Arc<Target> {
    let mut target = (*target(name, 0, 10, 0)).clone();
    target.url = Secret::new(format!("ws://{host}/ws").into());
    Arc::make_mut(&mut target.policy).fan_out = Some(INTERVAL);
    Arc::new(target)
}

fn pairs(list: &[(u32, &str)]) -> Vec<(u32, String)> {
    list.iter().map(|(i, a)| (*i, (*a).to_owned())).collect()
}

const TICK: Duration = Duration::from_millis(1);
/// Longer than an interval with its jitter, shorter than two.
const ROUND: Duration = Duration::from_secs(34);

#[tokio::test(start_paused = true)]
async fn each_address_has_a_connection_and_its_index_as_long_as_it_is_there() {
    let mut bench = Bench::new();
    bench.names.at(
        "edge.example.com",
        &["10.0.0.3", "10.0.0.1", "10.0.0.2", "10.0.0.1"],
    );
    let targets = [
        target("a", 0, 10, 0),
        fanning_out("edge", "edge.example.com"),
    ];
    bench.set(&targets);
    let started = ["start a", "start edge[0]", "start edge[1]", "start edge[2]"];
    assert_eq!(bench.did(TICK).await, started);
    let three = [(0, "10.0.0.1"), (1, "10.0.0.2"), (2, "10.0.0.3")];
    assert_eq!(bench.held("edge"), pairs(&three));

    // One leaves; the others are not touched. Order says nothing.
    bench
        .names
        .at("edge.example.com", &["10.0.0.3", "10.0.0.1"]);
    assert_eq!(bench.did(ROUND).await, ["end edge[1] Removed"]);
    assert_eq!(bench.series(), ["a", "edge[0]", "edge[2]"]);
    // Another comes, and has the free index.
    bench
        .names
        .at("edge.example.com", &["10.0.0.9", "10.0.0.3", "10.0.0.1"]);
    assert_eq!(bench.did(ROUND).await, ["start edge[1]"]);
    let three = [(0, "10.0.0.1"), (1, "10.0.0.9"), (2, "10.0.0.3")];
    assert_eq!(bench.held("edge"), pairs(&three));
    assert_eq!(bench.did(ROUND * 10).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_takes_anothers_index_is_another_connection_with_numbers_of_its_own() {
    let mut bench = Bench::new();
    bench.names.at("edge.example.com", &["10.0.0.1"]);
    bench.set(&[fanning_out("slow", "edge.example.com")]);
    assert_eq!(bench.did(TICK).await, ["start slow[0]"]);
    let before = bench.registry.targets();
    bench.names.at("edge.example.com", &["10.0.0.2"]);
    // The old one is closed, and has its time for it, before the new one is dialled.
    assert_eq!(
        bench.did(ROUND + Duration::from_secs(3)).await,
        ["end slow[0] Removed", "start slow[0]"]
    );
    assert_eq!(bench.held("slow"), pairs(&[(0, "10.0.0.2")]));
    let after = bench.registry.targets();
    assert_eq!((before.len(), after.len()), (1, 1));
    assert!(!Arc::ptr_eq(&before[0], &after[0]));
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_fails_leaves_what_is_held_and_is_tried_again() {
    let mut bench = Bench::new();
    bench
        .names
        .at("edge.example.com", &["10.0.0.1", "10.0.0.2"]);
    bench.set(&[fanning_out("edge", "edge.example.com")]);
    bench.did(TICK).await;
    for failure in [Answer::Unknown, Answer::At(vec![]), Answer::Hangs] {
        let asked = bench.names.asked();
        bench.names.say("edge.example.com", failure);
        assert_eq!(bench.did(ROUND * 2).await, [""; 0]);
        assert!(bench.fan_outs.by_name["edge"].failing);
        assert!(bench.names.asked() > asked);
        // A lookup that hangs is given up after dns_timeout.
        assert!(Arc::strong_count(&bench.names.under_way) <= 2 + 1);
    }
    bench
        .names
        .at("edge.example.com", &["10.0.0.2", "10.0.0.1"]);
    assert_eq!(bench.did(ROUND * 2).await, [""; 0]);
    assert!(!bench.fan_outs.by_name["edge"].failing);
    assert_eq!(
        bench.held("edge"),
        pairs(&[(0, "10.0.0.1"), (1, "10.0.0.2")])
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_that_never_had_an_address_is_held_by_its_url_and_asked_again_soon() {
    let mut bench = Bench::new();
    bench.names.say("edge.example.com", Answer::Unknown);
    bench.set(&[fanning_out("edge", "edge.example.com")]);
    assert_eq!(bench.did(TICK).await, ["start edge[0]"]);
    assert_eq!(bench.held("edge"), pairs(&[(0, "by the url")]));
    let counters = bench.registry.targets().remove(0);

    bench
        .names
        .at("edge.example.com", &["10.0.0.1", "10.0.0.2"]);
    let did = bench.did(SOON.mul_f64(1.2)).await;
    assert_eq!(did, ["set edge[0]", "start edge[1]"]);
    assert_eq!(
        bench.held("edge"),
        pairs(&[(0, "10.0.0.1"), (1, "10.0.0.2")])
    );
    // The failures it had are still told.
    assert!(Arc::ptr_eq(&counters, &bench.registry.targets()[0]));
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_hangs_delays_no_other_name() {
    let mut bench = Bench::new();
    bench.names.say("hangs.example.com", Answer::Hangs);
    bench.names.at("edge.example.com", &["10.0.0.1"]);
    bench.set(&[
        fanning_out("edge", "edge.example.com"),
        fanning_out("hangs", "hangs.example.com"),
    ]);
    assert_eq!(bench.did(TICK).await, ["start edge[0]"]);
    assert_eq!(bench.did(Duration::from_secs(6)).await, ["start hangs[0]"]);
    assert_eq!(bench.held("hangs"), pairs(&[(0, "by the url")]));
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_it_does_not_change() {
    let mut bench = Bench::new();
    bench
        .names
        .at("edge.example.com", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    bench.set(&[fanning_out("edge", "edge.example.com")]);
    bench.did(TICK).await;
    bench
        .names
        .at("edge.example.com", &["10.0.0.2", "10.0.0.3"]);
    assert_eq!(bench.did(ROUND).await, ["end edge[0] Removed"]);
    let held = pairs(&[(1, "10.0.0.2"), (2, "10.0.0.3")]);
    let asked = bench.names.asked();

    // The same, another allocation; and a target beside it.
    let changes = bench.set(&[
        fanning_out("edge", "edge.example.com"),
        target("b", 0, 10, 0),
    ]);
    assert_eq!((changes.kept, changes.added.len()), (2, 1));
    assert_eq!(bench.did(TICK).await, ["start b"]);
    assert_eq!(
        (bench.held("edge"), bench.names.asked()),
        (held.clone(), asked)
    );

    // Policy and labels are retuned, the path replaces, and none of it asks for the name.
    let mut changed = (*fanning_out("edge", "edge.example.com")).clone();
    Arc::make_mut(&mut changed.policy).timeouts.close = Duration::from_secs(3);
    let changes = bench.set(&[Arc::new(changed.clone())]);
    assert_eq!((changes.retuned.len(), changes.removed.len()), (2, 1));
    changed.url = Secret::new("ws://edge.example.com/other".into());
    let changes = bench.set(&[Arc::new(changed.clone())]);
    assert_eq!(
        changes.to_string(),
        "kept 0, retuned 0, replaced 2, added 0, removed 0"
    );
    assert_eq!((bench.held("edge"), bench.names.asked()), (held, asked));

    // Another name is another matter.
    bench.did(TICK).await;
    bench.names.at("other.example.com", &["10.0.0.2"]);
    changed.url = Secret::new("ws://other.example.com/".into());
    let changes = bench.set(&[Arc::new(changed.clone())]);
    assert_eq!(changes.removed.len(), 2);
    let did = bench.did(TICK).await;
    assert_eq!(
        did,
        [
            "end edge[1] Removed",
            "end edge[2] Removed",
            "start edge[0]"
        ]
    );

    // And none at all: the one connection by the target's own name.
    Arc::make_mut(&mut changed.policy).fan_out = None;
    let changes = bench.set(&[Arc::new(changed)]);
    assert_eq!(
        changes.to_string(),
        "kept 0, retuned 0, replaced 0, added 1, removed 1"
    );
    assert_eq!(
        bench.did(ROUND * 3).await,
        ["end edge[0] Removed", "start edge"]
    );
    assert_eq!(bench.names.asked(), asked + 1);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_interval_begins_at_once_and_each_is_varied() {
    let mut bench = Bench::new();
    bench.names.at("edge.example.com", &["10.0.0.1"]);
    let mut slow = (*fanning_out("edge", "edge.example.com")).clone();
    Arc::make_mut(&mut slow.policy).fan_out = Some(Duration::from_secs(3600));
    bench.set(&[Arc::new(slow)]);
    bench.did(TICK).await;
    bench.set(&[fanning_out("edge", "edge.example.com")]);
    bench.drive(INTERVAL * 40).await;
    let asked = bench.names.asked.lock().unwrap().clone();
    let pauses: BTreeSet<Duration> = asked.windows(2).map(|w| w[1].0 - w[0].0).collect();
    // To the millisecond of tokio's clock.
    let (least, most) = (INTERVAL.mul_f64(0.9), INTERVAL.mul_f64(1.1) + TICK * 2);
    assert!(
        pauses.iter().all(|p| (least..most).contains(p)),
        "{pauses:?}"
    );
    assert!(pauses.len() > 20, "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn addresses_that_are_given_are_not_looked_up() {
    let mut bench = Bench::new();
    let mut given = (*fanning_out("given", "edge.example.com")).clone();
    let ip = |ip: &str, port| ResolveTo::Ip {
        ip: ip.parse().unwrap(),
        zone: None,
        port,
    };
    Arc::make_mut(&mut given.connection).address.resolve = vec![
        ip("10.0.0.7", Some(443)),
        ip("::7", Some(443)),
        ip("10.0.0.8", None),
    ];
    let literal = fanning_out("literal", "10.0.0.9:9000");
    let v6 = fanning_out("v6", "[::9]");
    let changes = bench.set(&[Arc::new(given.clone()), literal, v6]);
    assert_eq!(changes.added.len(), 5);
    let three = [(0, "10.0.0.7:443"), (1, "[::7]:443"), (2, "10.0.0.8")];
    assert_eq!(bench.held("given"), pairs(&three));
    assert_eq!(bench.held("literal"), pairs(&[(0, "by the url")]));
    bench.did(ROUND * 3).await;

    Arc::make_mut(&mut given.connection).address.resolve =
        vec![ip("10.0.0.8", None), ip("10.0.0.9", None)];
    let changes = bench.set(&[Arc::new(given)]);
    assert_eq!(
        bench.held("given"),
        pairs(&[(0, "10.0.0.9"), (2, "10.0.0.8")])
    );
    assert_eq!((changes.kept, changes.added), (1, vec!["given[0]".into()]));
    bench.did(ROUND * 3).await;
    assert_eq!(bench.names.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn of_more_than_256_addresses_the_first_are_held() {
    let mut bench = Bench::new();
    let many: Vec<&'static str> = (0..300)
        .rev()
        .map(|n| &*Box::leak(format!("10.0.{}.{}", n / 256, n % 256).into_boxed_str()))
        .collect();
    bench.names.at("edge.example.com", &many);
    bench.set(&[fanning_out("edge", "edge.example.com")]);
    bench.drive(TICK).await;
    let held = bench.held("edge");
    assert_eq!(held.len(), ADDRESSES);
    assert_eq!(
        (held[0].1.as_str(), held[255].1.as_str()),
        ("10.0.0.0", "10.0.0.255")
    );
    assert!(bench.fan_outs.by_name["edge"].too_many);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_lookups_that_hang() {
    let mut bench = Bench::new();
    bench.names.say("hangs.example.com", Answer::Hangs);
    bench.set(&[fanning_out("hangs", "hangs.example.com")]);
    bench.drive(TICK).await;
    assert_eq!(Arc::strong_count(&bench.names.under_way), 2);
    bench.fan_outs.stop();
    assert_eq!(Arc::strong_count(&bench.names.under_way), 1);
    assert_eq!(bench.did(ROUND).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_a_name_that_is_no_longer_asked_for_is_dropped() {
    let mut bench = Bench::new();
    bench.names.say("hangs.example.com", Answer::Hangs);
    bench.names.at("edge.example.com", &["10.0.0.1"]);
    bench.set(&[fanning_out("edge", "hangs.example.com")]);
    bench.drive(TICK).await;
    bench.set(&[fanning_out("edge", "edge.example.com")]);
    assert_eq!(bench.did(TICK).await, ["start edge[0]"]);
    // The first one's timeout is no failure of the second.
    assert_eq!(bench.did(Duration::from_secs(10)).await, [""; 0]);
    assert!(!bench.fan_outs.by_name["edge"].failing);
    assert_eq!(bench.held("edge"), pairs(&[(0, "10.0.0.1")]));
}

#[test]
fn an_address_is_shown_as_people_write_it() {
    let v6 = |zone: Option<&str>, port| ResolveTo::Ip {
        ip: "fe80::1".parse().unwrap(),
        zone: zone.map(Into::into),
        port,
    };
    assert_eq!(shown(&v6(Some("eth0"), None)), "fe80::1%eth0");
    assert_eq!(shown(&v6(Some("2"), Some(443))), "[fe80::1%2]:443");
    assert_eq!(shown(&v6(None, None)), "fe80::1");
    assert_eq!(
        shown(&ResolveTo::Unix("/run/x.sock".into())),
        "unix:/run/x.sock"
    );
    let scoped = "[fe80::1%2]:0".parse().unwrap();
    assert_eq!(resolve_to(&scoped), v6(Some("2"), None));
}
