//! The files people copy from: each is good, and the ticker demo's heartbeat holds the ticker.

use std::path::{Path, PathBuf};

use crate::support::*;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")
}

#[test]
fn check_finds_every_example_good() {
    let _machine = shared();
    let files = std::fs::read_dir(examples()).unwrap();
    let files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 13, "{files:?}");
    for file in files {
        let checked = output_of(&mut program(&["check", file.to_str().unwrap()]));
        assert!(checked.status.success(), "{file:?}: {checked:?}");
        assert!(checked.stderr.is_empty(), "{file:?}: {checked:?}");
    }
}

#[test]
fn the_ticker_is_held_by_its_own_heartbeat_lost_when_it_stands_still_and_back() {
    let _machine = shared();
    let port = free_port();
    let server = Daemon::server(port, &[]);
    let text = std::fs::read_to_string(examples().join("message-ticker.toml")).unwrap();
    let mut moved = text;
    // Elsewhere, and faster: three heartbeats of 30 s are a long test.
    for (from, to) in [
        ("//localhost:9000/", format!("//localhost:{port}/")),
        ("ping_interval = \"30s\"", "ping_interval = \"1s\"".into()),
        ("pong_timeout = \"10s\"", "pong_timeout = \"2s\"".into()),
        (
            "staleness = \"10s\"",
            "staleness = \"10s\"\nreconnect = { initial = \"200ms\", max = \"400ms\" }".into(),
        ),
    ] {
        assert!(moved.contains(from), "no {from} in {moved}");
        moved = moved.replace(from, &to);
    }
    let daemon = Daemon::run(&moved);
    let name = "ticker";
    let beats = |scrape: &Scrape| scrape.of_target("ws_keepalive_rtt_seconds_count", name);
    let scrape = daemon.scrape_until("three answers and a price", secs(20.0), |scrape| {
        let prices = scrape.of_target("ws_keepalive_messages_received_total", name);
        beats(scrape) >= Some(3.0) && prices >= Some(1.0)
    });
    assert_eq!(
        scrape.of_target("ws_keepalive_connects_total", name),
        Some(1.0)
    );
    assert_eq!(scrape.of_target("ws_keepalive_stale", name), Some(0.0));

    server.process.freeze();
    let end = until("it is given up", secs(20.0), || {
        let entry = daemon.api(name)?;
        match &entry["ends"][0] {
            serde_json::Value::Null => Err(entry.to_string()),
            end => Ok(end.clone()),
        }
    });
    assert_eq!(
        (&end["cause"], &end["initiator"]),
        (&"pong_timeout".into(), &"us".into())
    );
    let message = end["message"].as_str().unwrap();
    assert!(message.starts_with("no answer to a heartbeat"), "{message}");

    let before = beats(&daemon.scrape());
    server.process.thaw();
    daemon.scrape_until("it is back, and answered", secs(20.0), |scrape| {
        scrape.of_target("established", name) == Some(1.0) && beats(scrape) > before
    });
}
