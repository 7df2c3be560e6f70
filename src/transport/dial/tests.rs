//! Every way to a peer, against small peers of our own that write down what they get.

use std::net::IpAddr;
use std::sync::Mutex;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{Auth, Bind, ConnectionOptions, Policy, Secret, SecretSource};
use crate::stats::Identity;
use crate::transport::upgrade::accept_key;

pub(in crate::transport) fn target(
    url: &str,
    change: impl FnOnce(&mut ConnectionOptions),
) -> Target {
    let mut connection = ConnectionOptions::default();
    change(&mut connection);
    Target {
        identity: Arc::new(Identity {
            name: "test".into(),
            url: "ws://shown".into(),
            protocol: crate::stats::Protocol::WebSocket,
            server_beats: false,
            watches_staleness: false,
            labels: [].into(),
            fan_out: None,
        }),
        url: Secret::new(url.into()),
        connection: Arc::new(connection),
        policy: Arc::new(Policy::default()),
    }
}

/// An event stream on loopback.
pub(in crate::transport) fn stream_target(
    port: u16,
    change: impl FnOnce(&mut ConnectionOptions),
) -> Target {
    target(&format!("http://127.0.0.1:{port}/events"), |options| {
        options.heartbeat = Heartbeat::Sse;
        change(options);
    })
}

/// Dials from the beginning.
pub(super) async fn dial(target: &Target) -> Result<Dialed, DialError> {
    super::dial(target, None, None).await
}

pub(super) fn literal(text: &str) -> SecretSource {
    SecretSource::Literal(Secret::new(text.into()))
}

pub(super) fn with_limit(mut target: Target, change: impl FnOnce(&mut Policy)) -> Target {
    change(Arc::make_mut(&mut target.policy));
    target
}

/// Reads a head, up to its blank line.
pub(in crate::transport) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// What a 101 to the request with this head says.
pub(super) fn agreement(head: &str, more: &str) -> String {
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then_some(value)
    });
    let accept = accept_key(key.unwrap().as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// A peer that answers each connection in turn by one of `answers`; `101` is an upgrade, with the
/// headers that follow it. The heads it got, for the asking.
pub(super) struct Peer {
    pub(super) port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    _serving: Abort,
}

struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Peer {
    pub(super) async fn on(address: &str, answers: &[&str]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let answers: Vec<String> = answers.iter().map(|a| (*a).to_owned()).collect();
        let seen = heads.clone();
        let serving = tokio::spawn(async move {
            let mut held = Vec::new();
            for answer in answers.iter().cycle() {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = head(&mut stream).await;
                let answer = match answer.strip_prefix("101") {
                    Some(more) => agreement(&head, more),
                    None => answer.replace("{port}", &port.to_string()),
                };
                seen.lock().unwrap().push(head);
                stream.write_all(answer.as_bytes()).await.unwrap();
                held.push(stream);
            }
        });
        Self {
            port,
            heads,
            _serving: Abort(serving),
        }
    }

    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub(super) fn last_head(&self) -> String {
        self.heads().pop().unwrap()
    }
}

pub(super) async fn failure(target: &Target) -> DialError {
    dial(target).await.map(drop).unwrap_err()
}

pub(super) fn progress(connect: Duration) -> Progress<'static> {
    let now = Instant::now();
    Progress {
        began: now,
        passed: None,
        times: PhaseTimes::default(),
        phase: Phase::Dns,
        since: now,
        overall: now + connect,
        connect_timeout: connect,
        certificate_not_after: None,
        peer: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_phase_is_timed_in_sum_and_ended_by_the_nearer_of_two_limits() {
    let seconds = Duration::from_secs;
    let pass = |s| async move {
        tokio::time::sleep(seconds(s)).await;
        Ok(())
    };
    let mut progress = progress(seconds(15));
    let limit = ("tcp_timeout", seconds(5));
    // As by a redirect: each phase a second time.
    for took in [1, 2] {
        progress.enter(Phase::Tcp);
        let waited_for = || unreachable!();
        progress.run(limit, waited_for, pass(took)).await.unwrap();
    }
    assert_eq!(progress.times[Phase::Tcp as usize], Some(seconds(3)));
    progress.enter(Phase::Tls);
    let waited_for = || "nothing".to_owned();
    let error = progress.run(limit, waited_for, pass(99)).await.unwrap_err();
    assert_eq!(error.phase, Phase::Tls);
    assert_eq!(error.message, "nothing within 5s (tcp_timeout)");
    assert_eq!(error.times[Phase::Tls as usize], Some(seconds(5)));
    // Eight of the fifteen seconds are gone.
    progress.enter(Phase::Upgrade);
    let limit = ("upgrade_timeout", seconds(60));
    let error = progress.run(limit, waited_for, pass(99)).await.unwrap_err();
    assert_eq!(error.message, "nothing within 15s (connect_timeout)");
    assert_eq!(error.times[Phase::Upgrade as usize], Some(seconds(7)));
}

/// A peer that takes connections and says nothing.
async fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn each_step_that_stalls_has_a_limit_of_its_own() {
    let (_listener, port) = silent().await;
    let (secure, plain) = (
        format!("wss://127.0.0.1:{port}/"),
        format!("ws://127.0.0.1:{port}/"),
    );
    type Change = fn(&mut crate::config::Timeouts);
    const SHORT: Duration = Duration::from_millis(50);
    // Begins before the phase that stalls, which has to be reached within it.
    const WHOLE: Duration = Duration::from_secs(2);
    let cases: [(&str, Change, Phase, &str); 4] = [
        (&secure, |t| t.tls = SHORT, Phase::Tls, "(tls_timeout)"),
        (
            &secure,
            |t| t.connect = WHOLE,
            Phase::Tls,
            "(connect_timeout)",
        ),
        (
            &plain,
            |t| t.upgrade = SHORT,
            Phase::Upgrade,
            "(upgrade_timeout)",
        ),
        (
            &plain,
            |t| t.connect = WHOLE,
            Phase::Upgrade,
            "(connect_timeout)",
        ),
    ];
    for (url, change, phase, key) in cases {
        let target = with_limit(target(url, |_| {}), |policy| change(&mut policy.timeouts));
        let error = failure(&target).await;
        assert_eq!(error.phase, phase, "{}", error.message);
        assert!(error.message.ends_with(key), "{}", error.message);
    }
}

#[tokio::test]
async fn the_request_says_who_we_are() {
    let peer = Peer::on("127.0.0.1:0", &["101"]).await;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let url = format!("ws://127.0.0.1:{}/ws?x=1", peer.port);
    let target = target(&url, |options| {
        options.user_agent = Some("probe/9".into());
        options.origin = Some("https://example.com".into());
        options.host_header = Some("edge.example.com".into());
        options.cookies = vec![
            ("a".into(), literal("1")),
            ("b".into(), SecretSource::File(token.clone())),
        ];
        options.auth = Some(Auth::Bearer(SecretSource::File(token.clone())));
        options.headers = vec![("x-key".parse().unwrap(), literal("v"))];
    });
    dial(&target).await.unwrap();
    let head = peer.last_head();
    for line in [
        "GET /ws?x=1 HTTP/1.1",
        "host: edge.example.com",
        "user-agent: probe/9",
        "origin: https://example.com",
        "cookie: a=1; b=first",
        "authorization: Bearer first",
        "x-key: v",
    ] {
        assert!(head.lines().any(|l| l == line), "{line} in {head}");
    }
    // Rotated: the next dial uses it.
    std::fs::write(&token, "second\n").unwrap();
    dial(&target).await.unwrap();
    assert!(
        peer.last_head()
            .contains("authorization: Bearer second\r\n")
    );
    std::fs::remove_file(&token).unwrap();
    let error = failure(&target).await;
    assert_eq!(error.phase, Phase::Upgrade);
    assert!(
        error.message.contains("auth.bearer: cannot read"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn who_answered_is_remembered_but_no_cookie() {
    let long = "x".repeat(200);
    let more = format!(
        "101Server: nginx\r\nVia: 1.1 edge\r\nSet-Cookie: a=SECRET\r\nX-Amzn-Trace-Id: t-1\r\n\
         CF-Ray: {long}\r\nX-Request-Id: s3cret-key\r\nSec-WebSocket-Protocol: v2\r\n"
    );
    let peer = Peer::on("127.0.0.1:0", &[&more]).await;
    let url = format!("ws://127.0.0.1:{}/?token=QUERYVALUE", peer.port);
    let target = target(&url, |options| {
        options.subprotocols = vec!["v1".into(), "v2".into()];
        options.headers = vec![("x-key".parse().unwrap(), literal("s3cret-key"))];
    });
    let mut trace = Trace::wanted();
    let facts = dial_traced(&target, &mut trace)
        .await
        .unwrap()
        .facts
        .unwrap();
    assert_eq!(facts.subprotocol.as_deref(), Some("v2"));
    let told: Vec<_> = facts
        .headers
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(
        told,
        [
            ("server", "nginx"),
            ("via", "1.1 edge"),
            ("x-amzn-trace-id", "t-1"),
            ("cf-ray", &long[..128]),
            ("x-request-id", "***"),
        ]
    );
    let shown = format!("{trace:?}");
    for secret in ["SECRET", "s3cret", "QUERYVALUE"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(
        shown.contains("nginx") && shown.contains("x-key"),
        "{shown}"
    );
}

#[tokio::test]
async fn of_many_headers_the_first_twelve_are_remembered() {
    let many: String = (0..20).map(|n| format!("X-Amzn-{n}: v\r\n")).collect();
    let peer = Peer::on("127.0.0.1:0", &[&format!("101{many}")]).await;
    let url = format!("ws://127.0.0.1:{}/", peer.port);
    let dialed = dial(&target(&url, |_| {})).await.unwrap();
    assert_eq!(dialed.facts.unwrap().headers.len(), 12);
}

#[tokio::test]
async fn header_names_of_the_peers_own_are_bounded_and_show_no_secret() {
    let long = "a".repeat(5000);
    let more = format!("101X-Amzn-{long}: 1\r\nX-Amzn-S3cret-Key: 2\r\nX-S3cret-Key: 3\r\n");
    let peer = Peer::on("127.0.0.1:0", &[&more]).await;
    let target = target(&format!("ws://127.0.0.1:{}/", peer.port), |options| {
        options.headers = vec![("x-key".parse().unwrap(), literal("S3cret-Key"))];
    });
    let mut trace = Trace::wanted();
    let dialed = dial_traced(&target, &mut trace).await.unwrap();
    let facts = dialed.facts.unwrap();
    let told: Vec<_> = facts.headers.iter().map(|(name, _)| &**name).collect();
    assert_eq!(told, ["x-amzn-***"]);
    let shown = format!("{trace:?}").to_lowercase();
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[tokio::test]
async fn what_a_refusal_repeats_is_not_shown() {
    for answer in [
        "HTTP/1.1 302 Found\r\nLocation: /login/s3cret-key/x\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: http://s3cret-key.example.com/\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: s3cret-key://example.com/\r\n\r\n",
        "101Sec-WebSocket-Extensions: s3cret-key\r\n",
        "101Sec-WebSocket-Protocol: s3cret-key\r\n",
        "HTTP/1.1 401 No\r\nContent-Length: 14\r\n\r\nbad s3cret-key\n",
    ] {
        for (max_redirects, follow) in [(0, false), (1, true)] {
            // A name that no resolver is asked for: its label is too long.
            let answer = answer.replace("example.com", &"x".repeat(70));
            let peer = Peer::on("127.0.0.1:0", &[&answer]).await;
            let target = target(&format!("ws://127.0.0.1:{}/", peer.port), |options| {
                options.headers = vec![("x-key".parse().unwrap(), literal("S3cret-Key"))];
                options
                    .headers
                    .push(("x-more".parse().unwrap(), literal("s3cret-key")));
                options.max_redirects = max_redirects;
            });
            let message = failure(&target).await.message;
            assert!(!message.contains("s3cret"), "{follow}: {message}");
        }
    }
}

#[tokio::test]
async fn a_head_with_too_many_headers_is_not_called_too_large() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(150));
    let peer = Peer::on("127.0.0.1:0", &[&many]).await;
    let target = target(&format!("ws://127.0.0.1:{}/", peer.port), |_| {});
    let message = failure(&target).await.message;
    assert!(message.contains("more than 100 headers"), "{message}");
}

#[tokio::test]
async fn a_plain_connection_with_nothing_to_tell_keeps_nothing() {
    let peer = Peer::on("127.0.0.1:0", &["101"]).await;
    let url = format!("ws://127.0.0.1:{}/", peer.port);
    assert!(dial(&target(&url, |_| {})).await.unwrap().facts.is_none());
}

#[tokio::test]
async fn a_subprotocol_that_is_required_must_be_chosen() {
    let peer = Peer::on("127.0.0.1:0", &["101"]).await;
    let url = format!("ws://127.0.0.1:{}/", peer.port);
    let offer = |options: &mut ConnectionOptions| options.subprotocols = vec!["v1".into()];
    assert!(dial(&target(&url, offer)).await.is_ok());
    let error = failure(&target(&url, |options| {
        offer(options);
        options.require_subprotocol = true;
    }))
    .await;
    assert_eq!((error.phase, error.status), (Phase::Upgrade, Some(101)));
    assert!(
        error
            .message
            .contains("none of the subprotocols offered (v1)"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn resolve_goes_elsewhere_and_keeps_the_host() {
    let peer = Peer::on("127.0.0.9:0", &["101"]).await;
    let ip: IpAddr = "127.0.0.9".parse().unwrap();
    let fixed = |port| ResolveTo::Ip {
        ip,
        zone: None,
        port,
    };
    let url = format!("ws://edge.example.com:{}/", peer.port);
    let own_port = target(&url, |options| options.address.resolve = vec![fixed(None)]);
    let dialed = dial(&own_port).await.unwrap();
    assert_eq!(dialed.peer.unwrap(), (ip, peer.port).into());
    assert!(dialed.times[Phase::Dns as usize].is_none());
    assert!(
        peer.last_head()
            .contains(&format!("host: edge.example.com:{}\r\n", peer.port))
    );
    let other_port = target("ws://edge.example.com/", |options| {
        options.address.resolve = vec![fixed(Some(peer.port))];
    });
    dial(&other_port).await.unwrap();
    assert!(peer.last_head().contains("host: edge.example.com\r\n"));
    let none = target(&url, |options| {
        options.address.resolve = vec![fixed(None)];
        options.address.family = IpFamily::V6;
    });
    let error = failure(&none).await;
    assert_eq!(error.phase, Phase::Dns);
}

#[tokio::test]
async fn bind_and_family_are_obeyed() {
    let peer = Peer::on("127.0.0.1:0", &["101"]).await;
    let url = format!("ws://127.0.0.1:{}/", peer.port);
    let bound = target(&url, |options| {
        options.address.bind = Some(Bind::Address("127.0.0.5".parse().unwrap()));
    });
    let dialed = dial(&bound).await.unwrap();
    assert_eq!(
        dialed.link.local_addr().unwrap().ip().to_string(),
        "127.0.0.5"
    );
    let error = failure(&target(&url, |options| {
        options.address.family = IpFamily::V6
    }))
    .await;
    assert_eq!(error.phase, Phase::Dns);
    let by_name = format!("ws://localhost:{}/", peer.port);
    dial(&target(&by_name, |options| {
        options.address.family = IpFamily::V4
    }))
    .await
    .unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_a_peer_like_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = head(&mut stream).await;
        stream
            .write_all(agreement(&head, "").as_bytes())
            .await
            .unwrap();
        head
    });
    let to = |path: &Path| {
        let resolve = vec![ResolveTo::Unix(path.to_owned())];
        target("ws://app.example.com/ws", |options| {
            options.address.resolve = resolve
        })
    };
    let dialed = dial(&to(&path)).await.unwrap();
    assert_eq!((dialed.peer, dialed.link.local_addr()), (None, None));
    assert!(serving.await.unwrap().contains("host: app.example.com\r\n"));
    let error = failure(&to(&dir.path().join("gone"))).await;
    assert_eq!(error.phase, Phase::Tcp);
    assert!(
        error.message.contains("cannot connect to unix:/"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn a_peer_that_wants_tls_is_recognised() {
    for (answer, words) in [
        (
            "\x15\x03\x01\x00\x02\x02\x46",
            "the peer answered in TLS: wss:// instead of ws://?",
        ),
        (
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 51\r\n\r\n\
             Client sent an HTTP request to an HTTPS server.....",
            "it wants TLS: wss:// instead of ws://?",
        ),
        (
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno",
            "it did not like the request",
        ),
        // Its page speaks of TLS; it does not ask for it.
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 25\r\n\r\nsee https://example.com/..",
            "; check the credentials in headers; it says: see",
        ),
        ("HTTP/1.0 101 Yes\r\n\r\n", "the 101 is one of HTTP/1.0"),
    ] {
        let peer = Peer::on("127.0.0.1:0", &[answer]).await;
        let error = failure(&target(&format!("ws://127.0.0.1:{}/", peer.port), |_| {})).await;
        assert_eq!(error.phase, Phase::Upgrade);
        assert!(error.message.contains(words), "{}", error.message);
    }
}

#[tokio::test]
async fn a_head_without_end_is_given_up() {
    let endless = format!(
        "HTTP/1.1 101 Yes\r\nX-Long: {}\r\n\r\n",
        "x".repeat(300_000)
    );
    let peer = Peer::on("127.0.0.1:0", &[&endless]).await;
    let error = failure(&target(&format!("ws://127.0.0.1:{}/", peer.port), |_| {})).await;
    assert_eq!(error.phase, Phase::Upgrade);
    let words = "the answer's head is larger than 64 KiB";
    assert_eq!(error.message, words);
}

#[test]
fn a_zone_is_the_addresss_own() {
    let zoned = with_zone("fe80::1".parse().unwrap(), Some("7"), 80).unwrap();
    assert!(matches!(zoned, SocketAddr::V6(v6) if v6.scope_id() == 7));
    let error = with_zone("fe80::1".parse().unwrap(), Some("nosuch0"), 80).unwrap_err();
    assert!(error.starts_with("[fe80::1%nosuch0]: "), "{error}");
}
