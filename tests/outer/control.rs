//! The other ways to ask for a reload, and what they answer.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::support::*;

fn control(daemon: &Daemon, arguments: &[&str]) -> Command {
    let file = daemon.dir.file();
    let mut command = program(arguments);
    command.args(["--config", file.to_str().unwrap()]);
    command
}

fn run(command: &mut Command) -> (i32, String, String) {
    let mut process = Process::spawn("control", command);
    let status = process.wait(secs(10.0));
    let text = |lines: &Journal<Line>| {
        lines
            .all()
            .iter()
            .map(|line| line.text.clone() + "\n")
            .collect::<String>()
    };
    (
        exit_code(status),
        text(&process.stdout),
        text(&process.stderr),
    )
}

fn target(name: &str, peer: &OddPeer, interval: &str) -> String {
    format!(
        "[[target]]\nname = \"{name}\"\nurl = \"{}\"\nping_interval = \"{interval}\"\n",
        peer.url()
    )
}

#[test]
fn reload_waits_and_exits_0_with_what_changed_or_1_with_why_not() {
    let _machine = shared();
    let peer = OddPeer::upgrading(Manner::default());
    let daemon = Daemon::run(&target("one", &peer, "1s"));
    daemon.established("one", secs(15.0));
    daemon
        .dir
        .rename_over(&daemon.text("[[target]]\nurl = 7\n"));
    let (code, out, err) = run(&mut control(&daemon, &["reload"]));
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        err.contains("ws-keepalive.toml:") && err.contains("target[0].url"),
        "{err}"
    );
    assert_eq!(out, "");
    daemon
        .dir
        .rename_over(&daemon.text(&target("one", &peer, "2s")));
    let (code, out, err) = run(&mut control(&daemon, &["reload"]));
    assert_eq!(code, 0, "{out}{err}");
    // The file's watch may have been first.
    let counts = ["kept 0, retuned 1", "kept 1, retuned 0"]
        .map(|counts| format!("{counts}, replaced 0, added 0, removed 0\n"));
    assert!(counts.contains(&out), "{out}");
    assert_eq!(peer.dials().len(), 1);
}

#[test]
fn sighup_and_post_reload_take_the_same_path() {
    let _machine = shared();
    let peer = OddPeer::upgrading(Manner::default());
    let daemon = Daemon::run(&target("one", &peer, "1s"));
    daemon.established("one", secs(15.0));
    let lines = daemon.process.stderr.len();
    daemon.process.signal(Signal::HUP);
    daemon
        .process
        .stderr
        .wait_from(lines, "a reload line", secs(15.0), |line| {
            let by = line.text_of("message").starts_with("reloaded by SIGHUP: ");
            (by && number_after(&line.text, "kept") == Some(1)).then_some(())
        });
    let (status, body) = post(daemon.metrics, "/-/reload").unwrap();
    assert_eq!(
        (status, number_after(&body, "kept")),
        (200, Some(1)),
        "{body}"
    );
    daemon.dir.overwrite(&daemon.text("nonsense"));
    let (status, body) = post(daemon.metrics, "/-/reload").unwrap();
    assert_eq!(status, 422, "{body}");
    assert!(
        body.contains("ws-keepalive.toml:") && body.contains("not TOML"),
        "{body}"
    );
    assert_eq!(peer.dials().len(), 1);
}

#[test]
fn status_shows_every_target_as_a_table_and_as_json() {
    let _machine = shared();
    let peer = OddPeer::upgrading(Manner::default());
    let daemon = Daemon::run(&(target("one", &peer, "1s") + &target("two", &peer, "1s")));
    daemon.established("one", secs(15.0));
    daemon.established("two", secs(15.0));
    let (code, table, err) = run(&mut control(&daemon, &["status"]));
    assert_eq!(code, 0, "{err}");
    for name in ["one", "two"] {
        let row = table.lines().find(|row| row.contains(name));
        assert!(
            row.is_some_and(|row| row.contains("established")),
            "{table}"
        );
    }
    let (code, json, err) = run(&mut control(&daemon, &["status", "-o", "json"]));
    assert_eq!(code, 0, "{err}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["targets"].as_array().map(Vec::len), Some(2));
}

#[test]
fn whoever_holds_connections_raises_the_limit_of_open_files_as_far_as_it_may() {
    let _machine = shared();
    let dir = ConfigDir::new();
    dir.overwrite("");
    let file = dir.file();
    for command in [
        vec!["run", "--config", file.to_str().unwrap()],
        vec!["server"],
    ] {
        let (port, metrics) = (free_port(), free_port());
        let metrics = SocketAddr::from(([127, 0, 0, 1], metrics));
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -Sn 60; exec \"$0\" \"$@\""]);
        limited.arg(program(&[]).get_program()).args(&command);
        limited.args(["-m=true", "-a", &metrics.to_string()]);
        if command[0] == "server" {
            limited.args(["-l", "127.0.0.1", "-p", &port.to_string()]);
        }
        let process = Process::spawn(command[0], &mut limited);
        until("it is ready", secs(15.0), || {
            match get(metrics, "/readyz")? {
                (200, _) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
        let row = limits.lines().find(|row| row.starts_with("Max open files"));
        let [soft, hard] = [3, 4].map(|column| row.unwrap().split_whitespace().nth(column));
        assert_eq!(soft, hard, "{command:?}: {row:?}");
    }
}

#[test]
fn what_is_wrong_with_the_command_line_or_the_file_is_said_at_once_and_exits_2() {
    let _machine = shared();
    let dir = ConfigDir::new();
    dir.overwrite("[[target]]\nurl = \"ws://localhost:9000/ws\"\nping_intervall = \"1s\"\n");
    let (file, missing) = (dir.file(), dir.path().join("missing.toml"));
    let (file, missing) = (file.to_str().unwrap(), missing.to_str().unwrap());
    for (arguments, words) in [
        (&["client", "-i", "10"][..], "needs a unit: 10s?"),
        (&["client", "--url", "gopher://example.com"], "gopher"),
        (&["client", "--colour"], "--colour"),
        (&["server", "--ping-interval", "0s"], "--ping-interval"),
        (&["run", "--log-level", "loud", "--config", file], "loud"),
        (&["run", "--config", file], "ping_interval"),
        (&["run", "--config", missing], "missing.toml"),
        (
            &["check", file],
            "ws-keepalive.toml:3:1: target[0].ping_intervall: ",
        ),
        (&["tidy"], "tidy"),
    ] {
        let (code, out, err) = run(&mut program(arguments));
        assert_eq!(code, 2, "{arguments:?}: {out}{err}");
        assert!(err.contains(words), "{arguments:?}: {err}");
        assert_eq!(out, "", "{arguments:?}");
        assert!(!err.contains("listening"), "{arguments:?}: {err}");
    }
}

#[test]
fn a_listener_that_cannot_bind_exits_1_and_names_address_and_flag() {
    let _machine = shared();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = ConfigDir::new();
    dir.overwrite("");
    let file = dir.file();
    let run_arguments = [
        "run",
        "--config",
        file.to_str().unwrap(),
        "--metrics-server",
        &address,
    ];
    let port = taken.local_addr().unwrap().port().to_string();
    let server_arguments = ["server", "-l", "127.0.0.1", "-p", &port];
    let client_arguments = ["client", "-a", &address];
    for (arguments, flag) in [
        (&run_arguments[..], "--metrics-server"),
        (&client_arguments, "--metrics-server"),
        (&server_arguments, "--port"),
    ] {
        let (code, out, err) = run(&mut program(arguments));
        assert_eq!(code, 1, "{out}{err}");
        assert!(err.contains(&address) && err.contains(flag), "{err}");
    }
}
