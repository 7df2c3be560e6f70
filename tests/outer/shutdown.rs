//! SIGTERM: 1000 to every peer, replies awaited, nothing waits without an end.

use std::time::Instant;

use crate::support::*;

fn thousand(port: u16) -> String {
    let target = |n| {
        format!(
            "[[target]]\nname = \"t{n:04}\"\nurl = \"ws://127.0.0.1:{port}/t{n:04}\"\nping_interval = \"2s\"\n"
        )
    };
    (0..1000).map(target).collect()
}

fn all_established(daemon: &Daemon, count: usize) {
    daemon.scrape_until(
        &format!("{count} targets are established"),
        secs(30.0),
        |scrape| {
            scrape
                .find("established", &[])
                .filter(|series| series.value == 1.0)
                .count()
                == count
        },
    );
}

#[test]
fn sigterm_sends_1000_to_each_of_a_thousand_targets_and_exits_0() {
    let _machine = alone();
    let (peer, port) = Foreign::node_server();
    let mut daemon = Daemon::run(&thousand(port));
    all_established(&daemon, 1000);
    daemon.process.signal(Signal::TERM);
    assert_eq!(exit_code(daemon.process.wait(secs(15.0))), 0);
    let mut closed = std::collections::BTreeSet::new();
    peer.event("close", secs(10.0), |event| {
        assert_eq!(event["code"], 1000, "{event}");
        closed.insert(event["id"].as_u64());
        closed.len() == 1000
    });
    assert_eq!(peer.count("open"), 1000);
}

#[test]
fn server_drains_a_thousand_clients_with_1000_on_sigterm() {
    let _machine = alone();
    let port = free_port();
    let mut server = Daemon::server(port, &[]);
    let daemon = Daemon::run(&thousand(port));
    all_established(&daemon, 1000);
    server.scrape_until("the server holds them all", secs(15.0), |scrape| {
        let held = scrape.find("ws_keepalive_server_connections", &[]);
        held.map(|series| series.value).sum::<f64>() == 1000.0
    });
    server.process.signal(Signal::TERM);
    assert_eq!(exit_code(server.process.wait(secs(15.0))), 0);
    daemon.scrape_until("every target saw a Close 1000", secs(10.0), |scrape| {
        let normal = scrape.find(
            "ws_keepalive_disconnects_by_cause_total",
            &[("cause", "closed_normal")],
        );
        normal.filter(|series| series.value == 1.0).count() == 1000
    });
}

#[test]
fn replies_to_close_are_awaited() {
    let _machine = shared();
    let manner = Manner {
        on_close: OnClose::ReplyAfter(secs(1.0)),
        ..Manner::default()
    };
    let peer = OddPeer::upgrading(manner);
    let mut daemon = Daemon::run(&format!(
        "[[target]]\nname = \"slow\"\nurl = \"{}\"\n",
        peer.url()
    ));
    daemon.established("slow", secs(15.0));
    let asked = Instant::now();
    daemon.process.signal(Signal::TERM);
    let (_, connection) = peer.wait("Close 1000", secs(10.0), |what| {
        matches!(what, Happened::Frame(Frame::Close { code: 1000, .. }))
    });
    assert_eq!(connection, 1);
    assert_eq!(exit_code(daemon.process.wait(secs(15.0))), 0);
    let took = asked.elapsed();
    assert!(took >= secs(0.95) && took < secs(6.0), "{took:?}");
}

#[test]
fn a_peer_that_replies_to_close_and_keeps_tcp_open_holds_nothing_up() {
    let _machine = shared();
    let manner = Manner {
        on_close: OnClose::ReplyWithoutFin,
        ..Manner::default()
    };
    let peer = OddPeer::upgrading(manner);
    let mut daemon = Daemon::run(&format!(
        "[[target]]\nname = \"odd\"\nurl = \"{}\"\n",
        peer.url()
    ));
    daemon.established("odd", secs(15.0));
    let asked = Instant::now();
    daemon.process.signal(Signal::TERM);
    assert_eq!(exit_code(daemon.process.wait(secs(15.0))), 0);
    assert!(asked.elapsed() < secs(5.0), "{:?}", asked.elapsed());
}

#[test]
fn readyz_is_503_while_draining() {
    let _machine = shared();
    let manner = Manner {
        on_close: OnClose::ReplyAfter(secs(6.0)),
        ..Manner::default()
    };
    let peer = OddPeer::upgrading(manner);
    let mut daemon = Daemon::run(&format!(
        "[[target]]\nname = \"slow\"\nurl = \"{}\"\n",
        peer.url()
    ));
    daemon.established("slow", secs(15.0));
    daemon.process.signal(Signal::TERM);
    until("/readyz says 503", secs(5.0), || {
        match get(daemon.metrics, "/readyz")? {
            (503, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(exit_code(daemon.process.wait(secs(20.0))), 0);
}

#[test]
fn a_straggler_is_named_and_left_after_close_timeout() {
    let _machine = shared();
    let peer = OddPeer::upgrading(Manner {
        on_close: OnClose::Ignore,
        ..Manner::default()
    });
    let mut daemon = Daemon::run(&format!(
        "[[target]]\nname = \"straggler\"\nurl = \"{}\"\nclose_timeout = \"1s\"\n",
        peer.url()
    ));
    daemon.established("straggler", secs(15.0));
    let (asked, lines) = (Instant::now(), daemon.process.stderr.len());
    daemon.process.signal(Signal::TERM);
    assert_eq!(exit_code(daemon.process.wait(secs(15.0))), 0);
    let took = asked.elapsed();
    assert!(took >= secs(0.95) && took < secs(6.0), "{took:?}");
    daemon
        .process
        .stderr
        .wait_from(lines, "who it was, and why", secs(15.0), |line| {
            let said = line.text_of("message");
            (said.starts_with("straggler ended: asked to stop (no reply to Close)")).then_some(())
        });
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one_request_to_stop() {
    // The program takes two for one that come within 50 ms. Nobody else is to delay it.
    let _machine = alone();
    let peer = OddPeer::upgrading(Manner {
        on_close: OnClose::ReplyAfter(secs(0.3)),
        ..Manner::default()
    });
    // What timeout(1) does, and a terminal under a wrapper: the process and its group.
    for signal in [Signal::TERM, Signal::INT] {
        let signaled = || {
            let arguments = ["client", "--url", &peer.url(), "--metrics=false"];
            let client = Process::spawn("client", &mut program(&arguments));
            client.stdout.wait("established", secs(15.0), |line| {
                line.text.contains("established").then_some(())
            });
            let first = Instant::now();
            client.signal(signal);
            std::thread::yield_now();
            client.signal(signal);
            (first.elapsed() < secs(0.02)).then_some(client)
        };
        // One whose second signal was late is no test.
        let in_time = (0..10).find_map(|_| signaled());
        let mut client = in_time.expect("ten times the second signal was late");
        let status = client.wait(secs(15.0));
        let lines = client.stdout.texts();
        assert_eq!(exit_code(status), 0, "{lines:#?}");
        let last = lines.last().unwrap();
        assert!(
            last.ends_with("asked to stop (shutdown, ended by us)"),
            "{last}"
        );
    }
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let _machine = shared();
    let peer = OddPeer::upgrading(Manner {
        on_close: OnClose::Ignore,
        ..Manner::default()
    });
    let mut daemon = Daemon::run(&format!(
        "[[target]]\nname = \"odd\"\nurl = \"{}\"\n",
        peer.url()
    ));
    daemon.established("odd", secs(15.0));
    daemon.process.signal(Signal::TERM);
    peer.wait("Close 1000", secs(10.0), |what| {
        matches!(what, Happened::Frame(Frame::Close { code: 1000, .. }))
    });
    // Not in the same moment: that would be one request, delivered twice.
    let draining = Instant::now();
    until("a moment has passed", secs(1.0), || {
        let passed = draining.elapsed();
        if passed > secs(0.2) {
            Ok(())
        } else {
            Err(format!("{passed:?}"))
        }
    });
    assert!(daemon.process.is_running(), "close_timeout is 10 s");
    let asked = Instant::now();
    daemon.process.signal(Signal::TERM);
    assert_eq!(exit_code(daemon.process.wait(secs(15.0))), 143);
    assert!(asked.elapsed() < secs(5.0), "{:?}", asked.elapsed());
}

#[test]
fn sigterm_while_dialing_a_black_hole_waits_for_no_dial() {
    let _machine = shared();
    let hole = BlackHole::dig();
    let silent = OddPeer::start(Script::Silent);
    for (phase, url) in [
        ("tcp", format!("ws://{}/ws", hole.address)),
        ("upgrade", silent.url()),
    ] {
        // No dial ends by itself while the end is asked for.
        let mut daemon = Daemon::run(&format!(
            "[[target]]\nname = \"hole\"\nurl = \"{url}\"\nconnect_timeout = \"30s\"\n\
             tcp_timeout = \"30s\"\nupgrade_timeout = \"30s\"\n"
        ));
        assert_eq!(
            daemon.api("hole").unwrap()["state"],
            "connecting",
            "{phase}"
        );
        let mut client = program(&["client", "--url", &url, "--metrics=false"]);
        for flag in ["--connect-timeout", "--tcp-timeout", "--upgrade-timeout"] {
            client.args([flag, "30s"]);
        }
        let mut client = Process::spawn("client", &mut client);
        if phase == "upgrade" {
            until("both are dialing", secs(15.0), || {
                match silent.dials().len() {
                    2.. => Ok(()),
                    n => Err(n.to_string()),
                }
            });
        } else {
            let table = || std::fs::read_to_string("/proc/net/tcp").unwrap();
            const SYN_SENT: &str = "02";
            let port = format!(":{:04X}", hole.address.port());
            until("both are dialing", secs(15.0), || {
                let table = table();
                let dialing = table.lines().filter(|row| {
                    let columns: Vec<&str> = row.split_whitespace().collect();
                    columns[2].ends_with(&port) && columns[3] == SYN_SENT
                });
                let count = dialing.count();
                if count >= 2 {
                    Ok(())
                } else {
                    Err(count.to_string())
                }
            });
        }
        for process in [&mut daemon.process, &mut client] {
            let asked = Instant::now();
            process.signal(Signal::TERM);
            let status = process.wait(secs(15.0));
            assert!(
                asked.elapsed() < secs(3.0),
                "{phase}: {:?}",
                asked.elapsed()
            );
            assert_eq!(exit_code(status), 0, "{phase}");
        }
    }
}
