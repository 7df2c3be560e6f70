use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use tokio::sync::mpsc as tokio_mpsc;

use super::*;
use crate::config;
use crate::reload::{Changes, Trigger};
use crate::stats::{Buckets, EntryGuard, Identity};

mod access;
mod content;

const FLAG: &str = "--metrics-server, metrics.listen";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

struct Fixture {
    admin: Admin,
    registry: Arc<Registry>,
    readiness: Arc<Readiness>,
    address: SocketAddr,
}

fn loopback() -> Listen {
    Listen::Tcp(([127, 0, 0, 1], 0).into())
}

fn tcp(listen: &Listen) -> SocketAddr {
    match listen {
        Listen::Tcp(address) => *address,
        Listen::Unix(path) => panic!("{} is no TCP address", path.display()),
    }
}

fn serve(limits: Limits, reload: Option<ReloadSender>) -> Fixture {
    serve_for(Access::open(), limits, reload)
}

fn serve_for(access: Arc<Access>, limits: Limits, reload: Option<ReloadSender>) -> Fixture {
    let bound = bind(&loopback(), FLAG).expect("a free port");
    let address = tcp(bound.local_addr());
    let (registry, readiness) = (Registry::new(), Readiness::new());
    let routes = (registry.clone(), readiness.clone(), reload);
    let admin = start_with(vec![bound], access, routes, limits).expect("started");
    Fixture {
        admin,
        registry,
        readiness,
        address,
    }
}

/// `[metrics]` with these listeners.
fn listening(listen: &[Listen]) -> Metrics {
    Metrics {
        enabled: true,
        listen: listen.to_vec(),
        reload: false,
        socket_mode: None,
        access: config::Access::default(),
    }
}

fn named(name: &str) -> Identity {
    Identity {
        name: name.into(),
        url: "ws://example.com/ws".into(),
        protocol: crate::stats::Protocol::WebSocket,
        server_beats: false,
        watches_staleness: false,
        labels: [].into(),
        fan_out: None,
    }
}

fn add_target(registry: &Arc<Registry>, name: &str) -> EntryGuard {
    registry.target(Arc::new(named(name)), &Buckets::default())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Everything until the server closes.
fn read_all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("not closed: {error}"),
    }
    String::from_utf8(text).expect("UTF-8")
}

fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = connect(address);
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("written");
    read_all(&mut stream)
}

fn status(response: &str) -> u16 {
    let code = response
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no status in {response:?}"))
}

#[track_caller]
fn eventually(what: &str, is: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, is);
}

#[track_caller]
fn eventually_within(patience: Duration, what: &str, mut is: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < patience, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn every_path_answers_and_the_others_are_not_found() {
    let fixture = serve(Limits::default(), None);
    let _edge = add_target(&fixture.registry, "edge");
    let address = fixture.address;
    let metrics = ask(address, "GET", "/metrics?ignored=1");
    assert_eq!(status(&metrics), 200);
    assert!(
        metrics.contains("content-type: text/plain; version=0.0.4"),
        "{metrics}"
    );
    assert!(
        metrics.contains("\nestablished{target=\"edge\"} 0\n"),
        "{metrics}"
    );
    let targets = ask(address, "GET", "/api/v1/targets");
    assert!(
        targets.contains("content-type: application/json"),
        "{targets}"
    );
    assert!(
        targets.contains(r#"{"targets":[{"name":"edge""#),
        "{targets}"
    );
    assert_eq!(status(&ask(address, "GET", "/")), 200);
    assert_eq!(status(&ask(address, "GET", "/healthz")), 200);
    for path in ["/nothing", "/metrics/", "/-/reload", "/-/quit"] {
        assert_eq!(status(&ask(address, "GET", path)), 404, "{path}");
    }
    assert_eq!(status(&ask(address, "POST", "/-/reload")), 404);
}

#[test]
fn ready_only_when_told_so() {
    let fixture = serve(Limits::default(), None);
    assert_eq!(status(&ask(fixture.address, "GET", "/readyz")), 503);
    fixture.readiness.set_ready(true);
    assert_eq!(status(&ask(fixture.address, "GET", "/readyz")), 200);
    fixture.readiness.set_ready(false);
    assert_eq!(status(&ask(fixture.address, "GET", "/readyz")), 503);
    assert_eq!(status(&ask(fixture.address, "GET", "/healthz")), 200);
}

#[test]
fn head_has_the_headers_and_no_body() {
    let fixture = serve(Limits::default(), None);
    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/v1/targets"] {
        let get = ask(fixture.address, "GET", path);
        let head = ask(fixture.address, "HEAD", path);
        assert_eq!(status(&head), status(&get), "{path}");
        assert!(head.contains("content-type: "), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
    }
}

#[test]
fn another_method_is_405_and_names_those_allowed() {
    let (reload, _requests) = tokio_mpsc::channel(1);
    let fixture = serve(Limits::default(), Some(reload));
    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/v1/targets"] {
        let response = ask(fixture.address, "DELETE", path);
        assert_eq!(status(&response), 405, "{path}");
        assert!(response.contains("allow: GET, HEAD\r\n"), "{response}");
    }
    let response = ask(fixture.address, "GET", "/-/reload");
    assert_eq!(status(&response), 405);
    assert!(response.contains("allow: POST\r\n"), "{response}");
}

#[test]
fn a_reload_answers_with_what_changed_or_with_every_mistake() {
    let (reload, mut requests) = tokio_mpsc::channel(1);
    let fixture = serve(Limits::default(), Some(reload));
    let answering = std::thread::spawn(move || {
        let outcomes = [
            Ok(Changes {
                kept: 2,
                added: vec!["new".into()],
                ..Changes::default()
            }),
            Err("a.toml:1:1: first\na.toml:2:1: second".to_owned()),
        ];
        for outcome in outcomes {
            let request = requests.blocking_recv().expect("asked");
            assert_eq!(request.trigger, Trigger::Http);
            let reply = request.reply.expect("it waits");
            reply.send(outcome).expect("it still waits");
        }
        // Dropping the receiver is what a stopping program does.
    });
    let response = ask(fixture.address, "POST", "/-/reload");
    assert_eq!(status(&response), 200);
    assert!(
        response.contains(r#""kept":2"#) && response.contains(r#""added":["new"]"#),
        "{response}"
    );
    let response = ask(fixture.address, "POST", "/-/reload");
    assert_eq!(status(&response), 422);
    assert!(
        response.ends_with("a.toml:1:1: first\na.toml:2:1: second\n"),
        "{response}"
    );
    answering.join().expect("both were asked");
    assert_eq!(status(&ask(fixture.address, "POST", "/-/reload")), 503);
    fixture.admin.set_reload(None);
    assert_eq!(status(&ask(fixture.address, "POST", "/-/reload")), 404);
}

#[test]
fn a_head_larger_than_the_limit_is_refused() {
    let fixture = serve(Limits::default(), None);
    let mut stream = connect(fixture.address);
    let filler = "x".repeat(20 * 1024);
    let request = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Filler: {filler}\r\n\r\n");
    // It may close before it has read everything.
    let _ = stream.write_all(request.as_bytes());
    let response = read_all(&mut stream);
    assert!(
        response.is_empty() || status(&response) == 431,
        "{response}"
    );
    let just_fits = "x".repeat(15 * 1024);
    let mut stream = connect(fixture.address);
    let request = format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Filler: {just_fits}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("written");
    assert_eq!(status(&read_all(&mut stream)), 200);
}

fn short() -> Limits {
    Limits {
        head_time: Duration::from_millis(300),
        ..Limits::default()
    }
}

#[test]
fn a_head_that_dribbles_is_cut_at_its_deadline() {
    let fixture = serve(short(), None);
    // Before it can be accepted, from when on its time runs.
    let started = Instant::now();
    let mut stream = connect(fixture.address);
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("a timeout");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nX: ")
        .expect("written");
    let cut = loop {
        // A byte now and then does not put the deadline off.
        let written = stream.write_all(b"y");
        let mut byte = [0];
        match stream.read(&mut byte) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => break started.elapsed(),
        }
        if written.is_err() {
            break started.elapsed();
        }
        assert!(started.elapsed() < PATIENCE, "never cut");
    };
    assert!(
        cut >= Duration::from_millis(300) && cut < Duration::from_secs(5),
        "{cut:?}"
    );
}

#[test]
fn a_connection_that_says_nothing_is_cut_and_one_between_requests_is_not() {
    let fixture = serve(short(), None);
    let mut silent = connect(fixture.address);
    let mut kept = connect(fixture.address);
    let mut buffer = [0; 1024];
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("written");
    let n = kept.read(&mut buffer).expect("an answer");
    assert_eq!(status(&String::from_utf8_lossy(&buffer[..n])), 200);
    assert_eq!(read_all(&mut silent), "");
    // As late as the silent one was cut, and its own request's head deadline is past.
    eventually("the silent one is gone", || {
        fixture.admin.shared.connections.len() == 1
    });
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("written");
    assert_eq!(status(&read_all(&mut kept)), 200);
}

#[test]
fn the_idlest_makes_room_for_a_new_one() {
    let limits = Limits {
        connections: 3,
        ..Limits::default()
    };
    let fixture = serve(limits, None);
    let mut streams: Vec<TcpStream> = Vec::new();
    for n in 1..=3 {
        streams.push(connect(fixture.address));
        eventually("accepted", || fixture.admin.shared.connections.len() == n);
    }
    // The oldest is used once more, so the second is the idlest.
    streams[0]
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("written");
    let mut buffer = [0; 1024];
    assert!(streams[0].read(&mut buffer).expect("an answer") > 0);
    assert_eq!(status(&ask(fixture.address, "GET", "/healthz")), 200);
    assert_eq!(read_all(&mut streams[1]), "");
    for kept in [0, 2] {
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        streams[kept].write_all(request).expect("written");
        assert_eq!(status(&read_all(&mut streams[kept])), 200);
    }
}

#[test]
fn who_never_reads_the_answer_is_cut() {
    let limits = Limits {
        write_time: Duration::from_millis(300),
        ..Limits::default()
    };
    let fixture = serve(limits, None);
    // More text than the sockets' buffers hold.
    let _guards: Vec<EntryGuard> = (0..4_000)
        .map(|n| add_target(&fixture.registry, &format!("edge-{n}")))
        .collect();
    let mut stream = connect(fixture.address);
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("written");
    eventually("it is served", || {
        fixture.admin.shared.connections.len() == 1
    });
    // The text takes long where the machine is busy. A minute is what is given without a limit.
    eventually_within(PATIENCE * 5, "it is cut", || {
        fixture.admin.shared.connections.len() == 0
    });
    assert_eq!(status(&ask(fixture.address, "GET", "/healthz")), 200);
}

#[test]
fn a_client_that_closes_its_half_still_gets_its_answer_and_then_the_end() {
    let fixture = serve(Limits::default(), None);
    let mut stream = connect(fixture.address);
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("written");
    stream
        .shutdown(std::net::Shutdown::Write)
        .expect("half closed");
    assert_eq!(status(&read_all(&mut stream)), 200);
    eventually("it is gone", || fixture.admin.shared.connections.len() == 0);
}

#[test]
fn scrapes_at_once_all_get_the_whole_text() {
    let fixture = serve(Limits::default(), None);
    let _guards: Vec<EntryGuard> = (0..300)
        .map(|n| add_target(&fixture.registry, &format!("edge-{n}")))
        .collect();
    let address = fixture.address;
    let asking: Vec<_> = (0..20)
        .map(|_| std::thread::spawn(move || ask(address, "GET", "/metrics")))
        .collect();
    for asked in asking {
        let text = asked.join().expect("asked");
        assert_eq!(status(&text), 200);
        assert_eq!(
            text.lines()
                .filter(|l| l.starts_with("established{"))
                .count(),
            300
        );
        assert!(text.contains("\nprocess_open_fds "));
    }
}

#[test]
fn a_reload_keeps_unchanged_listeners_and_binds_before_it_closes() {
    let fixture = serve(Limits::default(), None);
    let mut kept = connect(fixture.address);
    let holding = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = Listen::Tcp(holding.local_addr().expect("bound"));
    let error = fixture
        .admin
        .prepare(&listening(&[loopback(), taken]), FLAG)
        .expect_err("taken");
    assert!(error.contains("Address already in use"), "{error}");
    assert_eq!(tcp(&fixture.admin.local_addrs()[0]), fixture.address);

    let directory = tempfile::tempdir().expect("a directory");
    let unix = Listen::Unix(directory.path().join("metrics.sock"));
    let change = fixture
        .admin
        .prepare(&listening(&[loopback(), unix.clone()]), FLAG)
        .expect("bound");
    let words = fixture.admin.commit(change).expect("served");
    assert_eq!(
        words,
        [format!(
            "metrics listener unix:{}/metrics.sock opened",
            directory.path().display()
        )]
    );
    let path = directory.path().join("metrics.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    assert_eq!(status(&text), 200);

    let change = fixture
        .admin
        .prepare(&listening(&[unix]), FLAG)
        .expect("nothing to bind");
    let words = fixture.admin.commit(change).expect("served");
    assert_eq!(
        words,
        [format!("metrics listener {} closed", fixture.address)]
    );
    eventually("refused", || TcpStream::connect(fixture.address).is_err());
    // Its idle connections end with it.
    assert_eq!(read_all(&mut kept), "");
    fixture.admin.shutdown(PATIENCE);
    assert!(!path.exists(), "the socket's file goes with its listener");
}

#[test]
fn shutdown_lets_a_request_finish_and_cuts_what_hangs() {
    let fixture = serve(Limits::default(), None);
    let mut hanging = connect(fixture.address);
    hanging
        .write_all(b"GET /healthz HTTP/1.1\r\nX: half a head")
        .expect("written");
    let mut idle = connect(fixture.address);
    eventually("accepted", || fixture.admin.shared.connections.len() == 2);
    let started = Instant::now();
    fixture.admin.shutdown(Duration::from_millis(300));
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(read_all(&mut idle), "");
    assert_eq!(read_all(&mut hanging), "");
    assert!(TcpStream::connect(fixture.address).is_err());
}

/// Fails as often as told, as accept does without file descriptors.
struct Failing {
    failures: std::sync::atomic::AtomicUsize,
}

impl Listener for Arc<Failing> {
    type Stream = tokio::net::TcpStream;

    async fn next(&self) -> io::Result<(Self::Stream, Option<IpAddr>)> {
        self.failures.fetch_add(1, Relaxed);
        Err(io::Error::from_raw_os_error(
            nix::errno::Errno::EMFILE as i32,
        ))
    }
}

#[tokio::test(start_paused = true)]
async fn an_accept_that_fails_is_counted_and_no_hot_loop() {
    let fixture = serve(Limits::default(), None);
    let failing = Arc::new(Failing { failures: 0.into() });
    let stop = CancellationToken::new();
    let accepting = tokio::spawn(accept(
        failing.clone(),
        fixture.admin.shared.clone(),
        stop.clone(),
    ));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let failures = failing.failures.load(Relaxed);
    // 50, 100, .. 800 ms, then one a second.
    assert!((10..=15).contains(&failures), "{failures}");
    assert_eq!(
        fixture.registry.accept_errors.load(Relaxed),
        failures as u64
    );
    stop.cancel();
    accepting.await.expect("it hears the stop");
}
