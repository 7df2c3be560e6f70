//! Peers that fall silent, and the documented arithmetic of noticing it.

use std::time::{Duration, Instant};

use crate::support::*;

/// How far from its due time a ping may be seen on a busy machine. Each is due so long after the one
/// before it was sent, so that lateness adds up; a ping too few or too many is off by more.
const SLACK: Duration = Duration::from_millis(900);

fn assert_near(what: &str, seen: &[Duration], due: &[f64]) {
    let fits = |(seen, due): (&Duration, &f64)| seen.abs_diff(secs(*due)) <= SLACK;
    let all = seen.iter().zip(due).all(fits) && seen.len() == due.len();
    assert!(all, "{what}: expected at {due:?} s, seen at {seen:?}");
}

/// Watches a counter until `gone`, and says when each step of it was seen.
fn steps(
    daemon: &Daemon,
    metric: &str,
    target: &str,
    within: Duration,
    count: usize,
) -> Vec<Instant> {
    let mut seen = Vec::new();
    daemon.scrape_until(&format!("{metric} reaches {count}"), within, |scrape| {
        let value = scrape.of_target(metric, target).unwrap_or(0.0) as usize;
        seen.resize(value.max(seen.len()), Instant::now());
        value >= count
    });
    seen
}

fn client_of(port: u16) -> Daemon {
    let port = port.to_string();
    Daemon::command(&[
        "client",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "-i",
        "1s",
        "-r",
        "3",
    ])
}

#[test]
fn client_pings_a_silent_peer_at_1_3_5_7_s_on_the_wire_and_gives_up_at_9_s() {
    let _machine = shared();
    let peer = OddPeer::upgrading(Manner {
        pongs: Pongs::None,
        ..Manner::default()
    });
    let mut client = client_of(peer.address.port());
    let (up, _) = peer.wait("the upgrade", secs(10.0), |what| {
        *what == Happened::Upgraded
    });
    let (close, _) = peer.wait("a Close", secs(12.0), |what| {
        matches!(what, Happened::Frame(Frame::Close { .. }))
    });
    let status = client.process.wait(secs(10.0));
    let pings: Vec<Duration> = peer.pings().iter().map(|at| *at - up).collect();
    assert_near("pings", &pings, &[1.0, 3.0, 5.0, 7.0]);
    assert_near("given up", &[close - up], &[9.0]);
    assert_eq!(exit_code(status), 1);
    assert_eq!(
        peer.dials().len(),
        1,
        "client without --reconnect dials once"
    );
    let lines = client.process.stdout.texts();
    let [up, last] = &lines[..] else {
        panic!("two lines, and no more: {lines:#?}")
    };
    assert!(up.starts_with("established ws://127.0.0.1:"), "{up}");
    let held = last
        .strip_prefix("held ")
        .and_then(|rest| rest.split(' ').next());
    let held: f64 = held.and_then(|held| held.parse().ok()).expect(last);
    assert_near("held", &[secs(held)], &[9.0]);
    let counted = "s: 4 pings, 0 pongs, 3 retries, no rtt; \
                   no pong to 4 pings (pong_timeout, ended by us)";
    assert!(last.ends_with(counted), "{last}");
}

#[test]
fn client_gives_up_a_peer_stopped_right_after_the_upgrade() {
    let _machine = shared();
    let (peer, port) = Foreign::node_server();
    let mut client = client_of(port);
    peer.event("open", secs(10.0), |_| true);
    peer.process.freeze();
    let line = |line: &Line| line.text.contains("established").then_some(line.at);
    let up = client.process.stdout.wait("established", secs(15.0), line);
    let retries = steps(
        &client,
        "ping_retry_count_total",
        "127.0.0.1",
        secs(15.0),
        3,
    );
    let since_up: Vec<Duration> = retries.iter().map(|at| *at - up).collect();
    assert_near("retries", &since_up, &[3.0, 5.0, 7.0]);
    let status = client.process.wait(secs(10.0));
    assert_near("exit", &[up.elapsed()], &[9.0]);
    assert_eq!(exit_code(status), 1);
    let last = client.process.stdout.all().last().unwrap().text.clone();
    assert!(
        last.contains("no pong to 4 pings (pong_timeout, ended by us)"),
        "{last}"
    );
}

#[test]
fn client_keeps_a_peer_that_is_continued_in_time_and_keeps_its_counts() {
    let _machine = shared();
    let (mut peer, port) = Foreign::node_server();
    let mut client = client_of(port);
    peer.event("open", secs(10.0), |_| true);
    peer.process.freeze();
    steps(
        &client,
        "ping_retry_count_total",
        "127.0.0.1",
        secs(15.0),
        1,
    );
    peer.process.thaw();
    let scrape = client.scrape_until("pongs go on", secs(15.0), |scrape| {
        scrape.of_target("received_pong_total", "127.0.0.1") >= Some(4.0)
    });
    assert_eq!(scrape.of_target("established", "127.0.0.1"), Some(1.0));
    assert_eq!(
        scrape.of_target("ping_retry_count_total", "127.0.0.1"),
        Some(1.0)
    );
    assert_eq!(peer.count("open"), 1, "the same connection");
    peer.close(1000, "enough");
    assert_eq!(exit_code(client.process.wait(secs(15.0))), 0);
}

#[test]
fn daemon_shows_a_stopped_peer_as_down_with_three_retries_and_gets_it_back() {
    let _machine = shared();
    let (peer, port) = Foreign::node_server();
    let daemon = Daemon::run(&format!(
        "[[target]]\nname = \"frozen\"\nurl = \"ws://127.0.0.1:{port}/ws\"\nping_interval = \"1s\"\n\
         reconnect = {{ initial = \"200ms\", max = \"500ms\" }}\nupgrade_timeout = \"1s\"\n"
    ));
    peer.event("open", secs(10.0), |_| true);
    peer.process.freeze();
    daemon.established("frozen", secs(15.0));
    let down = daemon.scrape_until("established is 0", secs(12.0), |scrape| {
        scrape.of_target("established", "frozen") == Some(0.0)
    });
    assert_eq!(
        down.of_target("ping_retry_count_total", "frozen"),
        Some(3.0)
    );
    // One may have been answered before the peer was stopped.
    let [sent, answered] = ["sent_ping_total", "received_pong_total"]
        .map(|metric| down.of_target(metric, "frozen").unwrap());
    assert_eq!(sent - answered, 4.0, "{sent} sent, {answered} answered");
    let cause = [("target", "frozen"), ("cause", "pong_timeout")];
    assert_eq!(
        down.value("ws_keepalive_disconnects_by_cause_total", &cause),
        Some(1.0)
    );
    // Stopped it still accepts, in the kernel: the dials must not hang in the upgrade.
    daemon.scrape_until("dials fail in the upgrade", secs(10.0), |scrape| {
        let phase = [("target", "frozen"), ("phase", "upgrade")];
        scrape.value("ws_keepalive_connect_failures_total", &phase) >= Some(2.0)
    });
    peer.process.thaw();
    daemon.established("frozen", secs(10.0));
    let scrape = daemon.scrape();
    assert_eq!(
        scrape.of_target("ping_retry_count_total", "frozen"),
        Some(3.0),
        "counts are kept"
    );
    let entry = daemon.api("frozen").unwrap();
    let end = &entry["ends"][0];
    assert_eq!(
        (&end["cause"], &end["initiator"]),
        (&"pong_timeout".into(), &"us".into())
    );
    assert_eq!(
        (&end["outstanding_pings"], &end["retries"]),
        (&4.into(), &3.into())
    );
    assert!(end["recovered_after_seconds"].as_f64() > Some(0.0), "{end}");
    let lost = daemon
        .process
        .stderr
        .wait("a lost line", secs(15.0), |line| {
            (line.text_of("event") == "lost" && line.text_of("level") == "warn")
                .then(|| line.field("outage_id").cloned())?
        });
    daemon
        .process
        .stderr
        .wait("a back line with the same outage_id", secs(15.0), |line| {
            let back = line.text_of("message").contains("back after ");
            (back && line.text_of("level") == "info" && line.field("outage_id") == Some(&lost))
                .then_some(())
        });
}
