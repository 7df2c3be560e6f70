//! What docs/upgrade.md says of a restart, and of two processes with one file.

use crate::support::*;

fn target(peer: &OddPeer) -> String {
    format!(
        "[[target]]\nname = \"held\"\nurl = \"{}\"\nping_interval = \"100ms\"\npong_timeout = \"5s\"\n",
        peer.url()
    )
}

#[test]
fn a_restart_closes_in_good_order_and_begins_every_number_again() {
    let _machine = shared();
    let peer = OddPeer::upgrading(Manner::default());
    let mut daemon = Daemon::run(&target(&peer));
    daemon.scrape_until("pongs", secs(10.0), |scrape| {
        scrape.of_target("received_pong_total", "held") >= Some(3.0)
    });
    daemon.process.signal(Signal::TERM);
    let status = daemon.process.wait(secs(10.0));
    assert_eq!(exit_code(status), 0);
    let lines = daemon.process.stderr.all();
    let ended = lines.iter().find(|line| line.text_of("event") == "ended");
    let ended = ended.expect("a line that says how it ended");
    assert_eq!(ended.text_of("level"), "info", "{ended:?}");
    assert_eq!(ended.text_of("cause"), "shutdown", "{ended:?}");
    let close = |what: &Happened| matches!(what, Happened::Frame(Frame::Close { code: 1000, .. }));
    peer.wait("a Close", secs(5.0), close);

    let next = Daemon::run_in(daemon.dir, |dir, text| dir.overwrite(text), &target(&peer));
    next.established("held", secs(10.0));
    let scrape = next.scrape();
    let is = |name| scrape.of_target(name, "held").unwrap();
    assert_eq!(is("ws_keepalive_connects_total"), 1.0);
    assert_eq!(is("ws_keepalive_disconnects_total"), 0.0);
    assert_eq!(is("ws_keepalive_last_disconnect_time_seconds"), 0.0);
    let text = &scrape.text;
    assert!(
        !text.contains("ws_keepalive_disconnects_by_cause_total{"),
        "{text}"
    );
    let (down, running) = (
        is("ws_keepalive_disconnected_seconds_total"),
        is("ws_keepalive_connected_seconds_total"),
    );
    let started = scrape.value("process_start_time_seconds", &[]).unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs_f64();
    // The kernel tells the start in whole seconds.
    assert!(
        down + running <= now - started + 1.0,
        "{down} s down, {running} s up"
    );
    let ends = next.api("held").unwrap()["ends"].clone();
    assert_eq!(ends, serde_json::json!([]));
}

#[test]
fn a_second_process_with_the_same_file_ends_and_says_what_it_cannot_have() {
    let _machine = shared();
    let peer = OddPeer::upgrading(Manner::default());
    let daemon = Daemon::run(&target(&peer));
    daemon.established("held", secs(10.0));
    let file = daemon.dir.file();
    let run = ["run", "--config", file.to_str().unwrap()];
    let mut second = Process::spawn("second", &mut program(&run));
    let status = second.wait(secs(10.0));
    let said = second.stderr.texts();
    assert_eq!(exit_code(status), 1, "{said:#?}");
    let why = "control.sock (control.socket): another process answers on it";
    assert!(said.iter().any(|line| line.contains(why)), "{said:#?}");

    // With addresses of its own it runs beside the first.
    let socket = daemon.dir.path().join("next.sock");
    let set = format!("control.socket={}", socket.display());
    let metrics = format!("127.0.0.1:{}", free_port());
    let mut beside = program(&run);
    beside.args(["--metrics-server", &metrics, "--set", &set]);
    let _beside = Process::spawn("beside", &mut beside);
    let metrics: std::net::SocketAddr = metrics.parse().unwrap();
    until("both hold it", secs(10.0), || {
        match get(metrics, "/metrics")? {
            (200, text)
                if Scrape::of(text.clone()).of_target("established", "held") == Some(1.0) =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(
        daemon
            .scrape()
            .of_target("ws_keepalive_disconnects_total", "held"),
        Some(0.0)
    );
    assert_eq!(peer.dials().len(), 2);
}
