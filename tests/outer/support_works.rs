//! The peers and instruments of these tests, held against implementations that are not ours.

use std::net::TcpStream;
use std::time::Duration;

use crate::support::*;

fn clients(url: &str) -> [Foreign; 2] {
    [Foreign::node_client(url), Foreign::python_client(url)]
}

#[test]
fn an_odd_peer_is_a_websocket_server_to_others_but_for_its_one_oddity() {
    let _machine = shared();
    let good = OddPeer::upgrading(Manner::default());
    for mut client in clients(&good.url()) {
        client.event("open", secs(30.0), |_| true);
        client.ping("echo me");
        client.event("pong", secs(5.0), |event| event["data"] == "6563686f206d65");
        client.send(&"x".repeat(70_000));
        client.close(1000, "done");
        assert_eq!(client.event("close", secs(5.0), |_| true)["code"], 1000);
    }
    let data = good
        .times(|what| matches!(what, Happened::Frame(Frame::Data(data)) if data.len() == 70_000));
    assert_eq!(data.len(), 2);
    let closes = good.times(|what| {
        *what
            == Happened::Frame(Frame::Close {
                code: 1000,
                reason: "done".into(),
            })
    });
    assert_eq!(closes.len(), 2);

    let leaving = Manner {
        then: Then::CloseWithoutFin(4001),
        ..Manner::default()
    };
    for client in clients(&OddPeer::upgrading(leaving).url()) {
        assert_eq!(client.event("close", secs(15.0), |_| true)["code"], 4001);
    }
    for then in [Then::FinWithoutClose, Then::Reset] {
        let peer = OddPeer::upgrading(Manner {
            then,
            ..Manner::default()
        });
        for client in clients(&peer.url()) {
            let close = client.event("close", secs(15.0), |_| true);
            assert_eq!(close["code"], 1006, "{then:?}: {close}");
        }
    }
    let pinging = Manner {
        pings: Some(secs(0.1)),
        ..Manner::default()
    };
    let peer = OddPeer::upgrading(pinging);
    let _clients = clients(&peer.url());
    peer.wait("a pong", secs(10.0), |what| {
        *what == Happened::Frame(Frame::Pong(b"anyone there".into()))
    });
}

#[test]
fn a_wrong_accept_is_refused_by_others_too() {
    let _machine = shared();
    let peer = OddPeer::start(Script::WrongAccept);
    let client = Foreign::node_client(&peer.url());
    let error = client.event("error", secs(10.0), |_| true);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("Sec-WebSocket-Accept"),
        "{error}"
    );
}

#[test]
fn a_black_hole_answers_no_syn() {
    let _machine = shared();
    let hole = BlackHole::dig();
    let error = TcpStream::connect_timeout(&hole.address, Duration::from_millis(500)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn the_kernels_table_knows_the_servers_end_of_a_socket() {
    let _machine = shared();
    let (peer, port) = Foreign::node_server();
    let client = Foreign::python_client(&format!("ws://127.0.0.1:{port}/ws"));
    let opened = client.event("open", secs(10.0), |_| true);
    peer.event("open", secs(5.0), |event| event["port"] == opened["port"]);
    // The kernel writes the table while it is read: a row may be missing from one reading.
    let expected = opened["port"].as_u64();
    until("the one connection is in the table", secs(15.0), || {
        let sockets = sockets_of(port);
        let ends: Vec<_> = sockets.values().flatten().collect();
        match &ends[..] {
            [end] if end.inode != 0 && Some(u64::from(end.client_port)) == expected => Ok(()),
            _ => Err(format!("{ends:?}")),
        }
    });
}

#[test]
fn a_frozen_process_says_nothing_until_it_is_thawed() {
    let _machine = shared();
    let (mut peer, _) = Foreign::node_server();
    peer.process.freeze();
    assert!(peer.process.is_running());
    peer.process.thaw();
    peer.process.feed("");
    assert_eq!(
        exit_code(peer.process.wait(secs(5.0))),
        0,
        "it ends with its input"
    );
}

#[test]
fn samples_are_taken_apart_as_prometheus_writes_them() {
    let text = "# HELP a b\n# TYPE a counter\na 1\na_total{x=\"1,}\\\"\\\\\\n\",target=\"t\"} 2.5e3\nc{} NaN\n";
    let scrape = Scrape::of(text.to_owned());
    assert_eq!(scrape.value("a", &[]), Some(1.0));
    assert_eq!(scrape.value("a_total", &[("x", "1,}\"\\\n")]), Some(2500.0));
    assert_eq!(scrape.of_target("a_total", "t"), Some(2500.0));
    assert!(scrape.value("c", &[]).is_some_and(f64::is_nan));
    assert_eq!(scrape.targets().into_iter().collect::<Vec<_>>(), ["t"]);
}

#[test]
fn a_count_is_found_behind_its_word() {
    for text in [
        "kept 12, retuned 3",
        "\"kept\":12,\"retuned\":3",
        "kept=12 retuned=3",
    ] {
        assert_eq!(number_after(text, "kept"), Some(12));
        assert_eq!(number_after(text, "retuned"), Some(3));
    }
    assert_eq!(number_after("kept a few, 12 in all", "kept"), None);
}
