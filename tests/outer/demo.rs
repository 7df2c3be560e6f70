//! What the README promises of the demonstration.

use std::net::SocketAddr;

use crate::support::*;

#[test]
fn the_demonstration_reaches_itself_four_times_and_tries_a_fifth_that_nobody_serves() {
    let _machine = shared();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/demo.toml");
    let mut text = std::fs::read_to_string(path).unwrap();
    // Elsewhere than where somebody may be looking at it right now.
    let metrics = free_port();
    let moved = [(8080, metrics), (9000, free_port()), (9009, free_port())];
    for (from, to) in moved {
        let from = format!(":{from}");
        assert!(text.contains(&from), "no {from} in {path}");
        text = text.replace(&from, &format!(":{to}"));
    }
    let dir = ConfigDir::new();
    // A relative path is beside the file.
    let (socket, own) = ("/tmp/ws-keepalive-demo.sock", "demo.sock");
    assert!(text.contains(socket), "no {socket} in {path}");
    dir.overwrite(&text.replace(socket, own));
    let file = dir.file();
    let arguments = ["run", "--config", file.to_str().unwrap()];
    let mut process = Process::spawn("run", &mut program(&arguments));
    let metrics = SocketAddr::from(([127, 0, 0, 1], metrics));
    until("four are up, the fifth is not", secs(30.0), || {
        let (_, text) = get(metrics, "/metrics")?;
        let scrape = Scrape::of(text);
        let nobody = [("target", "nobody"), ("phase", "tcp")];
        let seen = [
            scrape.of_target("established", "plain"),
            scrape.of_target("established", "echo"),
            scrape.of_target("ws_keepalive_messages_received_total", "echo"),
            scrape.of_target("established", "events"),
            scrape.of_target("established", "ticker"),
            scrape.of_target("ws_keepalive_stale", "ticker"),
            scrape.of_target("established", "nobody"),
        ];
        let events = scrape.of_target("ws_keepalive_messages_received_total", "events");
        let answers = scrape.of_target("received_pong_total", "ticker");

        let failures = scrape.value("ws_keepalive_connect_failures_total", &nobody);
        let expected = [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0].map(Some);
        let enough = events >= Some(1.0) && answers >= Some(1.0) && failures >= Some(2.0);
        if seen == expected && enough {
            Ok(())
        } else {
            Err(format!(
                "{seen:?}, {answers:?} answers, {failures:?} failures"
            ))
        }
    });
    for (command, words) in [("status", "nobody"), ("reload", "kept 5")] {
        let arguments = [command, "--config", file.to_str().unwrap()];
        let asked = output_of(&mut program(&arguments));
        let out = String::from_utf8_lossy(&asked.stdout);
        assert!(asked.status.success() && out.contains(words), "{asked:?}");
    }
    process.signal(Signal::INT);
    assert_eq!(exit_code(process.wait(secs(15.0))), 0);
}
