//! Peers that misbehave, each in one way: none is a hot loop, none hangs past its deadline, each is
//! told apart.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::*;

fn one_target(peer: &OddPeer, more: &str) -> String {
    format!(
        "[[target]]\nname = \"odd\"\nurl = \"{}\"\n{more}",
        peer.url()
    )
}

/// `[target]` keys that make every wait short, and the dial patient enough to tell phases apart.
const HASTY: &str =
    "ping_interval = \"200ms\"\nupgrade_timeout = \"1s\"\nconnect_timeout = \"3s\"\n";

#[test]
fn a_peer_whose_pongs_carry_another_payload_stays_established() {
    let _machine = shared();
    let manner = Manner {
        pongs: Pongs::Own("from server"),
        ..Manner::default()
    };
    let peer = OddPeer::upgrading(manner);
    let patient = format!("{HASTY}pong_timeout = \"5s\"\n");
    let daemon = Daemon::run(&one_target(&peer, &patient));
    let scrape = daemon.scrape_until("10 pongs", secs(30.0), |scrape| {
        scrape.of_target("received_pong_total", "odd") >= Some(10.0)
    });
    assert_eq!(scrape.of_target("established", "odd"), Some(1.0));
    assert_eq!(
        scrape.of_target("ws_keepalive_pong_mismatch_total", "odd"),
        scrape.of_target("received_pong_total", "odd"),
    );
    assert_eq!(scrape.of_target("ping_retry_count_total", "odd"), Some(0.0));
    assert!(
        scrape.of_target("ws_keepalive_rtt_seconds_count", "odd") >= Some(10.0),
        "one outstanding ping has an RTT"
    );
    assert_eq!(peer.dials().len(), 1);
}

#[test]
fn a_peer_that_only_pings_stays_and_each_of_its_pings_is_answered() {
    let _machine = shared();
    let manner = Manner {
        pongs: Pongs::None,
        pings: Some(secs(0.1)),
        ..Manner::default()
    };
    let peer = OddPeer::upgrading(manner);
    // Given up at 200 + 4 x 400 ms, were its pings no sign of life.
    let daemon = Daemon::run(&one_target(&peer, HASTY));
    let scrape = daemon.scrape_until("more retries than the limit", secs(15.0), |scrape| {
        scrape.of_target("ping_retry_count_total", "odd") >= Some(6.0)
    });
    assert_eq!(scrape.of_target("established", "odd"), Some(1.0));
    assert_eq!(scrape.of_target("received_pong_total", "odd"), Some(0.0));
    assert_eq!(peer.dials().len(), 1);
    let answer = Happened::Frame(Frame::Pong(b"anyone there".into()));
    until("20 pongs", secs(15.0), || {
        match peer.times(|what| *what == answer).len() {
            20.. => Ok(()),
            n => Err(format!("{n} pongs")),
        }
    });
}

#[test]
fn a_peer_that_upgrades_and_says_nothing_is_given_up_on_time_and_dialed_again() {
    let _machine = shared();
    let manner = Manner {
        pongs: Pongs::None,
        on_close: OnClose::Ignore,
        ..Manner::default()
    };
    let peer = OddPeer::upgrading(manner);
    let daemon = Daemon::run(&one_target(&peer, HASTY));
    // The peer may be late to say that it is up; it was not before this.
    let (up, first) = peer.wait("the request", secs(15.0), |what| {
        matches!(what, Happened::Request(_))
    });
    let (gone, of) = peer.wait("the end", secs(15.0), |what| *what == Happened::Gone);
    assert_eq!(first, of);
    // At most interval + 4 x pong_timeout = 1.8 s, and the daemon's first ping comes early; were the
    // peer's Close waited for, 10 s more.
    assert!(gone - up < secs(6.0), "{:?}", gone - up);
    assert!(gone - up > secs(1.5), "{:?}", gone - up);
    daemon.scrape_until("a second connection", secs(15.0), |scrape| {
        scrape.of_target("ws_keepalive_connects_total", "odd") >= Some(2.0)
    });
    assert_eq!(
        daemon.api("odd").unwrap()["ends"][0]["cause"],
        "pong_timeout"
    );
}

#[test]
fn accept_then_close_is_never_a_hot_loop() {
    let _machine = shared();
    let peers = [
        ("closed", OddPeer::start(Script::AcceptAndClose)),
        (
            "fin",
            OddPeer::upgrading(Manner {
                then: Then::FinWithoutClose,
                ..Manner::default()
            }),
        ),
        (
            "reset",
            OddPeer::upgrading(Manner {
                then: Then::Reset,
                ..Manner::default()
            }),
        ),
        (
            "left",
            OddPeer::upgrading(Manner {
                then: Then::CloseWithoutFin(1001),
                ..Manner::default()
            }),
        ),
        // 503 in HTTP/1.0 manners, no Retry-After: the usual growing wait.
        (
            "busy",
            OddPeer::start(Script::Answer(
                "HTTP/1.1 503 Service Unavailable\r\n\r\n".into(),
            )),
        ),
    ];
    let mut text = "[defaults]\nclose_timeout = \"300ms\"\n".to_owned();
    for (name, peer) in &peers {
        text += &format!("[[target]]\nname = \"{name}\"\nurl = \"{}\"\n", peer.url());
    }
    let start = Instant::now();
    let daemon = Daemon::run(&text);
    // Waits of 1, 2, 4 s less up to half: dials at 0, 0.5 to 1, 1.5 to 3, 3.5 to 7 s.
    for (name, peer) in &peers {
        until(
            &format!("{name}: a third dial"),
            secs(20.0),
            || match peer.dials().len() {
                3.. => Ok(()),
                n => Err(format!("{n} dials")),
            },
        );
    }
    let span = start.elapsed();
    for (name, peer) in &peers {
        let dials = peer.dials();
        let bound = 2 + (span.as_secs_f64() / 0.5).log2().ceil() as usize;
        assert!(
            dials.len() <= bound.max(4),
            "{name}: {} dials in {span:?}",
            dials.len()
        );
        let gaps: Vec<Duration> = dials.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(
            gaps[0] >= secs(0.4) && gaps[1] >= secs(0.9),
            "{name}: {gaps:?}"
        );
    }
    for (name, cause, initiator) in [
        ("fin", "fin", "peer"),
        ("reset", "reset", "peer"),
        ("left", "closed_going_away", "peer"),
    ] {
        let end = &daemon.api(name).unwrap()["ends"][0];
        assert_eq!(
            (&end["cause"], &end["initiator"]),
            (&cause.into(), &initiator.into()),
            "{name}"
        );
    }
}

#[test]
fn of_a_connection_that_was_reset_the_record_still_says_with_whom_it_was() {
    let _machine = shared();
    let peer = OddPeer::upgrading(Manner {
        pongs: Pongs::Reset,
        ..Manner::default()
    });
    let daemon = Daemon::run(&one_target(&peer, HASTY));
    let end = until("the record of the end", secs(15.0), || {
        let end = daemon.api("odd")?["ends"][0].clone();
        if end.is_null() {
            Err("none".to_owned())
        } else {
            Ok(end)
        }
    });
    assert_eq!(end["cause"], "reset", "{end}");
    assert_eq!(end["peer"], peer.address.to_string(), "{end}");
    let local = end["local"].as_str().unwrap();
    assert!(local.starts_with("127.0.0.1:"), "{end}");
    assert_eq!(end["outstanding_pings"], 1, "{end}");
    assert!(end["since_last_frame_out_seconds"].is_number(), "{end}");
    assert!(end["since_last_frame_in_seconds"].is_null(), "{end}");
    assert!(end["received"].is_null() && end["sent"].is_null(), "{end}");
}

/// Every way a dial can fail at the peer's hands: its phase, words its message has, and how long
/// it may take.
#[test]
fn each_failed_dial_has_its_own_phase_and_message_within_its_deadline() {
    let _machine = shared();
    let hole = BlackHole::dig();
    let answer = |text: &str| OddPeer::start(Script::Answer(text.to_owned()));
    let hang = |text: &str| OddPeer::start(Script::AnswerAndHang(text.to_owned()));
    let body = "Content-Length: 2\r\n\r\nhi";
    let peers = [
        ("silent", OddPeer::start(Script::Silent), vec!["1s"]),
        (
            "closed",
            OddPeer::start(Script::AcceptAndClose),
            // FIN or RST, as the race between request and close has it.
            vec!["the peer "],
        ),
        (
            "ok-200",
            answer(&format!("HTTP/1.1 200 OK\r\n{body}")),
            vec!["200"],
        ),
        (
            "moved-301",
            answer(&format!(
                "HTTP/1.1 301 Moved Permanently\r\nLocation: /elsewhere\r\n{body}"
            )),
            vec!["301", "/elsewhere"],
        ),
        (
            "busy-503",
            answer(&format!(
                "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 40\r\n{body}"
            )),
            vec!["503", "after 40 s"],
        ),
        (
            "forbidden-403",
            answer(&format!("HTTP/1.1 403 Forbidden\r\n{body}")),
            vec!["403"],
        ),
        (
            "accept",
            OddPeer::start(Script::WrongAccept),
            vec!["Sec-WebSocket-Accept"],
        ),
        (
            "half",
            hang("HTTP/1.1 101 Switching Protocols\r\nUpgr"),
            vec!["1s"],
        ),
        (
            "cut",
            answer("HTTP/1.1 101 Switching Protocols\r\nUpgr"),
            vec!["closed before its answer was complete"],
        ),
        (
            "gibberish",
            answer("SSH-2.0-OpenSSH_9.2\r\n\r\n"),
            vec!["not HTTP"],
        ),
    ];
    let mut text =
        "[defaults]\nping_interval = \"200ms\"\nreconnect = { initial = \"1h\", max = \"1h\" }\n"
            .to_owned();
    for (name, peer, words) in &peers {
        text += &format!("[[target]]\nname = \"{name}\"\nurl = \"{}\"\n", peer.url());
        if words.contains(&"1s") {
            text += "upgrade_timeout = \"1s\"\n";
        }
    }
    let nobody = free_port();
    text += &format!("[[target]]\nname = \"refused\"\nurl = \"ws://127.0.0.1:{nobody}/ws\"\n");
    text += &format!(
        "[[target]]\nname = \"hole\"\nurl = \"ws://{}/ws\"\ntcp_timeout = \"1s\"\n",
        hole.address
    );
    let daemon = Daemon::run(&text);
    let start = Instant::now();

    let mut messages = BTreeMap::new();
    let judged = peers
        .iter()
        .map(|(name, _, words)| (*name, "upgrade", words.clone()));
    let of_tcp = [
        ("refused", "tcp", vec!["refused"]),
        ("hole", "tcp", vec!["1s"]),
    ];
    for (name, phase, words) in judged.chain(of_tcp) {
        let entry = until(
            &format!("{name} has failed"),
            secs(8.0).saturating_sub(start.elapsed()),
            || {
                let entry = daemon.api(name)?;
                let failed = entry["state"] == "waiting" && !entry["last_error"].is_null();
                if failed {
                    Ok(entry)
                } else {
                    Err(entry.to_string())
                }
            },
        );
        let error = &entry["last_error"];
        let message = error["message"].as_str().unwrap().to_owned();
        assert_eq!(error["phase"], phase, "{name}: {error}");
        for word in words {
            assert!(message.contains(word), "{name}: no {word:?} in {message:?}");
        }
        let labels = [("target", name), ("phase", phase)];
        let failures = daemon
            .scrape()
            .value("ws_keepalive_connect_failures_total", &labels);
        assert_eq!(failures, Some(1.0), "{name}");
        messages.insert(name, message);
    }
    println!("{messages:#?}");
    // But for "cut" and "closed", which may be one and the same thing.
    let texts: BTreeMap<&String, &str> = messages
        .iter()
        .filter(|(name, _)| **name != "cut")
        .map(|(name, text)| (text, *name))
        .collect();
    assert_eq!(
        texts.len(),
        messages.len() - 1,
        "the messages tell the failures apart: {messages:#?}"
    );
    for (name, peer, _) in &peers {
        assert_eq!(peer.dials().len(), 1, "{name}");
    }
}

#[test]
fn retry_after_is_obeyed() {
    let _machine = shared();
    let busy = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n";
    let peer = OddPeer::start(Script::Answer(busy.to_owned()));
    let _daemon = Daemon::run(&one_target(
        &peer,
        "reconnect = { initial = \"100ms\", max = \"200ms\" }\n",
    ));
    until("a third dial", secs(20.0), || match peer.dials().len() {
        3.. => Ok(()),
        n => Err(format!("{n} dials")),
    });
    for two in peer.dials().windows(2) {
        let gap = two[1] - two[0];
        assert!(gap >= secs(1.95) && gap < secs(8.0), "{gap:?}");
    }
}

#[test]
fn client_says_in_one_line_which_end_it_was_and_exits_1_unless_the_peer_closed_1000() {
    let _machine = shared();
    let upgraded = |then| {
        Script::Upgrade(Manner {
            then,
            ..Manner::default()
        })
    };
    // How the one line goes on after what was counted; without a connection nothing was.
    let never = "ws-keepalive client: not connected: upgrade: ";
    let table = [
        (Script::AcceptAndClose, 1, "the peer "),
        (
            Script::Answer("HTTP/1.1 301 Moved Permanently\r\nLocation: /\r\n\r\n".into()),
            1,
            "the peer answered 301 Moved Permanently",
        ),
        (Script::WrongAccept, 1, "wrong Sec-WebSocket-Accept"),
        (
            upgraded(Then::FinWithoutClose),
            1,
            "peer vanished (FIN, no Close) (fin, ended by peer)",
        ),
        (
            upgraded(Then::Reset),
            1,
            "peer reset the connection (RST, no Close) (reset, ended by peer)",
        ),
        (
            upgraded(Then::CloseWithoutFin(1001)),
            1,
            "peer is going away (Close 1001) (closed_going_away, ended by peer)",
        ),
        (
            upgraded(Then::CloseWithoutFin(4000)),
            1,
            "peer refused us (Close 4000) (closed_refused, ended by peer)",
        ),
        (
            upgraded(Then::CloseWithoutFin(1000)),
            0,
            "peer closed normally (Close 1000) (closed_normal, ended by peer)",
        ),
    ];
    for (script, code, how) in table {
        let peer = OddPeer::start(script.clone());
        let arguments = [
            "client",
            "--url",
            &peer.url(),
            "--metrics=false",
            "--close-timeout",
            "300ms",
        ];
        let mut client = Process::spawn("client", &mut program(&arguments));
        // Sooner than by the default close timeout of 10 s.
        let status = client.wait(secs(8.0));
        let (out, err) = (client.stdout.texts(), client.stderr.texts());
        assert_eq!(exit_code(status), code, "{script:?}: {out:#?} {err:#?}");
        let (last, start) = match script {
            Script::Upgrade(_) => {
                assert_eq!(out.len(), 2, "{script:?}: {out:#?}");
                // Of a connection already reset the kernel no longer tells the peer's address.
                let plain = format!("established {}", peer.url());
                let named = format!("{plain} ({})", peer.address);
                let reset = how.contains("RST") && out[0] == plain;
                assert!(out[0] == named || reset, "{script:?}: {out:#?}");
                let held = out[1].strip_prefix("held ");
                let (held, rest) = held.and_then(|rest| rest.split_once(" s: ")).unwrap();
                assert!(held.parse::<f64>().unwrap() < 5.0, "{script:?}: {out:#?}");
                let counted = "0 pings, 0 pongs, 0 retries, no rtt; ";
                (rest, counted.to_owned() + how)
            }
            _ => {
                assert!(out.is_empty(), "{script:?}: {out:#?}");
                let mut plain = err.iter().filter(|line| !line.starts_with('{'));
                let line = plain.next().unwrap();
                assert_eq!(plain.next(), None, "{script:?}: one line: {err:#?}");
                assert_eq!(
                    err.last(),
                    Some(line),
                    "{script:?}: the last line: {err:#?}"
                );
                (line.as_str(), never.to_owned() + how)
            }
        };
        assert!(last.starts_with(&start), "{script:?}: {last}, not {start}");
        assert_eq!(peer.dials().len(), 1, "{script:?}");
    }
}

#[test]
fn a_flood_is_read_and_neither_scrapes_nor_shutdown_wait_for_its_end() {
    let _machine = shared();
    let peer = OddPeer::upgrading(Manner {
        then: Then::Flood,
        ..Manner::default()
    });
    let mut daemon = Daemon::run(&one_target(&peer, HASTY));
    let scrape = daemon.scrape_until("10 pongs amid the flood", secs(30.0), |scrape| {
        scrape.of_target("received_pong_total", "odd") >= Some(10.0)
    });
    assert_eq!(scrape.of_target("established", "odd"), Some(1.0));
    assert!(scrape.of_target("ws_keepalive_received_bytes_total", "odd") > Some(1e6));
    let asked = Instant::now();
    daemon.process.signal(Signal::TERM);
    assert_eq!(exit_code(daemon.process.wait(secs(8.0))), 0);
    assert!(asked.elapsed() < secs(8.0), "{:?}", asked.elapsed());
}
