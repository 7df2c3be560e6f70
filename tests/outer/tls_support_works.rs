//! The authority, the proxies and the namespaces of these tests, held against programs that are not
//! ours; and our server by TLS, alone and behind the proxies.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::support::*;

/// What `openssl s_client` makes of the server: its verdict on the chain, and all it said.
fn openssl(front: &TlsFront, ca: &Path, more: &[&str]) -> (u32, String) {
    let address = front.address.to_string();
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &address, "-servername", "localhost"])
        .args(["-verify_hostname", "localhost", "-no-CApath", "-no-CAstore"])
        .arg("-CAfile")
        .arg(ca)
        .args(more);
    let mut process = Process::spawn("openssl", &mut command);
    process.feed("");
    process.wait(secs(10.0));
    let said = [process.stdout.texts(), process.stderr.texts()].concat();
    let code = said.iter().find_map(|line| {
        let (_, after) = line.split_once("Verify return code: ")?;
        after.split(' ').next()?.parse().ok()
    });
    (code.unwrap_or(u32::MAX), said.join("\n"))
}

#[test]
fn each_certificate_is_wrong_in_the_way_its_name_says_to_openssl_too() {
    let _machine = shared();
    let (pki, other) = (Pki::new("outer"), Pki::new("other"));
    let peer = OddPeer::upgrading(Manner::default());
    let verdict = |pair: &Pair, ca: &Path| {
        let front = TlsFront::before(peer.address, pair, &Terms::default());
        openssl(&front, ca, &[])
    };
    // X509_V_ERR_*, of which openssl names the first it meets.
    let cases = [
        (pki.leaf(Leaf::Good), 0),
        (pki.leaf(Leaf::ByIntermediate), 0),
        (pki.leaf(Leaf::Expired), 10),
        (pki.leaf(Leaf::NotYetValid), 9),
        (pki.leaf(Leaf::SelfSigned), 18),
        (pki.leaf(Leaf::WithoutIntermediate), 21),
        (pki.leaf_for(Leaf::Good, &["elsewhere.example.com"]), 62),
    ];
    for (pair, expected) in &cases {
        let (code, said) = verdict(pair, &pki.ca());
        assert_eq!(code, *expected, "{}: {said}", pair.cert.display());
    }
    let (code, said) = verdict(&pki.leaf(Leaf::WithRoot), &other.ca());
    assert_eq!(code, 19, "an untrusted root: {said}");
}

#[test]
fn a_front_insists_on_its_terms() {
    let _machine = shared();
    let (pki, other) = (Pki::new("outer"), Pki::new("other"));
    let peer = OddPeer::upgrading(Manner::default());
    let pair = pki.leaf(Leaf::Good);
    for (version, refused) in [(TlsVersion::V1_2, "-tls1_3"), (TlsVersion::V1_3, "-tls1_2")] {
        let terms = Terms {
            version: Some(version),
            ..Terms::default()
        };
        let front = TlsFront::before(peer.address, &pair, &terms);
        assert_eq!(openssl(&front, &pki.ca(), &[]).0, 0);
        front.journal.wait("the version", secs(5.0), |seen| {
            matches!(seen, Seen::Handshake { version: chosen, .. } if *chosen == version)
                .then_some(())
        });
        let (_, said) = openssl(&front, &pki.ca(), &[refused]);
        assert!(said.contains("alert protocol version"), "{said}");
    }

    let terms = Terms {
        client_ca: Some(pki.ca()),
        ..Terms::default()
    };
    let front = TlsFront::before(peer.address, &pair, &terms);
    let (right, wrong) = (pki.leaf(Leaf::Client), other.leaf(Leaf::Client));
    for (client, accepted) in [(None, false), (Some(&wrong), false), (Some(&right), true)] {
        let before = front.journal.len();
        let flags = client.map(|client| {
            let paths = [&client.cert, &client.key].map(|path| path.to_str().unwrap());
            ["-cert", paths[0], "-key", paths[1]]
        });
        openssl(
            &front,
            &pki.ca(),
            flags.as_ref().map_or(&[], |flags| &flags[..]),
        );
        let seen = front
            .journal
            .wait_from(before, "an outcome", secs(5.0), |seen| {
                (*seen != Seen::Accepted).then(|| seen.clone())
            });
        let expected = matches!(
            &seen,
            Seen::Handshake { sni, client_certificate: true, .. } if sni.as_deref() == Some("localhost")
        );
        assert_eq!(expected, accepted, "{seen:?}");
    }

    let terms = Terms {
        stall: true,
        ..Terms::default()
    };
    let front = TlsFront::before(peer.address, &pair, &terms);
    let mut client = TcpStream::connect(front.address).unwrap();
    client.write_all(&[22, 3, 1]).unwrap();
    front.journal.wait("the hello", secs(5.0), |seen| {
        (*seen == Seen::Hello(22)).then_some(())
    });
    client.set_read_timeout(Some(secs(0.3))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "it says nothing");
}

/// The two foreign clients, each held through one exchange and a Close.
fn foreigners_are_echoed(url: &str, ca: &Path) {
    for start in [
        Foreign::node_client_trusting as fn(&str, &Path) -> Foreign,
        Foreign::python_client_trusting,
    ] {
        let mut client = start(url, ca);
        client.event("open", secs(30.0), |_| true);
        client.ping("here");
        client.event("pong", secs(5.0), |_| true);
        client.send("grüße");
        client.event("message", secs(5.0), |event| event["text"] == "grüße");
        client.close(1000, "done");
        assert_eq!(client.event("close", secs(5.0), |_| true)["code"], 1000);
    }
}

/// Our server by TLS on `port`.
fn tls_server(port: u16, pair: &Pair) -> Daemon {
    let files = [&pair.cert, &pair.key].map(|path| path.to_str().unwrap());
    Daemon::server(port, &["--tls-cert", files[0], "--tls-key", files[1]])
}

#[test]
fn our_server_serves_foreign_clients_by_tls_and_by_a_replaced_certificate() {
    let _machine = shared();
    let (pki, other) = (Pki::new("outer"), Pki::new("other"));
    let (pair, port) = (pki.leaf(Leaf::ByIntermediate), free_port());
    let server = tls_server(port, &pair);
    let url = format!("wss://localhost:{port}/echo");
    foreigners_are_echoed(&url, &pki.ca());

    let mut standing = Foreign::node_client_trusting(&url, &pki.ca());
    standing.event("open", secs(30.0), |_| true);
    other.leaf(Leaf::Good).replace(&pair);
    // It is looked at once a second.
    until("the other certificate is served", secs(60.0), || {
        let client = Foreign::node_client_trusting(&url, &other.ca());
        until("it opened, or not", secs(30.0), || {
            match (client.count("open"), client.count("error")) {
                (0, 0) => Err("neither".to_owned()),
                (open, _) => Ok(open == 1),
            }
        })
        .then_some(())
        .ok_or_else(|| "the old one is".to_owned())
    });
    standing.send("still here");
    standing.event("message", secs(5.0), |event| event["text"] == "still here");

    // Half-written: the last good one stays, and the log says so once.
    let whole = std::fs::read(&pair.cert).unwrap();
    std::fs::write(&pair.cert, &whole[..whole.len() / 2]).unwrap();
    let words = "the last good certificate stays in use";
    let told = |line: &Line| line.text_of("message").contains(words).then_some(());
    until("it is told", secs(60.0), || {
        foreigners_are_echoed(&url, &other.ca());
        let told = server.process.stderr.all();
        let told = told
            .iter()
            .filter(|line| line.text_of("message").contains(words));
        (told.count() == 1)
            .then_some(())
            .ok_or_else(|| "not told".to_owned())
    });
    server.process.stderr.wait("a warning", secs(15.0), |line| {
        told(line).filter(|()| line.text_of("level") == "warn")
    });

    // Plain HTTP on the port is turned away without an answer, and is no accept error.
    let plain = get(std::net::SocketAddr::from(([127, 0, 0, 1], port)), "/");
    assert!(plain.is_err(), "{plain:?}");
    server
        .process
        .stderr
        .wait("a debug line", secs(5.0), |line| {
            let said = line.text_of("message") == "no TLS handshake";
            (said && line.text_of("level") == "debug").then_some(())
        });
    let errors = server
        .scrape()
        .value("ws_keepalive_accept_errors_total", &[]);
    assert_eq!(errors, Some(0.0));
}

#[test]
fn a_certificate_without_its_key_or_one_that_cannot_be_used_is_an_error_of_usage() {
    let _machine = shared();
    let pki = Pki::new("outer");
    let pair = pki.leaf(Leaf::Good);
    let files = [&pair.cert, &pair.key].map(|path| path.to_str().unwrap().to_owned());
    let cases: [(&[&str], &str); 4] = [
        (&["--tls-cert", &files[0]], "--tls-key"),
        (&["--tls-key", &files[1]], "--tls-cert"),
        (
            &["--tls-cert", "/nowhere.pem", "--tls-key", &files[1]],
            "cannot read /nowhere.pem",
        ),
        (
            &["--tls-cert", &files[1], "--tls-key", &files[1]],
            "holds no certificate",
        ),
    ];
    for (flags, words) in cases {
        let mut command = program(&["server", "--listen", "127.0.0.1", "--port", "0"]);
        let mut process = Process::spawn("server", command.args(flags));
        assert_eq!(exit_code(process.wait(secs(15.0))), 2, "{flags:?}");
        let said = process.stderr.texts().join("\n");
        assert!(said.contains(words), "{flags:?}: {said}");
    }
}

#[test]
fn foreign_clients_reach_our_server_through_nginx_haproxy_and_caddy() {
    let _machine = shared();
    let pki = Pki::new("outer");
    let (pair, backend) = (pki.leaf(Leaf::Good), free_port());
    let _server = Daemon::server(backend, &[]);
    for start in [Proxy::nginx, Proxy::haproxy, Proxy::caddy] {
        let mut proxy = start(backend, &pair);
        let url = format!("wss://localhost:{}/echo", proxy.port());
        foreigners_are_echoed(&url, &pki.ca());
        proxy.end();
        assert!(TcpStream::connect(proxy.address).is_err());
        proxy.begin();
        foreigners_are_echoed(&url, &pki.ca());
    }
}

/// Sends `bytes` to the proxy, and reads until `enough` or the end.
fn ask(proxy: &Proxy, bytes: &[u8], enough: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy.address).unwrap();
    stream.set_read_timeout(Some(secs(10.0))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    while answer.len() < enough {
        let mut bytes = [0; 1024];
        match stream.read(&mut bytes).unwrap() {
            0 => break,
            n => answer.extend(&bytes[..n]),
        }
    }
    answer
}

#[test]
fn squid_and_microsocks_let_in_whom_they_are_told_to() {
    let _machine = shared();
    let peer = OddPeer::upgrading(Manner::default());
    let login = Squid::Password {
        user: "ursula",
        password: "pass word",
    };
    let [open, closed, refusing] = [Squid::Open, login, Squid::Refusing].map(Proxy::squid);
    let status = |proxy: &Proxy, more: &str| {
        let to = peer.address;
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{more}\r\n");
        let answer = ask(proxy, request.as_bytes(), 12);
        String::from_utf8_lossy(&answer)
            .chars()
            .take(12)
            .collect::<String>()
    };
    // ursula:pass word
    let right = "Proxy-Authorization: Basic dXJzdWxhOnBhc3Mgd29yZA==\r\n";
    let wrong = "Proxy-Authorization: Basic dXJzdWxhOndyb25n\r\n";
    assert_eq!(status(&open, ""), "HTTP/1.1 200");
    assert_eq!(status(&closed, ""), "HTTP/1.1 407");
    assert_eq!(status(&closed, wrong), "HTTP/1.1 407");
    assert_eq!(status(&closed, right), "HTTP/1.1 200");
    assert_eq!(status(&refusing, ""), "HTTP/1.1 403");
    until("the tunnel is logged", secs(5.0), || {
        let log = open.access_log();
        log.contains("CONNECT").then_some(()).ok_or(log)
    });

    let open = Proxy::microsocks(None);
    let closed = Proxy::microsocks(Some(("ursula", "pass word")));
    // RFC 1928: version, number of methods, method; 0 none, 2 user and password.
    assert_eq!(ask(&open, &[5, 1, 0], 2), [5, 0]);
    assert_eq!(ask(&closed, &[5, 1, 2], 2), [5, 2]);
    assert_eq!(ask(&closed, &[5, 1, 0], 2)[..2], [5, 0xff]);
}

#[test]
fn a_namespace_has_its_own_names_a_dead_address_and_a_resolver_that_hangs() {
    let _machine = shared();
    let names = Names {
        hosts: "10.9.0.1 three.example.com\n127.0.0.2 three.example.com",
        hanging_resolver: true,
    };
    let namespace = Namespace::new(&names, DEAD_ADDRESS);
    let found = namespace
        .output("getent", &["ahostsv4", "three.example.com"])
        .unwrap();
    for address in ["10.9.0.1", "127.0.0.2"] {
        assert!(found.contains(address), "{found}");
    }
    let dial = "import socket,sys; socket.create_connection((sys.argv[1], 9), 1)";
    let dial = |address| {
        namespace
            .output("python3", &["-c", dial, address])
            .unwrap_err()
    };
    assert!(dial("10.9.0.1").contains("timed out"));
    assert!(dial("127.0.0.2").contains("refused"));
    let asked = namespace.output("timeout", &["1", "getent", "hosts", "other.example.com"]);
    assert!(asked.unwrap_err().contains("124"), "it was answered");
    // The machine's own names are as they were.
    let outside = std::fs::read_to_string("/etc/hosts").unwrap();
    assert!(!outside.contains("three.example.com"));
}
