//! TLS held by the daemon: each fault has its own phase and its own words, what is right stays, and
//! files are replaced under standing connections.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::*;

/// Dials are tried again soon. The silence that ends a connection is a long one: none is tested here.
const HASTY: &str = "[defaults]\nping_interval = \"200ms\"\npong_timeout = \"5s\"\n\
    upgrade_timeout = \"2s\"\nreconnect = { initial = \"200ms\", max = \"400ms\" }\n";

fn target(name: &str, url: &str, keys: &str) -> String {
    format!("[[target]]\nname = \"{name}\"\nurl = \"{url}\"\n{keys}\n")
}

fn trusting(ca: &Path) -> String {
    format!("tls = {{ ca = {ca:?}, ca_only = true }}")
}

/// A dial that must fail.
struct Fault {
    name: &'static str,
    url: String,
    keys: String,
    phase: &'static str,
    /// All of them in the message, case aside.
    words: &'static [&'static str],
    not_after: Option<f64>,
}

/// What the dials of `fault` say once they fail as they must, case aside. All are dialed at once, so
/// that the first of them may fail of a busy machine.
fn failed(daemon: &Daemon, fault: &Fault) -> String {
    let words: Vec<String> = fault.words.iter().map(|word| word.to_lowercase()).collect();
    let what = format!("{} fails in {} with {words:?}", fault.name, fault.phase);
    until(&what, secs(30.0), || {
        let entry = daemon.api(fault.name)?;
        let error = &entry["last_error"];
        let message = error["message"].as_str().unwrap_or_default().to_lowercase();
        let all = words.iter().all(|word| message.contains(word));
        if all && error["phase"] == fault.phase {
            Ok(message)
        } else {
            Err(entry.to_string())
        }
    })
}

/// The faults whose chain is refused, each behind a front of its own.
fn chain_faults(peer: &OddPeer, pki: &Pki, other: &Pki) -> (Vec<TlsFront>, Vec<Fault>) {
    let mut fronts = Vec::new();
    let mut faults = Vec::new();
    let mut fault = |name, pair: &Pair, ca: &Path, words, not_after| {
        let front = TlsFront::before(peer.address, pair, &Terms::default());
        faults.push(Fault {
            name,
            url: front.url(),
            keys: trusting(ca),
            phase: "tls",
            words,
            not_after: Some(not_after),
        });
        fronts.push(front);
    };
    let ca = pki.ca();
    let elsewhere = pki.leaf_for(Leaf::Good, &["elsewhere.example.com", "also.example.com"]);
    let names = &["localhost", "elsewhere.example.com", "also.example.com"];
    fault("wrong-name", &elsewhere, &ca, names, NOT_AFTER);
    let expired = pki.leaf(Leaf::Expired);
    fault(
        "expired",
        &expired,
        &ca,
        &["expired", "2020-06-01"],
        EXPIRED_AT,
    );
    let early = pki.leaf(Leaf::NotYetValid);
    fault(
        "not-yet",
        &early,
        &ca,
        &["not", "valid", "2039-01-01"],
        NOT_AFTER,
    );
    let own = pki.leaf(Leaf::SelfSigned);
    fault("self-signed", &own, &ca, &["self-signed"], NOT_AFTER);
    let alone = pki.leaf(Leaf::WithoutIntermediate);
    fault("no-intermediate", &alone, &ca, &["intermediate"], NOT_AFTER);
    let rooted = pki.leaf(Leaf::WithRoot);
    fault("untrusted-root", &rooted, &other.ca(), &["root"], NOT_AFTER);
    (fronts, faults)
}

/// The faults of another kind than the chain's.
fn other_faults(peer: &OddPeer, pki: &Pki, other: &Pki) -> (Vec<TlsFront>, Vec<Fault>) {
    let (pair, ca) = (pki.leaf(Leaf::Good), pki.ca());
    let mut fronts = Vec::new();
    let mut front = |terms: Terms| {
        let front = TlsFront::before(peer.address, &pair, &terms);
        let url = front.url();
        fronts.push(front);
        url
    };
    let version = |version| Terms {
        version: Some(version),
        ..Terms::default()
    };
    let asking = |version| Terms {
        version: Some(version),
        client_ca: Some(pki.ca()),
        ..Terms::default()
    };
    let stall = Terms {
        stall: true,
        ..Terms::default()
    };
    let wrong = other.leaf(Leaf::Client);
    let with = |more: &str| format!("tls = {{ ca = {ca:?}, ca_only = true, {more} }}");
    let wrong = with(&format!("cert = {:?}, key = {:?}", wrong.cert, wrong.key));
    let fault = |name, url, keys, phase, words| Fault {
        name,
        url,
        keys,
        phase,
        words,
        not_after: None,
    };
    const CLIENT: &[&str] = &["client certificate"];
    let (v12, v13) = (TlsVersion::V1_2, TlsVersion::V1_3);
    let faults = vec![
        fault(
            "absent-12",
            front(asking(v12)),
            trusting(&ca),
            "tls",
            CLIENT,
        ),
        fault(
            "absent-13",
            front(asking(v13)),
            trusting(&ca),
            "tls",
            CLIENT,
        ),
        fault(
            "refused-12",
            front(asking(v12)),
            wrong.clone(),
            "tls",
            CLIENT,
        ),
        fault("refused-13", front(asking(v13)), wrong, "tls", CLIENT),
        fault(
            "too-old",
            front(version(v12)),
            with("min_version = \"1.3\""),
            "tls",
            &["version"],
        ),
        fault(
            "too-new",
            front(version(v13)),
            with("max_version = \"1.2\""),
            "tls",
            &["version"],
        ),
        fault(
            "stall",
            front(stall),
            trusting(&ca) + "\ntls_timeout = \"700ms\"",
            "tls",
            &["tls_timeout"],
        ),
        fault(
            "tls-peer",
            front(Terms::default()).replace("wss://", "ws://"),
            String::new(),
            "upgrade",
            &["TLS", "wss://"],
        ),
    ];
    (fronts, faults)
}

#[test]
fn each_fault_of_tls_has_its_own_phase_and_words_and_shows_when_the_certificate_ends() {
    let _machine = shared();
    let (pki, other) = (Pki::new("outer"), Pki::new("other"));
    let peer = OddPeer::upgrading(Manner::default());
    let (_fronts, mut faults) = chain_faults(&peer, &pki, &other);
    let (_others, others) = other_faults(&peer, &pki, &other);
    faults.extend(others);
    // nginx answers TLS on its plain port, and HTTP on its TLS port, with a 400 in plain HTTP.
    let nginx = Proxy::nginx(peer.address.port(), &pki.leaf(Leaf::Good));
    let (tls_port, plain_port) = (nginx.port(), nginx.plain_port());
    faults.push(Fault {
        name: "tls-proxy",
        url: format!("ws://localhost:{tls_port}/ws"),
        keys: String::new(),
        phase: "upgrade",
        words: &["400", "wss://"],
        not_after: None,
    });
    faults.push(Fault {
        name: "plain-peer",
        url: format!("wss://localhost:{plain_port}/ws"),
        keys: trusting(&pki.ca()),
        phase: "tls",
        words: &["plain HTTP", "ws://", "wss://"],
        not_after: None,
    });

    let targets = faults
        .iter()
        .map(|fault| target(fault.name, &fault.url, &fault.keys));
    let daemon = Daemon::run(&(HASTY.to_owned() + &targets.collect::<String>()));
    let mut said = BTreeMap::new();
    for fault in &faults {
        let message = failed(&daemon, fault);
        assert!(!message.contains('\n'), "{}: {message:?}", fault.name);
        // What is only the place must not make two messages differ.
        let words: String = message.chars().filter(|c| !c.is_ascii_digit()).collect();
        said.insert(fault.name, words);
    }
    for (name, words) in &said {
        let kind = |name: &str| {
            name.trim_end_matches("-12")
                .trim_end_matches("-13")
                .to_owned()
        };
        let same = said
            .iter()
            .find(|(other, their)| kind(other) != kind(name) && *their == words);
        assert!(same.is_none(), "{name} and {same:?} say the same");
    }
    let scrape = daemon.scrape();
    for fault in &faults {
        let phase = [("target", fault.name), ("phase", fault.phase)];
        let failures = scrape.value("ws_keepalive_connect_failures_total", &phase);
        assert!(failures >= Some(1.0), "{}: {failures:?}", fault.name);
        assert_eq!(scrape.of_target("established", fault.name), Some(0.0));
        if let Some(expected) = fault.not_after {
            let metric = "ws_keepalive_tls_certificate_not_after_seconds";
            assert_eq!(
                scrape.of_target(metric, fault.name),
                Some(expected),
                "{}",
                fault.name
            );
        }
    }
}

#[test]
fn what_is_right_is_established_and_tells_its_version_and_cipher() {
    let _machine = shared();
    let pki = Pki::new("outer");
    let peer = OddPeer::upgrading(Manner::default());
    let ca = pki.ca();
    let client = pki.leaf(Leaf::Client);
    let good = pki.leaf(Leaf::Good);
    let elsewhere = pki.leaf_for(Leaf::Good, &["elsewhere.example.com"]);
    let asking = Terms {
        client_ca: Some(pki.ca()),
        ..Terms::default()
    };
    let only = |version| Terms {
        version: Some(version),
        ..Terms::default()
    };
    let with = |more: &str| format!("tls = {{ ca = {ca:?}, {more} }}");
    let identity = format!("cert = {:?}, key = {:?}", client.cert, client.key);
    let cases = [
        ("plain-ca", &good, Terms::default(), trusting(&ca), "1.3"),
        (
            "by-intermediate",
            &pki.leaf(Leaf::ByIntermediate),
            Terms::default(),
            trusting(&ca),
            "1.3",
        ),
        (
            "only-12",
            &good,
            only(TlsVersion::V1_2),
            trusting(&ca),
            "1.2",
        ),
        (
            "only-13",
            &good,
            only(TlsVersion::V1_3),
            trusting(&ca),
            "1.3",
        ),
        (
            "held-to-12",
            &good,
            Terms::default(),
            with("max_version = \"1.2\""),
            "1.2",
        ),
        ("identified", &good, asking, with(&identity), "1.3"),
        (
            "other-name",
            &elsewhere,
            Terms::default(),
            with("server_name = \"elsewhere.example.com\""),
            "1.3",
        ),
        (
            "unverified",
            &pki.leaf(Leaf::SelfSigned),
            Terms::default(),
            "tls = { insecure_skip_verify = true }".to_owned(),
            "1.3",
        ),
    ];
    let mut text = HASTY.to_owned();
    let mut fronts = Vec::new();
    for (name, pair, terms, keys, version) in &cases {
        let front = TlsFront::before(peer.address, pair, terms);
        text += &target(name, &front.url(), keys);
        fronts.push((*name, *version, front));
    }
    let daemon = Daemon::run(&text);
    for (name, version, front) in &fronts {
        daemon.established(name, secs(10.0));
        let entry = daemon.api(name).unwrap();
        let tls = &entry["tls"];
        let told = tls["version"].as_str().unwrap_or_default();
        assert!(told.contains(version), "{name}: {tls}");
        let cipher = tls["cipher"].as_str().unwrap_or_default();
        assert!(
            cipher.contains("AES") || cipher.contains("CHACHA20"),
            "{name}: {tls}"
        );
        let not_after = tls["not_after"].as_str().unwrap_or_default();
        assert!(
            not_after.starts_with("2040-01-01T00:00:00"),
            "{name}: {tls}"
        );
        let expected_name = if *name == "other-name" {
            "elsewhere.example.com"
        } else {
            "localhost"
        };
        front
            .journal
            .wait("its handshake", secs(5.0), |seen| match seen {
                Seen::Handshake {
                    sni,
                    alpn,
                    client_certificate,
                    ..
                } => {
                    assert_eq!(sni.as_deref(), Some(expected_name), "{name}");
                    assert_eq!(alpn.as_deref(), Some("http/1.1"), "{name}");
                    assert_eq!(*client_certificate, *name == "identified", "{name}");
                    Some(())
                }
                _ => None,
            });
        let metric = "ws_keepalive_tls_certificate_not_after_seconds";
        assert_eq!(
            daemon.scrape().of_target(metric, name),
            Some(NOT_AFTER),
            "{name}"
        );
    }
    // Loud, and once.
    let loud = daemon.process.stderr.all();
    let loud = loud.iter().filter(|line| {
        line.text_of("level") == "warn" && line.text.contains("insecure_skip_verify")
    });
    assert_eq!(loud.count(), 1);
}

/// The server's certificate, and the CA file of those who dial it.
struct Rotating {
    pki: [Pki; 2],
    pair: Pair,
    ca: std::path::PathBuf,
    port: u16,
    server: Daemon,
}

impl Rotating {
    fn new() -> Self {
        let pki = [Pki::new("first"), Pki::new("second")];
        let pair = pki[0].leaf(Leaf::Good);
        let ca = pki[0].path().join("watched-ca.pem");
        std::fs::copy(pki[0].ca(), &ca).unwrap();
        let port = free_port();
        let server = Self::serve(port, &pair);
        Self {
            pki,
            pair,
            ca,
            port,
            server,
        }
    }

    fn serve(port: u16, pair: &Pair) -> Daemon {
        let files = [&pair.cert, &pair.key].map(|path| path.to_str().unwrap());
        Daemon::server(port, &["--tls-cert", files[0], "--tls-key", files[1]])
    }

    fn target(&self, name: &str) -> String {
        target(
            name,
            &format!("wss://localhost:{}/ws", self.port),
            &trusting(&self.ca),
        )
    }

    fn write_ca(&self, text: &[u8]) {
        let beside = self.ca.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, &self.ca).unwrap();
    }
}

#[test]
fn a_replaced_ca_is_used_by_the_next_dial_and_touches_no_connection_that_stands() {
    let _machine = shared();
    let rotating = Rotating::new();
    let first = HASTY.to_owned() + &rotating.target("early");
    let daemon = Daemon::run(&first);
    daemon.established("early", secs(10.0));
    let start = "ws_keepalive_connection_start_time_seconds";
    let before = daemon.scrape();
    let began = before.of_target(start, "early");
    assert!(began > Some(0.0));

    rotating.pki[1].leaf(Leaf::Good).replace(&rotating.pair);
    rotating.write_ca(&std::fs::read(rotating.pki[1].ca()).unwrap());
    daemon
        .dir
        .overwrite(&daemon.text(&(first + &rotating.target("late"))));
    daemon.established("late", secs(15.0));
    let pongs = before
        .of_target("received_pong_total", "early")
        .unwrap_or_default();
    let after = daemon.scrape_until("early is still pinged", secs(10.0), |scrape| {
        scrape.of_target("received_pong_total", "early") >= Some(pongs + 3.0)
    });
    assert_eq!(after.of_target(start, "early"), began);
    assert_eq!(
        after.of_target("ws_keepalive_connects_total", "early"),
        Some(1.0)
    );
    assert_eq!(
        after.of_target("ws_keepalive_disconnects_total", "early"),
        Some(0.0)
    );
    let metric = "ws_keepalive_tls_files_last_reload_successful";
    assert_eq!(after.value(metric, &[]), Some(1.0));
}

#[test]
fn a_half_written_ca_keeps_the_last_good_one_and_shows_in_the_metric() {
    let _machine = shared();
    let mut rotating = Rotating::new();
    let daemon = Daemon::run(&(HASTY.to_owned() + &rotating.target("held")));
    daemon.established("held", secs(10.0));
    let metric = "ws_keepalive_tls_files_last_reload_successful";
    let is = |value: f64| move |scrape: &Scrape| scrape.value(metric, &[]) == Some(value);
    daemon.scrape_until("the files are good", secs(5.0), is(1.0));

    let whole = std::fs::read(rotating.pki[0].ca()).unwrap();
    rotating.write_ca(&whole[..whole.len() / 2]);
    // The next dial must not fail for it.
    rotating.server.process.signal(Signal::KILL);
    rotating.server.process.wait(secs(5.0));
    rotating.server = Rotating::serve(rotating.port, &rotating.pair);
    daemon.scrape_until("it is back by the last good one", secs(15.0), |scrape| {
        scrape.of_target("ws_keepalive_connects_total", "held") >= Some(2.0)
            && scrape.of_target("established", "held") == Some(1.0)
    });
    daemon.scrape_until("the files are bad", secs(10.0), is(0.0));
    let file = rotating.ca.display().to_string();
    daemon
        .process
        .stderr
        .wait("a warning names the file", secs(5.0), |line| {
            (line.text_of("level") == "warn" && line.text.contains(&file)).then_some(())
        });

    rotating.write_ca(&whole);
    rotating.server.process.signal(Signal::KILL);
    rotating.server.process.wait(secs(5.0));
    rotating.server = Rotating::serve(rotating.port, &rotating.pair);
    daemon.scrape_until("the files are good again", secs(15.0), is(1.0));
    daemon.established("held", secs(10.0));
}
