//! npm `ws` and PyPI `websockets`, in both directions.

use crate::support::*;

fn servers() -> [(&'static str, Foreign, u16); 2] {
    let (node, node_port) = Foreign::node_server();
    let (python, python_port) = Foreign::python_server();
    [
        ("npm ws", node, node_port),
        ("websockets", python, python_port),
    ]
}

#[test]
fn daemon_holds_foreign_servers_answers_their_pings_and_reads_their_messages() {
    let _machine = shared();
    let mut servers = servers();
    let text: String = servers
        .iter()
        .map(|(name, _, port)| {
            format!(
                "[[target]]\nname = \"{name}\"\nurl = \"ws://127.0.0.1:{port}/echo\"\n\
                 ping_interval = \"200ms\"\npong_timeout = \"5s\"\non_open = [\"over and out\"]\n"
            )
        })
        .collect();
    let mut daemon = Daemon::run(&text);
    for (name, peer, _) in &mut servers {
        let scrape = daemon.scrape_until("10 pongs", secs(30.0), |scrape| {
            scrape.of_target("received_pong_total", name) >= Some(10.0)
        });
        assert_eq!(
            scrape.of_target("ws_keepalive_pong_mismatch_total", name),
            Some(0.0)
        );
        assert_eq!(scrape.of_target("ping_retry_count_total", name), Some(0.0));
        assert!(scrape.of_target("ws_keepalive_last_rtt_seconds", name) < Some(1.0));
        assert_eq!(
            scrape.of_target("ws_keepalive_messages_received_total", name),
            Some(1.0)
        );
        assert_eq!(
            scrape.of_target("ws_keepalive_received_bytes_total", name),
            Some(12.0)
        );
        assert_eq!(
            scrape.of_target("ws_keepalive_sent_bytes_total", name),
            Some(12.0)
        );
        peer.event("message", secs(15.0), |event| {
            event["text"] == "over and out"
        });
        peer.ping("are you there");
        let echoed: String = "are you there"
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        peer.event("pong", secs(15.0), |event| event["data"] == *echoed);
    }
    daemon.process.signal(Signal::TERM);
    for (name, peer, _) in &servers {
        let close = peer.event("close", secs(15.0), |_| true);
        assert_eq!(close["code"], 1000, "{name}: {close}");
    }
    assert_eq!(exit_code(daemon.process.wait(secs(8.0))), 0);
}

#[test]
fn daemon_tells_the_close_codes_of_foreign_servers_apart_and_comes_back() {
    let _machine = shared();
    for (name, mut peer, port) in servers() {
        let daemon = Daemon::run(&format!(
            "[[target]]\nname = \"it\"\nurl = \"ws://127.0.0.1:{port}/ws\"\nping_interval = \"200ms\"\n\
             pong_timeout = \"5s\"\nreconnect = {{ initial = \"100ms\", max = \"200ms\" }}\n"
        ));
        let codes = [
            (1000, "closed_normal"),
            (1001, "closed_going_away"),
            (1011, "closed_other"),
            (4321, "closed_refused"),
        ];
        for (nth, (code, cause)) in (1..).zip(codes) {
            daemon.scrape_until(&format!("{name}: connection {nth}"), secs(15.0), |scrape| {
                scrape.of_target("ws_keepalive_connects_total", "it") == Some(f64::from(nth))
            });
            daemon.established("it", secs(15.0));
            peer.event("open", secs(15.0), |event| event["id"] == nth);
            peer.close(code, "so long\u{7}");
            daemon.scrape_until(&format!("{name}: {cause}"), secs(15.0), |scrape| {
                let labels = [("target", "it"), ("cause", cause)];
                scrape.value("ws_keepalive_disconnects_by_cause_total", &labels) == Some(1.0)
            });
            let end = daemon.api("it").unwrap()["ends"][0].clone();
            assert_eq!(end["initiator"], "peer", "{name}: {end}");
            assert_eq!(end["received"]["code"], code, "{name}: {end}");
            assert!(
                !daemon
                    .process
                    .stderr
                    .all()
                    .iter()
                    .any(|line| line.text.contains('\u{7}'))
            );
        }
    }
}

#[test]
fn client_exits_0_on_a_foreign_close_1000_and_1_when_the_peer_vanishes() {
    let _machine = shared();
    for (name, mut peer, port) in servers() {
        for (vanish, code) in [(false, 0), (true, 1)] {
            let (opened, port) = (peer.count("open"), port.to_string());
            let arguments = [
                "client",
                "-H",
                "127.0.0.1",
                "-p",
                &port,
                "-i",
                "100ms",
                "--pong-timeout",
                "5s",
                "-m=false",
            ];
            let mut client = Process::spawn("client", &mut program(&arguments));
            client.stdout.wait("established", secs(15.0), |line| {
                line.text.contains("established").then_some(())
            });
            peer.event("open", secs(15.0), |event| event["id"] == opened + 1);
            if vanish {
                peer.vanish();
            } else {
                peer.close(1000, "done");
            }
            assert_eq!(exit_code(client.wait(secs(15.0))), code, "{name}");
        }
    }
}

#[test]
fn foreign_clients_get_pongs_echoes_and_close_replies_from_the_server() {
    let _machine = shared();
    let port = free_port();
    let mut server = Daemon::server(port, &[]);
    let (echo, other) = (
        format!("ws://127.0.0.1:{port}/echo"),
        format!("ws://127.0.0.1:{port}/any/path"),
    );
    for start in [
        Foreign::node_client as fn(&str) -> Foreign,
        Foreign::python_client,
    ] {
        let mut client = start(&echo);
        client.event("open", secs(15.0), |_| true);
        client.ping("one two three");
        let echoed: String = "one two three"
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        client.event("pong", secs(15.0), |event| event["data"] == *echoed);
        client.send("grüße");
        client.event("message", secs(15.0), |event| event["text"] == "grüße");
        client.close(1000, "done");
        let close = client.event("close", secs(15.0), |_| true);
        assert_eq!(close["code"], 1000, "the reply repeats the code: {close}");

        let mut client = start(&other);
        client.event("open", secs(15.0), |_| true);
        client.send("into the void");
        client.ping("still there");
        client.event("pong", secs(15.0), |_| true);
        assert_eq!(client.count("message"), 0, "data is ignored but on /echo");
        client.vanish();
    }
    let both: Vec<Foreign> = [
        Foreign::node_client as fn(&str) -> Foreign,
        Foreign::python_client,
    ]
    .map(|start| start(&echo))
    .into();
    for client in &both {
        client.event("open", secs(15.0), |_| true);
    }
    server.process.signal(Signal::TERM);
    for client in &both {
        let close = client.event("close", secs(15.0), |_| true);
        assert_eq!(close["code"], 1000, "a server that drains says so: {close}");
    }
    assert_eq!(exit_code(server.process.wait(secs(8.0))), 0);
}

#[test]
fn server_pings_foreign_clients_that_are_silent_and_keeps_those_that_answer() {
    let _machine = shared();
    let port = free_port();
    let flags = ["--ping-interval", "500ms", "--pong-timeout", "4s"];
    let server = Daemon::server(port, &flags);
    let url = format!("ws://127.0.0.1:{port}/ws");
    let clients = [Foreign::node_client(&url), Foreign::python_client(&url)];
    for client in &clients {
        client.event("open", secs(15.0), |_| true);
    }
    clients[0].event("ping", secs(15.0), |_| true);
    clients[1].process.freeze();
    // Silent for 500 ms, pinged, silent for 4 s more: discarded.
    server.scrape_until("one is discarded, the other stays", secs(15.0), |scrape| {
        let held: f64 = scrape
            .find("ws_keepalive_server_connections", &[])
            .map(|s| s.value)
            .sum();
        held == 1.0
    });
    clients[1].process.thaw();
    let close = clients[1].event("close", secs(15.0), |_| true);
    assert_eq!(
        (&close["code"], &close["reason"]),
        (&1008.into(), &"silent".into())
    );
    assert_eq!(clients[0].count("close"), 0);
}
