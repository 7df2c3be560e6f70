use super::testing::{Ca, Issued, Listening, Order, Speaks, echo, serve, serve_tls};
use super::*;
use crate::config::{SecretSource, TlsVersion, tls_files};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::version::{TLS12, TLS13};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);

async fn reach(server: &Listening, host: &str, options: TlsOptions) -> Result<Secured, TlsFailure> {
    reach_by(server, host, &Arc::new(options)).await
}

async fn reach_by(
    server: &Listening,
    host: &str,
    options: &Arc<TlsOptions>,
) -> Result<Secured, TlsFailure> {
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let connected = timeout(LIMIT, shake(Io::tcp(tcp), host, options)).await;
    connected.expect("a handshake that ends")
}

async fn shake(io: Io, host: &str, options: &Arc<TlsOptions>) -> Result<Secured, TlsFailure> {
    let prepared = prepare(options).await.map_err(TlsFailure::plain)?;
    connect(io, host, &prepared).await
}

fn trusting(ca: &Ca) -> TlsOptions {
    TlsOptions {
        ca: ca.source(),
        ca_only: true,
        ..TlsOptions::default()
    }
}

async fn server(issued: &Issued) -> Listening {
    serve_tls(Speaks::default().config(issued), echo).await
}

async fn works(mut secured: Secured) {
    let echoed = async {
        secured.io.write_all(b"hello").await.unwrap();
        secured.io.flush().await.unwrap();
        let mut answer = [0; 5];
        secured.io.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello");
        assert_eq!(secured.watch.failure(), None);
        secured.io.shutdown().await.unwrap();
        assert_eq!(secured.io.read(&mut answer).await.unwrap(), 0);
    };
    timeout(LIMIT, echoed).await.expect("an echo");
}

/// The failure, which every phrase must be in.
fn refused(result: Result<Secured, TlsFailure>, phrases: &[&str]) -> TlsFailure {
    let failure = result.err().expect("a handshake that fails");
    for phrase in phrases {
        let message = &failure.message;
        assert!(message.contains(phrase), "{phrase:?} is not in {message:?}");
    }
    assert!(!failure.message.contains('\n'));
    failure
}

#[tokio::test]
async fn a_right_name_and_a_right_address_are_trusted() {
    let ca = Ca::new("Test CA");
    let issued = ca.issue(&Order::server(&["edge.example.com", "127.0.0.1", "::1"]));
    let server = server(&issued).await;
    for host in [
        "edge.example.com",
        "EDGE.example.com",
        "127.0.0.1",
        "::1",
        "[::1]",
    ] {
        let secured = reach(&server, host, trusting(&ca)).await;
        let secured = secured.unwrap_or_else(|failure| panic!("{host}: {}", failure.message));
        assert_eq!(secured.facts.version, "TLSv1.3");
        assert!(
            secured.facts.cipher.starts_with("TLS13_"),
            "{:?}",
            secured.facts
        );
        let end = UNIX_EPOCH + Duration::from_secs(3_786_912_000);
        assert_eq!(secured.facts.not_after, Some(end));
        assert_eq!(secured.chain[0].subject, "CN=edge.example.com");
        assert_eq!(secured.chain[0].issuer, "CN=Test CA");
        assert_eq!(
            &*secured.chain[0].names,
            ["edge.example.com", "127.0.0.1", "::1"]
        );
        works(secured).await;
    }
}

#[tokio::test]
async fn a_wrong_name_is_told_with_the_names_there_are() {
    let ca = Ca::new("Test CA");
    let issued = ca.issue(&Order::server(&["right.example.com", "*.test.example.com"]));
    let server = server(&issued).await;
    let asked = reach(&server, "wrong.example.com", trusting(&ca)).await;
    let phrases = [
        "not for wrong.example.com",
        "right.example.com, *.test.example.com",
        "tls.server_name",
    ];
    let failure = refused(asked, &phrases);
    assert!(failure.not_after.is_some());
    assert_eq!(failure.chain.len(), 1);
    refused(
        reach(&server, "127.0.0.1", trusting(&ca)).await,
        &["not for 127.0.0.1"],
    );
    let renamed = TlsOptions {
        server_name: Some("right.example.com".into()),
        ..trusting(&ca)
    };
    works(reach(&server, "127.0.0.1", renamed).await.ok().unwrap()).await;
}

#[tokio::test]
async fn an_expired_and_an_early_certificate_are_dated() {
    let ca = Ca::new("Test CA");
    let with = |years| Order {
        years,
        ..Order::server(&["localhost"])
    };
    let expired = server(&ca.issue(&with((2001, 2002)))).await;
    let result = reach(&expired, "localhost", trusting(&ca)).await;
    let failure = refused(
        result,
        &[
            "the peer's certificate (CN=localhost) expired at 2002-01-01T00:00:00Z",
            "renew",
        ],
    );
    let end = UNIX_EPOCH + Duration::from_secs(1_009_843_200);
    assert_eq!(failure.not_after, Some(end));
    let early = server(&ca.issue(&with((2080, 2090)))).await;
    refused(
        reach(&early, "localhost", trusting(&ca)).await,
        &["not valid before 2080-01-01T00:00:00Z", "clock"],
    );
}

#[tokio::test]
async fn a_self_signed_certificate_is_called_so_even_if_it_says_it_is_a_ca() {
    let ca = Ca::new("Test CA");
    for is_ca in [false, true] {
        let order = Order {
            is_ca,
            ..Order::server(&["localhost"])
        };
        let server = server(&order.self_signed()).await;
        refused(
            reach(&server, "localhost", trusting(&ca)).await,
            &["self-signed (CN=localhost)", "tls.ca"],
        );
    }
}

#[tokio::test]
async fn a_missing_intermediate_is_told_from_an_untrusted_root() {
    let (ca, other) = (Ca::new("Test CA"), Ca::new("Other CA"));
    let middle = ca.intermediate("Middle CA");
    let mut issued = middle.issue(&Order::server(&["localhost"]));
    let complete = server(&issued).await;
    let secured = reach(&complete, "localhost", trusting(&ca)).await;
    assert_eq!(secured.ok().unwrap().chain.len(), 2);

    // The root is not sent, and is not known either.
    refused(
        reach(&complete, "localhost", trusting(&other)).await,
        &["a CA certificate in the peer's chain (CN=Middle CA) is issued by CN=Test CA, which"],
    );

    issued.chain.push(ca.der());
    let rooted = server(&issued).await;
    refused(
        reach(&rooted, "localhost", trusting(&other)).await,
        &[
            "ends in a root that is not trusted here (CN=Test CA)",
            "tls.ca",
        ],
    );

    issued.chain.truncate(1);
    let without = server(&issued).await;
    refused(
        reach(&without, "localhost", trusting(&ca)).await,
        &[
            "issued by CN=Middle CA, which the peer did not send",
            "intermediates",
        ],
    );
}

#[tokio::test]
async fn other_faults_of_a_certificate_are_told() {
    let (ca, namesake) = (Ca::new("Test CA"), Ca::new("Test CA"));
    let issued = ca.issue(&Order::server(&["localhost"]));
    let server_of = server(&issued).await;
    refused(
        reach(&server_of, "localhost", trusting(&namesake)).await,
        &["signature", "a new key under its old name"],
    );
    let order = Order {
        usage: ExtendedKeyUsagePurpose::ClientAuth,
        ..Order::server(&["localhost"])
    };
    let for_clients = server(&ca.issue(&order)).await;
    refused(
        reach(&for_clients, "localhost", trusting(&ca)).await,
        &["not for servers"],
    );
    // By way of the platform's verifier, whose error is another.
    let beside = TlsOptions {
        ca_only: false,
        ..trusting(&ca)
    };
    refused(
        reach(&for_clients, "localhost", beside).await,
        &["not for servers"],
    );
}

#[tokio::test]
async fn a_ca_is_trusted_beside_the_systems_own_or_alone() {
    let (ca, other) = (Ca::new("Test CA"), Ca::new("Other CA"));
    let server = server(&ca.issue(&Order::server(&["localhost"]))).await;
    for ca_only in [false, true] {
        let with = |ca: &Ca| TlsOptions {
            ca_only,
            ..trusting(ca)
        };
        works(reach(&server, "localhost", with(&ca)).await.ok().unwrap()).await;
        let failure = refused(
            reach(&server, "localhost", with(&other)).await,
            &["nobody here trusts"],
        );
        assert_eq!(failure.message.contains("tls.ca_only"), ca_only);
    }
    refused(
        reach(&server, "localhost", TlsOptions::default()).await,
        &["nobody here trusts"],
    );
}

#[tokio::test]
async fn insecure_skip_verify_takes_any_chain_and_still_reports_its_end() {
    let order = Order {
        years: (2001, 2002),
        ..Order::server(&["elsewhere.example.com"])
    };
    for only in [&TLS12, &TLS13] {
        let speaks = Speaks {
            only: Some(only),
            ..Speaks::default()
        };
        let server = serve_tls(speaks.config(&order.self_signed()), echo).await;
        let options = TlsOptions {
            insecure_skip_verify: true,
            ..TlsOptions::default()
        };
        let secured = reach(&server, "localhost", options).await.ok().unwrap();
        let end = UNIX_EPOCH + Duration::from_secs(1_009_843_200);
        assert_eq!(secured.facts.not_after, Some(end));
        works(secured).await;
    }
}

#[tokio::test]
async fn versions_outside_min_and_max_are_refused_in_words() {
    let ca = Ca::new("Test CA");
    let issued = ca.issue(&Order::server(&["localhost"]));
    let speaking = |only| {
        let speaks = Speaks {
            only: Some(only),
            ..Speaks::default()
        };
        serve_tls(speaks.config(&issued), echo)
    };
    let (old, new) = (speaking(&TLS12).await, speaking(&TLS13).await);
    let between = |min_version, max_version| TlsOptions {
        min_version,
        max_version,
        ..trusting(&ca)
    };
    let (v2, v3) = (TlsVersion::V1_2, TlsVersion::V1_3);
    let secured = reach(&old, "localhost", between(v2, v3))
        .await
        .ok()
        .unwrap();
    assert_eq!(secured.facts.version, "TLSv1.2");
    assert!(
        secured.facts.cipher.starts_with("TLS_ECDHE_"),
        "{:?}",
        secured.facts
    );
    works(secured).await;
    works(
        reach(&new, "localhost", between(v3, v3))
            .await
            .ok()
            .unwrap(),
    )
    .await;
    refused(
        reach(&old, "localhost", between(v3, v3)).await,
        &["no TLS version between 1.3 and 1.3", "tls.min_version"],
    );
    refused(
        reach(&new, "localhost", between(v2, v2)).await,
        &["no TLS version between 1.2 and 1.2", "tls.max_version"],
    );
}

#[tokio::test]
async fn a_peer_without_http_1_is_told() {
    let ca = Ca::new("Test CA");
    let issued = ca.issue(&Order::server(&["localhost"]));
    let speaks = Speaks {
        alpn: Some(b"h2"),
        ..Speaks::default()
    };
    let server = serve_tls(speaks.config(&issued), echo).await;
    refused(
        reach(&server, "localhost", trusting(&ca)).await,
        &["no HTTP/1.1", "no_application_protocol"],
    );
}

/// What is said when a request meets the refusal, in the handshake or after it.
async fn said_of_client(result: Result<Secured, TlsFailure>) -> Result<(), String> {
    let mut secured = result.map_err(|failure| failure.message)?;
    let mut answer = [0; 5];
    let exchange = async {
        secured.io.write_all(b"hello").await?;
        secured.io.flush().await?;
        secured.io.read_exact(&mut answer).await
    };
    match timeout(LIMIT, exchange).await.expect("an end") {
        Ok(_) => {
            assert_eq!(secured.watch.failure(), None);
            Ok(())
        }
        Err(error) => Err(secured
            .watch
            .failure()
            .unwrap_or_else(|| panic!("not TLS: {error}"))),
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_missed_and_refused_in_either_version() {
    let (ca, other) = (Ca::new("Test CA"), Ca::new("Other CA"));
    let issued = ca.issue(&Order::server(&["localhost"]));
    for only in [&TLS12, &TLS13] {
        let speaks = Speaks {
            only: Some(only),
            client_ca: Some(&ca),
            ..Speaks::default()
        };
        let server = serve_tls(speaks.config(&issued), echo).await;
        let with = |client: &Issued| TlsOptions {
            cert: client.cert_source(),
            key: client.key_source(),
            ..trusting(&ca)
        };
        let right = with(&ca.issue(&Order::client("client")));
        let said = said_of_client(reach(&server, "localhost", right).await).await;
        assert_eq!(said, Ok(()));

        let absent = reach(&server, "localhost", trusting(&ca)).await;
        let said = said_of_client(absent).await.unwrap_err();
        let expected = "asks for a client certificate and none is configured: set tls.cert and \
                        tls.key";
        assert!(said.contains(expected), "{only:?}: {said}");

        let wrong = with(&other.issue(&Order::client("client")));
        let said = said_of_client(reach(&server, "localhost", wrong).await).await;
        let said = said.unwrap_err();
        let expected = "refused our client certificate (alert unknown_ca)";
        assert!(said.contains(expected), "{only:?}: {said}");
    }
}

#[tokio::test]
async fn a_refusal_is_read_even_if_a_write_meets_the_closed_connection_first() {
    let (ca, other) = (Ca::new("Test CA"), Ca::new("Other CA"));
    let speaks = Speaks {
        client_ca: Some(&ca),
        ..Speaks::default()
    };
    let issued = ca.issue(&Order::server(&["localhost"]));
    let server = serve_tls(speaks.config(&issued), echo).await;
    let wrong = other.issue(&Order::client("client"));
    let options = TlsOptions {
        cert: wrong.cert_source(),
        key: wrong.key_source(),
        ..trusting(&ca)
    };
    let mut secured = reach(&server, "localhost", options).await.ok().unwrap();
    let write = async {
        while secured.io.write_all(b"hello").await.is_ok() && secured.io.flush().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, write).await.expect("a write that fails");
    let said = secured.watch.failure().unwrap();
    assert!(said.contains("alert unknown_ca"), "{said}");
}

#[tokio::test]
async fn a_server_that_hangs_up_on_an_absent_certificate_without_a_word_is_understood() {
    let ca = Ca::new("Test CA");
    let issued = ca.issue(&Order::server(&["localhost"]));
    let speaks = Speaks {
        client_ca: Some(&ca),
        ..Speaks::default()
    };
    // Reads what is not complete yet for it, and goes.
    let config = speaks.config(&issued);
    let server = serve(move |mut tcp| {
        let config = config.clone();
        async move {
            let mut tls = rustls::ServerConnection::new(config).unwrap();
            while tls.is_handshaking() {
                tcp.readable().await?;
                let mut bytes = [0; 4096];
                let n = tcp.read(&mut bytes).await?;
                let mut reading = &bytes[..n];
                while !reading.is_empty() {
                    tls.read_tls(&mut reading)?;
                    if tls.process_new_packets().is_err() {
                        return Ok(());
                    }
                }
                let mut out = Vec::new();
                while tls.wants_write() {
                    tls.write_tls(&mut out)?;
                }
                tcp.write_all(&out).await?;
            }
            Ok(())
        }
    })
    .await;
    let said = said_of_client(reach(&server, "localhost", trusting(&ca)).await).await;
    let said = said.unwrap_err();
    assert!(said.contains("none is configured"), "{said}");
}

#[tokio::test]
async fn what_is_no_tls_is_told_apart() {
    let answering = |answer: &'static [u8]| {
        serve(move |mut tcp| async move {
            let mut hello = [0; 1024];
            let _read = tcp.read(&mut hello).await?;
            tcp.write_all(answer).await?;
            tcp.shutdown().await
        })
    };
    let ca = Ca::new("Test CA");
    for (answer, phrases) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            &["plain HTTP: ws:// instead"][..],
        ),
        (b"HTTP/", &["plain HTTP"]),
        (
            b"SSH-2.0-OpenSSH_9.9\r\n",
            &["does not speak TLS on this port"],
        ),
        (
            b"\xff\x00garbage of all kinds",
            &["does not speak TLS on this port"],
        ),
        (
            b"\x16\x03\x03\x00\x05",
            &["closed the connection", "in the middle of it"],
        ),
        (
            b"\x16\x03\x03\x00\x04\xff\xff\xff\xff",
            &["the peer's TLS, or something between"],
        ),
        (
            b"",
            &[
                "closed the connection",
                "before it answered",
                "plain ws:// server",
            ],
        ),
    ] {
        let server = answering(answer).await;
        refused(reach(&server, "localhost", trusting(&ca)).await, phrases);
    }
    let resetting = serve(|tcp| async move {
        let linger = socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
        tcp.readable().await?;
        linger
    })
    .await;
    refused(
        reach(&resetting, "localhost", trusting(&ca)).await,
        &["reset the connection"],
    );
}

#[tokio::test]
async fn a_host_that_no_certificate_can_be_for_is_refused_before_anything_is_sent() {
    let server = serve(|_| async { Ok(()) }).await;
    for host in ["", "a..b", "-\u{1b}[2J"] {
        refused(
            reach(&server, host, TlsOptions::default()).await,
            &["neither a DNS name nor an address", "tls.server_name"],
        );
    }
}

#[tokio::test]
async fn tls_runs_inside_tls() {
    let ca = Ca::new("Test CA");
    let far = server(&ca.issue(&Order::server(&["far.example.com"]))).await;
    let address = far.address;
    let proxy = ca.issue(&Order::server(&["proxy.example.com"]));
    let proxy = serve_tls(
        Speaks::default().config(&proxy),
        move |mut near| async move {
            let mut far = TcpStream::connect(address).await?;
            tokio::io::copy_bidirectional(&mut near, &mut far).await?;
            Ok(())
        },
    )
    .await;
    let options = Arc::new(trusting(&ca));
    let outer = reach_by(&proxy, "proxy.example.com", &options).await;
    let outer = outer.ok().unwrap();
    let inner = timeout(LIMIT, shake(outer.io, "far.example.com", &options)).await;
    let mut inner = inner.expect("an end").ok().unwrap();
    assert_eq!(inner.chain[0].subject, "CN=far.example.com");
    assert!(inner.io.tcp_stream().is_some() && inner.io.local_addr().is_some());
    let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let echoed = async {
        let mut received = Vec::new();
        for part in sent.chunks(50_000) {
            inner.io.write_all(part).await.unwrap();
            inner.io.flush().await.unwrap();
            let mut back = vec![0; part.len()];
            inner.io.read_exact(&mut back).await.unwrap();
            received.extend(back);
        }
        received
    };
    assert!(timeout(LIMIT, echoed).await.expect("an echo") == sent);
}

fn from_file(path: &Path) -> Arc<TlsOptions> {
    Arc::new(TlsOptions {
        ca: Some(SecretSource::File(path.to_owned())),
        ca_only: true,
        ..TlsOptions::default()
    })
}

#[tokio::test]
async fn a_ca_file_is_read_again_when_it_changed_and_a_bad_one_is_not_used() {
    let (old, new) = (Ca::new("Old CA"), Ca::new("New CA"));
    let on_old = server(&old.issue(&Order::server(&["localhost"]))).await;
    let on_new = server(&new.issue(&Order::server(&["localhost"]))).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let options = from_file(&file);
    let write = |text: &str| std::fs::write(&file, text).unwrap();

    // No last good one: the dial says what is wrong.
    let failed = reach_by(&on_old, "localhost", &options).await;
    refused(failed, &["tls.ca: cannot read", "ca.pem", "No such file"]);
    assert!(!tls_files::is_good(&options));

    write(&old.pem());
    let standing = reach_by(&on_old, "localhost", &options).await.ok().unwrap();
    assert!(tls_files::is_good(&options));

    // Replaced: the next dial uses it, the standing connection stays.
    write(&new.pem());
    works(reach_by(&on_new, "localhost", &options).await.ok().unwrap()).await;
    refused(
        reach_by(&on_old, "localhost", &options).await,
        &["nobody here trusts"],
    );
    works(standing).await;

    // Half written: what was good stays.
    write(&old.pem()[..100]);
    works(reach_by(&on_new, "localhost", &options).await.ok().unwrap()).await;
    assert!(!tls_files::is_good(&options));
    std::fs::remove_file(&file).unwrap();
    works(reach_by(&on_new, "localhost", &options).await.ok().unwrap()).await;
    assert!(!tls_files::is_good(&options));

    // By rename, as careful writers do it.
    let aside = directory.path().join("ca.new");
    std::fs::write(&aside, old.pem()).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    works(reach_by(&on_old, "localhost", &options).await.ok().unwrap()).await;
    assert!(tls_files::is_good(&options));
}

#[tokio::test]
async fn a_file_rewritten_within_a_tick_of_the_clock_is_noticed() {
    let issued = [Ca::new("First CA"), Ca::new("Other CA")];
    let servers = [
        server(&issued[0].issue(&Order::server(&["localhost"]))).await,
        server(&issued[1].issue(&Order::server(&["localhost"]))).await,
    ];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let options = from_file(&file);
    for round in 0..6 {
        let now = round % 2;
        std::fs::write(&file, issued[now].pem()).unwrap();
        let secured = reach_by(&servers[now], "localhost", &options).await;
        assert!(secured.is_ok(), "round {round}");
    }
}

#[tokio::test]
async fn dials_at_once_share_one_reading_of_the_files() {
    let ca = Ca::new("Test CA");
    let server = server(&ca.issue(&Order::server(&["localhost"]))).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let options = from_file(&file);
    let configs = futures_util::future::join_all((0..32).map(|_| context::of(&options))).await;
    let first = configs[0].as_ref().unwrap();
    for config in &configs {
        assert!(Arc::ptr_eq(config.as_ref().unwrap(), first));
    }
    works(reach_by(&server, "localhost", &options).await.ok().unwrap()).await;
}

#[tokio::test]
async fn a_self_signed_certificate_of_a_ca_is_good_where_it_is_itself_trusted() {
    let order = |names: &[&str], years| Order {
        is_ca: true,
        years,
        ..Order::server(names)
    };
    let now = order(&["localhost"], (2020, 2090)).self_signed();
    let old = order(&["localhost"], (2001, 2002)).self_signed();
    let trusting = |issued: &Issued| TlsOptions {
        ca: issued.cert_source(),
        ca_only: true,
        ..TlsOptions::default()
    };
    let good = server(&now).await;
    works(reach(&good, "localhost", trusting(&now)).await.unwrap()).await;
    let other = reach(&good, "other.example.com", trusting(&now)).await;
    refused(other, &["not for other.example.com"]);
    let untrusted = reach(&good, "localhost", trusting(&old)).await;
    refused(untrusted, &["self-signed"]);
    let expired = server(&old).await;
    refused(
        reach(&expired, "localhost", trusting(&old)).await,
        &["expired"],
    );
}

/// A server that shows a certificate and signs by another's key.
#[derive(Debug)]
struct Thief(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for Thief {
    fn resolve(
        &self,
        _: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[tokio::test]
async fn whoever_is_trusted_must_hold_the_key_even_if_any_chain_will_do() {
    let ca = Ca::new("Test CA");
    let (shown, held) = (
        ca.issue(&Order::server(&["localhost"])),
        ca.issue(&Order::server(&["localhost"])),
    );
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(held.key.serialize_der().into());
    let key = crate::config::tls::CRYPTO
        .key_provider
        .load_private_key(key);
    let stolen = rustls::sign::CertifiedKey::new(shown.chain.clone(), key.unwrap());
    let stolen = Arc::new(Thief(Arc::new(stolen)));
    let any = TlsOptions {
        insecure_skip_verify: true,
        ..TlsOptions::default()
    };
    for version in [&TLS12, &TLS13] {
        let speaks = Speaks {
            only: Some(version),
            ..Speaks::default()
        };
        let mut config = Arc::unwrap_or_clone(speaks.config(&shown));
        config.cert_resolver = stolen.clone();
        let server = serve_tls(Arc::new(config), echo).await;
        for options in [any.clone(), trusting(&ca)] {
            refused(
                reach(&server, "localhost", options).await,
                &["does not hold the private key of the certificate it shows"],
            );
        }
    }
}

#[tokio::test]
async fn a_session_is_resumed_unless_tickets_are_off() {
    let ca = Ca::new("Test CA");
    let server = server(&ca.issue(&Order::server(&["localhost"]))).await;
    for session_tickets in [true, false] {
        let options = TlsOptions {
            session_tickets,
            ..trusting(&ca)
        };
        let options = Arc::new(options);
        let config = context::of(&options).await.unwrap();
        // The tickets come with the first answer.
        works(reach_by(&server, "localhost", &options).await.unwrap()).await;
        let again = context::of(&options).await.unwrap();
        assert!(Arc::ptr_eq(&config, &again), "the tickets are in it");
        let tcp = TcpStream::connect(server.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        let name = ServerName::try_from("localhost").unwrap();
        let stream = timeout(LIMIT, connector.connect(name, tcp)).await;
        let stream = stream.expect("a handshake").unwrap();
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        assert_eq!(resumed, session_tickets);
    }
}

#[tokio::test]
async fn files_written_anew_with_what_they_held_change_nothing() {
    let ca = Ca::new("Test CA");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let options = from_file(&file);
    std::fs::write(&file, ca.pem()).unwrap();
    let before = context::of(&options).await.unwrap();
    let aside = directory.path().join("ca.new");
    std::fs::write(&aside, ca.pem()).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    let after = context::of(&options).await.unwrap();
    assert!(Arc::ptr_eq(&before, &after), "its session tickets are kept");
}
