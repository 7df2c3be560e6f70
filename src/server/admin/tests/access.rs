//! Who is answered: TLS, client certificates, passwords.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::config::tls::CRYPTO;
use crate::config::{ClientAuth, Secret, SecretSource, ServerTls};
use crate::transport::tls::testing::{Ca, Issued, Order};

/// Of `secret`, at the lowest cost.
const HASH: &str = "$2y$04$eSyaLnhI4SmGfixUgyQd8ew6VhrrqX5cXQPtjm.g9tFI3Tr9bGY8K";

fn user(hash: &str) -> config::Access {
    config::Access {
        users: vec![("prometheus".into(), Secret::new(hash.into()))],
        ..config::Access::default()
    }
}

fn guarded(access: &config::Access) -> Fixture {
    let access = Access::new(access).expect("good files");
    serve_for(access, Limits::default(), None)
}

fn request(method: &str, path: &str, more: &[&str]) -> String {
    let more: String = more.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n")
}

fn password(pair: &str) -> String {
    format!("Authorization: Basic {}", BASE64.encode(pair))
}

/// The answer to a request that comes from `from`.
fn ask_from(from: [u8; 4], address: SocketAddr, request: &str) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::from((from, 0));
    socket.bind(&from.into()).expect("bound");
    socket.connect(&address.into()).expect("it listens");
    let mut stream = TcpStream::from(socket);
    // A guess among others is answered only after a wait for its turn that is as long.
    let patience = PATIENCE * 3;
    stream.set_read_timeout(Some(patience)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("written");
    read_all(&mut stream)
}

fn ask_with(address: SocketAddr, path: &str, pair: &str) -> String {
    let request = request("GET", path, &[&password(pair)]);
    ask_from([127, 0, 0, 1], address, &request)
}

#[test]
fn without_the_password_nothing_is_answered_and_with_it_everything() {
    let (reload, _requests) = tokio_mpsc::channel(1);
    let fixture = guarded(&user(HASH));
    fixture.admin.set_reload(Some(reload));
    let paths = [
        "/",
        "/metrics",
        "/healthz",
        "/readyz",
        "/api/v1/targets",
        "/no",
    ];
    for path in paths.into_iter().chain(["/-/reload"]) {
        for pair in [None, Some("prometheus:wrong"), Some("nobody:secret")] {
            let pair = pair.map(password);
            let lines: Vec<&str> = pair.as_deref().into_iter().collect();
            let method = if path == "/-/reload" { "POST" } else { "GET" };
            let request = request(method, path, &lines);
            let answer = ask_from([127, 0, 0, 1], fixture.address, &request);
            assert_eq!(status(&answer), 401, "{path} {pair:?}");
            let challenge = "www-authenticate: Basic realm=\"ws-keepalive\", charset=\"UTF-8\"\r\n";
            assert!(answer.contains(challenge), "{answer}");
        }
    }
    for (path, expected) in std::iter::zip(paths, [200, 200, 200, 503, 200, 404]) {
        let answer = ask_with(fixture.address, path, "prometheus:secret");
        assert_eq!(status(&answer), expected, "{path}");
    }
}

#[test]
fn probes_are_answered_without_a_password_if_they_may_be_and_nothing_else_is() {
    let fixture = guarded(&config::Access {
        probes_without_auth: true,
        ..user(HASH)
    });
    fixture.readiness.set_ready(true);
    for (path, expected) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 401),
        ("/", 401),
        ("/healthz/", 401),
    ] {
        let answer = ask(fixture.address, "GET", path);
        assert_eq!(status(&answer), expected, "{path}");
    }
}

#[test]
fn every_answer_has_the_headers_that_were_asked_for() {
    let fixture = guarded(&config::Access {
        headers: vec![(
            http::header::X_FRAME_OPTIONS,
            http::HeaderValue::from_static("deny"),
        )],
        ..user(HASH)
    });
    for (path, pair) in [
        ("/", "prometheus:secret"),
        ("/metrics", "prometheus:secret"),
        ("/no", "prometheus:secret"),
        ("/metrics", "prometheus:wrong"),
    ] {
        let answer = ask_with(fixture.address, path, pair);
        assert!(answer.contains("x-frame-options: deny\r\n"), "{answer}");
    }
}

#[test]
fn who_tries_passwords_delays_nobody_who_has_one() {
    // Slow enough to see, not too slow for a machine that is busy.
    let hash = bcrypt::hash("secret", 9).expect("a hash");
    let begun = Instant::now();
    assert!(bcrypt::verify("secret", &hash).expect("a hash"));
    let one = begun.elapsed();
    let fixture = guarded(&user(&hash));
    let address = fixture.address;
    // Known from here on.
    assert_eq!(
        status(&ask_with(address, "/healthz", "prometheus:secret")),
        200
    );
    let stop = Arc::new(AtomicBool::new(false));
    let trying: Vec<_> = (0..24)
        .map(|n| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut refused = 0;
                while !stop.load(Relaxed) {
                    let answer = ask_with(address, "/metrics", &format!("prometheus:guess-{n}"));
                    // Some wait longer than anybody should.
                    assert!(matches!(status(&answer), 401 | 503), "{answer}");
                    refused += 1;
                }
                refused
            })
        })
        .collect();
    eventually("they all wait", || {
        fixture.admin.shared.connections.len() >= 20
    });
    let begun = Instant::now();
    for _ in 0..20 {
        let answer = ask_with(address, "/metrics", "prometheus:secret");
        assert_eq!(status(&answer), 200);
    }
    let took = begun.elapsed();
    // One more verification each would be as long as this.
    assert!(
        took < one * 20 + Duration::from_secs(2),
        "{took:?}, one takes {one:?}"
    );
    // One who was never here, from another address, has to wait for a turn and not for all.
    let access = config::Access {
        users: vec![
            ("prometheus".into(), Secret::new(hash.clone().into())),
            ("new".into(), Secret::new(hash.into())),
        ],
        ..config::Access::default()
    };
    let wanted = Metrics {
        access,
        ..listening(&[loopback()])
    };
    let change = fixture
        .admin
        .prepare(&wanted, FLAG)
        .expect("nothing to bind");
    fixture.admin.commit(change).expect("served");
    let begun = Instant::now();
    let asked = request("GET", "/healthz", &[&password("new:secret")]);
    let answer = ask_from([127, 0, 0, 2], address, &asked);
    assert_eq!(status(&answer), 200, "after {:?}", begun.elapsed());
    let took = begun.elapsed();
    assert!(
        took < one * 12 + Duration::from_secs(1),
        "{took:?}, one takes {one:?}"
    );
    stop.store(true, Relaxed);
    for trying in trying {
        trying.join().expect("refused each time");
    }
}

#[test]
fn who_tries_passwords_makes_room_before_who_has_one() {
    // One takes long enough for all the places to fill.
    let hash = bcrypt::hash("secret", 10).expect("a hash");
    let access = Access::new(&user(&hash)).expect("no files");
    let limits = Limits {
        connections: 4,
        ..Limits::default()
    };
    let fixture = serve_for(access, limits, None);
    let address = fixture.address;
    let answer = ask_with(address, "/healthz", "prometheus:secret");
    assert_eq!(status(&answer), 200);
    let guess = request("GET", "/metrics", &[&password("prometheus:guess")]);
    let guessing = || {
        let mut stream = connect(address);
        stream.write_all(guess.as_bytes()).expect("written");
        stream
    };
    let mut guesses: Vec<TcpStream> = (0..4).map(|_| guessing()).collect();
    for _ in 0..10 {
        let mut honest = connect(address);
        // It has said nothing yet, and more of the others come.
        guesses.extend((0..3).map(|_| guessing()));
        let asked = request("GET", "/metrics", &[&password("prometheus:secret")]);
        honest.write_all(asked.as_bytes()).expect("written");
        assert_eq!(status(&read_all(&mut honest)), 200);
    }
}

#[test]
fn a_user_that_a_reload_removes_is_refused_on_a_standing_connection() {
    let fixture = guarded(&user(HASH));
    let mut kept = connect(fixture.address);
    let mut ask = || {
        let pair = password("prometheus:secret");
        let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{pair}\r\n\r\n");
        kept.write_all(head.as_bytes()).expect("written");
        let mut buffer = [0; 2048];
        let n = kept.read(&mut buffer).expect("an answer");
        status(&String::from_utf8_lossy(&buffer[..n]))
    };
    assert_eq!(ask(), 200);
    let commit = |access: config::Access| {
        let wanted = Metrics {
            access,
            ..listening(&[loopback()])
        };
        let change = fixture.admin.prepare(&wanted, FLAG).expect("prepared");
        fixture.admin.commit(change).expect("served")
    };
    let other = config::Access {
        users: vec![("other".into(), Secret::new(HASH.into()))],
        ..config::Access::default()
    };
    assert_eq!(commit(other), ["metrics users changed"]);
    assert_eq!(ask(), 401);
    assert_eq!(commit(user(HASH)), ["metrics users changed"]);
    assert_eq!(ask(), 200);
    assert_eq!(commit(user(HASH)), [""; 0]);
    assert_eq!(commit(config::Access::default()), ["metrics users changed"]);
    assert_eq!(ask(), 200);
}

/// A CA, and what it issued, in files.
struct Files {
    dir: tempfile::TempDir,
    ca: Ca,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            dir: tempfile::tempdir().expect("a directory"),
            ca: Ca::new("metrics root"),
        };
        std::fs::write(files.path("ca.pem"), files.ca.pem()).expect("written");
        files.renew("server");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A fresh certificate of the server's.
    fn renew(&self, name: &str) {
        let issued = self.ca.issue(&Order::server(&["localhost"]));
        std::fs::write(
            self.path(&format!("{name}.key")),
            issued.key.serialize_pem(),
        )
        .expect("written");
        std::fs::write(self.path(&format!("{name}.pem")), issued.cert_pem()).expect("written");
    }

    fn tls(&self, change: impl FnOnce(&mut ServerTls)) -> config::Access {
        let file = |name: &str| SecretSource::File(self.path(name));
        let mut tls = ServerTls::new(file("server.pem"), file("server.key"));
        change(&mut tls);
        if tls.client_auth.verifies() {
            tls.client_ca = Some(file("ca.pem"));
        }
        config::Access {
            tls: Some(tls),
            ..config::Access::default()
        }
    }

    fn trusting(&self) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der()).expect("a root");
        ClientConfig::builder_with_provider(CRYPTO.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
    }

    /// The answer to `GET /healthz` by TLS, or why there is none.
    fn ask(&self, address: SocketAddr, shown: Option<&Issued>) -> std::io::Result<String> {
        let config = self.trusting();
        let config = match shown {
            None => config.with_no_client_auth(),
            Some(issued) => {
                let key = PrivateKeyDer::from_pem_slice(issued.key.serialize_pem().as_bytes());
                config
                    .with_client_auth_cert(issued.chain.clone(), key.expect("a key"))
                    .expect("a certificate")
            }
        };
        let tls = client(config);
        let asked = request("GET", "/healthz", &[]);
        exchange(StreamOwned::new(tls, connect(address)), &asked)
    }
}

fn client(config: ClientConfig) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a client")
}

fn exchange(mut stream: impl Read + Write, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn tls_is_spoken_and_who_asks_by_http_is_told_so() {
    let files = Files::new();
    let fixture = guarded(&files.tls(|_| {}));
    let answer = files.ask(fixture.address, None).expect("an answer");
    assert_eq!(status(&answer), 200);
    for method in ["GET", "POST", "OPTIONS"] {
        let asked = request(method, "/healthz", &["Content-Length: 5\r\n\r\n12345"]);
        let answer = ask_from([127, 0, 0, 1], fixture.address, &asked);
        assert_eq!(status(&answer), 400, "{answer}");
        assert!(answer.ends_with("; ask https://\n"), "{answer}");
    }
    let mut neither = connect(fixture.address);
    neither.write_all(b"hello\n").expect("written");
    let mut answer = Vec::new();
    // Closed, or reset with what was left unread.
    let _ = neither.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    eventually("they are gone", || {
        fixture.admin.shared.connections.len() == 0
    });
}

#[test]
fn a_client_has_to_show_what_client_auth_type_asks_for() {
    let files = Files::new();
    let stranger = Ca::new("another root").issue(&Order::client("prometheus.example.com"));
    let ours = files.ca.issue(&Order::client("prometheus.example.com"));
    // Of nobody, of anybody, of ours.
    for (auth, expected) in [
        (ClientAuth::NoClientCert, [true, true, true]),
        (ClientAuth::RequestClientCert, [true, true, true]),
        (ClientAuth::RequireAnyClientCert, [false, true, true]),
        (ClientAuth::VerifyClientCertIfGiven, [true, false, true]),
        (ClientAuth::RequireAndVerifyClientCert, [false, false, true]),
    ] {
        let fixture = guarded(&files.tls(|tls| tls.client_auth = auth));
        let shown = [None, Some(&stranger), Some(&ours)];
        let answered = shown.map(|shown| {
            let answer = files.ask(fixture.address, shown);
            answer.is_ok_and(|answer| status(&answer) == 200)
        });
        assert_eq!(answered, expected, "{auth:?}");
    }
}

#[test]
fn a_client_must_have_one_of_the_names_that_are_let_in() {
    let files = Files::new();
    let fixture = guarded(&files.tls(|tls| {
        tls.client_auth = ClientAuth::RequireAndVerifyClientCert;
        tls.client_allowed_sans = vec!["prometheus.example.com".into(), "::1".into()];
    }));
    for (name, expected) in [
        ("prometheus.example.com", true),
        ("0:0:0:0:0:0:0:1", true),
        ("other.example.com", false),
        ("127.0.0.1", false),
        ("x.prometheus.example.com", false),
    ] {
        let issued = files.ca.issue(&Order::client(name));
        let answer = files.ask(fixture.address, Some(&issued));
        assert_eq!(answer.is_ok(), expected, "{name}: {answer:?}");
    }
}

#[test]
fn a_client_that_stalls_in_the_handshake_has_a_place_and_is_cut_with_it() {
    let files = Files::new();
    let access = Access::new(&files.tls(|_| {})).expect("good files");
    let fixture = serve_for(access, short(), None);
    let begun = Instant::now();
    let mut silent = connect(fixture.address);
    // The beginning of a record that never ends.
    silent.write_all(&[22, 3, 1, 1, 0]).expect("written");
    eventually("it has a place", || {
        fixture.admin.shared.connections.len() == 1
    });
    assert_eq!(read_all(&mut silent), "");
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(290) && took < Duration::from_secs(5),
        "{took:?}"
    );
    eventually("it is gone", || fixture.admin.shared.connections.len() == 0);
}

#[test]
fn who_stalls_in_the_handshake_makes_room_for_others() {
    let files = Files::new();
    let access = Access::new(&files.tls(|_| {})).expect("good files");
    let limits = Limits {
        connections: 3,
        ..Limits::default()
    };
    let fixture = serve_for(access, limits, None);
    let mut stalled: Vec<TcpStream> = Vec::new();
    for n in 1..=3 {
        stalled.push(connect(fixture.address));
        eventually("accepted", || fixture.admin.shared.connections.len() == n);
    }
    let answer = files.ask(fixture.address, None).expect("an answer");
    assert_eq!(status(&answer), 200);
    assert_eq!(read_all(&mut stalled[0]), "");
}

#[test]
fn a_reload_to_another_tls_ends_the_connections_of_the_old_and_a_bad_one_changes_nothing() {
    let files = Files::new();
    let fixture = guarded(&config::Access::default());
    let mut plain = connect(fixture.address);
    plain
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("written");
    let mut buffer = [0; 1024];
    assert!(plain.read(&mut buffer).expect("an answer") > 0);
    let wanted = |access: &config::Access| Metrics {
        access: access.clone(),
        ..listening(&[loopback()])
    };
    let tls = files.tls(|_| {});
    let bad = files.tls(|tls| tls.key = SecretSource::File(files.path("ca.pem")));
    let error = fixture.admin.prepare(&wanted(&bad), FLAG).expect_err("bad");
    let words = "cannot serve TLS (metrics.tls_server_config): ";
    assert!(
        error.starts_with(words) && error.contains("ca.pem holds no private key"),
        "{error}"
    );
    assert_eq!(status(&ask(fixture.address, "GET", "/healthz")), 200);

    let change = fixture
        .admin
        .prepare(&wanted(&tls), FLAG)
        .expect("prepared");
    let words = fixture.admin.commit(change).expect("served");
    assert_eq!(words, ["metrics TLS changed"]);
    assert_eq!(read_all(&mut plain), "", "it ends");
    let answer = files.ask(fixture.address, None).expect("an answer");
    assert_eq!(status(&answer), 200);
    assert!(fixture.admin.speaks_tls());

    let change = fixture
        .admin
        .prepare(&wanted(&config::Access::default()), FLAG)
        .expect("prepared");
    fixture.admin.commit(change).expect("served");
    assert_eq!(status(&ask(fixture.address, "GET", "/healthz")), 200);
}

#[test]
fn a_renewed_certificate_is_shown_to_the_next_client() {
    let files = Files::new();
    let fixture = guarded(&files.tls(|_| {}));
    assert!(files.ask(fixture.address, None).is_ok());
    // Of another CA: the next client of the first refuses it.
    let other = Files::new();
    for name in ["server.key", "server.pem"] {
        std::fs::copy(other.path(name), files.path(name)).expect("copied");
    }
    eventually("it is another's", || {
        other.ask(fixture.address, None).is_ok()
    });
    assert!(files.ask(fixture.address, None).is_err());
}

#[test]
fn every_address_and_unix_socket_is_guarded_alike() {
    use std::os::unix::net::UnixStream;

    let files = Files::new();
    let fixture = serve(Limits::default(), None);
    let path = files.path("metrics.sock");
    let other = Listen::Tcp(([127, 0, 0, 2], 0).into());
    let wanted = Metrics {
        access: config::Access {
            users: user(HASH).users,
            ..files.tls(|_| {})
        },
        ..listening(&[loopback(), other, Listen::Unix(path.clone())])
    };
    let change = fixture.admin.prepare(&wanted, FLAG).expect("bound");
    let words = fixture.admin.commit(change).expect("served");
    assert_eq!(words[0], "metrics TLS, users changed");
    for listen in fixture.admin.local_addrs() {
        for (pair, expected) in [("prometheus:secret", 200), ("prometheus:wrong", 401)] {
            let asked = request("GET", "/healthz", &[&password(pair)]);
            let tls = client(files.trusting().with_no_client_auth());
            let answer = match &listen {
                Listen::Tcp(address) => exchange(StreamOwned::new(tls, connect(*address)), &asked),
                Listen::Unix(path) => {
                    let stream = UnixStream::connect(path).expect("it listens");
                    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                    exchange(StreamOwned::new(tls, stream), &asked)
                }
            };
            assert_eq!(status(&answer.expect("an answer")), expected, "{listen:?}");
        }
    }
    assert_eq!(fixture.admin.local_addrs().len(), 3);
}

#[test]
fn a_unix_socket_has_the_mode_it_should_before_anybody_can_connect_and_after_a_reload() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("metrics.sock");
    let unix = Listen::Unix(path.clone());
    let mode = || {
        let metadata = std::fs::metadata(&path).expect("it is there");
        metadata.permissions().mode() & 0o777
    };
    let fixture = serve(Limits::default(), None);
    for wanted in [0o660, 0o600] {
        let wanted = Metrics {
            socket_mode: Some(wanted),
            ..listening(&[loopback(), unix.clone()])
        };
        let change = fixture.admin.prepare(&wanted, FLAG).expect("bound");
        if wanted.socket_mode == Some(0o660) {
            assert_eq!(mode(), 0o660, "bound and not served yet");
        }
        let words = fixture.admin.commit(change).expect("served");
        assert_eq!(Some(mode()), wanted.socket_mode);
        if wanted.socket_mode == Some(0o600) {
            let path = path.display();
            let changed = format!("metrics socket unix:{path} has mode 0600");
            assert_eq!(words, [changed], "who may connect is told");
        }
    }
}
