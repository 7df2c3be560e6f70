//! A thousand targets on the real server, ten random reloads while pings flow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::*;

const TARGETS: usize = 1000;
const RELOADS: usize = 10;

/// One target. Each dials an address of its own below 127.0.0.0/8, by which the server's end of
/// its socket is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spec {
    address: Ipv4Addr,
    path: u64,
    interval_ms: u64,
    zone: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Retuned,
    Replaced,
    Added,
    Removed,
}

/// splitmix64: the same seed, the same test.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

struct Model {
    targets: BTreeMap<String, Spec>,
    born: u32,
    dice: Dice,
}

impl Model {
    fn add(&mut self) -> String {
        self.born += 1;
        let [_, _, high, low] = self.born.to_be_bytes();
        let spec = Spec {
            address: Ipv4Addr::new(127, 1, high, low),
            path: self.dice.below(1000),
            interval_ms: 500 + self.dice.below(1000),
            zone: self.dice.below(3),
        };
        let name = format!("t{:05}", self.born);
        self.targets.insert(name.clone(), spec);
        name
    }

    /// Rolls every target's fate in the next reload, and applies it.
    fn change(&mut self) -> BTreeMap<String, Fate> {
        let mut fates = BTreeMap::new();
        let names: Vec<String> = self.targets.keys().cloned().collect();
        for name in names {
            let spec = self.targets.get_mut(&name).unwrap();
            let fate = match self.dice.below(100) {
                0..70 => Fate::Kept,
                70..78 => {
                    spec.zone += 1;
                    Fate::Retuned
                }
                78..86 => {
                    spec.interval_ms = 500 + (spec.interval_ms - 499) % 1000;
                    Fate::Retuned
                }
                86..93 => {
                    spec.path += 1;
                    spec.zone += self.dice.below(2);
                    Fate::Replaced
                }
                _ => {
                    self.targets.remove(&name);
                    Fate::Removed
                }
            };
            fates.insert(name, fate);
        }
        for _ in 0..40 + self.dice.below(60) {
            fates.insert(self.add(), Fate::Added);
        }
        fates
    }

    fn text(&self, port: u16) -> String {
        let target = |(name, spec): (&String, &Spec)| {
            let Spec {
                address,
                path,
                interval_ms,
                zone,
            } = spec;
            format!(
                "[[target]]\nname = \"{name}\"\nurl = \"ws://{address}:{port}/p{path}\"\n\
                 ping_interval = \"{interval_ms}ms\"\nlabels = {{ zone = \"z{zone}\" }}\n"
            )
        };
        // Long enough for a busy machine, and short enough to show a pong that a reload lost.
        let defaults = "[defaults]\npong_timeout = \"8s\"\n".to_owned();
        self.targets
            .iter()
            .fold(defaults, |text, one| text + &target(one))
    }

    /// Waits until the server holds exactly one socket of each target, not one of them a socket
    /// that was there `before` and is to be `replaced`; returns them. The reload's line does not
    /// wait for that: each target hangs up and dials in its own time.
    fn settled(
        &self,
        port: u16,
        before: &BTreeMap<String, ServerEnd>,
        replaced: &BTreeSet<&str>,
    ) -> BTreeMap<String, ServerEnd> {
        until(
            "one socket for each target, and no other",
            secs(40.0),
            || {
                let sockets = sockets_of(port);
                let wanted: BTreeSet<Ipv4Addr> =
                    self.targets.values().map(|spec| spec.address).collect();
                let odd: Vec<_> = sockets
                    .iter()
                    .filter(|(address, ends)| {
                        ends.len() != 1 || ends[0].inode == 0 || !wanted.contains(address)
                    })
                    .take(5)
                    .collect();
                if !odd.is_empty() || sockets.len() != wanted.len() {
                    return Err(format!("{} of {}; {odd:?}", sockets.len(), wanted.len()));
                }
                let socket =
                    |(name, spec): (&String, &Spec)| (name.clone(), sockets[&spec.address][0]);
                let now: BTreeMap<_, _> = self.targets.iter().map(socket).collect();
                let left = replaced.iter().filter(|name| before[**name] == now[**name]);
                match left.count() {
                    0 => Ok(now),
                    left => Err(format!("{left} of {} are not replaced", replaced.len())),
                }
            },
        )
    }
}

fn by_target(scrape: &Scrape, metric: &str) -> BTreeMap<String, f64> {
    let series = scrape.find(metric, &[]);
    series
        .map(|series| (series.labels["target"].clone(), series.value))
        .collect()
}

#[test]
fn unchanged_and_retuned_targets_keep_their_sockets_through_ten_random_reloads() {
    let _machine = alone();
    let seed = std::env::var("SEED").map_or_else(
        |_| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_secs()
        },
        |seed| seed.parse().expect("SEED is a number"),
    );
    println!("SEED={seed}");
    let mut model = Model {
        targets: BTreeMap::new(),
        born: 0,
        dice: Dice(seed),
    };
    for _ in 0..TARGETS {
        model.add();
    }
    let port = free_port();
    let server = Daemon::server(port, &[]);
    let daemon = Daemon::run(&model.text(port));
    let mut sockets = model.settled(port, &BTreeMap::new(), &BTreeSet::new());
    let mut pings = BTreeMap::<String, f64>::new();

    for reload in 1..=RELOADS {
        let fates = model.change();
        let lines = daemon.process.stderr.len();
        daemon.dir.rename_over(&daemon.text(&model.text(port)));
        let count = |fate| fates.values().filter(|has| **has == fate).count() as u64;
        let expected = [
            ("kept", count(Fate::Kept)),
            ("retuned", count(Fate::Retuned)),
            ("replaced", count(Fate::Replaced)),
            ("added", count(Fate::Added)),
            ("removed", count(Fate::Removed)),
        ];
        let reported =
            daemon
                .process
                .stderr
                .wait_from(lines, "the reload's line", secs(30.0), |line| {
                    let number = |(word, _): &(&'static str, u64)| {
                        Some((*word, number_after(&line.text, word)?))
                    };
                    let numbers: Vec<_> = expected.iter().filter_map(number).collect();
                    (numbers.len() == expected.len()).then(|| numbers.clone())
                });
        assert_eq!(reported, expected, "reload {reload}");

        // Server's side: who kept its socket.
        let replaced = fates.iter().filter(|(_, fate)| **fate == Fate::Replaced);
        let replaced = replaced.map(|(name, _)| name.as_str()).collect();
        let now = model.settled(port, &sockets, &replaced);
        for (name, fate) in &fates {
            let (before, after) = (sockets.get(name), now.get(name));
            let holds = match fate {
                Fate::Kept | Fate::Retuned => before == after && after.is_some(),
                Fate::Replaced => before != after && before.is_some() && after.is_some(),
                Fate::Added => before.is_none() && after.is_some(),
                Fate::Removed => before.is_some() && after.is_none(),
            };
            assert!(
                holds,
                "reload {reload}: {name} was {fate:?}: {before:?}, then {after:?}"
            );
        }

        // Our side: no series of a removed target, labels as they are now, counters never back.
        let scrape = daemon.scrape_until(
            "all are established, none is left over",
            secs(30.0),
            |scrape| {
                let up = by_target(scrape, "established");
                up.len() == model.targets.len() && up.values().all(|value| *value == 1.0)
            },
        );
        // What the server's kernel had taken up may have been dialed again before it was answered.
        sockets = model.settled(port, &BTreeMap::new(), &BTreeSet::new());
        let names: BTreeSet<&str> = model.targets.keys().map(String::as_str).collect();
        assert_eq!(scrape.targets(), names, "reload {reload}");
        for (name, spec) in &model.targets {
            let labels = [
                ("target", name.as_str()),
                ("zone", &format!("z{}", spec.zone)),
            ];
            assert!(
                scrape.value("established", &labels).is_some(),
                "reload {reload}: {labels:?}"
            );
        }
        let sent = by_target(&scrape, "sent_ping_total");
        for (name, before) in &pings {
            if let Some(after) = sent.get(name) {
                assert!(
                    after >= before,
                    "reload {reload}: {name} sent {before} pings, then {after}"
                );
            }
        }
        pings = sent;
    }

    // Pings went on all the while, and after: every target is answered once more.
    let before = by_target(&daemon.scrape(), "received_pong_total");
    daemon.scrape_until("every target gets another pong", secs(30.0), |scrape| {
        let now = by_target(scrape, "received_pong_total");
        before.iter().all(|(name, count)| now[name] > *count)
    });
    let scrape = daemon.scrape();
    let retries: f64 = by_target(&scrape, "ping_retry_count_total").values().sum();
    assert_eq!(retries, 0.0, "nobody was silent");
    let causes: BTreeSet<&str> = scrape
        .find("ws_keepalive_disconnects_by_cause_total", &[])
        .filter(|series| series.value > 0.0)
        .map(|series| series.labels["cause"].as_str())
        .collect();
    assert_eq!(
        causes,
        BTreeSet::from(["replaced"]),
        "no connection ended but by a reload"
    );
    drop(server);
}
