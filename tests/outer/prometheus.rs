//! Debian's Prometheus reads what we write.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::support::*;

/// A daemon in whose metrics everything has happened at least once: up, lost, failed, served.
fn eventful() -> (Daemon, [OddPeer; 3]) {
    let peers = [
        OddPeer::upgrading(Manner::default()),
        OddPeer::upgrading(Manner {
            then: Then::FinWithoutClose,
            ..Manner::default()
        }),
        OddPeer::start(Script::AcceptAndClose),
    ];
    let [up, lost, failed] = peers.each_ref().map(OddPeer::url);
    let listen = free_port();
    let daemon = Daemon::run(&format!(
        "[server]\nlisten = \"127.0.0.1:{listen}\"\n\
         [defaults]\nping_interval = \"200ms\"\n\
         [[target]]\nname = \"up\"\nurl = \"{up}\"\nlabels = {{ region = \"a \\\"b\\\" \\\\c\\n\" }}\n\
         [[target]]\nname = \"lost\"\nurl = \"{lost}\"\n\
         [[target]]\nname = \"failed\"\nurl = \"{failed}\"\n\
         [[target]]\nname = \"own\"\nurl = \"ws://127.0.0.1:{listen}/ws\"\n"
    ));
    daemon.scrape_until("everything has happened", secs(10.0), |scrape| {
        let fin = [("target", "lost"), ("cause", "fin")];
        let upgrade = [("target", "failed"), ("phase", "upgrade")];
        scrape.of_target("received_pong_total", "up") >= Some(3.0)
            && scrape.of_target("received_pong_total", "own") >= Some(3.0)
            && scrape.value("ws_keepalive_disconnects_by_cause_total", &fin) >= Some(1.0)
            && scrape.value("ws_keepalive_connect_failures_total", &upgrade) >= Some(1.0)
    });
    (daemon, peers)
}

#[test]
fn promtool_check_metrics_is_silent() {
    let _machine = shared();
    let (daemon, _peers) = eventful();
    let text = daemon.scrape().text;
    let promtool = tools().join("prometheus/usr/bin/promtool");
    let mut promtool = Process::spawn(
        "promtool",
        Command::new(promtool).args(["check", "metrics"]),
    );
    promtool.feed(&text);
    let status = promtool.wait(secs(10.0));
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
    let (daemon, peers) = eventful();
    let dir = ConfigDir::new();
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = dir.path().join("prometheus.yml");
    let jobs = format!(
        "scrape_configs:\n- job_name: ws-keepalive\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n  \
         static_configs:\n  - targets: ['{}']\n",
        daemon.metrics
    );
    std::fs::write(&config, jobs).unwrap();
    let binary = tools().join("prometheus/usr/bin/prometheus");
    let _prometheus = Process::spawn(
        "prometheus",
        Command::new(binary)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={listen}")),
    );
    // `wanted` is judged against the values by `target` label.
    let query = |expression: &str, wanted: &[(&str, &str)]| {
        until(&format!("{expression} is {wanted:?}"), secs(30.0), || {
            let path = format!("/api/v1/query?query={}", percent_encoded(expression));
            let (_, body) = get(listen, &path)?;
            let json: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
            let results = json["data"]["result"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let mut values: Vec<(&str, &str)> = results
                .iter()
                .map(|result| {
                    let target = result["metric"]["target"].as_str().unwrap_or_default();
                    (target, result["value"][1].as_str().unwrap_or_default())
                })
                .collect();
            values.sort_unstable();
            if values == wanted { Ok(()) } else { Err(body) }
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

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}
