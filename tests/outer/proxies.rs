//! Through proxies: those that tunnel, those that refuse, those that hang, and those that terminate
//! TLS before the server.

use std::net::SocketAddr;
use std::path::Path;

use crate::support::*;

/// Pings and dials come often, and a busy machine has time for each.
const HASTY: &str = "[defaults]\nping_interval = \"200ms\"\npong_timeout = \"5s\"\nproxy_timeout = \"10s\"\n\
    reconnect = { initial = \"200ms\", max = \"400ms\" }\n";

fn target(name: &str, url: &str, keys: &str) -> String {
    format!("[[target]]\nname = \"{name}\"\nurl = \"{url}\"\n{keys}\n")
}

fn via(proxy: &str) -> String {
    format!("proxy = \"{proxy}\"")
}

/// A peer by ws://, and the same by wss:// with a certificate of its own authority.
struct Both {
    pki: Pki,
    peer: OddPeer,
    front: TlsFront,
}

impl Both {
    fn new() -> Self {
        let pki = Pki::new("outer");
        let peer = OddPeer::upgrading(Manner::default());
        let front = TlsFront::before(peer.address, &pki.leaf(Leaf::Good), &Terms::default());
        Self { pki, peer, front }
    }

    /// Two targets through `proxy`: `NAME-ws` and `NAME-wss`.
    fn targets(&self, name: &str, proxy: &str) -> String {
        let plain = format!("ws://localhost:{}/ws", self.peer.address.port());
        let tls = format!("{}\n{}", via(proxy), trusting(&self.pki.ca()));
        target(&format!("{name}-ws"), &plain, &via(proxy))
            + &target(&format!("{name}-wss"), &self.front.url(), &tls)
    }
}

fn trusting(ca: &Path) -> String {
    format!("tls = {{ ca = {ca:?} }}")
}

fn held(daemon: &Daemon, name: &str) {
    daemon.scrape_until(
        &format!("{name} is held for 3 pings"),
        secs(30.0),
        |scrape| {
            scrape.of_target("received_pong_total", name) >= Some(3.0)
                && scrape.of_target("established", name) == Some(1.0)
        },
    );
    let connects = daemon
        .scrape()
        .of_target("ws_keepalive_connects_total", name);
    assert_eq!(connects, Some(1.0), "{name}");
}

/// The message of the last failure, once its phase and the message in lower case are as expected: of a
/// machine that is busy the first dials may fail otherwise.
fn failed(daemon: &Daemon, name: &str, is_it: impl Fn(&str, &str) -> bool) -> String {
    until(&format!("{name} fails as expected"), secs(30.0), || {
        let entry = daemon.api(name)?;
        let error = &entry["last_error"];
        let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
        let (phase, message) = (text("phase"), text("message"));
        match is_it(&phase, &message.to_lowercase()) {
            true => Ok(message),
            false => Err(entry.to_string()),
        }
    })
}

#[test]
fn ws_and_wss_are_held_through_squid_with_and_without_a_password() {
    let _machine = shared();
    let both = Both::new();
    let login = Squid::Password {
        user: "ursula",
        password: "s3sam open",
    };
    let (open, closed) = (Proxy::squid(Squid::Open), Proxy::squid(login));
    let text = HASTY.to_owned()
        + &both.targets("open", &format!("http://{}", open.address))
        + &both.targets(
            "login",
            &format!("http://ursula:s3sam%20open@{}", closed.address),
        );
    let daemon = Daemon::run(&text);
    for name in ["open-ws", "open-wss", "login-ws", "login-wss"] {
        held(&daemon, name);
    }
    both.front
        .journal
        .wait("the target's name", secs(15.0), |seen| {
            matches!(seen, Seen::Handshake { sni, .. } if sni.as_deref() == Some("localhost"))
                .then_some(())
        });
    // It writes a tunnel down when it ends.
    daemon.dir.overwrite(&daemon.text(""));
    until("squid wrote the tunnels down", secs(15.0), || {
        let log = open.access_log();
        let tunnels = log.matches("CONNECT localhost:").count();
        (tunnels >= 2).then_some(()).ok_or(log)
    });
}

#[test]
fn a_proxy_that_refuses_hangs_or_speaks_nonsense_is_named_with_what_it_said() {
    let _machine = shared();
    let both = Both::new();
    let login = Squid::Password {
        user: "ursula",
        password: "right",
    };
    let (refusing, closed) = (Proxy::squid(Squid::Refusing), Proxy::squid(login));
    let (open, socks) = (
        Proxy::squid(Squid::Open),
        Proxy::microsocks(Some(("ursula", "right"))),
    );
    let text = |text: &str| FakeProxy::start(Answer::Text(text.to_owned()));
    let bad_gateway = text("HTTP/1.1 502 Upstream Is Gone\r\nContent-Length: 5\r\n\r\nsorry");
    let garbage = text("220 mail.example.com ESMTP\r\n");
    let stalled = FakeProxy::start(Answer::Stall);
    let closing = text("");
    let nobody = free_port();
    let at =
        |scheme: &str, login: &str, address: SocketAddr| format!("{scheme}://{login}{address}");
    let dead = format!("wss://localhost:{}/ws", free_port());
    let own = both.front.url();
    let cases: Vec<(&str, String, &str, &[&str])> = vec![
        (
            "refused",
            at("http", "", refusing.address),
            &own,
            &["403", "Forbidden"],
        ),
        (
            "no-password",
            at("http", "", closed.address),
            &own,
            &["407", "Proxy Authentication Required"],
        ),
        (
            "wrong-password",
            at("http", "ursula:wr0ng@", closed.address),
            &own,
            &["407"],
        ),
        (
            "bad-gateway",
            bad_gateway.url(),
            &own,
            &["502", "Upstream Is Gone"],
        ),
        // squid answers 503 for a target that refuses it.
        ("dead-target", at("http", "", open.address), &dead, &["503"]),
        ("garbage", garbage.url(), &own, &["HTTP"]),
        ("stalled", stalled.url(), &own, &["proxy_timeout"]),
        ("closing", closing.url(), &own, &["closed"]),
        (
            "nobody",
            format!("http://127.0.0.1:{nobody}"),
            &own,
            &["refused"],
        ),
        (
            "socks-login",
            at("socks5", "ursula:wr0ng@", socks.address),
            &own,
            &["user", "password"],
        ),
        (
            "socks-none",
            at("socks5h", "", socks.address),
            &own,
            &["user", "password"],
        ),
        (
            "socks-dead",
            at("socks5", "ursula:right@", socks.address),
            &dead,
            &["refused"],
        ),
        (
            "socks-http",
            at("socks5", "", refusing.address),
            &own,
            &["SOCKS"],
        ),
    ];
    let targets = cases.iter().map(|(name, proxy, url, _)| {
        let mut keys = format!("{}\n{}", via(proxy), trusting(&both.pki.ca()));
        if *name == "stalled" {
            keys += "\nproxy_timeout = \"700ms\"";
        }
        target(name, url, &keys)
    });
    let daemon = Daemon::run(&(HASTY.to_owned() + &targets.collect::<String>()));
    let mut wrong = Vec::new();
    for (name, proxy, _, words) in &cases {
        // Reaching the proxy is TCP's part of the way.
        let expected = if *name == "nobody" { "tcp" } else { "proxy" };
        let message = failed(&daemon, name, |phase, message| {
            let has = |word: &&str| message.contains(&word.to_lowercase());
            phase == expected && words.iter().all(has)
        });
        let mut check = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{name}: {what}: {message:?}"));
            }
        };
        let address = proxy.rsplit(['@', '/']).next().unwrap();
        check(message.contains(address), "which proxy");
        check(
            message.to_lowercase().contains("proxy"),
            "that it is the proxy",
        );
        for secret in ["wr0ng", "ursula"] {
            check(!message.contains(secret), "a secret");
        }
        let failures = [("target", *name), ("phase", expected)];
        let failures = daemon
            .scrape()
            .value("ws_keepalive_connect_failures_total", &failures);
        check(failures >= Some(1.0), "the count");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(both.front.accepted(), 0, "none of them reached the server");
    // The stalled ones must not hold up the end.
    let mut process = daemon.process;
    process.signal(Signal::TERM);
    assert_eq!(exit_code(process.wait(secs(8.0))), 0);
}

#[test]
fn ws_and_wss_are_held_through_socks5_and_socks5h_with_and_without_a_password() {
    let _machine = shared();
    let both = Both::new();
    let open = Proxy::microsocks(None);
    let closed = Proxy::microsocks(Some(("ursula", "s3sam")));
    let mut text = HASTY.to_owned();
    let mut names = Vec::new();
    for scheme in ["socks5", "socks5h"] {
        text += &both.targets(
            &format!("{scheme}-open"),
            &format!("{scheme}://{}", open.address),
        );
        let login = format!("{scheme}://ursula:s3sam@{}", closed.address);
        text += &both.targets(&format!("{scheme}-login"), &login);
        for kind in ["open-ws", "open-wss", "login-ws", "login-wss"] {
            names.push(format!("{scheme}-{kind}"));
        }
    }
    let daemon = Daemon::run(&text);
    for name in &names {
        held(&daemon, name);
    }
}

#[test]
fn through_a_proxy_host_and_sni_are_the_targets_and_resolve_says_where_it_goes() {
    let _machine = shared();
    let pki = Pki::new("outer");
    let peer = OddPeer::upgrading(Manner::default());
    let named = pki.leaf_for(Leaf::Good, &["edge.example.com"]);
    let front = TlsFront::before(peer.address, &named, &Terms::default());
    let own = pki.leaf(Leaf::SelfSigned);
    let unverified = TlsFront::before(peer.address, &own, &Terms::default());
    let proxy = FakeProxy::start(Answer::Tunnel(front.address));
    let careless = FakeProxy::start(Answer::Tunnel(unverified.address));
    let trusting = trusting(&pki.ca());
    // No name is looked up here: nothing of example.com may be asked of any resolver.
    let text = HASTY.to_owned()
        + &target(
            "verified",
            "wss://edge.example.com/ws",
            &format!("{}\n{trusting}", via(&proxy.url())),
        )
        + &target(
            "careless",
            "wss://edge.example.com/careless",
            &format!(
                "{}\ntls = {{ insecure_skip_verify = true }}",
                via(&careless.url())
            ),
        )
        + &target(
            "placed",
            "wss://edge.example.com/placed",
            &format!(
                "{}\n{trusting}\nresolve = [\"10.0.0.7:8443\"]",
                via(&proxy.url())
            ),
        );
    let daemon = Daemon::run(&text);
    for name in ["verified", "careless", "placed"] {
        held(&daemon, name);
    }
    for front in [&front, &unverified] {
        front.journal.wait("the SNI", secs(15.0), |seen| {
            matches!(seen, Seen::Handshake { sni, .. } if sni.as_deref() == Some("edge.example.com"))
                .then_some(())
        });
    }
    let asked = |proxy: &FakeProxy, line: &str| {
        proxy.requests.wait(line, secs(15.0), |head| {
            head.starts_with(line).then_some(())
        });
    };
    asked(&proxy, "CONNECT edge.example.com:443 HTTP/1.1\r\n");
    asked(&careless, "CONNECT edge.example.com:443 HTTP/1.1\r\n");
    asked(&proxy, "CONNECT 10.0.0.7:8443 HTTP/1.1\r\n");
    let hosts = peer.journal.all();
    let hosts: Vec<&str> = hosts
        .iter()
        .filter_map(|entry| match &entry.what {
            Happened::Request(head) => head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("host").then_some(value)
            }),
            _ => None,
        })
        .collect();
    assert_eq!(hosts, ["edge.example.com"; 3]);
}

#[test]
fn an_https_proxy_is_verified_by_the_targets_ca_or_by_one_of_its_own() {
    let _machine = shared();
    let both = Both::new();
    let other = Pki::new("proxy's");
    let squid = Proxy::squid(Squid::Open);
    let same = TlsFront::before(squid.address, &both.pki.leaf(Leaf::Good), &Terms::default());
    let apart = TlsFront::before(squid.address, &other.leaf(Leaf::Good), &Terms::default());
    let at = |front: &TlsFront| via(&format!("https://localhost:{}", front.address.port()));
    let tls = trusting(&both.pki.ca());
    let own = format!("proxy_tls = {{ ca = {:?} }}", other.ca());
    let url = both.front.url();
    let text = HASTY.to_owned()
        + &target("same-ca", &url, &format!("{}\n{tls}", at(&same)))
        + &target("own-ca", &url, &format!("{}\n{tls}\n{own}", at(&apart)))
        + &target("untrusted", &url, &format!("{}\n{tls}", at(&apart)));
    let daemon = Daemon::run(&text);
    held(&daemon, "same-ca");
    held(&daemon, "own-ca");
    failed(&daemon, "untrusted", |phase, message| {
        let verified = message.contains("certificate") || message.contains("root");
        ["proxy", "tls"].contains(&phase) && verified
    });
}

#[test]
fn the_environments_proxies_are_taken_only_where_asked_and_not_for_no_proxy() {
    let _machine = shared();
    let both = Both::new();
    let for_ws = FakeProxy::start(Answer::Tunnel(both.peer.address));
    let for_wss = FakeProxy::start(Answer::Tunnel(both.front.address));
    let (plain, tls) = (both.peer.address.port(), both.front.address.port());
    let trusting = trusting(&both.pki.ca());
    let env = via("env");
    let text = HASTY.to_owned()
        + &target("ws", &format!("ws://localhost:{plain}/by-env"), &env)
        + &target(
            "wss",
            &format!("wss://localhost:{tls}/by-env"),
            &format!("{env}\n{trusting}"),
        )
        + &target(
            "excepted",
            &format!("ws://127.0.0.1:{plain}/excepted"),
            &env,
        )
        + &target("unasked", &format!("ws://localhost:{plain}/unasked"), "")
        + &target(
            "none",
            &format!("ws://localhost:{plain}/none"),
            &via("none"),
        );
    let daemon = Daemon::run_with_variables(
        &text,
        &[
            ("HTTP_PROXY", &for_ws.url()),
            ("HTTPS_PROXY", &for_wss.url()),
            ("NO_PROXY", "127.0.0.0/8,internal.example.com"),
        ],
    );
    for name in ["ws", "wss", "excepted", "unasked", "none"] {
        held(&daemon, name);
    }
    let lines = |proxy: &FakeProxy| -> Vec<String> {
        let heads = proxy.requests.all();
        heads
            .iter()
            .filter_map(|head| head.lines().next().map(str::to_owned))
            .collect()
    };
    assert_eq!(
        lines(&for_ws),
        [format!("CONNECT localhost:{plain} HTTP/1.1")]
    );
    assert_eq!(
        lines(&for_wss),
        [format!("CONNECT localhost:{tls} HTTP/1.1")]
    );
}

#[test]
fn behind_nginx_haproxy_and_caddy_a_stopped_proxy_is_a_loss_with_evidence_and_comes_back() {
    let _machine = shared();
    let pki = Pki::new("outer");
    let (pair, backend) = (pki.leaf(Leaf::Good), free_port());
    let _server = Daemon::server(backend, &[]);
    let mut proxies =
        [Proxy::nginx, Proxy::haproxy, Proxy::caddy].map(|start| start(backend, &pair));
    let kinds = ["nginx", "haproxy", "caddy"];
    let mut text = HASTY.to_owned();
    for (kind, proxy) in kinds.iter().zip(&proxies) {
        let plain = format!("ws://localhost:{}/ws", proxy.plain_port());
        let tls = format!("wss://localhost:{}/ws", proxy.port());
        text += &target(&format!("{kind}-ws"), &plain, "");
        text += &target(&format!("{kind}-wss"), &tls, &trusting(&pki.ca()));
    }
    let daemon = Daemon::run(&text);
    let names: Vec<String> = kinds
        .iter()
        .flat_map(|kind| [format!("{kind}-ws"), format!("{kind}-wss")])
        .collect();
    for name in &names {
        held(&daemon, name);
    }
    for proxy in &mut proxies {
        proxy.end();
    }
    for name in &names {
        let end = until(&format!("{name} is lost"), secs(15.0), || {
            let entry = daemon.api(name)?;
            let end = entry["ends"][0].clone();
            if end.is_null() {
                Err(entry.to_string())
            } else {
                Ok(end)
            }
        });
        let cause = end["cause"].as_str().unwrap_or_default();
        // Caddy says goodbye; the others end TCP, with or without a reset. Caddy puts its Close into
        // both directions as it stops, whatever passes there: a ping cut in two makes the server
        // behind it complain, and that complaint may come first.
        let known = ["fin", "reset", "closed_going_away", "closed_normal"];
        let by_the_server = name.starts_with("caddy") && end["received"]["code"] == 1002;
        assert!(known.contains(&cause) || by_the_server, "{name}: {end}");
        assert_eq!(end["initiator"], "peer", "{name}: {end}");
        assert!(
            end["peer"]
                .as_str()
                .is_some_and(|peer| peer.contains("127.0.0.1:")),
            "{end}"
        );
        assert_eq!(
            end["tls"].is_object(),
            name.ends_with("-wss"),
            "{name}: {end}"
        );
        daemon
            .process
            .stderr
            .wait("a sentence about it", secs(15.0), |line| {
                let said = line.text_of("message");
                (said.contains(&format!("{name} lost: ")) && line.text_of("level") == "warn")
                    .then_some(())
            });
    }
    for proxy in &mut proxies {
        proxy.begin();
    }
    for name in &names {
        daemon.scrape_until(&format!("{name} is back"), secs(30.0), |scrape| {
            scrape.of_target("ws_keepalive_connects_total", name) >= Some(2.0)
                && scrape.of_target("established", name) == Some(1.0)
        });
    }
}
