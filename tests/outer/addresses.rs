//! Names with several addresses, in a network of their own.

use crate::support::*;

/// `server`s in a namespace, each at an address of its own and the same port.
fn servers(namespace: &Namespace, addresses: &[&str]) -> Vec<(String, Process)> {
    let started = addresses.iter().map(|address| {
        let mut command = program(&["server", "--listen", address, "--port", PORT]);
        command.args(["--log-format", "json"]);
        let server = namespace.spawn("server", &command);
        server.stderr.wait("it listens", secs(10.0), |line| {
            line.text.contains("listening on").then_some(())
        });
        ((*address).to_owned(), server)
    });
    started.collect()
}

const PORT: &str = "9000";

const HASTY: &str = "[defaults]\nping_interval = \"200ms\"\npong_timeout = \"5s\"\nmax_retry_limit = 1\n\
    tcp_timeout = \"1s\"\nreconnect = { initial = \"200ms\", max = \"400ms\" }\n";

#[test]
fn of_three_addresses_the_first_dead_the_second_refusing_the_third_is_held() {
    let _machine = shared();
    let names = Names {
        hosts: "10.9.0.1 three.example.com\n127.0.0.2 three.example.com\n127.0.0.3 three.example.com",
        ..Names::default()
    };
    let namespace = Namespace::new(&names, DEAD_ADDRESS);
    let _servers = servers(&namespace, &["127.0.0.3"]);
    let daemon = Daemon::run_inside(
        &namespace,
        &format!(
            "{HASTY}[[target]]\nname = \"three\"\nurl = \"ws://three.example.com:{PORT}/ws\"\n\
             [[target]]\nname = \"given\"\nurl = \"ws://nowhere.example.com:1/ws\"\n\
             resolve = [\"10.9.0.1:{PORT}\", \"127.0.0.2:{PORT}\", \"127.0.0.3:{PORT}\"]\n"
        ),
    );
    for name in ["three", "given"] {
        daemon.established(name, secs(10.0));
        let scrape = daemon.scrape_until("pongs", secs(5.0), |scrape| {
            scrape.of_target("received_pong_total", name) >= Some(3.0)
        });
        assert_eq!(
            scrape.of_target("ws_keepalive_connects_total", name),
            Some(1.0)
        );
    }
    // By the one that serves: the kernel of that network says so.
    let sockets = namespace.output("cat", &["/proc/net/tcp"]).unwrap();
    let third = ["0300007F:2328", " 01 "];
    let held = sockets.lines().filter(|line| {
        let local = line.split_whitespace().nth(1);
        local == Some(third[0]) && line.contains(third[1])
    });
    assert_eq!(held.count(), 2, "{sockets}");
}

#[test]
fn of_three_fanned_out_to_the_one_that_is_killed_goes_down_alone() {
    let _machine = shared();
    let names = Names {
        hosts: "127.0.0.2 fan.example.com\n127.0.0.3 fan.example.com\n127.0.0.4 fan.example.com",
        ..Names::default()
    };
    let namespace = Namespace::new(&names, "");
    let mut running = servers(&namespace, &["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
    let daemon = Daemon::run_inside(
        &namespace,
        &format!(
            "{HASTY}[[target]]\nname = \"fan\"\nurl = \"ws://fan.example.com:{PORT}/ws\"\n\
             fan_out = true\nfan_out_interval = \"1s\"\n"
        ),
    );
    let up = |scrape: &Scrape| -> Vec<(String, f64)> {
        let series = scrape.find("established", &[("target", "fan")]);
        let mut series: Vec<_> = series
            .map(|series| (series.labels["address_index"].clone(), series.value))
            .collect();
        series.sort_by(|a, b| a.0.cmp(&b.0));
        series
    };
    let is = |expected: [f64; 3]| {
        move |scrape: &Scrape| {
            let seen = up(scrape);
            let indices: Vec<&str> = seen.iter().map(|(index, _)| index.as_str()).collect();
            indices == ["0", "1", "2"] && seen.iter().map(|(_, up)| *up).eq(expected)
        }
    };
    let connects = |scrape: &Scrape, index: &str| {
        let labels = [("target", "fan"), ("address_index", index)];
        scrape.value("ws_keepalive_connects_total", &labels)
    };
    daemon.scrape_until("all three are up", secs(10.0), is([1.0; 3]));
    let (_, mut killed) = running.remove(1);
    killed.signal(Signal::KILL);
    killed.wait(secs(5.0));
    let down = daemon.scrape_until("one is down", secs(10.0), |scrape| {
        up(scrape).iter().filter(|(_, up)| *up == 0.0).count() == 1
    });
    let index = up(&down).iter().position(|(_, up)| *up == 0.0).unwrap();
    // Looked up again and again meanwhile, each keeps its index and the others their connections.
    let failures = [
        ("target", "fan"),
        ("address_index", &*index.to_string()),
        ("phase", "tcp"),
    ];
    let later = daemon.scrape_until("it is dialed again", secs(10.0), |scrape| {
        scrape.value("ws_keepalive_connect_failures_total", &failures) >= Some(3.0)
    });
    for (at, (_, up)) in up(&later).iter().enumerate() {
        assert_eq!(*up, if at == index { 0.0 } else { 1.0 }, "{at}");
        assert_eq!(connects(&later, &at.to_string()), Some(1.0), "{at}");
    }
    running.extend(servers(&namespace, &["127.0.0.3"]));
    daemon.scrape_until("it is back by the same index", secs(10.0), |scrape| {
        is([1.0; 3])(scrape) && connects(scrape, &index.to_string()) == Some(2.0)
    });
}

#[test]
fn a_resolver_that_hangs_delays_no_ping_of_another_target() {
    let _machine = shared();
    let names = Names {
        hosts: "127.0.0.2 here.example.com",
        hanging_resolver: true,
    };
    let namespace = Namespace::new(&names, DEAD_ADDRESS);
    let _servers = servers(&namespace, &["127.0.0.2"]);
    // More names than threads could wait for, were each to have one for good.
    let hanging: String = (0..40)
        .map(|n| {
            format!(
                "[[target]]\nname = \"lost-{n}\"\nurl = \"ws://n{n}.example.com:{PORT}/ws\"\n\
                 dns_timeout = \"300ms\"\n"
            )
        })
        .collect();
    let daemon = Daemon::run_inside(
        &namespace,
        &format!(
            "{HASTY}[[target]]\nname = \"here\"\nurl = \"ws://here.example.com:{PORT}/ws\"\n\
             [[target]]\nname = \"literal\"\nurl = \"ws://127.0.0.2:{PORT}/ws\"\n{hanging}"
        ),
    );
    for name in ["here", "literal"] {
        daemon.established(name, secs(15.0));
    }
    let dns = [("target", "lost-0"), ("phase", "dns")];
    let failures = |scrape: &Scrape| scrape.value("ws_keepalive_connect_failures_total", &dns);
    let before = daemon.scrape_until("lookups time out", secs(15.0), |scrape| {
        failures(scrape) >= Some(2.0)
    });
    let error = daemon.api("lost-0").unwrap()["last_error"].clone();
    assert_eq!(error["phase"], "dns", "{error}");
    let began = std::time::Instant::now();
    let after = daemon.scrape_until("lookups go on timing out", secs(20.0), |scrape| {
        failures(scrape) >= Some(failures(&before).unwrap_or_default() + 4.0)
    });
    for name in ["here", "literal"] {
        let pongs = |scrape: &Scrape| scrape.of_target("received_pong_total", name);
        let got = pongs(&after).unwrap() - pongs(&before).unwrap();
        let due = began.elapsed().as_secs_f64() / 0.2;
        // Half of them: the machine is shared with other tests.
        assert!(got >= due / 2.0 - 2.0, "{name}: {got} pongs of {due}");
        assert_eq!(after.of_target("established", name), Some(1.0));
        assert_eq!(after.of_target("ping_retry_count_total", name), Some(0.0));
    }
    // A name that hangs holds up no end either.
    daemon.process.signal(Signal::TERM);
    let mut process = daemon.process;
    assert_eq!(exit_code(process.wait(secs(8.0))), 0);
}
