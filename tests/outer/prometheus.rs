//! Debian's Prometheus reads what we write.

use crate::support::*;

#[test]
fn promtool_check_metrics_is_silent() {
    let _machine = shared();
    let eventful = Eventful::start();
    let text = eventful.daemon.scrape().text;
    let mut promtool = promtool(&["check", "metrics"]);
    promtool.feed(&text);
    let status = promtool.wait(secs(60.0));
    let said = [promtool.stdout.all(), promtool.stderr.all()].concat();
    assert!(said.is_empty() && status.success(), "{status}: {said:#?}");
    // A scope or an overflow is what OpenTelemetry would leak.
    for foreign in ["otel_scope", "otel_metric_overflow"] {
        assert!(!text.contains(foreign), "{foreign} in {text}");
    }
}

#[test]
fn prometheus_scrapes_every_target_and_sees_one_go() {
    let _machine = shared();
    let Eventful { daemon, peers, .. } = &Eventful::start();
    let prometheus = Prometheus::start(daemon.metrics, None, None);
    // `wanted` is judged against the values by `target` label.
    let query = |expression: &str, wanted: &[(&str, &str)]| {
        until(&format!("{expression} is {wanted:?}"), secs(30.0), || {
            let results = prometheus.query(expression)?;
            let mut values: Vec<(&str, &str)> = results
                .iter()
                .map(|result| {
                    let target = result["metric"]["target"].as_str().unwrap_or_default();
                    (target, result["value"][1].as_str().unwrap_or_default())
                })
                .collect();
            values.sort_unstable();
            if values == wanted {
                Ok(())
            } else {
                Err(format!("{results:?}"))
            }
        });
    };
    query("up", &[("", "1")]);
    query(
        "established{target=~'up|own|failed'}",
        &[("failed", "0"), ("own", "1"), ("up", "1")],
    );
    query(
        "count(ws_keepalive_rtt_seconds_bucket{target='up'})",
        &[("", "15")],
    );
    query(
        "ws_keepalive_target_info{region!='',protocol='websocket'}",
        &[("up", "1")],
    );
    query(
        "count(ws_keepalive_connect_failures_total{target='up'} == 0)",
        &[("", "6")],
    );
    query(
        "rate(received_pong_total{target='up'}[10s]) > bool 0",
        &[("up", "1")],
    );
    let up = peers[0].url();
    daemon
        .dir
        .rename_over(&daemon.text(&format!("[[target]]\nname = \"up\"\nurl = \"{up}\"\n")));
    query("established", &[("up", "1")]);
}

#[test]
fn the_memory_of_a_scrape_goes_back_when_it_is_done() {
    let _machine = shared();
    const TARGETS: usize = 3_000;
    let nobody = free_port();
    let target = |n| format!("[[target]]\nname = \"t{n}\"\nurl = \"ws://127.0.0.1:{nobody}/\"\n");
    // Each is dialed once, and then nothing moves.
    let once = "[defaults]\nreconnect = { initial = \"1h\", max = \"1h\" }\n".to_owned();
    let daemon = Daemon::run(&(0..TARGETS).fold(once, |all, n| all + &target(n)));
    until("all were dialed", secs(60.0), || {
        let lines = daemon.process.stderr.texts();
        let failed = |line: &&String| line.contains("\"phase\":\"tcp\"");
        match lines.iter().filter(failed).count() {
            TARGETS => Ok(()),
            other => Err(other.to_string()),
        }
    });
    let before = daemon.process.anonymous_memory();
    let text = (0..4).map(|_| daemon.scrape().text.len()).max().unwrap() as u64;
    let grew = daemon.process.anonymous_memory().saturating_sub(before);
    assert!(
        grew < text,
        "{grew} more bytes after texts of {text}, and {before} before"
    );
}
