//! Event streams: the request, what is no stream, and the ways they share with WebSocket.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::proxy_tests::{connect_proxy, through};
use super::tests::{Peer, dial, failure, head, literal, stream_target, target, with_limit};
use super::*;
use crate::config::{Auth, ProxyKind};
use crate::proto::close::{Cut, Ending};
use crate::proto::event::Message;
use crate::transport::link::Incoming;
use crate::transport::tls::testing::{Ca, Order, Speaks, serve_tls};

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nServer: test\r\n\r\n";

#[tokio::test]
async fn the_request_is_one_for_an_event_stream_with_all_that_a_user_may_add() {
    let peer = Peer::on("127.0.0.1:0", &[GOOD]).await;
    let target = stream_target(peer.port, |options| {
        options.user_agent = Some("probe/9".into());
        options.host_header = Some("edge.example.com".into());
        options.cookies = vec![("a".into(), literal("1"))];
        options.auth = Some(Auth::Bearer(literal("t0ken")));
        options.headers = vec![("x-key".parse().unwrap(), literal("v"))];
    });
    let dialed = dial(&target).await.unwrap();
    let facts = dialed.facts.unwrap();
    assert_eq!(facts.headers[..], [("server".into(), "test".into())]);
    assert!(dialed.times[Phase::Upgrade as usize].is_some());
    let head = peer.last_head();
    for line in [
        "GET /events HTTP/1.1",
        "host: edge.example.com",
        "accept: text/event-stream",
        "cache-control: no-cache",
        "accept-encoding: identity",
        "user-agent: probe/9",
        "cookie: a=1",
        "authorization: Bearer t0ken",
        "x-key: v",
    ] {
        assert!(head.lines().any(|l| l == line), "{line} in {head}");
    }
    for not in ["upgrade", "websocket", "last-event-id"] {
        assert!(!head.to_lowercase().contains(not), "{head}");
    }

    let resume = Resume {
        last_event_id: "41".into(),
        retry: None,
    };
    super::dial(&target, Some(&resume), None).await.unwrap();
    let head = peer.last_head();
    assert!(head.contains("last-event-id: 41\r\n"), "{head}");
}

#[tokio::test]
async fn whatever_is_no_event_stream_is_told_with_what_to_do() {
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nlogin";
    let gzip = GOOD.replace("Server: test", "Content-Encoding: gzip");
    for (answer, status, advice, words) in [
        (
            "HTTP/1.1 204 No Content\r\nRetry-After: 7\r\n\r\n",
            204,
            Advice::Stop,
            "the peer answered 204 No Content: it wants no more connections, and gets none until \
             the url or another connection option changes",
        ),
        (
            "HTTP/1.1 500 Oops\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
            500,
            Advice::After(Duration::from_secs(7)),
            "answered 500 Internal Server Error instead of 200; the server, or a proxy",
        ),
        (
            "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
            503,
            Advice::After(Duration::from_secs(7)),
            "instead of 200; try again after 7 s",
        ),
        (
            "HTTP/1.1 401 No\r\nContent-Length: 3\r\n\r\nwho",
            401,
            Advice::Refused,
            "instead of 200; check the credentials in headers; it says: who",
        ),
        (
            "HTTP/1.1 401 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
            401,
            Advice::After(Duration::from_secs(7)),
            "check the credentials",
        ),
        (
            "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
            403,
            Advice::Refused,
            "check the credentials",
        ),
        (
            "HTTP/1.1 429 Slow\r\nRetry-After: 7200\r\nContent-Length: 0\r\n\r\n",
            429,
            Advice::After(Duration::from_secs(7200)),
            "instead of 200; try again after 300 s",
        ),
        (
            "HTTP/1.1 301 Moved\r\nLocation: /there?x=1\r\nContent-Length: 0\r\n\r\n",
            301,
            Advice::Backoff,
            "it points to /there: put that address in the url, or set max_redirects",
        ),
        (
            "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
            202,
            Advice::Backoff,
            "instead of 200; is this an event stream? check the path",
        ),
        (
            "HTTP/1.1 406 No\r\nContent-Length: 0\r\n\r\n",
            406,
            Advice::Backoff,
            "it has no text/event-stream there: check the path",
        ),
        (
            "HTTP/1.1 400 Bad\r\nContent-Length: 9\r\n\r\nuse HTTPS",
            400,
            Advice::Backoff,
            "instead of 200; it wants TLS: https:// instead of http://?; it says: use HTTPS",
        ),
        (
            html,
            200,
            Advice::Backoff,
            "has the Content-Type text/html instead of text/event-stream; check the path; it \
             says: login",
        ),
        (&gzip, 200, Advice::Backoff, "turn compression off"),
    ] {
        let peer = Peer::on("127.0.0.1:0", &[answer]).await;
        let error = failure(&stream_target(peer.port, |_| {})).await;
        assert_eq!(error.phase, Phase::Upgrade, "{}", error.message);
        assert_eq!(error.status, Some(status), "{}", error.message);
        assert_eq!(error.advice, advice, "{}", error.message);
        assert!(error.message.contains(words), "{}", error.message);
    }
    for (answer, words) in [
        (
            "",
            "no answer to the request for the event stream (does a proxy hold it back?) within",
        ),
        (
            "HTTP/1.1 200 OK\r\n",
            "the answer to the request for the event stream stopped after 17 bytes",
        ),
        (
            "\x15\x03\x01\x00\x02\x02\x46rest",
            "the peer answered in TLS: https:// instead of http://?",
        ),
    ] {
        let peer = Peer::on("127.0.0.1:0", &[answer]).await;
        let short = |policy: &mut crate::config::Policy| {
            policy.timeouts.upgrade = Duration::from_millis(100);
        };
        let error = failure(&with_limit(stream_target(peer.port, |_| {}), short)).await;
        assert_eq!(error.phase, Phase::Upgrade);
        assert!(error.message.contains(words), "{}", error.message);
    }
}

#[tokio::test]
async fn what_a_peer_repeats_of_a_secret_is_shown_nowhere() {
    let repeating =
        |head: &str| format!("HTTP/1.1 {head}\r\nContent-Length: 15\r\n\r\nno s3cret-token");
    let with_token = |port| {
        stream_target(port, |options| {
            options.auth = Some(Auth::Bearer(literal("s3cret-token")));
        })
    };
    for answer in [
        repeating("200 OK\r\nContent-Type: text/html"),
        repeating("500 Oops"),
    ] {
        let peer = Peer::on("127.0.0.1:0", &[&answer]).await;
        let error = failure(&with_token(peer.port)).await;
        let message = error.message;
        assert!(message.ends_with("; it says: no ***"), "{message}");
    }
    let answer = GOOD.replace("Server: test", "Server: of s3cret-token");
    let peer = Peer::on("127.0.0.1:0", &[&answer]).await;
    let facts = dial(&with_token(peer.port)).await.unwrap().facts.unwrap();
    assert_eq!(facts.headers[..], [("server".into(), "of ***".into())]);
}

#[tokio::test]
async fn advice_that_is_of_the_other_protocol_is_not_given() {
    let answer = "HTTP/1.1 426 Upgrade\r\nContent-Length: 0\r\n\r\n";
    let peer = Peer::on("127.0.0.1:0", &[answer]).await;
    let error = failure(&stream_target(peer.port, |_| {})).await;
    assert_eq!(error.status, Some(426), "{}", error.message);
    assert!(!error.message.contains("drops"), "{}", error.message);
    // Of an event stream alone it is the end.
    let peer = Peer::on("127.0.0.1:0", &["HTTP/1.1 204 No Content\r\n\r\n"]).await;
    let url = format!("ws://127.0.0.1:{}/", peer.port);
    let error = failure(&target(&url, |_| {})).await;
    assert_eq!((error.status, error.advice), (Some(204), Advice::Backoff));
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_max_redirects_says_and_take_the_id_along() {
    let far = Peer::on("127.0.0.2:0", &[GOOD]).await;
    let away = format!(
        "HTTP/1.1 307 T\r\nLocation: http://127.0.0.2:{}/there\r\nContent-Length: 0\r\n\r\n",
        far.port
    );
    let near = Peer::on("127.0.0.1:0", &[&away]).await;
    let with = |most| {
        stream_target(near.port, |options| {
            options.max_redirects = most;
            options.auth = Some(Auth::Bearer(literal("t0ken")));
        })
    };
    let resume = Resume {
        last_event_id: "41".into(),
        retry: None,
    };
    let dialed = super::dial(&with(1), Some(&resume), None).await.unwrap();
    assert_eq!(dialed.peer.unwrap().port(), far.port);
    assert!(matches!(dialed.link, Link::Sse(_)));
    let head = far.last_head();
    assert!(head.starts_with("GET /there "), "{head}");
    assert!(head.contains("last-event-id: 41\r\n"), "{head}");
    assert!(!head.contains("t0ken"), "{head}");
    let error = failure(&with(0)).await;
    assert_eq!(error.status, Some(307));

    let secure = Place::parse("https://example.com/a").unwrap();
    let down = followed(Wanted::Stream, &secure, "http://example.com/b", 1, 5);
    let error = down.unwrap_err();
    assert!(error.contains("from https to http"), "{error}");
}

#[tokio::test]
async fn a_stream_comes_through_a_proxy_as_a_websocket_does() {
    let peer = Peer::on("127.0.0.1:0", &[GOOD]).await;
    let answer = "HTTP/1.1 200 Connection established\r\n\r\n";
    let (port, serving) = connect_proxy(answer, Some(peer.port)).await;
    let mut target = through(
        "http://edge.example.com:81/events",
        ProxyKind::Http,
        port,
        Some("s3cret"),
    );
    Arc::make_mut(&mut target.connection).heartbeat = Heartbeat::Sse;
    let dialed = dial(&target).await.unwrap();
    assert!(dialed.facts.unwrap().proxy.is_some());
    drop(dialed.link);
    let head = serving.await.unwrap();
    assert!(
        head.starts_with("CONNECT edge.example.com:81 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(peer.last_head().contains("host: edge.example.com:81\r\n"));
}

#[tokio::test]
async fn a_stream_over_tls_that_is_cut_is_told_from_one_whose_tls_broke() {
    let cut = over_tls(b"").await;
    assert_eq!(cut, Ending::StreamCut(Cut::Fin));
    let broken = over_tls(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
    assert!(
        matches!(broken, Ending::Tls { by_peer: false, .. }),
        "{broken:?}"
    );
}

/// How a stream ends whose peer sends an event, then these bytes past TLS, and ends TCP, of which TLS
/// is not told.
async fn over_tls(last: &'static [u8]) -> Ending {
    let ca = Ca::new("root");
    let speaks = Speaks::default();
    let issued = ca.issue(&Order::server(&["127.0.0.1"]));
    let serve = move |mut stream: TlsStream<TcpStream>| async move {
        let head = head(&mut stream).await;
        assert!(head.starts_with("GET /events HTTP/1.1\r\n"), "{head}");
        let chunked = GOOD.replace("Server: test", "Transfer-Encoding: chunked");
        stream.write_all(chunked.as_bytes()).await?;
        stream.write_all(b"9\r\ndata: a\n\n\r\n").await?;
        stream.flush().await?;
        stream.get_mut().0.write_all(last).await
    };
    let peer = serve_tls(speaks.config(&issued), serve).await;
    let url = format!("https://127.0.0.1:{}/events", peer.address.port());
    let target = target(&url, |options| {
        options.heartbeat = Heartbeat::Sse;
        options.tls = Arc::new(TlsOptions {
            ca: ca.source(),
            ca_only: true,
            ..TlsOptions::default()
        });
    });
    let mut dialed = dial(&target).await.unwrap();
    assert!(dialed.facts.unwrap().tls.is_some());
    assert!(dialed.link.tcp_info().is_some());
    let mut came = Vec::new();
    let ending = loop {
        match dialed.link.recv().await {
            Ok(incoming) => came.push(incoming),
            Err(ending) => break ending,
        }
    };
    let event = Incoming::Message(Message::text("a".to_owned()));
    assert!(came.contains(&event), "{came:?}");
    ending
}
