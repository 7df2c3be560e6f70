//! Every way to a peer, against small peers and proxies of our own that write down what they get.

use std::net::IpAddr;
use std::sync::Mutex;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{
    Auth, Bind, ConnectionOptions, Policy, ProxyChoice, ProxyKind, ProxyServer, Secret,
    SecretSource,
};
use crate::stats::Identity;
use crate::transport::upgrade::accept_key;

pub(super) fn target(url: &str, change: impl FnOnce(&mut ConnectionOptions)) -> Target {
    let mut connection = ConnectionOptions::default();
    change(&mut connection);
    Target {
        identity: Arc::new(Identity {
            name: "test".into(),
            url: "ws://shown".into(),
            protocol: crate::stats::Protocol::WebSocket,
            labels: [].into(),
            fan_out: None,
        }),
        url: Secret::new(url.into()),
        connection: Arc::new(connection),
        policy: Arc::new(Policy::default()),
    }
}

fn literal(text: &str) -> SecretSource {
    SecretSource::Literal(Secret::new(text.into()))
}

fn with_limit(mut target: Target, change: impl FnOnce(&mut Policy)) -> Target {
    change(Arc::make_mut(&mut target.policy));
    target
}

/// Reads a head, up to its blank line.
pub(super) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
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
struct Peer {
    port: u16,
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
    async fn on(address: &str, answers: &[&str]) -> Self {
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

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    fn last_head(&self) -> String {
        self.heads().pop().unwrap()
    }
}

pub(super) async fn failure(target: &Target) -> DialError {
    dial(target).await.map(drop).unwrap_err()
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
    let url = format!("ws://127.0.0.1:{}/", peer.port);
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
    assert!(
        !shown.contains("SECRET") && !shown.contains("s3cret"),
        "{shown}"
    );
    assert!(
        shown.contains("nginx") && shown.contains("x-key"),
        "{shown}"
    );
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
async fn redirects_are_followed_only_if_asked_and_credentials_stay_home() {
    let far = Peer::on("127.0.0.2:0", &["101"]).await;
    let away = format!(
        "HTTP/1.1 307 T\r\nLocation: http://127.0.0.2:{}/there\r\n\r\n",
        far.port
    );
    let near = Peer::on(
        "127.0.0.1:0",
        &["HTTP/1.1 302 F\r\nLocation: /next\r\n\r\n", &away],
    )
    .await;
    let url = format!("ws://u:p4ssword@127.0.0.1:{}/", near.port);
    let with = |most| {
        target(&url, |options| {
            options.max_redirects = most;
            options.cookies = vec![("c".into(), literal("1"))];
            options.headers = vec![("x-key".parse().unwrap(), literal("k"))];
        })
    };
    let dialed = dial(&with(2)).await.unwrap();
    assert_eq!(dialed.peer.unwrap().port(), far.port);
    let heads = near.heads();
    assert_eq!(heads.len(), 2);
    assert!(heads[1].starts_with("GET /next "), "{}", heads[1]);
    for own in &heads {
        assert!(
            own.contains("authorization: Basic ") && own.contains("cookie: c=1"),
            "{own}"
        );
    }
    let other = far.last_head();
    assert!(other.starts_with("GET /there "), "{other}");
    for secret in ["authorization", "cookie", "x-key"] {
        assert!(!other.contains(secret), "{other}");
    }

    let error = failure(&with(0)).await;
    assert_eq!((error.phase, error.status), (Phase::Upgrade, Some(302)));
    assert!(
        error.message.contains("or set max_redirects"),
        "{}",
        error.message
    );
    // The next answer leads straight away; the two after it are one redirect too many.
    dial(&with(1)).await.unwrap();
    let error = failure(&with(1)).await;
    assert!(
        error.message.contains("more than 1 redirects"),
        "{}",
        error.message
    );
}

#[test]
fn a_redirect_never_leaves_tls_nor_goes_on_for_ever() {
    let secure = Place::parse("wss://example.com/a").unwrap();
    let error = followed(&secure, "ws://example.com/b", 1, 5).unwrap_err();
    assert!(error.contains("from wss to ws"), "{error}");
    let error = followed(&secure, "http://example.com/b?token=x", 1, 5).unwrap_err();
    assert!(
        error.contains("from wss to ws") && !error.contains("token"),
        "{error}"
    );
    let next = followed(&secure, "https://other.example.com/b?q", 1, 5).unwrap();
    assert!(next.secure && next.path == "/b?q" && !same_origin(&secure, &next));
    let relative = followed(&secure, "../c", 5, 5).unwrap();
    assert!(same_origin(&secure, &relative) && relative.path == "/c");
    let error = followed(&secure, "/c", 6, 5).unwrap_err();
    assert!(error.contains("more than 5 redirects"), "{error}");
    let error = followed(&secure, &format!("//{}/", "a.".repeat(9000)), 1, 5).unwrap_err();
    assert!(error.contains("a host of 18000 bytes"), "{error}");
}

/// A proxy that reads one CONNECT, says `answer`, and passes on to `to` if there is one.
pub(super) async fn connect_proxy(
    answer: &'static str,
    to: Option<u16>,
) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        if let Some(to) = to {
            pass_on(&mut stream, to).await;
        }
        head
    });
    (port, serving)
}

/// Until either end has enough.
pub(super) async fn pass_on(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), to: u16) {
    let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
    let (mut from_near, mut to_near) = tokio::io::split(stream);
    let (mut from_far, mut to_far) = far.split();
    tokio::select! {
        copied = tokio::io::copy(&mut from_near, &mut to_far) => drop(copied),
        copied = tokio::io::copy(&mut from_far, &mut to_near) => drop(copied),
    }
}

pub(super) fn through(url: &str, kind: ProxyKind, port: u16, password: Option<&str>) -> Target {
    let credentials = password.map(|p| (Secret::new("joe".into()), literal(p)));
    target(url, |options| {
        options.proxy = ProxyChoice::Via(Arc::new(ProxyServer {
            kind,
            host: "127.0.0.1".into(),
            port,
            credentials,
        }));
    })
}

#[tokio::test]
async fn a_tunnel_is_opened_by_name_and_spoken_through() {
    let peer = Peer::on("127.0.0.1:0", &["101"]).await;
    let (port, serving) = connect_proxy(
        "HTTP/1.1 200 Connection established\r\n\r\n",
        Some(peer.port),
    )
    .await;
    let target = through(
        "ws://edge.example.com:81/ws",
        ProxyKind::Http,
        port,
        Some("s3cret"),
    );
    let dialed = dial(&target).await.unwrap();
    assert_eq!(dialed.peer.unwrap().port(), port);
    let facts = dialed.facts.unwrap();
    assert_eq!(
        facts.proxy.as_deref(),
        Some(&*format!("http://127.0.0.1:{port}"))
    );
    assert!(dialed.times[Phase::Proxy as usize].is_some());
    drop(dialed.link);
    let head = serving.await.unwrap();
    assert!(
        head.starts_with("CONNECT edge.example.com:81 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("proxy-authorization: Basic am9lOnMzY3JldA==\r\n"),
        "{head}"
    );
    let inner = peer.last_head();
    assert!(inner.contains("host: edge.example.com:81\r\n"), "{inner}");
    assert!(!inner.contains("proxy-authorization"), "{inner}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_quoted() {
    for (answer, password, words, status) in [
        (
            "HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n",
            None,
            "answered 407 Who are you to CONNECT edge.example.com:80; it wants a user",
            Some(407),
        ),
        (
            "HTTP/1.1 407 Not s3cret\r\nContent-Length: 0\r\n\r\n",
            Some("s3cret"),
            "answered 407 Not *** to CONNECT edge.example.com:80; it does not accept",
            Some(407),
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nport 80 no",
            None,
            "its rules forbid this destination or its port; it says: port 80 no",
            Some(403),
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
            None,
            "502 Bad Gateway to CONNECT edge.example.com:80; it could not reach",
            Some(502),
        ),
        (
            "SSH-2.0-x\r\n\r\n",
            None,
            "did not answer CONNECT edge.example.com:80: ",
            None,
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nhello",
            None,
            "5 bytes came before anything was asked",
            None,
        ),
        (
            "\x15\x03\x01\x00\x02\x02\x28",
            None,
            "it answered in TLS: https:// instead",
            None,
        ),
    ] {
        let (port, _serving) = connect_proxy(answer, None).await;
        let target = through("ws://edge.example.com/", ProxyKind::Http, port, password);
        let error = failure(&target).await;
        assert_eq!(
            (error.phase, error.status),
            (Phase::Proxy, status),
            "{}",
            error.message
        );
        assert!(error.message.contains(words), "{}", error.message);
        assert!(!error.message.contains("s3cret"), "{}", error.message);
    }
}

#[tokio::test]
async fn a_proxy_shows_nothing_of_what_passed_through_it() {
    let answer = "HTTP/1.1 502 Not t0k3n-abc\r\nContent-Length: 9\r\n\r\nt0k3n-abc";
    let (port, _serving) = connect_proxy(answer, None).await;
    let mut target = through("ws://edge.example.com/", ProxyKind::Http, port, None);
    Arc::make_mut(&mut target.connection).headers =
        vec![("x-key".parse().unwrap(), literal("t0k3n-abc"))];
    let message = failure(&target).await.message;
    assert!(message.contains("502 Not ***"), "{message}");
    assert!(!message.contains("t0k3n"), "{message}");
}

#[tokio::test]
async fn a_proxy_that_stalls_fails_by_its_own_name() {
    let (port, serving) = connect_proxy("", None).await;
    let held = tokio::spawn(std::future::pending::<()>());
    let target = with_limit(
        through("ws://edge.example.com/", ProxyKind::Socks5h, port, None),
        |policy| policy.timeouts.proxy = Duration::from_millis(100),
    );
    let error = failure(&target).await;
    assert_eq!(error.phase, Phase::Proxy);
    assert!(
        error.message.contains("(proxy_timeout)"),
        "{}",
        error.message
    );
    serving.abort();
    held.abort();
}

/// A SOCKS5 proxy without authentication that answers `reply` and passes on to `to`; what it was
/// asked for, address type first.
async fn socks_proxy(reply: u8, to: Option<u16>) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let methods = {
            let mut head = [0; 2];
            stream.read_exact(&mut head).await.unwrap();
            usize::from(head[1])
        };
        stream.read_exact(&mut vec![0; methods]).await.unwrap();
        stream.write_all(&[5, 0]).await.unwrap();
        let mut head = [0; 4];
        stream.read_exact(&mut head).await.unwrap();
        let mut asked = vec![head[3]];
        let length = match head[3] {
            1 => 4,
            3 => usize::from(stream.read_u8().await.unwrap()),
            4 => 16,
            other => panic!("address type {other}"),
        };
        let mut rest = vec![0; length + 2];
        stream.read_exact(&mut rest).await.unwrap();
        asked.extend(rest);
        stream
            .write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        if let Some(to) = to {
            pass_on(&mut stream, to).await;
        }
        asked
    });
    (port, serving)
}

#[tokio::test]
async fn socks5_resolves_here_and_socks5h_there() {
    let peer = Peer::on("127.0.0.1:0", &["101"]).await;
    let (port, serving) = socks_proxy(0, Some(peer.port)).await;
    let there = through("ws://edge.example.com:81/", ProxyKind::Socks5h, port, None);
    drop(dial(&there).await.unwrap());
    assert_eq!(
        serving.await.unwrap(),
        [b"\x03edge.example.com".as_slice(), &[0, 81]].concat()
    );
    let (port, serving) = socks_proxy(0, Some(peer.port)).await;
    let mut here = through("ws://localhost:81/", ProxyKind::Socks5, port, None);
    Arc::make_mut(&mut here.connection).address.family = IpFamily::V4;
    drop(dial(&here).await.unwrap());
    assert_eq!(serving.await.unwrap(), [1, 127, 0, 0, 1, 0, 81]);
}

#[tokio::test]
async fn a_socks_proxy_that_refuses_says_why() {
    for (reply, words, advice) in [
        (2, "its rules forbid this destination", Advice::Refused),
        (4, "host unreachable", Advice::Backoff),
        (5, "connection refused by the destination", Advice::Backoff),
        (99, "an answer that SOCKS5 does not have", Advice::Backoff),
    ] {
        let (port, _serving) = socks_proxy(reply, None).await;
        let target = through("ws://edge.example.com/", ProxyKind::Socks5h, port, None);
        let error = failure(&target).await;
        assert_eq!((error.phase, error.advice), (Phase::Proxy, advice));
        assert!(error.message.contains(words), "{}", error.message);
    }
    let (port, _serving) = connect_proxy("HTTP/1.1 400 Bad Request\r\n\r\n", None).await;
    let target = through(
        "ws://edge.example.com/",
        ProxyKind::Socks5h,
        port,
        Some("pw"),
    );
    let target = with_limit(target, |policy| {
        policy.timeouts.proxy = Duration::from_millis(300)
    });
    assert_eq!(failure(&target).await.phase, Phase::Proxy);
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
    ] {
        let peer = Peer::on("127.0.0.1:0", &[answer]).await;
        let error = failure(&target(&format!("ws://127.0.0.1:{}/", peer.port), |_| {})).await;
        assert_eq!(error.phase, Phase::Upgrade);
        assert!(error.message.contains(words), "{}", error.message);
    }
}
