//! The units under a booted systemd: Debian 12's, and Debian 13's.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use crate::support::*;

const CONFIG: &str = "/etc/ws-keepalive.toml";

/// A Debian with the package, whose service was stopped again.
fn installed(suite: Suite) -> Container {
    let debian = Container::boot(suite);
    debian.install_deb(&packages().deb);
    debian.shell("systemctl stop ws-keepalive");
    debian.write(CONFIG, &config(""));
    debian
}

/// Where the package puts the examples.
const EXAMPLES: &str = "/usr/share/doc/ws-keepalive/examples/systemd";

fn config(targets: &str) -> String {
    format!("[metrics]\nlisten = \"127.0.0.1:8080\"\n{targets}")
}

fn target(name: &str, url: &str) -> String {
    format!(
        "[[target]]\nname = \"{name}\"\nurl = \"{url}\"\nping_interval = \"1s\"\n\
         reconnect = {{ initial = \"200ms\", max = \"1s\" }}\n"
    )
}

/// A property of the daemon's unit.
fn show(debian: &Container, property: &str) -> String {
    debian.shell(&format!(
        "systemctl show --property={property} --value ws-keepalive"
    ))
}

fn status_text(debian: &Container, expected: &str) {
    let show = "systemctl show --property=StatusText --value ws-keepalive";
    debian.until(expected, secs(15.0), show, |ran| ran.stdout == expected);
}

/// Waits for `words` in what the journal has of the daemon: it comes there by way of two others, its
/// own thread for lines and journald, after what it is about.
fn in_journal(debian: &Container, words: &str) {
    let all = "journalctl --unit=ws-keepalive --output=cat --no-pager";
    debian.until(words, secs(30.0), all, |ran| ran.stdout.contains(words));
}

fn drop_in(debian: &Container, name: &str, text: &str) {
    debian.shell("mkdir -p /etc/systemd/system/ws-keepalive.service.d");
    let path = format!("/etc/systemd/system/ws-keepalive.service.d/{name}.conf");
    debian.write(&path, text);
    debian.shell("systemctl daemon-reload");
}

const TARGETS: &str = "curl -sf http://127.0.0.1:8080/api/v1/targets";

#[test]
fn start_reload_status_and_stop_mean_what_they_say() {
    let _machine = shared();
    for suite in Suite::ALL {
        let debian = installed(suite);
        debian.shell("systemctl start ws-keepalive-server@9000");
        let peer = "ws://127.0.0.1:9000/";
        debian.write(CONFIG, &config(&target("edge", peer)));
        // Started is ready: no poll between the two.
        debian.shell("systemctl start ws-keepalive && curl -sf http://127.0.0.1:8080/readyz");
        status_text(&debian, "1 of 1 target established");

        // What a reload brought is there when it returns.
        debian.write(
            CONFIG,
            &config(&(target("edge", peer) + &target("second", peer))),
        );
        debian.shell(&format!(
            "systemctl reload ws-keepalive && {TARGETS} | grep -q second"
        ));
        status_text(&debian, "2 of 2 targets established");
        let main = show(&debian, "MainPID");

        debian.write(
            CONFIG,
            "[[target]]\nurl = \"gopher://example.com\"\nspeed = 1\n",
        );
        let ran = debian.run("systemctl reload ws-keepalive");
        assert_ne!(ran.code, 0, "{ran:#?}");
        let text = show(&debian, "StatusText");
        assert_eq!(
            text,
            "2 of 2 targets established; last reload failed: 2 errors"
        );
        assert_eq!(debian.shell("systemctl is-active ws-keepalive"), "active");
        assert_eq!(show(&debian, "MainPID"), main);
        in_journal(&debian, "target[0].speed");
        in_journal(&debian, "reload refused; what ran before runs on");

        // More than a datagram holds.
        debian.write(CONFIG, &format!("{} = 1\n", "x".repeat(300_000)));
        assert_ne!(debian.run("systemctl reload ws-keepalive").code, 0);
        let long =
            "journalctl --quiet --all --no-pager --output=cat EVENT=mistake | wc --max-line-length";
        debian.until("the long line is there, whole", secs(10.0), long, |ran| {
            ran.stdout
                .parse::<u32>()
                .is_ok_and(|length| length > 300_000)
        });

        // The server's unit says how many it holds, and ends as it should.
        let clients = "systemctl show --property=StatusText --value ws-keepalive-server@9000";
        debian.until("two clients", secs(10.0), clients, |ran| {
            ran.stdout == "2 clients connected"
        });
        debian.shell("systemctl stop ws-keepalive-server@9000");
        let result = "systemctl show --property=Result --value ws-keepalive-server@9000";
        assert_eq!(debian.shell(result), "success");

        // The journal is searched by field.
        let search = "journalctl --quiet --no-pager --output=cat --unit=ws-keepalive TARGET=edge";
        let lost = format!("{search} EVENT=lost CAUSE=closed_normal");
        debian.until("the drop is in the journal", secs(10.0), &lost, |ran| {
            ran.stdout.contains("edge lost")
        });
        let dial = format!("{search} PHASE=tcp");
        debian.until("so are dials that fail", secs(10.0), &dial, |ran| {
            ran.stdout.contains("edge cannot connect (tcp)")
        });
        let urgent = "journalctl --quiet --no-pager --output=cat --priority=warning EVENT=lost";
        debian.until("two were lost", secs(30.0), urgent, |ran| {
            ran.stdout.lines().count() == 2
        });
        let id = debian.shell(&format!(
            "{lost} --output-fields=OUTAGE_ID --output=verbose | grep -c OUTAGE_ID="
        ));
        assert_eq!(id, "1");

        // systemd and its journal are replaced, and hear of us as before.
        debian.shell("systemctl daemon-reexec && systemctl restart systemd-journald");
        debian.write(CONFIG, &config(&target("third", peer)));
        debian.shell("systemctl reload ws-keepalive");
        status_text(&debian, "0 of 1 target established");
        let since = "journalctl --quiet --no-pager --output=cat --unit=ws-keepalive TARGET=third";
        debian.until("the new journal has it", secs(10.0), since, |ran| {
            ran.stdout.contains("third cannot connect (tcp)")
        });

        debian.shell("systemctl stop ws-keepalive");
        assert_eq!(show(&debian, "Result"), "success");
        assert_eq!(show(&debian, "ExecMainStatus"), "0");

        // A file that is wrong is not tried again and again.
        debian.write(CONFIG, "[[target]]\nurl = \"gopher://example.com\"\n");
        let ran = debian.run("systemctl start ws-keepalive");
        assert_ne!(ran.code, 0, "{ran:#?}");
        assert_eq!(show(&debian, "ExecMainStatus"), "2");
        assert_eq!(show(&debian, "SubState"), "failed");
        assert_eq!(show(&debian, "NRestarts"), "0");
        let verified = debian.run(
            "systemd-analyze verify --man=no ws-keepalive.service ws-keepalive-server@9000.service",
        );
        let ours = verified
            .stderr
            .lines()
            .any(|line| line.contains("ws-keepalive"));
        assert!(verified.code == 0 && !ours, "{verified:#?}");
    }
}

#[test]
fn a_daemon_that_stands_or_dies_is_started_again() {
    let _machine = shared();
    for suite in Suite::ALL {
        let debian = installed(suite);
        drop_in(
            &debian,
            "fast",
            "[Service]\nWatchdogSec=5s\nRestartSec=200ms\n",
        );
        debian.shell("systemctl start ws-keepalive");
        let main = show(&debian, "MainPID");
        let again = "systemctl show --property=NRestarts,MainPID,ActiveState ws-keepalive";
        let restarts = || show(&debian, "NRestarts").parse::<u32>().unwrap();
        let restarted = |before: u32| {
            debian.until("it was started again", secs(60.0), again, |ran| {
                ran.stdout.contains(&format!("NRestarts={}\n", before + 1))
                    && ran.stdout.contains("ActiveState=active")
            });
        };
        // Alive for more than a period: the watchdog is fed.
        let since = "systemctl show --property=WatchdogTimestampMonotonic --value ws-keepalive";
        let first = debian.shell(since);
        debian.until("the watchdog is fed", secs(30.0), since, |ran| {
            ran.stdout != first
        });
        let before = restarts();
        debian.shell(&format!("kill -STOP {main}"));
        restarted(before);
        assert_ne!(show(&debian, "MainPID"), main);
        in_journal(&debian, "Watchdog timeout");
        let before = restarts();
        debian.shell(&format!("kill -KILL {}", show(&debian, "MainPID")));
        restarted(before);
        debian.shell("curl -sf http://127.0.0.1:8080/readyz");
        // Asked to end, it stays ended.
        debian.shell("systemctl stop ws-keepalive");
        assert_eq!(show(&debian, "ActiveState"), "inactive");
    }
}

/// What the next client of `listener` asks for.
fn request(listener: &UnixListener) -> String {
    listener.set_nonblocking(true).unwrap();
    let mut stream = until("the daemon dials", secs(15.0), || {
        listener.accept().map_err(|error| error.to_string())
    })
    .0;
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(secs(10.0))).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(answer).unwrap();
    String::from_utf8(head).unwrap()
}

#[test]
fn a_secret_comes_by_load_credential_and_one_that_is_missing_is_named() {
    let _machine = shared();
    for suite in Suite::ALL {
        let debian = installed(suite);
        debian.shell("mkdir /srv/peer");
        let socket = debian.path("/srv/peer/peer.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        // The daemon is another user.
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
        debian.write("/root/edge.token", "Bearer s3cret\n");
        debian.shell("chmod 600 /root/edge.token");
        let edge = target("edge", "unix:/srv/peer/peer.sock")
            + "headers = { Authorization = { credential = \"edge.token\" } }\n";
        debian.write(CONFIG, &config(&edge));

        let ran = debian.run("systemctl start ws-keepalive");
        assert_ne!(ran.code, 0, "{ran:#?}");
        assert_eq!(show(&debian, "ExecMainStatus"), "2");
        in_journal(&debian, "add LoadCredential=edge.token:.. to the unit");

        drop_in(
            &debian,
            "secret",
            "[Service]\nLoadCredential=edge.token:/root/edge.token\n",
        );
        debian.shell("systemctl start ws-keepalive");
        let head = request(&listener);
        assert!(
            head.contains("\r\nauthorization: Bearer s3cret\r\n"),
            "{head}"
        );
        // As docs/systemd.md has it: in a shell there are no credentials.
        assert_eq!(debian.run("ws-keepalive check").code, 2);
        debian.shell(
            "systemd-run --quiet --pipe --wait --property=LoadCredential=edge.token:/root/edge.token \
             ws-keepalive check",
        );
        let everything =
            debian.shell("journalctl --no-pager --output=export; systemctl status ws-keepalive");
        assert!(!everything.contains("s3cret"), "{everything}");
    }
}

/// Answers on the resolver's port that `edge.example.com` is 127.0.0.1 and nothing else, and writes a
/// line about each question: its type and its name.
const NAMES: &str = r#"
use strict;
use IO::Socket::INET;
my $socket = IO::Socket::INET->new(Proto => "udp", LocalAddr => "127.0.0.1", LocalPort => 53) or die "bind: $!";
open(my $log, ">>", "/run/names.log") or die "log: $!";
$log->autoflush(1);
while (my $from = $socket->recv(my $query, 512)) {
    my ($id, $flags, $questions) = unpack("n3", $query);
    my ($at, @labels) = (12);
    while (my $length = unpack("C", substr($query, $at, 1))) {
        push @labels, substr($query, $at + 1, $length);
        $at += 1 + $length;
    }
    my $question = substr($query, 12, $at + 5 - 12);
    my ($type, $name) = (unpack("n", substr($query, $at + 1, 2)), lc(join(".", @labels)));
    print $log "$type $name\n";
    my $known = $name eq "edge.example.com";
    # Its address only; of another type there is none, of another name nothing (NXDOMAIN).
    my $answer = $known && $type == 1 ? pack("n3Nn", 0xc00c, 1, 1, 60, 4) . "\x7f\0\0\1" : "";
    my $header = pack("n6", $id, 0x8180 | ($known ? 0 : 3), 1, $answer ? 1 : 0, 0, 0);
    $socket->send("$header$question$answer", 0, $from);
}
"#;

/// Names are asked for by DNS, at a resolver inside.
fn names_by_dns(debian: &Container) {
    debian.write("/root/names.pl", NAMES);
    debian.shell("systemd-run --quiet --unit=names perl /root/names.pl");
    debian.write("/etc/resolv.conf", "nameserver 127.0.0.1\n");
    let order =
        "grep -E '^hosts:.*files.*dns' /etc/nsswitch.conf && ! grep edge.example.com /etc/hosts";
    debian.shell(order);
    // Not `ahosts`, which asks only on a machine that has more than a loopback.
    let asked = "getent hosts edge.example.com || systemctl status names >&2";
    debian.until("the resolver answers", secs(60.0), asked, |ran| {
        ran.stdout.starts_with("127.0.0.1 ")
    });
    debian.shell("truncate --size=0 /run/names.log");
}

#[test]
fn the_sandbox_leaves_what_the_daemon_needs() {
    let _machine = shared();
    for suite in Suite::ALL {
        let debian = installed(suite);
        let pki = Pki::new("sandbox");
        let pair = pki.leaf_for(Leaf::Good, &["edge.example.com"]);
        for (file, inside) in [
            (pki.ca(), "/usr/local/share/ca-certificates/tried.crt"),
            (pair.cert.clone(), "/etc/ws-keepalive/edge.pem"),
            (pair.key.clone(), "/etc/ws-keepalive/edge.key"),
        ] {
            fs::copy(file, debian.path(inside)).unwrap();
        }
        debian.shell("update-ca-certificates");
        names_by_dns(&debian);
        debian.shell("cd /etc/ws-keepalive && chgrp ws-keepalive edge.key && chmod 640 edge.key");
        debian.write(
            "/etc/ws-keepalive/server-9443.env",
            "OPTIONS=--listen 127.0.0.1 --tls-cert /etc/ws-keepalive/edge.pem --tls-key /etc/ws-keepalive/edge.key\n",
        );
        debian.shell("systemctl start ws-keepalive-server@9443 ws-keepalive-server@9000");
        let targets = target("roots", "wss://edge.example.com:9443/")
            + &target("interface", "ws://127.0.0.1:9000/")
            + "bind = \"lo\"\n"
            + &target("metrics", "ws://127.0.0.1:9000/");
        debian.write(CONFIG, &config(&targets));
        debian.shell("systemctl start ws-keepalive");
        status_text(&debian, "3 of 3 targets established");
        let asked = debian.shell("cat /run/names.log");
        // Type 1 is A.
        let by_dns = asked.lines().any(|line| line == "1 edge.example.com");
        assert!(by_dns, "{asked}");
        let scrape = debian.shell("curl -sf http://127.0.0.1:8080/metrics");
        let started = Scrape::of(scrape).value("process_start_time_seconds", &[]);
        assert!(started.is_some_and(|at| at > 1.6e9), "{started:?}");
        // The program runs as its user, and without any privilege.
        let status = debian.shell(&format!("cat /proc/{}/status", show(&debian, "MainPID")));
        let zero = |name: &str| status.contains(&format!("{name}:\t0000000000000000\n"));
        assert!(
            ["CapEff", "CapPrm", "CapBnd"].into_iter().all(zero),
            "{status}"
        );
        let user = debian.shell(&format!("ps -o user= -p {}", show(&debian, "MainPID")));
        assert!(user.starts_with("ws-keep"), "{user}");

        debian.shell("systemctl kill --signal=KILL ws-keepalive-server@9000");
        let ended = debian.until("its end is known", secs(10.0), TARGETS, |ran| {
            ran.stdout.contains("outage_id")
        });
        let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        let targets = json["targets"].as_array().unwrap();
        let ends = targets
            .iter()
            .flat_map(|t| t["ends"].as_array().into_iter().flatten());
        let ends: Vec<_> = ends.collect();
        assert!(
            ends.iter().all(|end| end["tcp_info"].is_object()),
            "{ends:#?}"
        );
        // Nothing that was called was forbidden.
        let denied = debian.shell("journalctl --unit=ws-keepalive --output=cat --no-pager");
        assert!(!denied.contains("not permitted"), "{denied}");
    }
}

#[test]
fn systemd_listens_in_the_daemon_s_place_also_on_ports_below_1024() {
    let _machine = shared();
    let debian = installed(Suite::Bookworm);
    debian.shell(&format!("cp {EXAMPLES}/*.socket /etc/systemd/system/"));
    // The file says another port: the socket's is the one that is served.
    let other = "[metrics]\nlisten = \"127.0.0.1:8888\"\n[server]\nlisten = \"127.0.0.1:9999\"\n";
    debian.write(
        CONFIG,
        &(other.to_owned() + &target("well-known", "ws://127.0.0.1:443/")),
    );
    debian.shell("systemctl daemon-reload && systemctl start ws-keepalive.socket ws-keepalive-embedded.socket");
    debian.shell("systemctl start ws-keepalive-server@443.socket");
    assert_eq!(
        debian.run("systemctl is-active ws-keepalive").stdout,
        "inactive"
    );
    // The first scrape starts the daemon, whose target starts the server.
    debian.shell("curl -sf --max-time 20 http://127.0.0.1:8080/metrics");
    status_text(&debian, "1 of 1 target established");
    assert_eq!(
        debian.shell("systemctl is-active ws-keepalive-server@443"),
        "active"
    );
    debian.shell("curl -s --max-time 5 http://127.0.0.1:9000/ -o /dev/null");
    debian.shell("systemctl reload ws-keepalive && curl -sf http://127.0.0.1:8080/readyz");
    // No scrape is refused while the daemon restarts.
    debian.shell("systemctl restart ws-keepalive & for n in 1 2 3 4 5; do curl -sf --max-time 20 http://127.0.0.1:8080/healthz || exit 1; done; wait");
    let ran = debian.run("curl -sf http://127.0.0.1:8888/healthz");
    assert_eq!(ran.code, 7, "{ran:#?}");
}

#[test]
fn newer_systemd_reloads_by_signal_and_waits_for_the_daemon_s_word() {
    let _machine = shared();
    let debian = installed(Suite::Trixie);
    let example = debian.read(&format!("{EXAMPLES}/notify-reload.conf"));
    drop_in(&debian, "notify-reload", &example);
    debian.shell("systemctl start ws-keepalive");
    assert_eq!(show(&debian, "Type"), "notify-reload");
    debian.write(CONFIG, &config(&target("edge", "ws://127.0.0.1:9000/")));
    // The file watch may have been first; either way it is done when this returns.
    debian.shell(&format!(
        "systemctl reload ws-keepalive && {TARGETS} | grep -q edge"
    ));
    status_text(&debian, "0 of 1 target established");
    debian.write(CONFIG, "nonsense");
    debian.shell("systemctl reload ws-keepalive");
    status_text(
        &debian,
        "0 of 1 target established; last reload failed: 1 error",
    );
    debian.shell("systemctl stop ws-keepalive");
    assert_eq!(show(&debian, "Result"), "success");
}
