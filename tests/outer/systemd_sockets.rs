//! Sockets that a service manager opened: served in the place of those the configuration names.

use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use crate::support::*;

/// `command`, handed the sockets of `passed`: `metrics=tcp:8080,server=unix:/path`.
fn with_sockets(passed: &str, command: &std::process::Command) -> Process {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/outer/peers/pass_sockets.py"
    );
    let mut wrapped = std::process::Command::new("python3");
    wrapped.args([script, passed]).arg(command.get_program());
    wrapped.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    Process::spawn("activated", &mut wrapped)
}

fn run(dir: &ConfigDir, passed: &str) -> Process {
    let file = dir.file();
    let mut command = program(&["run", "--config", file.to_str().unwrap()]);
    command.args(["--log-format", "json"]);
    with_sockets(passed, &command)
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn ready(at: impl Into<Endpoint> + Clone) {
    until("/readyz answers 200", secs(15.0), || {
        match get(at.clone(), "/readyz")? {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

fn warned(process: &Process) -> Vec<String> {
    let lines = process.stderr.all();
    let sockets = lines
        .iter()
        .filter(|line| line.text_of("event").starts_with("socket_"));
    sockets
        .map(|line| line.text_of("message").to_owned())
        .collect()
}

#[test]
fn a_passed_socket_is_guarded_as_a_configured_one_is_and_a_reload_changes_by_whom() {
    let _machine = shared();
    let metrics = free_port();
    let dir = ConfigDir::new();
    let control = dir.path().join("control.sock");
    let text = |more: &str| format!("[metrics]\n{more}\n[control]\nsocket = {control:?}\n");
    let hash = bcrypt::hash("s3cret", 4).unwrap();
    let users = format!("basic_auth_users = {{ prometheus = \"{hash}\" }}");
    dir.overwrite(&text(&format!("probes_without_auth = true\n{users}")));
    let process = run(&dir, &format!("metrics=tcp:{metrics}"));
    ready(local(metrics));
    assert_eq!(get(local(metrics), "/metrics").unwrap().0, 401);
    dir.rename_over(&text("socket_mode = \"0600\""));
    until("everybody is answered", secs(10.0), || {
        match get(local(metrics), "/metrics")? {
            (200, _) => Ok(()),
            (status, _) => Err(status.to_string()),
        }
    });
    let changed = "metrics users, probes_without_auth changed";
    process.stderr.wait("it is told", secs(10.0), |line| {
        line.text.contains(changed).then_some(())
    });
}

#[test]
fn passed_sockets_are_served_in_the_place_of_the_configured_and_kept_over_reloads() {
    let _machine = shared();
    let [metrics, server, other_metrics, other_server] = [(); 4].map(|()| free_port());
    let dir = ConfigDir::new();
    let control = dir.path().join("control.sock");
    let text = |enabled: bool, more: &str| {
        format!(
            "[metrics]\nenabled = {enabled}\nlisten = \"127.0.0.1:{other_metrics}\"\n\
             [control]\nsocket = {control:?}\n\
             [server]\nlisten = \"127.0.0.1:{other_server}\"\n{more}\n\
             [[target]]\nname = \"itself\"\nurl = \"ws://127.0.0.1:{server}/\"\nping_interval = \"1s\"\n"
        )
    };
    dir.overwrite(&text(true, ""));
    let mut process = run(&dir, &format!("server=tcp:{server},metrics=tcp:{metrics}"));
    ready(local(metrics));
    let established = || {
        until("it is established", secs(10.0), || {
            let (_, body) = get(local(metrics), "/metrics")?;
            match Scrape::of(body).of_target("established", "itself") {
                Some(1.0) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    };
    established();
    let nobody = |port| assert!(std::net::TcpStream::connect(local(port)).is_err(), "{port}");
    nobody(other_metrics);
    nobody(other_server);

    let reload = |new: &str, expected: &str| {
        let before = process.stderr.len();
        dir.rename_over(new);
        let file = dir.file();
        let mut command = program(&["reload", "--config", file.to_str().unwrap()]);
        let mut reload = Process::spawn("reload", &mut command);
        assert_eq!(
            exit_code(reload.wait(secs(10.0))),
            0,
            "{:?}",
            reload.stderr.all()
        );
        // The watch may have been first: the log has it in either case, if a little later.
        process
            .stderr
            .wait_from(before, expected, secs(15.0), |line| {
                line.text_of("message").contains(expected).then_some(())
            });
    };
    // The server's settings change: it is served anew, on the same socket.
    let restarted = format!("server restarted on 127.0.0.1:{server}");
    reload(&text(true, "max_connections = 7"), &restarted);
    established();
    // An address that means nothing here ends nobody's connection when it changes.
    let elsewhere = text(true, "max_connections = 7")
        .replace(&other_server.to_string(), &free_port().to_string());
    reload(&elsewhere, "kept 1, retuned 0");
    let said = process.stderr.texts();
    let restarts = said.iter().filter(|line| line.contains("server restarted"));
    assert_eq!(restarts.count(), 1, "{said:#?}");
    // Metrics are closed, and opened again.
    let closed = text(false, "max_connections = 7");
    reload(&closed, "metrics listener closed");
    until("nobody answers", secs(15.0), || {
        match get(local(metrics), "/healthz") {
            Err(_) => Ok(()),
            Ok(answer) => Err(format!("{answer:?}")),
        }
    });
    let opened = text(true, "max_connections = 7");
    reload(&opened, "metrics listener opened");
    ready(local(metrics));
    established();
    nobody(other_metrics);
    nobody(other_server);
    // While they were closed, the socket was still open: who came then waited.
    let warnings = warned(&process);
    assert!(
        warnings.len() == 1 && warnings[0].ends_with("metrics.enabled is false"),
        "{warnings:#?}"
    );
    process.signal(Signal::TERM);
    assert_eq!(exit_code(process.wait(secs(15.0))), 0);
}

#[test]
fn unix_sockets_are_served_too_and_their_files_stay() {
    let _machine = shared();
    let dir = ConfigDir::new();
    let [metrics, server]: [PathBuf; 2] = ["m.sock", "s.sock"].map(|name| dir.path().join(name));
    dir.overwrite(&format!(
        "[server]\n[[target]]\nname = \"itself\"\nurl = \"unix:{}\"\nping_interval = \"1s\"\n",
        server.display()
    ));
    let passed = format!(
        "metrics=unix:{},server=unix:{}",
        metrics.display(),
        server.display()
    );
    let mut process = run(&dir, &passed);
    ready(Endpoint::Unix(metrics.clone()));
    until("pongs came by the unix socket", secs(10.0), || {
        let (_, body) = get(Endpoint::Unix(metrics.clone()), "/metrics")?;
        match Scrape::of(body).of_target("received_pong_total", "itself") {
            Some(pongs) if pongs >= 2.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    process.signal(Signal::TERM);
    assert_eq!(exit_code(process.wait(secs(15.0))), 0);
    for socket in [metrics, server] {
        let kind = std::fs::symlink_metadata(&socket).map(|at| at.file_type());
        assert!(kind.is_ok_and(|kind| kind.is_socket()), "{socket:?}");
    }
}

#[test]
fn a_socket_nobody_uses_is_warned_of_and_one_of_the_wrong_kind_refused() {
    let _machine = shared();
    let dir = ConfigDir::new();
    let [metrics, server, other] = [(); 3].map(|()| free_port());
    dir.overwrite("");
    let passed = format!("metrics=tcp:{metrics},console=tcp:{other},server=tcp:{server}");
    let process = run(&dir, &passed);
    ready(local(metrics));
    // Lines are written by a thread of their own.
    let warnings = until("both are warned of", secs(10.0), || {
        let warnings = warned(&process);
        match warnings.len() {
            2 => Ok(warnings.join("\n")),
            _ => Err(format!("{warnings:#?}")),
        }
    });
    for words in [
        "a socket named `console`, which nobody uses",
        &format!("nobody answers on 127.0.0.1:{server}"),
        "no [server] table",
    ] {
        assert!(warnings.contains(words), "{words}: {warnings}");
    }
    drop(process);

    for (passed, words) in [
        (
            format!("metrics=udp:{metrics}"),
            "the socket `metrics` of the service manager is not a stream socket",
        ),
        (
            format!("server=tcp:{server},server=tcp:{other}"),
            "two sockets named `server`",
        ),
    ] {
        let mut process = run(&dir, &passed);
        assert_eq!(exit_code(process.wait(secs(15.0))), 1);
        let said = process.stderr.texts().join("\n");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn the_server_command_takes_its_sockets_the_same_way() {
    let _machine = shared();
    let [metrics, server, other] = [(); 3].map(|()| free_port());
    let number = other.to_string();
    let command = program(&["server", "-l", "127.0.0.1", "-p", &number]);
    let passed = format!("metrics=tcp:{metrics},server=tcp:{server}");
    let mut process = with_sockets(&passed, &command);
    ready(local(metrics));
    let daemon = Daemon::run(&format!(
        "[[target]]\nname = \"one\"\nurl = \"ws://127.0.0.1:{server}/\"\n"
    ));
    daemon.established("one", secs(10.0));
    assert!(std::net::TcpStream::connect(local(other)).is_err());
    process.signal(Signal::TERM);
    assert_eq!(exit_code(process.wait(secs(15.0))), 0);
}
