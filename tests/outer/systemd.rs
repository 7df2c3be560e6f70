//! What the built binary tells the service manager that started it, and when it falls silent.

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::support::*;

fn target(name: &str, url: &str) -> String {
    format!("[[target]]\nname = \"{name}\"\nurl = \"{url}\"\nping_interval = \"1s\"\n")
}

fn run(manager: &Manager, targets: &str, more: &[(&str, &str)]) -> Daemon {
    let socket = manager.socket();
    let mut variables = vec![("NOTIFY_SOCKET", socket.to_str().unwrap())];
    variables.extend(more);
    Daemon::run_with_variables(targets, &variables)
}

/// Asserts that nothing with `line` is told for `time`.
fn silent(manager: &Manager, line: &str, time: std::time::Duration) {
    let from = manager.heard.len();
    let start = std::time::Instant::now();
    until("the time of silence is over", time * 2, || {
        match start.elapsed() >= time {
            true => Ok(()),
            false => Err(String::new()),
        }
    });
    let told = &manager.heard.all()[from..];
    assert!(!told.iter().any(|told| told.has(line)), "{told:#?}");
}

fn monotonic_micros() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000
}

#[test]
fn ready_is_said_when_the_listeners_answer_and_never_where_one_cannot_be_bound() {
    let _machine = shared();
    let manager = Manager::new();
    let dir = ConfigDir::new();
    let metrics = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    dir.overwrite(&format!("[metrics]\nlisten = \"{metrics}\"\n"));
    let start = || {
        let file = dir.file();
        let mut command = program(&["run", "--config", file.to_str().unwrap()]);
        command.env("NOTIFY_SOCKET", manager.socket());
        Process::spawn("run", &mut command)
    };
    let process = start();
    manager.wait_for(0, "READY=1", secs(15.0));
    assert_eq!(get(metrics, "/readyz").unwrap().0, 200);
    let first = &manager.heard.all()[0];
    assert_eq!(first.text, "READY=1\nSTATUS=no targets configured");

    let from = manager.heard.len();
    let mut second = start();
    assert_eq!(exit_code(second.wait(secs(15.0))), 1);
    assert_eq!(manager.heard.len(), from, "{:#?}", manager.heard.all());
    drop(process);
}

#[test]
fn every_reload_is_framed_whoever_asks_and_however_it_ends() {
    let _machine = shared();
    let peer = OddPeer::upgrading(Manner::default());
    let manager = Manager::new();
    let daemon = run(&manager, &target("one", &peer.url()), &[]);
    daemon.established("one", secs(10.0));
    let good = daemon.text(&target("one", &peer.url()));
    let bad = daemon.text("[[target]]\nurl = \"gopher://example.com\"\nping_intervall = \"1s\"\n");

    // Returns the status that the end of the reload brought.
    let framed = |from: usize, asked_at: i64| {
        let begun = manager
            .heard
            .wait_from(from, "RELOADING=1", secs(10.0), |told| {
                let usec = told.value("MONOTONIC_USEC").map(str::to_owned);
                told.has("RELOADING=1").then_some(usec)
            });
        let usec: i64 = begun.expect("in the same datagram").parse().unwrap();
        assert!((asked_at..=monotonic_micros()).contains(&usec), "{usec}");
        let from = manager.wait_for(from, "RELOADING=1", secs(1.0));
        manager.wait_for(from, "READY=1", secs(10.0))
    };
    let status = |until: usize| {
        let heard = manager.heard.all();
        let mut statuses = heard[..until].iter().rev();
        let last = statuses.find_map(|told| told.value("STATUS").map(str::to_owned));
        last.unwrap()
    };
    const WELL: &str = "1 of 1 target established";
    const ILL: &str = "1 of 1 target established; last reload failed: 2 errors";

    manager.heard.wait("the status", secs(15.0), |told| {
        (told.value("STATUS") == Some(WELL)).then_some(())
    });
    // By the file watch: refused.
    let (from, now) = (manager.heard.len(), monotonic_micros());
    daemon.dir.rename_over(&bad);
    let end = framed(from, now);
    assert_eq!(status(end), ILL);
    // By SIGHUP: refused again.
    let (from, now) = (manager.heard.len(), monotonic_micros());
    daemon.process.signal(Signal::HUP);
    let end = framed(from, now);
    assert_eq!(status(end), ILL);
    // By `ws-keepalive reload`, which is answered after the manager is.
    let file = daemon.dir.file();
    let reload = || {
        let mut command = program(&["reload", "--config", file.to_str().unwrap()]);
        let code = exit_code(Process::spawn("reload", &mut command).wait(secs(10.0)));
        (code, manager.heard.len())
    };
    let (from, now) = (manager.heard.len(), monotonic_micros());
    assert_eq!(reload().0, 1);
    framed(from, now);
    // A good one, by the watch or by this: the failure is forgotten.
    let (from, now) = (manager.heard.len(), monotonic_micros());
    daemon.dir.rename_over(&good);
    assert_eq!(reload().0, 0);
    let end = framed(from, now);
    assert_eq!(status(end), WELL);
    assert_eq!(peer.dials().len(), 1);
}

#[test]
fn the_status_counts_the_targets_that_are_up_once_a_second_at_most() {
    let _machine = shared();
    let manager = Manager::new();
    // A port that nobody else is given when the peer is gone, and that is dialed again and again.
    let good = OddPeer::upgrading_on(free_port(), Manner::default());
    let nobody = format!("ws://127.0.0.1:{}/", free_port());
    let targets = target("up", &good.url()) + &target("down", &nobody);
    let daemon = run(&manager, &targets, &[]);
    let up = manager.wait_for(0, "STATUS=1 of 2 targets established", secs(15.0));
    drop(good);
    // After that: the very first status says the same.
    let down = manager.wait_for(up, "STATUS=0 of 2 targets established", secs(15.0));
    daemon.dir.rename_over(&daemon.text(""));
    manager.wait_for(down, "STATUS=no targets configured", secs(15.0));
    // Each is news, and between two there is a second, but for what a reload brought at once.
    let heard = manager.heard.all();
    let told = heard.iter().filter(|told| told.value("STATUS").is_some());
    let told: Vec<&std::sync::Arc<Told>> = told.collect();
    for pair in told.windows(2) {
        assert_ne!(pair[0].value("STATUS"), pair[1].value("STATUS"));
        let by_itself = pair.iter().all(|told| told.value("READY").is_none());
        let gap = pair[1].at - pair[0].at;
        // As they were heard: the first perhaps late.
        assert!(!by_itself || gap > secs(0.5), "{gap:?}: {told:#?}");
    }
}

#[test]
fn the_watchdog_is_fed_at_half_its_period_and_starves_when_the_process_or_its_io_thread_stands() {
    let _machine = shared();
    let manager = Manager::new();
    let period = secs(2.0);
    let daemon = run(&manager, "", &[("WATCHDOG_USEC", "2000000")]);
    let fed = |from: usize| manager.wait_for(from, "WATCHDOG=1", secs(15.0));
    let mut position = 0;
    let mut times = Vec::new();
    for _ in 0..4 {
        position = fed(position);
        times.push(manager.heard.all()[position - 1].at);
    }
    for pair in times.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(gap < period, "{gap:?}");
    }
    // And no more often: three times half a period. One may be heard late, and the next in time.
    let three = times[3] - times[0];
    assert!(three > secs(2.5), "{three:?}");

    daemon.process.freeze();
    silent(&manager, "WATCHDOG=1", period * 2);
    daemon.process.thaw();
    fed(manager.heard.len());

    // The I/O thread is the first one; the others run on.
    let thread = Pid::from_raw(daemon.process.pid().try_into().unwrap());
    ptrace::seize(thread, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(thread).unwrap();
    waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
    let from = manager.heard.len();
    assert_eq!(get(daemon.metrics, "/healthz").unwrap().0, 200);
    silent(&manager, "WATCHDOG=1", period * 2);
    assert_eq!(get(daemon.metrics, "/healthz").unwrap().0, 200);
    let told = manager.heard.all().len();
    assert_eq!(told, from, "nobody else speaks in its place");
    ptrace::detach(thread, None).unwrap();
    fed(from);
}

#[test]
fn a_watchdog_meant_for_another_process_is_not_fed() {
    let _machine = shared();
    let manager = Manager::new();
    let variables = [("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")];
    let _daemon = run(&manager, "", &variables);
    manager.wait_for(0, "READY=1", secs(10.0));
    silent(&manager, "WATCHDOG=1", secs(0.6));
}

#[test]
fn the_end_is_announced_with_the_time_it_may_take_and_the_watchdog_is_fed_to_the_last() {
    let _machine = shared();
    let manager = Manager::new();
    let manner = Manner {
        on_close: OnClose::ReplyAfter(secs(2.0)),
        ..Manner::default()
    };
    let peer = OddPeer::upgrading(manner);
    let slow = target("slow", &peer.url()) + "close_timeout = \"70s\"\n";
    let mut daemon = run(&manager, &slow, &[("WATCHDOG_USEC", "1000000")]);
    daemon.established("slow", secs(10.0));
    manager.wait_for(0, "STATUS=1 of 1 target established", secs(15.0));
    daemon.process.signal(Signal::TERM);
    let end = manager.wait_for(0, "STOPPING=1", secs(15.0));
    let told = manager.heard.all()[end - 1].clone();
    let usec: u64 = told.value("EXTEND_TIMEOUT_USEC").unwrap().parse().unwrap();
    assert!((70_000_000..90_000_000).contains(&usec), "{told:?}");
    let status = told.value("STATUS");
    assert_eq!(status, Some("stopping: 1 of 1 targets still established"));
    manager.wait_for(end, "WATCHDOG=1", secs(10.0));
    assert_eq!(exit_code(daemon.process.wait(secs(15.0))), 0);
}

#[test]
fn a_server_tells_how_many_clients_it_has() {
    let _machine = shared();
    let manager = Manager::new();
    let port = free_port();
    let number = port.to_string();
    let mut command = program(&["server", "-l", "127.0.0.1", "-p", &number]);
    command.env("NOTIFY_SOCKET", manager.socket());
    command.env("WATCHDOG_USEC", "1000000");
    let mut server = Process::spawn("server", &mut command);
    manager.wait_for(0, "READY=1", secs(10.0));
    manager.wait_for(0, "STATUS=no clients connected", secs(15.0));
    let url = format!("ws://127.0.0.1:{port}/");
    let daemon = Daemon::run(&(target("one", &url) + &target("two", &url)));
    daemon.established("two", secs(10.0));
    manager.wait_for(0, "STATUS=2 clients connected", secs(15.0));
    manager.wait_for(manager.heard.len(), "WATCHDOG=1", secs(15.0));
    server.signal(Signal::TERM);
    let end = manager.wait_for(0, "STOPPING=1", secs(15.0));
    let told = manager.heard.all()[end - 1].clone();
    assert!(told.value("EXTEND_TIMEOUT_USEC").is_some(), "{told:?}");
    let closing = told.value("STATUS");
    assert_eq!(closing, Some("stopping: 2 connections to close"));
    assert_eq!(exit_code(server.wait(secs(15.0))), 0);
}

#[test]
fn a_manager_that_is_not_there_or_reads_nothing_stops_nobody() {
    let _machine = shared();
    let dir = tempfile::tempdir().unwrap();
    let deaf = dir.path().join("deaf");
    let _deaf = std::os::unix::net::UnixDatagram::bind(&deaf).unwrap();
    let gone = dir.path().join("gone");
    for (socket, warns) in [(&deaf, false), (&gone, true)] {
        let variables = [
            ("NOTIFY_SOCKET", socket.to_str().unwrap()),
            ("WATCHDOG_USEC", "20000"),
        ];
        let peer = OddPeer::upgrading(Manner::default());
        let mut daemon = Daemon::run_with_variables(&target("one", &peer.url()), &variables);
        daemon.established("one", secs(10.0));
        // Some hundred datagrams are due meanwhile.
        daemon.scrape_until("pings go on", secs(10.0), |scrape| {
            scrape.of_target("received_pong_total", "one") >= Some(3.0)
        });
        daemon.process.signal(Signal::TERM);
        assert_eq!(exit_code(daemon.process.wait(secs(15.0))), 0);
        let lines = daemon.process.stderr.texts();
        let warned = lines.iter().filter(|line| line.contains("cannot be told"));
        assert_eq!(warned.count(), usize::from(warns), "{lines:#?}");
    }
}
