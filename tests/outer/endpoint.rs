//! The metrics listener as operators guard it: TLS, client certificates, passwords; and scrapes of
//! some targets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use serde_json::Value;

use crate::support::*;

/// A certificate of the server's, one of a client's, and the hash of a password.
struct Guard {
    pki: Pki,
    server: Pair,
    client: Pair,
    hash: String,
}

impl Guard {
    fn new() -> Self {
        let pki = Pki::new("metrics");
        Self {
            server: pki.leaf(Leaf::Good),
            client: pki.leaf_for(Leaf::Client, &["prometheus.example.com"]),
            pki,
            hash: bcrypt::hash("s3cret", 10).unwrap(),
        }
    }

    /// Tables for the end of a file's `[metrics]`.
    fn tables(&self) -> String {
        format!(
            "[metrics.tls_server_config]\ncert_file = {:?}\nkey_file = {:?}\n\
             client_auth_type = \"RequireAndVerifyClientCert\"\nclient_ca_file = {:?}\n\
             client_allowed_sans = [\"prometheus.example.com\"]\n\
             [metrics.http_server_config]\nheaders = {{ X-Content-Type-Options = \"nosniff\" }}\n\
             [metrics.basic_auth_users]\nprometheus = \"{}\"\n",
            self.server.cert,
            self.server.key,
            self.pki.ca(),
            self.hash
        )
    }

    fn keys(&self, address: SocketAddr) -> Keys {
        Keys {
            address,
            ca: self.pki.ca(),
            shown: Some(self.client.clone()),
            password: Some("prometheus:s3cret".to_owned()),
        }
    }

    fn run(&self, targets: &str) -> Daemon {
        let text = format!("{}{targets}", self.tables());
        Daemon::run_guarded(&text, |address| self.keys(address))
    }
}

fn two_targets() -> (String, [OddPeer; 2]) {
    let peers = [(); 2].map(|()| OddPeer::upgrading(Manner::default()));
    let [one, two] = peers.each_ref().map(OddPeer::url);
    let targets = format!(
        "[defaults]\nping_interval = \"200ms\"\n\
         [[target]]\nname = \"one\"\nurl = \"{one}\"\n[[target]]\nname = \"two\"\nurl = \"{two}\"\n"
    );
    (targets, peers)
}

#[test]
fn prometheus_scrapes_by_tls_with_its_certificate_and_password_and_not_without() {
    let _machine = shared();
    let guard = Guard::new();
    let (targets, _peers) = two_targets();
    let daemon = guard.run(&targets);
    daemon.established("one", secs(10.0));
    daemon.established("two", secs(10.0));
    let dir = ConfigDir::new();
    std::fs::write(dir.path().join("password"), "s3cret").unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let port = daemon.metrics.port();
    let job = |name: &str, more: &str, tls: &str, password: &str| {
        format!(
            "- job_name: {name}\n  scheme: https\n  scrape_interval: 500ms\n  \
             scrape_timeout: 500ms\n{more}  static_configs:\n  - targets: ['localhost:{port}']\n  \
             tls_config:\n    ca_file: {}\n{tls}{password}",
            guard.pki.ca().display()
        )
    };
    let shown = format!(
        "    cert_file: {}\n    key_file: {}\n",
        guard.client.cert.display(),
        guard.client.key.display()
    );
    let password = format!(
        "  basic_auth:\n    username: prometheus\n    password_file: {}\n",
        dir.path().join("password").display()
    );
    let one = "  params:\n    'target[]': [one]\n";
    let jobs = [
        job("all", "", &shown, &password),
        job("one", one, &shown, &password),
        job("bare", "", "", &password),
        job("nobody", "", &shown, ""),
        job(
            "wrong",
            "",
            &shown,
            &password.replace("username: p", "username: q"),
        ),
    ];
    let config = dir.path().join("prometheus.yml");
    std::fs::write(&config, format!("scrape_configs:\n{}", jobs.concat())).unwrap();
    let binary = tools().join("prometheus/usr/bin/prometheus");
    let data = dir.path().join("data");
    let _prometheus = Process::spawn(
        "prometheus",
        Command::new(binary)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={listen}")),
    );
    // By job, and by target where there is one.
    let query = |expression: &str, wanted: &[(&str, &str, &str)]| {
        until(&format!("{expression} is {wanted:?}"), secs(30.0), || {
            let (_, body) = get(listen, &format!("/api/v1/query?query={expression}"))?;
            let json: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
            let results = json["data"]["result"].as_array();
            let results = results.cloned().unwrap_or_default();
            let mut values: Vec<(&str, &str, &str)> = results
                .iter()
                .map(|result| {
                    let label = |name: &str| result["metric"][name].as_str().unwrap_or_default();
                    let value = result["value"][1].as_str().unwrap_or_default();
                    (label("job"), label("target"), value)
                })
                .collect();
            values.sort_unstable();
            if values == wanted { Ok(()) } else { Err(body) }
        });
    };
    query(
        "up",
        &[
            ("all", "", "1"),
            ("bare", "", "0"),
            ("nobody", "", "0"),
            ("one", "", "1"),
            ("wrong", "", "0"),
        ],
    );
    query(
        "established",
        &[
            ("all", "one", "1"),
            ("all", "two", "1"),
            ("one", "one", "1"),
        ],
    );
    // The program itself is in the scrape of all alone.
    query("count(process_open_fds)by(job)", &[("all", "", "1")]);
}

#[test]
fn promtool_finds_nothing_in_a_scrape_of_some_targets() {
    let _machine = shared();
    let (targets, _peers) = two_targets();
    let daemon = Daemon::run(&targets);
    daemon.established("one", secs(10.0));
    let (status, text) = get(daemon.metrics, "/metrics?target%5B%5D=one").unwrap();
    assert_eq!(status, 200);
    assert_eq!(Scrape::of(text.clone()).targets(), ["one"].into());
    let promtool = tools().join("prometheus/usr/bin/promtool");
    let mut promtool = Process::spawn(
        "promtool",
        Command::new(promtool).args(["check", "metrics"]),
    );
    promtool.feed(&text);
    let status = promtool.wait(secs(60.0));
    let said = [promtool.stdout.all(), promtool.stderr.all()].concat();
    assert!(said.is_empty() && status.success(), "{status}: {said:#?}");
    let (status, json) = get(daemon.metrics, "/api/v1/targets?target[]=two").unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let names = json["targets"].as_array().unwrap();
    assert_eq!(
        (status, names.len(), &names[0]["name"]),
        (200, 1, &"two".into())
    );
    // What a reload removed is no target any more.
    let without = targets.split("[[target]]\nname = \"two\"").next().unwrap();
    daemon.dir.rename_over(&daemon.text(without));
    until("two is gone", secs(10.0), || {
        match get(daemon.metrics, "/metrics?target[]=two")? {
            (404, words) if words.contains("`two`") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn a_reload_changes_who_may_ask_and_a_bad_one_changes_nothing() {
    let _machine = shared();
    let guard = Guard::new();
    let (targets, _peers) = two_targets();
    let daemon = guard.run(&targets);
    let keys = guard.keys(daemon.metrics);
    let without = Keys {
        password: None,
        ..keys.clone()
    };
    // What may be asked, and by whom.
    assert_eq!(get(without.clone(), "/api/v1/targets").unwrap().0, 401);
    assert_eq!(post(without.clone(), "/-/reload").unwrap().0, 401);
    assert_eq!(get(without.clone(), "/healthz").unwrap().0, 401);
    assert_eq!(post(keys.clone(), "/-/reload").unwrap().0, 200);
    let reload = |text: &str, expected: i32, words: &[&str]| {
        let lines = daemon.process.stderr.len();
        daemon.dir.overwrite(&daemon.text(text));
        let file = daemon.dir.file();
        let mut command = program(&["reload", "--config", file.to_str().unwrap()]);
        let mut process = Process::spawn("reload", &mut command);
        let status = exit_code(process.wait(secs(15.0)));
        let said = [process.stdout.texts(), process.stderr.texts()].concat();
        assert_eq!(status, expected, "{said:?}");
        // The file's watch may have been first: then the daemon's log has them.
        until(&format!("{words:?} are told"), secs(15.0), || {
            let logged = daemon.process.stderr.texts();
            let told = [&said[..], &logged[lines..]].concat().join("\n");
            let all = words.iter().all(|word| told.contains(word));
            all.then_some(()).ok_or(told)
        });
    };
    let good = format!("{}{targets}", guard.tables());
    let swapped = good
        .replace("key_file", "key_file_was")
        .replace("cert_file", "key_file");
    let swapped = swapped.replace("key_file_was", "cert_file");
    let words = [
        "metrics.tls_server_config.cert_file: ",
        "holds no certificate",
    ];
    reload(&swapped, 1, &words);
    assert_eq!(get(keys.clone(), "/healthz").unwrap().0, 200);

    let renamed = good.replace("prometheus = \"$", "other = \"$");
    reload(&renamed, 0, &["metrics users changed"]);
    assert_eq!(get(keys.clone(), "/healthz").unwrap().0, 401);
    // Without TLS and passwords everybody is answered, by HTTP.
    reload(&targets, 0, &[]);
    assert_eq!(get(daemon.metrics, "/healthz").unwrap().0, 200);
    assert!(get(keys, "/healthz").is_err());
}

#[test]
fn certificates_are_renewed_and_a_bad_one_keeps_the_last_good() {
    let _machine = shared();
    let guard = Guard::new();
    let (targets, _peers) = two_targets();
    let daemon = guard.run(&targets);
    let good = |expected: f64| {
        daemon.scrape_until("the files are told", secs(10.0), |scrape| {
            scrape.value("ws_keepalive_tls_files_last_reload_successful", &[]) == Some(expected)
        });
    };
    good(1.0);
    let key = std::fs::read(&guard.server.key).unwrap();
    std::fs::write(&guard.server.key, "half a key").unwrap();
    // Each scrape is a handshake, by the last that was good.
    good(0.0);
    std::fs::write(&guard.server.key, key).unwrap();
    good(1.0);
    let other = guard.pki.leaf_for(Leaf::ByIntermediate, &["localhost"]);
    other.replace(&guard.server);
    until("it is in use", secs(10.0), || {
        daemon.try_scrape()?;
        let lines = daemon.process.stderr.all();
        let used = lines
            .iter()
            .any(|line| line.text_of("event") == "server_certificate");
        used.then_some(()).ok_or_else(String::new)
    });
}

#[test]
fn neither_passwords_that_are_tried_nor_handshakes_that_stall_delay_pings_and_scrapes() {
    let _machine = alone();
    let guard = Guard::new();
    let peer = OddPeer::upgrading(Manner::default());
    let daemon = guard.run(&format!(
        "[[target]]\nname = \"one\"\nurl = \"{}\"\nping_interval = \"100ms\"\npong_timeout = \"2s\"\n",
        peer.url()
    ));
    daemon.established("one", secs(10.0));
    let keys = guard.keys(daemon.metrics);
    let stop = Arc::new(AtomicBool::new(false));
    let mut attackers = Vec::new();
    for n in 0..8 {
        let (stop, keys) = (stop.clone(), keys.clone());
        attackers.push(std::thread::spawn(move || {
            let mut refused = 0;
            while !stop.load(Relaxed) {
                let keys = Keys {
                    password: Some(format!("prometheus:guess-{n}-{refused}")),
                    ..keys.clone()
                };
                if let Ok((status, _)) = get(keys, "/metrics") {
                    assert!(matches!(status, 401 | 503), "{status}");
                    refused += 1;
                }
            }
            refused
        }));
    }
    // As many as there is room for, and they say nothing more.
    let mut stalled = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(daemon.metrics).unwrap();
        stream.write_all(&[22, 3, 1, 1, 0]).unwrap();
        stalled.push(stream);
    }
    let before = daemon.scrape_until("a scrape amid it", secs(30.0), |_| true);
    let pongs = |scrape: &Scrape| scrape.of_target("received_pong_total", "one").unwrap();
    let begun = Instant::now();
    let mut slowest = secs(0.0);
    let mut after = daemon.scrape_until("another", secs(30.0), |_| true);
    until("three seconds are over", secs(30.0), || {
        let asked = Instant::now();
        after = daemon.try_scrape()?;
        slowest = slowest.max(asked.elapsed());
        let over = begun.elapsed() >= secs(3.0);
        over.then_some(()).ok_or_else(String::new)
    });
    let took = begun.elapsed().as_secs_f64();
    stop.store(true, Relaxed);
    let refused: u32 = attackers.into_iter().map(|one| one.join().unwrap()).sum();
    assert!(refused > 0, "nobody tried");
    assert!(slowest < secs(5.0), "a scrape took {slowest:?}");
    let pongs = pongs(&after) - pongs(&before);
    assert!(pongs >= took * 10.0 * 0.5, "{pongs} pongs in {took} s");
    assert_eq!(after.of_target("ping_retry_count_total", "one"), Some(0.0));
    // They were cut, or will be; nothing was said to them.
    let mut first = stalled.swap_remove(0);
    first.set_read_timeout(Some(secs(15.0))).unwrap();
    assert_eq!(first.read(&mut [0; 16]).unwrap_or(0), 0);
}
