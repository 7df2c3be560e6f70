//! The client against peers that misbehave, over real sockets on loopback: each fault has its own
//! phase or cause and its own words, none is a hot loop, none hangs past its deadline.
#![allow(clippy::unwrap_used, missing_docs)]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use ws_keepalive::{
    BackoffPolicy, Builder, Cause, Client, DialFailure, End, Event, Events, HeartbeatPolicy,
    Initiator, Message, Phase,
};

/// Longer than any wait of these tests, and how long a hang is watched.
const PATIENCE: Duration = Duration::from_secs(20);

/// For the dials that are to run into it.
const SHORT_CONNECT: Duration = Duration::from_millis(700);

struct Peer {
    address: std::net::SocketAddr,
    accepted: Arc<AtomicUsize>,
}

/// A peer on a port of its own that plays `script` on each connection.
async fn peer<F>(script: fn(TcpStream) -> F) -> Peer
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, SeqCst);
            tokio::spawn(script(stream));
        }
    });
    Peer { address, accepted }
}

impl Peer {
    /// A client that outlasts a machine that stands still for a moment.
    fn client(&self) -> Builder {
        Client::builder(format!("ws://{}/ws", self.address))
            .heartbeat(HeartbeatPolicy::every(Duration::from_millis(500)))
            .connect_timeout(PATIENCE)
    }
}

/// Reads the request's head; the head of the 101 that answers it the way the RFC says.
async fn agreeing_answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("GET /ws"), "{head}");
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let (_, key) = key.expect("a key");
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
         Connection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

async fn upgrade(stream: &mut TcpStream) {
    let answer = agreeing_answer(stream).await;
    stream.write_all(answer.as_bytes()).await.unwrap();
}

async fn answer(mut stream: TcpStream, answer: &str) {
    agreeing_answer(&mut stream).await;
    stream.write_all(answer.as_bytes()).await.unwrap();
    hold_open(stream).await;
}

/// Reads and forgets until the other side ends it.
async fn hold_open(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while matches!(stream.read(&mut buffer).await, Ok(n) if n > 0) {}
}

async fn next(events: &mut Events) -> Event {
    timeout(PATIENCE, events.next())
        .await
        .expect("no event: it hangs")
        .expect("the stream ended")
}

async fn failure(events: &mut Events) -> DialFailure {
    loop {
        match next(events).await {
            Event::DialFailed(failure) => return *failure,
            Event::Established(_) => panic!("it came up"),
            _ => {}
        }
    }
}

async fn end(events: &mut Events) -> End {
    loop {
        match next(events).await {
            Event::Ended(end) => return *end,
            Event::DialFailed(failure) => panic!("it did not come up: {}", failure.message),
            _ => {}
        }
    }
}

async fn wait_after_failure(events: &mut Events) -> Duration {
    loop {
        if let Event::Waiting { wait } = next(events).await {
            return wait;
        }
    }
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_fails_the_upgrade_at_the_deadline() {
    let peer = peer(hold_open).await;
    let start = Instant::now();
    let client = peer.client().connect_timeout(SHORT_CONNECT);
    let (_client, mut events) = client.start().unwrap();
    let failure = failure(&mut events).await;
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!((failure.phase, failure.status), (Phase::Upgrade, None));
    assert_eq!(
        &*failure.message,
        "no answer to the upgrade request within 700ms (connect_timeout)"
    );
    assert!(failure.times[Phase::Tcp as usize].is_some());
}

#[tokio::test]
async fn nobody_there_is_a_failure_of_tcp() {
    // Bound and without a listener: it refuses, and stays ours.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = bound.local_addr().unwrap();
    let (_client, mut events) = Client::builder(format!("ws://{gone}/")).start().unwrap();
    let failure = failure(&mut events).await;
    assert_eq!(failure.phase, Phase::Tcp);
    assert_eq!(
        &*failure.message,
        format!("cannot connect to {gone}: Connection refused")
    );
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_is_a_failure_of_dns() {
    // A label longer than 63 bytes is refused by the resolver itself: no query leaves.
    let name = format!("{}.example.com", "x".repeat(64));
    let (_client, mut events) = Client::builder(format!("ws://{name}/")).start().unwrap();
    let failure = failure(&mut events).await;
    assert_eq!(failure.phase, Phase::Dns);
    assert!(
        failure
            .message
            .starts_with(&format!("cannot resolve {name}: ")),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn every_wrong_answer_to_the_upgrade_has_its_own_words() {
    async fn says(peer: Peer) -> DialFailure {
        says_to(peer.client()).await
    }
    async fn says_to(client: Builder) -> DialFailure {
        let (_client, mut events) = client.start().unwrap();
        let failure = failure(&mut events).await;
        assert_eq!(failure.phase, Phase::Upgrade, "{}", failure.message);
        failure
    }
    let ok =
        says(peer(|s| answer(s, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")).await).await;
    assert_eq!(ok.status, Some(200));
    assert_eq!(
        &*ok.message,
        "the peer answered 200 OK instead of 101; is this a WebSocket endpoint? check the path; \
         it says: hello"
    );
    let moved = says(
        peer(|s| {
            answer(
                s,
                "HTTP/1.1 301 Moved Permanently\r\nContent-Length: 0\r\n\
                 Location: http://example.com/new?token=s3cret\r\n\r\n",
            )
        })
        .await,
    )
    .await;
    assert_eq!(
        &*moved.message,
        "the peer answered 301 Moved Permanently instead of 101; it points to \
         http://example.com/new: put that address in the url, or set max_redirects"
    );
    let wrong = says(peer(|s| {
        answer(s, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
    }).await).await;
    assert!(
        wrong.message.contains("wrong Sec-WebSocket-Accept"),
        "{}",
        wrong.message
    );
    let half = says(
        peer(|mut s| async move {
            agreeing_answer(&mut s).await;
            s.write_all(b"HTTP/1.1 101 Switching Pro").await.unwrap();
        })
        .await,
    )
    .await;
    assert_eq!(
        &*half.message,
        "the peer closed before its answer was complete"
    );
    let stalled = peer(|s| answer(s, "HTTP/1.1 101 Switching Protocols\r\nUpgr")).await;
    let stalled = says_to(stalled.client().connect_timeout(SHORT_CONNECT)).await;
    assert!(
        stalled.message.starts_with(
            "the answer to the upgrade request stopped after 38 bytes; not complete within"
        ),
        "{}",
        stalled.message
    );
    let other = says(peer(|s| answer(s, "220 mail.example.com ESMTP\r\n")).await).await;
    assert!(
        other.message.contains("is not HTTP/1.1"),
        "{}",
        other.message
    );
    let closes = says(peer(|mut s| async move { drop(agreeing_answer(&mut s).await) }).await).await;
    assert_eq!(&*closes.message, "the peer closed without an answer");
}

#[tokio::test]
async fn retry_after_is_obeyed_and_a_401_waits_the_longest() {
    let busy = peer(|s| {
        answer(
            s,
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
        )
    })
    .await;
    let (_client, mut events) = busy.client().start().unwrap();
    let refused = failure(&mut events).await;
    assert_eq!(refused.status, Some(503));
    assert!(
        refused.message.ends_with("; try again after 7 s"),
        "{}",
        refused.message
    );
    assert_eq!(
        wait_after_failure(&mut events).await,
        Duration::from_secs(7)
    );

    let strict =
        peer(|s| answer(s, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")).await;
    let (_client, mut events) = strict.client().start().unwrap();
    assert!(
        failure(&mut events)
            .await
            .message
            .contains("check the credentials")
    );
    assert_eq!(
        wait_after_failure(&mut events).await,
        BackoffPolicy::default().max
    );
}

#[tokio::test]
async fn a_peer_that_upgrades_and_says_nothing_is_given_up_after_the_retries() {
    let peer = peer(|mut s| async move {
        upgrade(&mut s).await;
        hold_open(s).await;
    })
    .await;
    let quick = HeartbeatPolicy::every(Duration::from_millis(100));
    let (_client, mut events) = peer.client().heartbeat(quick).start().unwrap();
    let end = end(&mut events).await;
    assert_eq!(
        (end.cause, end.initiator),
        (Cause::PongTimeout, Initiator::Us)
    );
    assert_eq!((end.outstanding_pings, end.retries), (4, 3));
    // 100 ms and four waits of 200 ms.
    assert!(end.age >= Duration::from_millis(900), "{end:?}");
    assert_eq!(end.peer, Some(peer.address));
}

#[tokio::test]
async fn accept_then_close_is_met_with_growing_waits() {
    let peer = peer(|mut s| async move { upgrade(&mut s).await }).await;
    let backoff = BackoffPolicy {
        initial: Duration::from_millis(100),
        jitter: 0.0,
        ..BackoffPolicy::default()
    };
    let (client, mut events) = peer.client().reconnect(backoff).start().unwrap();
    let mut waits = Vec::new();
    while waits.len() < 4 {
        match next(&mut events).await {
            Event::Waiting { wait } => waits.push(wait.as_millis()),
            Event::Ended(end) => assert_eq!(end.cause, Cause::Fin),
            _ => {}
        }
    }
    assert_eq!(waits, [100, 200, 400, 800]);
    client.close();
    assert!(peer.accepted.load(SeqCst) <= 5);
}

#[tokio::test]
async fn a_pong_with_another_payload_keeps_the_connection() {
    let peer = peer(|mut s| async move {
        upgrade(&mut s).await;
        let mut ping = [0; 14];
        while s.read_exact(&mut ping).await.is_ok() {
            s.write_all(b"\x8a\x0bfrom server").await.unwrap();
        }
    })
    .await;
    let (_client, mut events) = peer.client().start().unwrap();
    let mut pongs = 0;
    // The fourth ping without an answer would have been the last.
    while pongs < 5 {
        match next(&mut events).await {
            Event::Pong { rtt, mismatch } => {
                assert!(mismatch && rtt.is_some());
                pongs += 1;
            }
            Event::PingSent { retry, .. } => assert!(!retry),
            Event::Ended(end) => panic!("{end:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_peer_that_only_pings_us_is_answered_and_kept_while_the_unanswered_ping_is_sent_again() {
    let peer = peer(|mut s| async move {
        upgrade(&mut s).await;
        let mut buffer = [0; 1024];
        loop {
            if s.write_all(b"\x89\x02hi").await.is_err() {
                return;
            }
            // A pong, and now and then a ping that is not answered, is all that comes.
            match timeout(Duration::from_millis(50), s.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    let (_client, mut events) = peer.client().start().unwrap();
    let mut retries = 0;
    // One more than where nothing comes.
    while retries < 4 {
        match next(&mut events).await {
            Event::PingSent { retry, .. } => retries += usize::from(retry),
            Event::Ended(end) => panic!("{end:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn frames_that_came_with_the_101_are_not_lost() {
    let peer = peer(|mut s| async move {
        // One write: the 101 and three messages.
        let mut bytes = agreeing_answer(&mut s).await.into_bytes();
        bytes.extend(b"\x81\x03one\x81\x03two\x81\x05three");
        s.write_all(&bytes).await.unwrap();
        hold_open(s).await;
    })
    .await;
    let (_client, mut events) = peer.client().start().unwrap();
    let mut got = Vec::new();
    while got.len() < 3 {
        if let Event::Message(message) = next(&mut events).await {
            got.push(message.as_text().unwrap().to_owned());
        }
    }
    assert_eq!(got, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_reset_is_told_from_a_fin_and_the_outage_has_one_id_from_loss_to_recovery() {
    let peer = peer(|mut s| async move {
        upgrade(&mut s).await;
        socket2::SockRef::from(&s)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    })
    .await;
    let (_client, mut events) = peer.client().start().unwrap();
    let end = end(&mut events).await;
    assert_eq!((end.cause, end.initiator), (Cause::Reset, Initiator::Peer));
    assert_eq!(
        end.peer,
        Some(peer.address),
        "known although the socket was reset"
    );
    loop {
        if let Event::Established(up) = next(&mut events).await {
            let recovered = up.recovered.expect("an outage is over");
            assert_eq!(recovered.outage_id, end.outage_id);
            assert!(recovered.after >= Duration::from_millis(100));
            break;
        }
    }
}

#[tokio::test]
async fn a_message_reaches_an_echoing_peer_and_comes_back() {
    let peer = peer(|mut s| async move {
        upgrade(&mut s).await;
        let role = tokio_tungstenite::tungstenite::protocol::Role::Server;
        let mut ws = tokio_tungstenite::WebSocketStream::from_raw_socket(s, role, None).await;
        use futures_util::{SinkExt, StreamExt};
        while let Some(Ok(message)) = ws.next().await {
            if message.is_text() {
                ws.send(message).await.unwrap();
            }
        }
    })
    .await;
    let (client, mut events) = peer.client().start().unwrap();
    timeout(PATIENCE, client.send(Message::text("héllo")))
        .await
        .unwrap()
        .unwrap();
    loop {
        if let Event::Message(message) = next(&mut events).await {
            assert_eq!(message.as_text(), Some("héllo"));
            break;
        }
    }
    client.close();
    let end = end(&mut events).await;
    assert_eq!(end.sent.map(|f| f.code), Some(1000));
    assert_eq!(end.received.map(|f| f.code), Some(1000));
    while timeout(PATIENCE, events.next()).await.unwrap().is_some() {}
    assert!(
        client
            .send(Message::text("late"))
            .await
            .unwrap_err()
            .is_closed()
    );
}

#[tokio::test]
async fn a_peer_that_repeats_our_secrets_does_not_get_them_shown() {
    let peer = peer(|s| {
        answer(
            s,
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 58\r\n\r\n\
             invalid token: t0p-s3cret-token for /ws?key=QUERYS3CRET end",
        )
    })
    .await;
    let (_client, mut events) =
        Client::builder(format!("ws://{}/ws?key=QUERYS3CRET", peer.address))
            .header("authorization", "Bearer t0p-s3cret-token")
            .start()
            .unwrap();
    let failure = failure(&mut events).await;
    assert!(
        failure
            .message
            .ends_with("it says: invalid token: *** for /ws?key=*** en"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_close_reason_that_repeats_our_secrets_is_masked() {
    let peer = peer(|mut s| async move {
        upgrade(&mut s).await;
        s.write_all(b"\x88\x1e\x0f\xa1bad key OPENS3CRETS, sorry..")
            .await
            .unwrap();
        hold_open(s).await;
    })
    .await;
    let (_client, mut events) = peer.client().on_open("auth OPENS3CRETS").start().unwrap();
    let end = end(&mut events).await;
    assert_eq!(&*end.received.unwrap().reason, "bad key ***, sorry..");
    assert_eq!(
        &*end.message,
        "peer refused us (Close 4001 \"bad key ***, sorry..\")"
    );
}

/// A WebSocket peer behind TLS, and the PEM file of the CA it is to be trusted by.
async fn tls_peer(dir: &std::path::Path) -> (Peer, std::path::PathBuf) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(ca, ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let own = own.signed_by(&key, &ca).unwrap();
    let file = dir.join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![own.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that trusts us not is seen at its own end.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                count.fetch_add(1, SeqCst);
                let answer = agreeing_answer(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
            }
        }
    });
    (Peer { address, accepted }, file)
}

#[tokio::test]
async fn wss_is_trusted_by_a_ca_of_the_users_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let (peer, ca) = tls_peer(dir.path()).await;
    let url = format!("wss://{}/ws", peer.address);
    let (_client, mut events) = Client::builder(&url).tls_ca(&ca).start().unwrap();
    let up = timeout(PATIENCE, async {
        loop {
            match events.next().await.unwrap() {
                Event::Established(up) => break up,
                Event::DialFailed(failed) => panic!("{failed:?}"),
                _ => {}
            }
        }
    });
    let facts = up.await.unwrap().facts.unwrap();
    assert_eq!(facts.tls.unwrap().version, "TLSv1.3");
    let (_client, mut events) = Client::builder(&url).start().unwrap();
    let failed = timeout(PATIENCE, async {
        loop {
            if let Event::DialFailed(failed) = events.next().await.unwrap() {
                break failed;
            }
        }
    });
    let failed = failed.await.unwrap();
    assert_eq!(failed.phase, Phase::Tls);
    assert!(failed.certificate_not_after.is_some());
    let missing = Client::builder(&url)
        .tls_ca(dir.path().join("no.pem"))
        .start();
    assert!(missing.unwrap_err().to_string().contains("no.pem"));
    let proxy = Client::builder(&url).proxy("ftp://localhost").start();
    assert!(
        proxy
            .unwrap_err()
            .to_string()
            .contains("the proxy has the scheme `ftp`")
    );
}

#[tokio::test]
async fn a_url_of_http_is_read_as_an_event_stream_and_nothing_is_sent_to_it() {
    async fn streaming(mut stream: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: hello\n\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        // Open until the client leaves, or gives us up.
        while stream.read_u8().await.is_ok() {}
    }
    let peer = peer(streaming).await;
    let url = format!("http://{}/events", peer.address);
    let silence = Duration::from_millis(300);
    let (_client, mut events) = Client::builder(&url).max_silence(silence).start().unwrap();
    let mut heard = None;
    let end = loop {
        match timeout(PATIENCE, events.next()).await.unwrap() {
            Some(Event::Message(message)) => heard = message.as_text().map(str::to_owned),
            Some(Event::Ended(end)) => break end,
            Some(_) => {}
            None => panic!("it gave up"),
        }
    };
    assert_eq!(heard.as_deref(), Some("hello"));
    assert_eq!(end.cause, Cause::Silence, "{}", end.message);

    for wrong in [
        Client::builder(&url).on_open("hello"),
        Client::builder(&url).subprotocol("v1"),
        Client::builder(&url).max_silence(Duration::ZERO),
    ] {
        assert!(wrong.start().unwrap_err().is_config());
    }
}
