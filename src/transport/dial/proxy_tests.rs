//! Through proxies of our own that write down what they are asked for.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::tests::{Peer, dial, failure, head, literal, progress, target, with_limit};
use super::*;
use crate::config::{ProxyChoice, ProxyKind, ProxyServer, Secret};

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
async fn resolve_says_where_a_tunnel_leads() {
    let peer = Peer::on("127.0.0.1:0", &["101"]).await;
    let (port, serving) = connect_proxy("HTTP/1.1 200 OK\r\n\r\n", Some(peer.port)).await;
    let mut target = through("ws://edge.example.com:81/", ProxyKind::Http, port, None);
    Arc::make_mut(&mut target.connection).address.resolve = vec![ResolveTo::Ip {
        ip: "10.0.0.7".parse().unwrap(),
        zone: None,
        port: None,
    }];
    drop(dial(&target).await.unwrap());
    let head = serving.await.unwrap();
    assert!(
        head.starts_with("CONNECT 10.0.0.7:81 HTTP/1.1\r\n"),
        "{head}"
    );
    let inner = peer.last_head();
    assert!(inner.contains("host: edge.example.com:81\r\n"), "{inner}");
}

#[tokio::test]
async fn a_peer_behind_a_proxy_that_repeats_its_password_is_not_quoted() {
    let body = "s3cret-of-proxy and s3cret";
    let length = body.len();
    let answer = format!("HTTP/1.1 403 F\r\nContent-Length: {length}\r\n\r\n{body}");
    let peer = Peer::on("127.0.0.1:0", &[&answer]).await;
    // A part of the other: that one must not be left half shown.
    let target = target("ws://edge.example.com/", |options| {
        options.headers = vec![("x-key".parse().unwrap(), literal("s3cret"))];
    });
    let place = Place::parse(target.url.expose()).unwrap();
    // As one of the environment, of which the target does not know.
    let password = Some("s3cret-of-proxy");
    let known = through("ws://edge.example.com/", ProxyKind::Http, 9, password);
    let proxy = Proxy::of(&known.connection.proxy, &place).unwrap().unwrap();
    let dial = Dial {
        traceparent: None,
        target: &target,
        wanted: Wanted::Upgrade,
        resume: None,
        place: &place,
        is_own: true,
    };
    let stream = TcpStream::connect(("127.0.0.1", peer.port)).await.unwrap();
    let mut progress = progress(Duration::from_secs(10));
    let mut trace = Trace::wanted();
    let io = Io::tcp(stream);
    let asked = dial.upgrade(&mut progress, io, &None, Some(&proxy), &mut trace);
    let error = asked.await.map(drop).unwrap_err();
    let words = "it says: *** and ***";
    assert!(error.message.ends_with(words), "{}", error.message);
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
        // Pages are for browsers.
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\n<html>no</html>",
            None,
            "; is it a proxy, and is the port right?",
            Some(404),
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
        // Asking again soon would not help, and may lock an account.
        let advice = match status {
            Some(403 | 407) => Advice::Refused,
            Some(_) | None => Advice::Backoff,
        };
        assert_eq!(error.advice, advice, "{}", error.message);
        assert!(error.message.contains(words), "{}", error.message);
        for hidden in ["s3cret", "<html>"] {
            assert!(!error.message.contains(hidden), "{}", error.message);
        }
    }
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
