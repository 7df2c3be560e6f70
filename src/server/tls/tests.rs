use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::{SinkExt, StreamExt};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{FaultSwitches, SecretSource, Server};
use crate::server::listener::Listener;
use crate::server::peer;
use crate::stats::{ListenerStats, Registry};

const PATIENCE: Duration = Duration::from_secs(10);

/// The two files, in a directory of their own.
struct Files {
    _dir: TempDir,
    cert: PathBuf,
    key: PathBuf,
    tls: ServerTls,
}

impl Files {
    fn new() -> (Self, CertifiedKey<KeyPair>) {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let file = |path: &PathBuf| SecretSource::File(path.clone());
        let tls = ServerTls::new(file(&cert), file(&key));
        let files = Self {
            _dir: dir,
            cert,
            key,
            tls,
        };
        let made = files.renew();
        (files, made)
    }

    /// A fresh pair in both files.
    fn renew(&self) -> CertifiedKey<KeyPair> {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&self.cert, made.cert.pem()).unwrap();
        std::fs::write(&self.key, made.signing_key.serialize_pem()).unwrap();
        made
    }
}

/// A listener by TLS, and what it counted.
struct Served {
    address: SocketAddr,
    registry: Arc<Registry>,
    stats: Arc<ListenerStats>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn serve(files: &Files, change: impl FnOnce(&mut Server)) -> Served {
    let secs = Duration::from_secs;
    let mut config = Server {
        name: "tls".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        ping_interval: secs(5),
        pong_timeout: secs(10),
        max_connections: 100,
        max_message_size: 1 << 20,
        handshake_timeout: secs(5),
        close_timeout: secs(5),
        tls: Some(files.tls.clone()),
        faults: FaultSwitches::Off,
    };
    change(&mut config);
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Arc::new(TlsFiles::load(&files.tls).unwrap());
    let registry = Registry::new();
    let (guard, shutdown) = (registry.listener("tls"), CancellationToken::new());
    let stats = guard.stats().clone();
    let serving = peer::serve(
        Listener::Tcp(listener),
        Arc::new(config),
        Some(tls),
        guard,
        shutdown.clone(),
    );
    Served {
        address,
        registry,
        stats,
        shutdown,
        task: tokio::spawn(serving),
    }
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn handshake(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<Stream> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    timeout(PATIENCE, connector.connect(name, tcp)).await?
}

#[tokio::test]
async fn a_client_is_upgraded_and_echoed_by_either_version_of_tls_and_closed_at_the_end() {
    let (files, made) = Files::new();
    let served = serve(&files, |_| {}).await;
    let mut clients = Vec::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tls = handshake(served.address, made.cert.der(), version).await;
        let tls = tls.unwrap();
        let (_, session) = tls.get_ref();
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
        let request = "wss://localhost/echo";
        let (mut ws, _) = tokio_tungstenite::client_async(request, tls).await.unwrap();
        // Longer than one record.
        let text = Message::text("x".repeat(40_000));
        ws.send(text.clone()).await.unwrap();
        let echoed = timeout(PATIENCE, ws.next()).await.unwrap();
        assert_eq!(echoed.unwrap().unwrap(), text);
        clients.push(ws);
    }
    assert_eq!(served.stats.connections.load(Relaxed), 2);
    served.shutdown.cancel();
    for mut client in clients {
        let close = timeout(PATIENCE, client.next()).await.unwrap();
        let Some(Ok(Message::Close(Some(frame)))) = close else {
            panic!("not a Close: {close:?}");
        };
        assert_eq!(u16::from(frame.code), 1000);
        // Sends the reply and reads until the end.
        while timeout(PATIENCE, client.next()).await.unwrap().is_some() {}
    }
    timeout(PATIENCE, served.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn events_and_faults_are_served_by_tls_too() {
    let (files, made) = Files::new();
    let served = serve(&files, |config| config.faults = FaultSwitches::ByQuery).await;
    let version = &rustls::version::TLS13;
    let read = async |path: &str| {
        let mut tls = handshake(served.address, made.cert.der(), version)
            .await
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        tls.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tls.read_to_string(&mut answer);
        let read = timeout(PATIENCE, read)
            .await
            .unwrap()
            .map_err(|error| error.kind());
        (answer, read.err())
    };
    let (answer, error) = read("/events?interval=10ms&events=3").await;
    assert!(
        answer.contains("\nid: 3\n") && answer.ends_with("\r\n0\r\n\r\n"),
        "{answer}"
    );
    assert_eq!(error, None);
    // A FIN comes with the end of TLS, as from a server that ends in order; a reset does not.
    let (answer, error) = read("/events?fin").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && !answer.ends_with("\r\n0\r\n\r\n"),
        "{answer}"
    );
    assert_eq!(error, None);
    let (_, error) = read("/events?reset&after=100ms").await;
    assert_eq!(error, Some(std::io::ErrorKind::ConnectionReset));
    let (answer, _) = read("/events?status=503").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");

    let tls = handshake(served.address, made.cert.der(), version)
        .await
        .unwrap();
    let request = "wss://localhost/ws?close=1012&reason=restart";
    let (mut ws, _) = tokio_tungstenite::client_async(request, tls).await.unwrap();
    let close = timeout(PATIENCE, ws.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(frame)))) = close else {
        panic!("not a Close: {close:?}");
    };
    assert_eq!(
        (u16::from(frame.code), frame.reason.as_str()),
        (1012, "restart")
    );
}

#[tokio::test]
async fn who_speaks_no_tls_or_trusts_another_is_turned_away_and_is_no_accept_error() {
    let (files, made) = Files::new();
    let served = serve(&files, |_| {}).await;
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    plain.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, plain.read_to_end(&mut answer)).await;
    // Bytes of the request may be left unread: then the end is a reset.
    assert!(read.is_ok(), "the connection stays open");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let version = &rustls::version::TLS13;
    let refused = handshake(served.address, other.cert.der(), version).await;
    assert!(refused.is_err());

    let trusted = handshake(served.address, made.cert.der(), version).await;
    assert!(trusted.is_ok(), "{trusted:?}");
    assert_eq!(served.registry.accept_errors.load(Relaxed), 0);
}

#[tokio::test]
async fn a_client_that_stalls_in_the_handshake_is_cut_at_its_timeout() {
    let (files, _made) = Files::new();
    let served = serve(&files, |config| {
        config.handshake_timeout = Duration::from_millis(300);
    })
    .await;
    let begun = Instant::now();
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let mut nothing = Vec::new();
    let read = timeout(PATIENCE, silent.read_to_end(&mut nothing)).await;
    read.unwrap().unwrap();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(290), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn beyond_max_connections_a_tls_client_is_closed_without_a_word() {
    let (files, made) = Files::new();
    let served = serve(&files, |config| config.max_connections = 1).await;
    let version = &rustls::version::TLS13;
    let first = handshake(served.address, made.cert.der(), version).await;
    let _first = first.unwrap();
    let second = handshake(served.address, made.cert.der(), version).await;
    assert!(second.is_err());
}

#[tokio::test]
async fn replaced_files_are_used_by_the_next_handshake_and_touch_none_that_stands() {
    let (files, old) = Files::new();
    let served = serve(&files, |_| {}).await;
    let version = &rustls::version::TLS13;
    let tls = handshake(served.address, old.cert.der(), version).await;
    let (mut standing, _) = tokio_tungstenite::client_async("wss://localhost/echo", tls.unwrap())
        .await
        .unwrap();
    let new = files.renew();
    let begun = Instant::now();
    while handshake(served.address, new.cert.der(), version)
        .await
        .is_err()
    {
        assert!(begun.elapsed() < PATIENCE, "the old one is still in use");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    standing.send(Message::text("still here")).await.unwrap();
    let echoed = timeout(PATIENCE, standing.next()).await.unwrap();
    assert_eq!(echoed.unwrap().unwrap(), Message::text("still here"));
}

#[test]
fn a_bad_file_keeps_the_last_good_one_and_is_told_once() {
    let (files, _made) = Files::new();
    let tls = TlsFiles::load(&files.tls).unwrap();
    let first = tls.held().config.clone();
    assert_eq!(tls.look(), Look::Same);

    let whole = std::fs::read(&files.cert).unwrap();
    std::fs::write(&files.cert, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(tls.look(), Look::Bad(why) if why.contains("cert.pem")));
    assert_eq!(tls.look(), Look::Same);
    std::fs::remove_file(&files.cert).unwrap();
    assert!(matches!(tls.look(), Look::Bad(why) if why.contains("No such file")));
    assert_eq!(tls.look(), Look::Same);
    assert!(Arc::ptr_eq(&tls.held().config, &first));

    files.renew();
    assert_eq!(tls.look(), Look::Replaced);
    assert!(!Arc::ptr_eq(&tls.held().config, &first));
}

#[tokio::test]
async fn the_files_are_looked_at_once_a_second_and_again_after_a_bad_one() {
    let (files, _made) = Files::new();
    let tls = Arc::new(TlsFiles::load(&files.tls).unwrap());
    let first = tls.held().config.clone();
    let looked = |ago| tls.held().looked = Instant::now().checked_sub(ago).unwrap();
    files.renew();
    looked(Duration::ZERO);
    assert!(Arc::ptr_eq(&tls.current("tls").await, &first));
    for content in [Some("no certificate"), None] {
        match content {
            Some(bad) => std::fs::write(&files.cert, bad).unwrap(),
            None => drop(files.renew()),
        }
        looked(LOOK_EVERY);
        let now = tls.current("tls").await;
        assert_eq!(Arc::ptr_eq(&now, &first), content.is_some());
    }
}

#[test]
fn what_is_wrong_with_the_files_is_said_without_showing_the_key() {
    let (files, made) = Files::new();
    let wrong = |tls: &ServerTls| TlsFiles::load(tls).unwrap_err();
    let missing = ServerTls {
        cert: SecretSource::File("/nowhere/cert.pem".into()),
        ..files.tls.clone()
    };
    let message = wrong(&missing);
    assert_eq!(
        message,
        "cannot read /nowhere/cert.pem: No such file or directory"
    );
    let swapped = ServerTls {
        cert: files.tls.key.clone(),
        key: files.tls.cert.clone(),
        ..files.tls.clone()
    };
    let message = wrong(&swapped);
    assert!(
        message.contains("key.pem holds no certificate"),
        "{message}"
    );
    let twice = ServerTls {
        key: files.tls.cert.clone(),
        ..files.tls.clone()
    };
    let message = wrong(&twice);
    let words = "cert.pem holds no private key; PEM is wanted";
    assert!(message.contains(words), "{message}");

    let key = made.signing_key.serialize_pem();
    std::fs::write(&files.key, &key[..key.len() / 2]).unwrap();
    let message = wrong(&files.tls);
    assert!(message.contains("key.pem is cut short"), "{message}");
    let secret = key.lines().nth(1).unwrap();
    assert!(!message.contains(&secret[..16]), "{message}");

    let other = KeyPair::generate().unwrap();
    std::fs::write(&files.key, other.serialize_pem()).unwrap();
    let message = wrong(&files.tls);
    let words = "key.pem does not belong to the first certificate in";
    assert!(message.contains(words), "{message}");

    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(&files.key, encrypted).unwrap();
    let message = wrong(&files.tls);
    assert!(message.contains("openssl pkey"), "{message}");
}

#[tokio::test]
async fn versions_and_cipher_suites_are_those_that_were_asked_for() {
    use rustls::CipherSuite;
    use rustls::version::{TLS12, TLS13};

    let (mut files, made) = Files::new();
    let mut agreed = async |change: fn(&mut ServerTls), version| {
        files.tls = ServerTls::new(files.tls.cert.clone(), files.tls.key.clone());
        change(&mut files.tls);
        let served = serve(&files, |_| {}).await;
        let tls = handshake(served.address, made.cert.der(), version).await;
        let suite = |tls: Stream| tls.get_ref().1.negotiated_cipher_suite();
        tls.ok().and_then(suite).map(|suite| suite.suite())
    };
    let only_12 = |tls: &mut ServerTls| tls.max_version = TlsVersion::V1_2;
    let only_13 = |tls: &mut ServerTls| tls.min_version = TlsVersion::V1_3;
    assert!(agreed(only_12, &TLS12).await.is_some());
    assert!(agreed(only_12, &TLS13).await.is_none());
    assert!(agreed(only_13, &TLS13).await.is_some());
    assert!(agreed(only_13, &TLS12).await.is_none());
    // The key is one for ECDSA. What is named of one version leaves the other as it was.
    let chosen = CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
    let one = |tls: &mut ServerTls| {
        tls.cipher_suites = vec![CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256];
    };
    assert_eq!(agreed(one, &TLS12).await, Some(chosen));
    assert!(agreed(one, &TLS13).await.is_some());
    let last = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
    let ours = |tls: &mut ServerTls| {
        tls.prefer_own_suites = true;
        tls.cipher_suites = vec![
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
        ];
    };
    assert_eq!(agreed(ours, &TLS13).await, Some(last));
    let theirs = |tls: &mut ServerTls| {
        tls.cipher_suites = vec![
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
        ];
    };
    let first = CipherSuite::TLS13_AES_256_GCM_SHA384;
    assert_eq!(agreed(theirs, &TLS13).await, Some(first));
}
