//! TLS as a step of the dial: to the peer, inside a tunnel, and to the proxy itself.

use std::sync::Mutex;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use super::proxy_tests::{connect_proxy, pass_on, through};
use super::tests::{agreement, dial, failure, head, target};
use super::*;
use crate::config::{ConnectionOptions, ProxyKind, TlsOptions};
use crate::transport::tls::testing::{Ca, Issued, Listening, Order, Speaks, serve_tls};

/// What a peer was asked, and by which name.
type Seen = Arc<Mutex<Vec<(Option<String>, String)>>>;

/// A WebSocket peer behind TLS.
async fn peer(speaks: &Speaks<'_>, issued: &Issued) -> (Listening, Seen) {
    let seen = Seen::default();
    let noted = seen.clone();
    let upgrade = move |mut stream: TlsStream<TcpStream>| {
        let noted = noted.clone();
        async move {
            let name = stream.get_ref().1.server_name().map(str::to_owned);
            let head = head(&mut stream).await;
            let answer = agreement(&head, "Server: test\r\n");
            noted.lock().unwrap().push((name, head));
            stream.write_all(answer.as_bytes()).await?;
            // Holds the connection until the other end has enough.
            head_of_nothing(&mut stream).await;
            Ok(())
        }
    };
    (serve_tls(speaks.config(issued), upgrade).await, seen)
}

async fn head_of_nothing(stream: &mut TlsStream<TcpStream>) {
    drop(tokio::io::copy(stream, &mut tokio::io::sink()).await);
}

fn trusting(ca: &Ca, more: impl FnOnce(&mut TlsOptions)) -> Arc<TlsOptions> {
    let mut tls = TlsOptions {
        ca: ca.source(),
        ca_only: true,
        ..TlsOptions::default()
    };
    more(&mut tls);
    Arc::new(tls)
}

fn with(tls: Arc<TlsOptions>) -> impl FnOnce(&mut ConnectionOptions) {
    move |options| options.tls = tls
}

#[tokio::test]
async fn wss_is_dialed_timed_and_told() {
    let ca = Ca::new("root");
    let (peer, seen) = peer(
        &Speaks::default(),
        &ca.issue(&Order::server(&["localhost"])),
    )
    .await;
    let url = format!("wss://localhost:{}/ws", peer.address.port());
    let mut trace = Trace::wanted();
    let target = target(&url, |options| {
        options.tls = trusting(&ca, |_| {});
        options.address.family = IpFamily::V4;
    });
    let dialed = dial_traced(&target, &mut trace).await.unwrap();
    for phase in [Phase::Dns, Phase::Tcp, Phase::Tls, Phase::Upgrade] {
        assert!(dialed.times[phase as usize].is_some(), "{phase}");
    }
    let facts = dialed.facts.unwrap();
    let tls = facts.tls.unwrap();
    assert_eq!(tls.version, "TLSv1.3");
    assert!(tls.cipher.starts_with("TLS13_AES"), "{}", tls.cipher);
    assert!(tls.not_after.is_some());
    assert_eq!(trace.chain.len(), 1);
    assert_eq!(seen.lock().unwrap()[0].0.as_deref(), Some("localhost"));
}

#[tokio::test]
async fn a_certificate_that_is_refused_tells_when_it_ends() {
    let ca = Ca::new("root");
    let (peer, _) = peer(
        &Speaks::default(),
        &ca.issue(&Order::server(&["other.example.com"])),
    )
    .await;
    let url = format!("wss://127.0.0.1:{}/", peer.address.port());
    let mut trace = Trace::wanted();
    let target = target(&url, with(trusting(&ca, |_| {})));
    let dialed = dial_traced(&target, &mut trace).await;
    let error = dialed.map(drop).unwrap_err();
    assert_eq!(error.phase, Phase::Tls);
    assert!(
        error.message.contains("other.example.com"),
        "{}",
        error.message
    );
    assert!(error.certificate_not_after.is_some());
    assert_eq!(trace.chain.len(), 1, "the chain is there to be looked at");
    assert_eq!(trace.chain[0].not_after, error.certificate_not_after);
}

#[tokio::test]
async fn files_that_are_bad_fail_the_step_they_are_for() {
    let from = |path: &Path| {
        Arc::new(TlsOptions {
            ca: Some(crate::config::SecretSource::File(path.to_owned())),
            ..TlsOptions::default()
        })
    };
    let gone = Path::new("/nowhere/ca.pem");
    let error = failure(&target("wss://127.0.0.1:9/", with(from(gone)))).await;
    assert_eq!(error.phase, Phase::Tls, "{}", error.message);
    assert!(
        error.message.starts_with("tls.ca: cannot read /nowhere"),
        "{}",
        error.message
    );
    let mut proxied = through("ws://edge.example.com/", ProxyKind::Https, 9, None);
    Arc::make_mut(&mut proxied.connection).proxy_tls = from(gone);
    let error = failure(&proxied).await;
    assert_eq!(error.phase, Phase::Proxy, "{}", error.message);

    assert!(
        error
            .message
            .starts_with("proxy_tls.ca: cannot read /nowhere"),
        "{}",
        error.message
    );

    // A pipe would hang until somebody writes to it.
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("ca.pem");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let hanging = target("wss://127.0.0.1:9/", with(from(&pipe)));
    let error = tokio::time::timeout(Duration::from_secs(10), failure(&hanging)).await;
    let error = error.expect("it waits for somebody to write");
    assert_eq!(error.phase, Phase::Tls);
    assert!(error.message.contains("it is a pipe"), "{}", error.message);
}

#[tokio::test]
async fn a_refusal_after_our_handshake_is_one_of_tls() {
    let ca = Ca::new("root");
    let strangers = Ca::new("strangers");
    let speaks = Speaks {
        client_ca: Some(&ca),
        ..Speaks::default()
    };
    let (peer, _) = peer(&speaks, &ca.issue(&Order::server(&["127.0.0.1"]))).await;
    let url = format!("wss://127.0.0.1:{}/", peer.address.port());
    let error = failure(&target(&url, with(trusting(&ca, |_| {})))).await;
    assert_eq!(error.phase, Phase::Tls);
    assert!(
        error.message.contains("asks for a client certificate"),
        "{}",
        error.message
    );
    assert!(error.certificate_not_after.is_some());
    let stranger = strangers.issue(&Order::client("us"));
    let wrong = trusting(&ca, |tls| {
        tls.cert = stranger.cert_source();
        tls.key = stranger.key_source();
    });
    let error = failure(&target(&url, with(wrong))).await;
    assert_eq!(error.phase, Phase::Tls);
    assert!(
        error.message.contains("refused our client certificate"),
        "{}",
        error.message
    );
    let us = ca.issue(&Order::client("us"));
    let right = trusting(&ca, |tls| {
        tls.cert = us.cert_source();
        tls.key = us.key_source();
    });
    dial(&target(&url, with(right))).await.unwrap();
}

#[tokio::test]
async fn inside_a_tunnel_the_name_is_the_targets() {
    let ca = Ca::new("root");
    let issued = ca.issue(&Order::server(&["edge.example.com"]));
    let (peer, seen) = peer(&Speaks::default(), &issued).await;
    let to = Some(peer.address.port());
    let (port, _serving) = connect_proxy("HTTP/1.1 200 OK\r\n\r\n", to).await;
    let mut target = through("wss://edge.example.com/ws", ProxyKind::Http, port, None);
    Arc::make_mut(&mut target.connection).tls = trusting(&ca, |_| {});
    let dialed = dial(&target).await.unwrap();
    for phase in [Phase::Tcp, Phase::Proxy, Phase::Tls, Phase::Upgrade] {
        assert!(dialed.times[phase as usize].is_some(), "{phase}");
    }
    let (name, head) = seen.lock().unwrap()[0].clone();
    assert_eq!(name.as_deref(), Some("edge.example.com"));
    assert!(head.contains("host: edge.example.com\r\n"), "{head}");
}

/// A CONNECT proxy behind TLS that leads to `to`, whatever it is asked for.
async fn tls_proxy(speaks: &Speaks<'_>, issued: &Issued, to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(speaks.config(issued));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not like us is seen at its own end.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                pass_on(&mut stream, to).await;
            }
        }
    });
    port
}

#[tokio::test]
async fn an_https_proxy_has_tls_of_its_own() {
    let ca = Ca::new("root");
    let issued = ca.issue(&Order::server(&["edge.example.com"]));
    let (peer, _) = peer(&Speaks::default(), &issued).await;
    let others = Ca::new("the proxy's");
    let port = tls_proxy(
        &Speaks::default(),
        &others.issue(&Order::server(&["127.0.0.1"])),
        peer.address.port(),
    )
    .await;
    let mut target = through("wss://edge.example.com/ws", ProxyKind::Https, port, None);
    let options = Arc::make_mut(&mut target.connection);
    options.tls = trusting(&ca, |_| {});
    options.proxy_tls = trusting(&others, |_| {});
    let facts = dial(&target).await.unwrap().facts.unwrap();
    assert_eq!(
        facts.proxy.as_deref(),
        Some(&*format!("https://127.0.0.1:{port}"))
    );
    Arc::make_mut(&mut target.connection).proxy_tls = trusting(&ca, |_| {});
    let error = failure(&target).await;
    assert_eq!(error.phase, Phase::Proxy);
    let words = format!("TLS with the proxy https://127.0.0.1:{port}: ");
    assert!(error.message.starts_with(&words), "{}", error.message);
}

#[tokio::test]
async fn an_https_proxy_that_wants_a_certificate_says_so_after_our_handshake() {
    let ca = Ca::new("root");
    let speaks = Speaks {
        client_ca: Some(&ca),
        ..Speaks::default()
    };
    let issued = ca.issue(&Order::server(&["127.0.0.1"]));
    let port = tls_proxy(&speaks, &issued, 9).await;
    let mut target = through("ws://edge.example.com/", ProxyKind::Https, port, None);
    Arc::make_mut(&mut target.connection).proxy_tls = trusting(&ca, |_| {});
    let error = failure(&target).await;
    assert_eq!(error.phase, Phase::Proxy);
    let words = "the peer asks for a client certificate and none is configured";
    assert!(error.message.contains(words), "{}", error.message);
}
