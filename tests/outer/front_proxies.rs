//! In front of services: the configurations in examples/proxies, before two servers. What each proxy
//! does to long connections is the table in docs/proxies.md; `UPDATE=1` writes it anew.

use std::fmt::Write as _;
use std::time::Instant;

use crate::support::*;

/// Around the table.
const BEGIN: &str =
    "<!-- Made by tests/outer/front_proxies.rs from what it sees; UPDATE=1 writes it anew. -->\n";
const END: &str = "<!-- The end of what is made. -->\n";

/// What the timers of the files are set to.
const IDLE: f64 = 3.0;
const DRAIN: f64 = 10.0;
/// In how long we notice a backend that hangs.
const HUNG: f64 = 1.5;
/// What a busy machine may add to a timer.
const LATE: f64 = 8.0;
/// What it may add to what is at once: less than a drain.
const AT_ONCE: f64 = 7.0;

const SCHEMES: [&str; 4] = ["ws", "wss", "http", "https"];

#[test]
fn the_examples_are_valid_as_they_stand_and_check_warns_of_pings_too_rare() {
    let _machine = shared();
    let pki = Pki::new("outer");
    let pair = pki.leaf(Leaf::Good);
    for kind in Kind::ALL {
        let dir = kind.lay(&pair);
        let checked = kind.check(dir.path());
        let said = [&checked.stdout[..], &checked.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said).to_lowercase();
        assert!(checked.status.success(), "{kind:?}: {said}");
        // Caddy warns of what is so on purpose: no ACME, no OCSP.
        let warned = kind != Kind::Caddy && said.contains("warn");
        assert!(!warned, "{kind:?}: {said}");
    }

    let dir = ConfigDir::new();
    let text = watching(dir.path(), &pki, &[]);
    dir.overwrite(&text);
    let file = dir.file();
    let check = || output_of(&mut program(&["check", file.to_str().unwrap()]));
    let good = check();
    assert!(good.status.success() && good.stderr.is_empty(), "{good:?}");
    assert!(text.contains("ping_interval = \"10s\"\n"), "{text}");
    dir.overwrite(&text.replace("ping_interval = \"10s\"", "ping_interval = \"45s\""));
    let rare = check();
    let said = [&rare.stdout[..], &rare.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let expected = "a ping_interval of 45s is not below half of the path_idle_timeout of 1m30s";
    assert!(rare.status.success() && said.contains(expected), "{said}");
}

#[test]
fn the_examples_hold_websockets_and_streams_spread_over_both_backends_and_hold_back_nothing() {
    let _machine = shared();
    let pki = Pki::new("outer");
    let pair = pki.leaf(Leaf::Good);
    let houses: Vec<House> = Kind::ALL.map(|kind| House::build(kind, &pair, &[])).into();
    let fronts: Vec<&Front> = houses.iter().map(|house| &house.front).collect();
    let dir = ConfigDir::new();
    let text = watching(dir.path(), &pki, &fronts)
        .replace("ping_interval = \"10s\"", "ping_interval = \"300ms\"")
        .replace("/events\"", "/events?interval=300ms\"");
    let daemon = Daemon::run_in(dir, |dir, text| dir.overwrite(text), &text);
    let names = |scheme: &str| Kind::ALL.map(|kind| format!("{}-{scheme}", kind.name()));
    let scrape = daemon.scrape_until("ten beats on each", secs(30.0), |scrape| {
        let beats = |name: &String, metric| scrape.of_target(metric, name) >= Some(10.0);
        let pongs = |name: &String| beats(name, "received_pong_total");
        let events = |name: &String| beats(name, "ws_keepalive_messages_received_total");
        ["ws", "wss"].iter().all(|s| names(s).iter().all(pongs))
            && ["http", "https"]
                .iter()
                .all(|s| names(s).iter().all(events))
    });
    for name in SCHEMES.iter().flat_map(|scheme| names(scheme)) {
        let drops = scrape.of_target("ws_keepalive_disconnects_total", &name);
        assert_eq!(drops, Some(0.0), "{name}");
        if name.ends_with("http") || name.ends_with("https") {
            let gap = scrape.of_target("ws_keepalive_arrival_gap_seconds", &name);
            assert!(gap < Some(5.0), "{name}: an event in 300 ms, and {gap:?}");
        }
    }
    for house in &houses {
        let name = house.front.kind.name();
        let held = house.backends.each_ref().map(|backend| {
            let scrape = backend.as_ref().unwrap().scrape();
            scrape
                .find("ws_keepalive_server_connections", &[])
                .map(|s| s.value)
                .sum::<f64>()
        });
        assert_eq!(held[0] + held[1], 4.0, "{name}: {held:?}");
        assert!(held[0] >= 1.0 && held[1] >= 1.0, "{name}: {held:?}");
        house.shows(4);
    }
}

#[test]
fn nginx_that_counts_failures_lets_one_long_connection_in_and_keeps_the_others_out() {
    let _machine = shared();
    let pki = Pki::new("outer");
    let pair = pki.leaf(Leaf::Good);
    let counting = [("max_fails=0", "max_fails=1 fail_timeout=5s")];
    let mut house = House::build(Kind::Nginx, &pair, &counting);
    let mut text = HASTY.to_owned();
    for n in 0..6 {
        text += &target(&format!("edge-{n}"), &house.url("ws", "/ws"), "");
    }
    let daemon = Daemon::run(&text);
    let established = |scrape: &Scrape| {
        scrape
            .find("established", &[])
            .filter(|series| series.value == 1.0)
            .count()
    };
    daemon.scrape_until("all six", secs(15.0), |scrape| established(scrape) == 6);
    house.backends[0] = None;
    daemon.scrape_until("all six on the other", secs(15.0), |scrape| {
        let back = |n| scrape.of_target("ws_keepalive_connects_total", &format!("edge-{n}"));
        let all: f64 = (0..6).filter_map(back).sum();
        all >= 9.0 && established(scrape) == 6
    });
    house.open(0);
    // It is past fail_timeout before the other one goes, so one request may try it.
    let since = Instant::now();
    until("fail_timeout is over", secs(15.0), || {
        (since.elapsed() > secs(5.5))
            .then_some(())
            .ok_or(String::new())
    });
    house.backends[1] = None;
    until("one in, five refused", secs(15.0), || {
        let refused = (0..6)
            .filter(|n| {
                let entry = daemon.api(&format!("edge-{n}")).unwrap();
                let message = entry["last_error"]["message"].as_str().unwrap_or_default();
                entry["state"] != "established" && message.contains("502 Bad Gateway")
            })
            .count();
        let held = established(&daemon.scrape());
        (held == 1 && refused == 5)
            .then_some(())
            .ok_or(format!("{held} in, {refused} refused"))
    });
}

/// What is done to the proxy, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Idle,
    Beaten,
    OneWay,
    Hung,
    Reload,
    Drained,
    Drain,
    Stop,
    Kill,
    BackendStop,
    BackendKill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    WebSocket,
    Stream,
}

/// How a connection ends.
#[derive(Debug)]
struct End {
    cause: &'static str,
    initiator: &'static str,
    /// Of the log line.
    words: &'static str,
    /// The code of the peer's Close.
    close: Option<u64>,
}

const fn by_peer(cause: &'static str, words: &'static str, close: Option<u64>) -> End {
    let initiator = "peer";
    End {
        cause,
        initiator,
        words,
        close,
    }
}

const fn by_us(cause: &'static str, words: &'static str) -> End {
    let (initiator, close) = ("us", None);
    End {
        cause,
        initiator,
        words,
        close,
    }
}

const FIN: End = by_peer("fin", "peer vanished (FIN, no Close)", None);
const FIN_AMID: End = by_peer(
    "fin",
    "peer vanished (FIN in the middle of the response)",
    None,
);
const RESET: End = by_peer("reset", "peer reset the connection (RST, no Close)", None);
const NORMAL: End = by_peer(
    "closed_normal",
    "peer closed normally (Close 1000)",
    Some(1000),
);
const COMPLETE: End = by_peer(
    "closed_normal",
    "peer ended the event stream (the response is complete)",
    None,
);
const GOING: End = by_peer(
    "closed_going_away",
    "peer is going away (Close 1001)",
    Some(1001),
);
const COMPLAINT: End = by_peer("closed_other", "peer closed (Close 1002", Some(1002));
const NO_PONG: End = by_us("pong_timeout", "no pong to a ping");
const SILENCE: End = by_us(
    "silence",
    "no heartbeat from the peer for 1.5s (max_silence)",
);
const ALL_ENDS: [End; 9] = [
    FIN, FIN_AMID, RESET, NORMAL, COMPLETE, GOING, COMPLAINT, NO_PONG, SILENCE,
];

/// What is seen of an event: one of these ends, and when; or none.
enum Expected {
    Ends(&'static [End], When),
    Held(&'static str),
}

enum When {
    AtOnce,
    /// So long after the event, or the last frame; and which timer that is.
    After(f64, &'static str),
}

/// What is known of each proxy. The test fails where it does anything else.
fn expected(kind: Kind, event: Event, way: Way) -> Option<Expected> {
    use Event::*;
    use Expected::{Ends, Held};
    use Kind::*;
    use When::{After, AtOnce};
    let websocket = way == Way::WebSocket;
    let fin: &[End] = if websocket { &[FIN] } else { &[FIN_AMID] };
    // Who closes with a ping of ours unread resets: the kernel's doing. A stream brings none.
    let busy: &[End] = if websocket { &[FIN, RESET] } else { fin };
    let idle = match (kind, way) {
        (Nginx, _) => "`proxy_read_timeout`",
        (Haproxy, Way::WebSocket) => "`timeout tunnel`",
        (Haproxy, Way::Stream) => "`timeout server`",
        (Caddy, _) => "`read_timeout`",
    };
    let drain = match kind {
        Nginx => "`worker_shutdown_timeout`",
        Haproxy => "`hard-stop-after`",
        Caddy => "`grace_period`",
    };
    // Caddy's Close races with the end of the TCP connection, and may cut a ping in two on its way to the
    // backend, whose complaint may come first.
    let caddys: &[End] = match way {
        Way::WebSocket => &[GOING, FIN, RESET, COMPLAINT],
        Way::Stream => &[COMPLETE],
    };
    Some(match (event, kind) {
        (Idle, Nginx | Haproxy) => Ends(fin, After(IDLE, idle)),
        (Idle, Caddy) => Ends(if websocket { fin } else { &[COMPLETE] }, After(IDLE, idle)),
        (Beaten, _) => Held("never"),
        // A stream has one way only.
        (OneWay, _) if !websocket => return None,
        (OneWay, Nginx | Haproxy) => Held("never: the timer hears both ways"),
        (OneWay, Caddy) => Ends(
            fin,
            After(IDLE, "`read_timeout`, which hears the backend alone"),
        ),
        (Hung, _) => Ends(
            if websocket { &[NO_PONG] } else { &[SILENCE] },
            After(HUNG, "our own"),
        ),
        (Reload, Nginx | Haproxy) => {
            Held("the old process keeps it, the new one takes what is new")
        }
        (Reload, Caddy) => Ends(caddys, AtOnce),
        (Drained, Nginx | Haproxy) => Ends(busy, After(DRAIN, drain)),
        (Drained | Drain, Caddy) => return None,
        (Drain, Nginx | Haproxy) => Ends(busy, After(DRAIN, drain)),
        (Stop, Nginx | Haproxy) => Ends(busy, AtOnce),
        // Its process is gone soon after.
        (Stop, Caddy) if !websocket => Ends(&[COMPLETE, FIN_AMID], After(DRAIN, drain)),
        (Stop, Caddy) => Ends(caddys, After(DRAIN, drain)),
        (Kill, _) => Ends(busy, AtOnce),
        (BackendStop, _) => Ends(if websocket { &[NORMAL] } else { &[COMPLETE] }, AtOnce),
        (BackendKill, Caddy) if !websocket => Ends(&[COMPLETE], AtOnce),
        (BackendKill, _) => Ends(busy, AtOnce),
    })
}

#[test]
fn what_each_proxy_does_to_long_connections_is_what_the_table_says() {
    let _machine = shared();
    let pki = Pki::new("outer");
    let pair = pki.leaf(Leaf::Good);
    std::thread::scope(|scope| {
        let (pki, pair) = (&pki, &pair);
        let tests = Kind::ALL.map(|kind| {
            [
                scope.spawn(move || timers(kind, pki, pair)),
                scope.spawn(move || ends(kind, pki, pair)),
            ]
        });
        for test in tests.into_iter().flatten() {
            // Its own words are on stderr already.
            assert!(test.join().is_ok(), "a proxy did something else");
        }
    });
    hold_the_table(&table());
}

/// What time does: silence, beats, pings that are not answered; and what a reload leaves alone.
fn timers(kind: Kind, pki: &Pki, pair: &Pair) {
    let names: &[&str] = match kind {
        Kind::Nginx => &["proxy_read_timeout"],
        Kind::Haproxy => &["timeout tunnel", "timeout client", "timeout server"],
        Kind::Caddy => &["read_timeout"],
    };
    let times = names
        .iter()
        .map(|name| [90.0, IDLE].map(|time| format!("{name} {time}s")));
    let times: Vec<[String; 2]> = times.collect();
    let times: Vec<(&str, &str)> = times.iter().map(|[from, to]| (&**from, &**to)).collect();
    let house = House::build(kind, pair, &times);
    let daemon = Daemon::run(&targets_for_timers(&house, pki));
    let begun = Instant::now();
    let cut = [
        (Event::Hung, "hung"),
        (Event::Idle, "idle"),
        (Event::OneWay, "oneway"),
    ];
    for (event, name) in cut {
        for scheme in SCHEMES {
            let Some(Expected::Ends(ends, when)) = expected(kind, event, way(scheme)) else {
                continue;
            };
            let When::After(after, _) = when else {
                unreachable!("a timer is never at once")
            };
            let target = format!("{name}-{scheme}");
            let line = lost(&daemon, &target, 0);
            judge(kind, event, &line, ends);
            let silent = line.field("since_last_frame_in_seconds");
            // Nothing ever came: since it was there.
            let silent = silent.or_else(|| line.field("age_seconds"));
            let silent = silent.and_then(serde_json::Value::as_f64).unwrap();
            let range = after - 0.5..after + LATE;
            assert!(
                range.contains(&silent),
                "{target}: after {silent} s: {line:?}"
            );
        }
    }
    if kind == Kind::Haproxy {
        until("HAProxy names its timers", secs(15.0), || {
            let log = house.front.log();
            let both = log.contains(" cD-- ") && log.contains(" sD-- ");
            both.then_some(()).ok_or(log)
        });
    }
    if kind != Kind::Caddy {
        house.front.reload();
    }
    let reloaded = Instant::now();
    until("two timers, and one since the reload", secs(20.0), || {
        let passed = begun.elapsed() > secs(2.5 * IDLE) && reloaded.elapsed() > secs(1.2 * IDLE);
        passed.then_some(()).ok_or(String::new())
    });
    for (event, name) in [(Event::Beaten, "beaten"), (Event::OneWay, "oneway")] {
        for scheme in SCHEMES {
            if let Some(Expected::Held(_)) = expected(kind, event, way(scheme)) {
                stands(&daemon, &format!("{name}-{scheme}"));
            }
        }
    }
}

fn targets_for_timers(house: &House, pki: &Pki) -> String {
    let mut text = format!("{ONCE}tls = {{ ca = {:?} }}\n", pki.ca());
    let websocket = [
        ("idle", "/ws", "ping_interval = \"1h\""),
        ("beaten", "/ws", "ping_interval = \"1s\""),
        (
            "oneway",
            "/ws?no_pongs_after=1",
            "ping_interval = \"1s\"\npong_timeout = \"1s\"\nmax_retry_limit = 1000",
        ),
        (
            "hung",
            "/ws?stall&after=1s",
            "ping_interval = \"500ms\"\npong_timeout = \"1s\"\nmax_retry_limit = 0",
        ),
    ];
    let stream = [
        ("idle", "/events?interval=1h&heartbeat=1h", ""),
        ("beaten", "/events?interval=1h&heartbeat=1s", ""),
        (
            "hung",
            "/events?interval=500ms&stall&after=1s",
            "max_silence = \"1.5s\"",
        ),
    ];
    for scheme in SCHEMES {
        let targets: &[_] = match way(scheme) {
            Way::WebSocket => &websocket,
            Way::Stream => &stream,
        };
        for (name, path, keys) in targets {
            text += &target(&format!("{name}-{scheme}"), &house.url(scheme, path), keys);
        }
    }
    text
}

/// What is done to the proxy, and to what stands behind it.
fn ends(kind: Kind, pki: &Pki, pair: &Pair) {
    let drain: (&str, String) = match kind {
        Kind::Nginx => (
            "worker_shutdown_timeout 10m",
            format!("worker_shutdown_timeout {DRAIN}s"),
        ),
        Kind::Haproxy => ("hard-stop-after 10m", format!("hard-stop-after {DRAIN}s")),
        Kind::Caddy => ("grace_period 4s", format!("grace_period {DRAIN}s")),
    };
    let mut house = House::build(kind, pair, &[(drain.0, &drain.1)]);
    let mut text = format!("{HASTY}tls = {{ ca = {:?} }}\n", pki.ca());
    for scheme in SCHEMES {
        let path = match way(scheme) {
            Way::WebSocket => "/ws",
            Way::Stream => "/events?interval=300ms",
        };
        text += &target(
            &format!("{}-{scheme}", kind.name()),
            &house.url(scheme, path),
            "",
        );
    }
    // One backend, so that each of the four is on it when it goes.
    house.backends[1] = None;
    let daemon = Daemon::run(&text);
    let mut seen = Seen {
        daemon: &daemon,
        kind,
        times: 1.0,
    };
    seen.all_stand();

    let reload = if kind == Kind::Caddy {
        Event::Reload
    } else {
        Event::Drained
    };
    seen.all_end(reload, || house.front.reload());
    seen.all_stand();
    if kind == Kind::Haproxy {
        // Where it says who ended a session; only the old process' sessions are ended so.
        until("HAProxy says that it killed them", secs(15.0), || {
            let log = house.front.log();
            log.contains(" K--- ").then_some(()).ok_or(log)
        });
    }
    if kind != Kind::Caddy {
        seen.all_end(Event::Drain, || house.front.drain());
        house.front.again(false);
        seen.all_stand();
    }
    seen.all_end(Event::Stop, || house.front.stop());
    house.front.again(false);
    seen.all_stand();
    seen.all_end(Event::Kill, || house.front.kill());
    house.front.again(true);
    seen.all_stand();

    house.open(1);
    seen.all_end(Event::BackendStop, || {
        house.backends[0]
            .as_ref()
            .unwrap()
            .process
            .signal(Signal::TERM)
    });
    seen.all_stand();
    house.backends[0] = None;
    house.open(0);
    seen.all_end(Event::BackendKill, || {
        house.backends[1]
            .as_ref()
            .unwrap()
            .process
            .signal(Signal::KILL)
    });
    seen.all_stand();
}

/// Four targets through one proxy, again and again lost and back.
struct Seen<'d> {
    daemon: &'d Daemon,
    kind: Kind,
    /// How often each was established, when all stand.
    times: f64,
}

impl Seen<'_> {
    fn names(&self) -> [String; 4] {
        SCHEMES.map(|scheme| format!("{}-{scheme}", self.kind.name()))
    }

    /// All are there for the next time, and a beat has passed on each.
    fn all_stand(&mut self) {
        for name in self.names() {
            let what = format!("{name} stands for the {}. time", self.times);
            let scrape = self.daemon.scrape_until(&what, secs(30.0), |scrape| {
                scrape.of_target("established", &name) == Some(1.0)
                    && scrape.of_target("ws_keepalive_connects_total", &name) == Some(self.times)
            });
            let beats = |scrape: &Scrape| {
                [
                    "received_pong_total",
                    "ws_keepalive_messages_received_total",
                ]
                .iter()
                .filter_map(|metric| scrape.of_target(metric, &name))
                .sum::<f64>()
            };
            let before = beats(&scrape);
            self.daemon
                .scrape_until(&format!("{name} is held"), secs(30.0), |scrape| {
                    beats(scrape) >= before + 2.0
                });
        }
        self.times += 1.0;
    }

    /// Does it, and looks how each of the four ends, and when.
    fn all_end(&self, event: Event, action: impl FnOnce()) {
        let position = self.daemon.process.stderr.len();
        action();
        // Of a command, when it returned.
        let begun = Instant::now();
        for name in self.names() {
            let (_, scheme) = name.split_once('-').unwrap();
            let Some(Expected::Ends(ends, when)) = expected(self.kind, event, way(scheme)) else {
                unreachable!("{event:?} ends connections")
            };
            let line = lost(self.daemon, &name, position);
            judge(self.kind, event, &line, ends);
            let after = line.at.saturating_duration_since(begun).as_secs_f64();
            let range = match when {
                When::AtOnce => 0.0..AT_ONCE,
                When::After(timer, _) => timer - 0.5..timer + LATE,
            };
            assert!(
                range.contains(&after),
                "{event:?}, {name}: after {after} s: {line:?}"
            );
        }
    }
}

/// Each wait is short, and each loss is followed by a dial.
const HASTY: &str = "[defaults]\nping_interval = \"300ms\"\npong_timeout = \"10s\"\n\
    reconnect = { initial = \"200ms\", max = \"400ms\", jitter = 0.0 }\n";
/// No second dial comes before the test is over.
const ONCE: &str = "[defaults]\nmax_silence = \"1h\"\n\
    reconnect = { initial = \"1h\", max = \"1h\", jitter = 0.0 }\n";

fn target(name: &str, url: &str, keys: &str) -> String {
    format!("[[target]]\nname = \"{name}\"\nurl = \"{url}\"\n{keys}\n")
}

fn way(scheme: &str) -> Way {
    match scheme {
        "ws" | "wss" => Way::WebSocket,
        _ => Way::Stream,
    }
}

/// A proxy and the two servers behind it.
struct House {
    front: Front,
    ports: [u16; 2],
    backends: [Option<Daemon>; 2],
}

impl House {
    fn build(kind: Kind, pair: &Pair, times: &[(&str, &str)]) -> Self {
        let ports = [free_port(), free_port()];
        let backends = ports.map(|port| Some(backend(port)));
        let front = Front::start(kind, ports, pair, times);
        let house = Self {
            front,
            ports,
            backends,
        };
        house.knows(0);
        house.knows(1);
        house
    }

    /// Puts a server where there is none.
    fn open(&mut self, which: usize) {
        self.backends[which] = Some(backend(self.ports[which]));
        self.knows(which);
    }

    /// HAProxy asks its servers by itself; the others learn it when they need one.
    fn knows(&self, which: usize) {
        if self.front.kind == Kind::Haproxy {
            let line = format!("realtime,{},", ["one", "two"][which]);
            until(&format!("{line} is UP"), secs(15.0), || {
                let table = self.front.status("/stats;csv")?;
                let up = |row: &str| row.starts_with(&line) && row.contains(",UP,");
                table.lines().any(up).then_some(()).ok_or(table)
            });
        }
    }

    fn url(&self, scheme: &str, path: &str) -> String {
        let port = match scheme {
            "ws" | "http" => self.front.ports.plain,
            _ => self.front.ports.tls,
        };
        format!("{scheme}://localhost:{port}{path}")
    }

    /// Its own page says that it holds so many.
    fn shows(&self, held: usize) {
        let front = &self.front;
        let sum = |text: &str, start: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(start));
            lines
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        until("the proxy shows them", secs(30.0), || match front.kind {
            Kind::Nginx => {
                let page = front.status("/stub_status")?;
                // It counts whoever asks.
                let all = format!("Active connections: {} \n", held + 1);
                let writing = format!(" Writing: {} ", held + 1);
                (page.contains(&all) && page.contains(&writing))
                    .then_some(())
                    .ok_or(page)
            }
            Kind::Haproxy => {
                let page = front.status("/metrics")?;
                let now = sum(&page, "haproxy_server_current_sessions{proxy=\"realtime\"");
                (now == held as f64).then_some(()).ok_or(page)
            }
            Kind::Caddy => {
                let page = front.status("/reverse_proxy/upstreams")?;
                let metrics = front.status("/metrics")?;
                let counts = page.split("\"num_requests\":").skip(1);
                let now: u64 = counts.filter_map(|rest| number_after(rest, "")).sum();
                let handler = "caddy_http_requests_in_flight{handler=\"reverse_proxy\"";
                let both = now == held as u64 && sum(&metrics, handler) == held as f64;
                both.then_some(()).ok_or(page + &metrics)
            }
        });
    }
}

/// A server that pings nobody: what passes is the client's, or the stream's.
fn backend(port: u16) -> Daemon {
    Daemon::server(port, &["--ping-interval", "1h", "--faults"])
}

/// The line of the target's loss, from `position` on.
fn lost(daemon: &Daemon, target: &str, position: usize) -> std::sync::Arc<Line> {
    let what = format!("{target} is lost");
    let found = |line: &Line| line.text_of("event") == "lost" && line.text_of("target") == target;
    let log = &daemon.process.stderr;
    let at = log.wait_from(position, &what, secs(30.0), |line| {
        found(line).then_some(line.at)
    });
    let lines = log.all();
    let mut lines = lines.into_iter().skip(position);
    lines.find(|line| found(line) && line.at == at).unwrap()
}

fn judge(kind: Kind, event: Event, line: &Line, ends: &[End]) {
    let code = line
        .field("received_code")
        .and_then(serde_json::Value::as_u64);
    let is = |end: &End| {
        line.text_of("cause") == end.cause
            && line.text_of("initiator") == end.initiator
            && line.text_of("message").contains(end.words)
            && code == end.close
    };
    assert!(
        ends.iter().any(is),
        "{kind:?}, {event:?}: {ends:?} expected, and {line:?}"
    );
}

/// It was never lost.
fn stands(daemon: &Daemon, target: &str) {
    let scrape = daemon.scrape();
    let value = |metric| scrape.of_target(metric, target);
    let (is, ended) = (
        value("established"),
        value("ws_keepalive_disconnects_total"),
    );
    assert_eq!(
        (is, ended),
        (Some(1.0), Some(0.0)),
        "{target}: {:?}",
        daemon.api(target)
    );
}

fn table() -> String {
    let rows = [
        (Event::Idle, "nothing passes for the idle timer"),
        (
            Event::Beaten,
            "pings, or a stream's comments, in a third of that timer",
        ),
        (Event::OneWay, "our pings pass, and no answer comes back"),
        (
            Event::Hung,
            "the backend hangs, and our timers are shorter than the proxy's",
        ),
        (Event::Reload, "reload: what stands"),
        (Event::Drained, "reload: the drain's limit comes"),
        (
            Event::Drain,
            "stop in good manners: `SIGQUIT`; of HAProxy `SIGUSR1`",
        ),
        (Event::Stop, "stop: `SIGTERM`"),
        (Event::Kill, "`SIGKILL` of what holds the connections"),
        (
            Event::BackendStop,
            "a backend stops: `ws-keepalive server`, `SIGTERM`",
        ),
        (Event::BackendKill, "a backend dies: `SIGKILL`"),
    ];
    let mut text = "| what happens | through | WebSocket | event stream | initiator | when |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for (event, what) in rows {
        // Those that do the same share a row.
        let mut seen: Vec<(String, Vec<&str>)> = Vec::new();
        for kind in Kind::ALL {
            let Some(row) = row(kind, event) else {
                continue;
            };
            match seen.iter_mut().find(|(known, _)| *known == row) {
                Some((_, kinds)) => kinds.push(kind.shown()),
                None => seen.push((row, vec![kind.shown()])),
            }
        }
        for (row, kinds) in seen {
            let _ = writeln!(text, "| {what} | {} | {row} |", kinds.join(", "));
        }
    }
    text += "\nIn the log, after `NAME lost: `, and in `message` of the record:\n\n";
    for End {
        cause,
        words,
        close,
        ..
    } in ALL_ENDS
    {
        let close = close.map_or_else(String::new, |code| format!(", Close {code}"));
        // The reason of a Close follows.
        let open = words.contains('(') && !words.ends_with(')');
        let rest = if open { " ..)" } else { "" };
        let _ = writeln!(text, "- `{cause}`{close}: `{words}{rest}`");
    }
    text
}

/// The cells about one proxy.
fn row(kind: Kind, event: Event) -> Option<String> {
    let of = |way| expected(kind, event, way);
    let cell = |expected: &Option<Expected>| match expected {
        None => "-".to_owned(),
        Some(Expected::Held(_)) => "stays".to_owned(),
        Some(Expected::Ends(ends, _)) => {
            let shown = ends.iter().map(|End { cause, close, .. }| match close {
                Some(code) => format!("`{cause}` ({code})"),
                None => format!("`{cause}`"),
            });
            shown.collect::<Vec<_>>().join(" or ")
        }
    };
    let when = |expected: &Expected| match expected {
        Expected::Held(why) => (*why).to_owned(),
        Expected::Ends(_, When::AtOnce) => "at once".to_owned(),
        Expected::Ends(_, When::After(seconds, timer)) => format!("{timer} ({seconds} s)"),
    };
    let (websocket, stream) = (of(Way::WebSocket), of(Way::Stream));
    let mut whens: Vec<String> = [&websocket, &stream]
        .into_iter()
        .flatten()
        .map(when)
        .collect();
    whens.dedup();
    let first = websocket.as_ref()?;
    let initiator = match first {
        Expected::Held(_) => "-",
        // The same of all that it may be.
        Expected::Ends(ends, _) => ends[0].initiator,
    };
    let (websocket, stream) = (cell(&websocket), cell(&stream));
    Some(format!(
        "{websocket} | {stream} | {initiator} | {}",
        whens.join("; of a stream ")
    ))
}

fn hold_the_table(made: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/proxies.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (there, after) = rest.split_once(END).expect("where the table ends");
    if there.trim() == made.trim() {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}\n{made}\n{END}{after}")).unwrap();
        return;
    }
    for line in made.lines().filter(|line| !there.contains(line)) {
        println!("seen, and not in the file: {line}");
    }
    panic!("the table of proxies in {path} is not what was seen: write it anew with UPDATE=1");
}
