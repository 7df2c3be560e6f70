//! What is pushed: into a collector that fails when it is told to, and into one that others wrote.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use crate::support::*;

/// A target whose peer ends its first connections at once, and one that stands.
fn targets(peer: &OddPeer, more: &str) -> String {
    let url = peer.url();
    format!(
        "{more}\n[defaults]\npong_timeout = \"5s\"\nping_interval = \"200ms\"\nreconnect = {{ initial = \"100ms\", max = \"200ms\" }}\n\
         [[target]]\nname = \"edge\"\nurl = \"{url}\"\nlabels = {{ region = \"eu\" }}\n"
    )
}

fn table(collector: &Collector, protocol: &str, more: &str) -> String {
    let url = collector.url();
    format!("[otlp]\nendpoint = \"{url}\"\nprotocol = \"{protocol}\"\ninterval = \"1s\"\n{more}")
}

fn named<'s>(spans: &'s [Span], name: &str) -> Vec<&'s Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// A daemon whose counters have stopped at numbers of their own, and who keeps them there: `edge` and
/// `second` could not dial at first, then sent so many pings and were told to stay away for an hour;
/// `stands` has nothing to do.
fn at_rest(otlp: &str) -> (Daemon, [OddPeer; 3]) {
    let after = |pings| Manner {
        closes: Some((pings, 1008, "that will do")),
        ..Manner::default()
    };
    let stands = OddPeer::upgrading(Manner::default());
    let (edge, second) = (free_port(), free_port());
    let text = format!(
        "{otlp}\n[defaults]\nping_interval = \"100ms\"\npong_timeout = \"5s\"\n\
         reconnect = {{ initial = \"100ms\", max = \"1h\", factor = 1.0, jitter = 0.0 }}\n\
         [[target]]\nname = \"edge\"\nurl = \"ws://127.0.0.1:{edge}/\"\nlabels = {{ region = \"eu\" }}\n\
         [[target]]\nname = \"second\"\nurl = \"ws://127.0.0.1:{second}/\"\n\
         [[target]]\nname = \"stands\"\nurl = \"{}\"\nping_interval = \"1h\"\n",
        stands.url()
    );
    let daemon = Daemon::run(&text);
    let failures = "ws_keepalive_connect_failures_total";
    daemon.scrape_until("both failed to dial", secs(30.0), |scrape| {
        ["edge", "second"]
            .iter()
            .all(|name| scrape.value(failures, &[("target", name), ("phase", "tcp")]) >= Some(2.0))
    });
    let (edge, second) = (
        OddPeer::upgrading_on(edge, after(7)),
        OddPeer::upgrading_on(second, after(4)),
    );
    let rests = daemon.scrape_until("both are sent away", secs(30.0), |scrape| {
        scrape.of_target("established", "stands") == Some(1.0)
            && ["edge", "second"]
                .iter()
                .all(|name| scrape.of_target("ws_keepalive_disconnects_total", name) == Some(1.0))
    });
    assert!(rests.of_target("sent_ping_total", "edge") >= Some(7.0));
    assert!(rests.of_target("received_pong_total", "second") >= Some(4.0));
    (daemon, [edge, second, stands])
}

/// What docs/metrics.md says is pushed as, by what is scraped.
fn pushed_as() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(ours("docs/metrics.md")).unwrap();
    let table = page.split_once("<!-- table opentelemetry:").unwrap().1;
    let table = table.split_once("<!-- end -->").unwrap().0;
    let rows = table.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = |cell: &str| Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned());
        Some((name(cells.get(4)?)?, name(cells[1])?))
    });
    rows.collect()
}

/// Counters that count on while a daemon is [`at_rest`].
const MOVING: [&str; 3] = [
    "process_cpu_seconds_total",
    "ws_keepalive_connected_seconds_total",
    "ws_keepalive_disconnected_seconds_total",
];

/// Holds what is pushed of a daemon [`at_rest`] against its scrape: every counter, and the gauges that
/// stand still. `times` says how often a metric came, `numbers` what its series are.
fn pushed_is_scraped(
    daemon: &Daemon,
    times: impl Fn(&str) -> usize,
    numbers: impl Fn(&str) -> BTreeMap<String, f64>,
) {
    let before = daemon.scrape();
    // One of the targets, one of the program: they come by requests of their own.
    let parts = ["established", "process.cpu"];
    let had = parts.map(&times);
    // The first of two may have been under way.
    until("two exports came", secs(30.0), || {
        let have = parts.map(&times);
        let enough = std::iter::zip(had, have).all(|(had, have)| have >= had + 2);
        enough.then_some(()).ok_or(format!("{had:?}, {have:?}"))
    });
    let names = pushed_as();
    let counters = before.counters();
    assert!(counters.len() > 15, "{counters:?}");
    let gauges = [
        "established",
        "ws_keepalive_connection_start_time_seconds",
        "ws_keepalive_last_disconnect_time_seconds",
    ];
    let compared: Vec<_> = counters
        .into_iter()
        .chain(gauges)
        .map(|name| (name, numbers(&names[name])))
        .collect();
    let after = daemon.scrape();
    for (name, pushed) in compared {
        let (before, after) = (before.numbers(name), after.numbers(name));
        if MOVING.contains(&name) {
            assert!(
                pushed.keys().eq(before.keys()),
                "{name}: {pushed:?}, {before:?}"
            );
            for (series, value) in pushed {
                let between = before[&series]..=after[&series];
                assert!(
                    between.contains(&value),
                    "{name} {series}: {value}, {between:?}"
                );
            }
        } else {
            assert_eq!(before, after, "{name} does not rest");
            assert_eq!(pushed, before, "{name}");
        }
    }
}

/// How many dials a daemon [`at_rest`] has made.
fn dials(daemon: &Daemon) -> usize {
    let scrape = daemon.scrape();
    let sum = |name: &str| scrape.numbers(name).values().sum::<f64>();
    let dials = sum("ws_keepalive_connects_total") + sum("ws_keepalive_connect_failures_total");
    dials as usize
}

#[test]
fn what_is_pushed_is_what_is_scraped_by_grpc_and_by_http() {
    let _machine = shared();
    for (speaks, protocol) in [(Speaks::Http, "http/protobuf"), (Speaks::Grpc, "grpc")] {
        let collector = Collector::start(speaks);
        let (daemon, _peers) = at_rest(&table(&collector, protocol, "compression = \"gzip\""));
        let times = |name: &str| {
            let metrics = collector.metrics().into_iter();
            metrics.filter(|metric| metric.name == name).count()
        };
        pushed_is_scraped(&daemon, times, |name| collector.numbers(name));
        let dials = dials(&daemon);
        // Spans wait up to 5 s for others to leave with.
        until("every dial is pushed", secs(30.0), || {
            match named(&collector.spans(), "connect").len() {
                n if n == dials => Ok(()),
                n => Err(format!("{n} of {dials}")),
            }
        });
    }
}

#[test]
fn an_outage_is_a_span_with_its_evidence_and_the_peer_gets_the_traceparent_of_its_dial() {
    let _machine = shared();
    let collector = Collector::start(Speaks::Grpc);
    let peer = OddPeer::upgrading(Manner {
        then: Then::FinWithoutClose,
        ..Manner::default()
    });
    let text = targets(&peer, &table(&collector, "grpc", "logs = true"));
    let text = text.replace("[[target]]", "traceparent = true\n[[target]]");
    let mut daemon = Daemon::run(&text);
    let spans = until("an outage is over", secs(30.0), || {
        let spans = collector.spans();
        match named(&spans, "outage").is_empty() {
            false => Ok(spans),
            true => Err(format!("{spans:?}")),
        }
    });
    let outage = named(&spans, "outage")[0];
    for (name, value) in [
        ("ws_keepalive.target", "edge"),
        ("ws_keepalive.cause", "fin"),
        ("ws_keepalive.initiator", "peer"),
        ("region", "eu"),
    ] {
        assert_eq!(attribute(&outage.attributes, name), value, "{outage:?}");
    }
    let ended_by = outage.links.last().unwrap().span_id.clone();
    until("the dial that ended it is there", secs(30.0), || {
        let spans = collector.spans();
        let there = spans
            .iter()
            .any(|span| span.span_id == ended_by && span.name == "connect");
        if there {
            Ok(())
        } else {
            Err(format!("{spans:?}"))
        }
    });
    // The steps stand below their dial.
    let connect = named(&spans, "connect")[0];
    let below = spans
        .iter()
        .filter(|span| span.parent_span_id == connect.span_id);
    let steps: Vec<&str> = below.map(|span| span.name.as_str()).collect();
    assert_eq!(steps, ["tcp", "upgrade"], "{spans:?}");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (trace, span) = (hex(&connect.trace_id), hex(&connect.span_id));
    let sent = format!("traceparent: 00-{trace}-{span}-01");
    let requests: Vec<String> = peer
        .journal
        .all()
        .iter()
        .filter_map(|entry| match &entry.what {
            Happened::Request(head) => Some(head.clone()),
            _ => None,
        })
        .collect();
    assert!(
        requests.iter().any(|request| request.contains(&sent)),
        "{sent}: {requests:?}"
    );
    // The line about it belongs to it.
    let record = until("the line is pushed", secs(30.0), || {
        let records = collector.records();
        let found = records
            .iter()
            .find(|record| record.event_name == "lost")
            .cloned();
        found.ok_or_else(|| format!("{records:?}"))
    });
    assert!(!record.trace_id.is_empty());
    assert_eq!(attribute(&record.attributes, "target"), "edge");

    daemon.process.signal(Signal::TERM);
    daemon.process.wait(secs(15.0));
    let records = collector.records();
    assert!(
        records.iter().any(|record| record.event_name == "stopping"),
        "{records:?}"
    );
}

/// Pings leave each 200 ms: the longest that `peer` waited for one since `began`, up to now. An export
/// that hangs does so for 6 s.
fn longest_wait(peer: &OddPeer, began: Instant) -> Duration {
    let mut seen = peer.pings();
    seen.push(Instant::now());
    let pairs = seen.windows(2).filter(|pair| pair[1] > began);
    pairs.map(|pair| pair[1] - pair[0]).max().unwrap()
}

/// More is no machine that has other things to do.
const ON_TIME: Duration = Duration::from_secs(4);

#[test]
fn a_collector_that_hangs_delays_no_ping_holds_no_memory_and_no_exit_and_one_killed_comes_back() {
    let _machine = shared();
    let mut collector = Collector::start(Speaks::Http);
    let peer = OddPeer::upgrading(Manner::default());
    let more = table(&collector, "http/protobuf", "timeout = \"6s\"\nlogs = true");
    let mut daemon = Daemon::run(&targets(&peer, &more));
    until("metrics are pushed", secs(15.0), || {
        match collector.metrics().is_empty() {
            false => Ok(()),
            true => Err(String::new()),
        }
    });
    collector.takes(Takes::Hangs);
    let held = daemon.process.anonymous_memory();
    let began = Instant::now();
    let failures = [("signal", "metrics")];
    let name = "ws_keepalive_otlp_export_failures_total";
    let after = daemon.scrape_until("exports fail", secs(40.0), |scrape| {
        scrape.value(name, &failures) >= Some(2.0)
    });
    let waited = longest_wait(&peer, began);
    assert!(waited < ON_TIME, "{waited:?} without a ping");
    assert_eq!(after.of_target("ping_retry_count_total", "edge"), Some(0.0));
    let grew = daemon.process.anonymous_memory().saturating_sub(held);
    assert!(grew < 4 * 1024 * 1024, "{grew} bytes more");

    collector.stop();
    let warnings = || {
        let lines = daemon.process.stderr.all();
        lines
            .iter()
            .filter(|line| line.text_of("event") == "otlp_failed")
            .count()
    };
    daemon.scrape_until("exports fail on", secs(20.0), |scrape| {
        scrape.value(name, &failures) >= Some(4.0)
    });
    // In less than a minute.
    assert_eq!(warnings(), 1);
    collector.forget();
    collector.takes(Takes::All);
    collector.restart();
    until("metrics are pushed again", secs(40.0), || {
        match collector.metrics().is_empty() {
            false => Ok(()),
            true => Err(String::new()),
        }
    });
    until("it is told", secs(40.0), || {
        let lines = daemon.process.stderr.all();
        match lines
            .iter()
            .any(|line| line.text_of("event") == "otlp_back")
        {
            true => Ok(()),
            false => Err(daemon.process.stderr.texts().join("\n")),
        }
    });

    let waited = longest_wait(&peer, began);
    assert!(waited < ON_TIME, "{waited:?} without a ping");
    collector.takes(Takes::Hangs);
    let began = Instant::now();
    daemon.process.signal(Signal::TERM);
    assert_eq!(exit_code(daemon.process.wait(secs(10.0))), 0);
    assert!(began.elapsed() < secs(5.0), "{:?}", began.elapsed());
}

/// A minute passes here, beside the other tests.
#[test]
fn a_collector_that_is_gone_for_a_minute_costs_less_than_4_mib_and_no_ping() {
    let _machine = shared();
    let mut collector = Collector::start(Speaks::Grpc);
    let steady = OddPeer::upgrading(Manner::default());
    let flapping = OddPeer::upgrading(Manner {
        then: Then::FinWithoutClose,
        ..Manner::default()
    });
    // Their drops fill the queues, which hold 1 MiB each, many times over.
    let more: String = (0..30)
        .map(|n| {
            let url = flapping.url();
            format!("[[target]]\nname = \"flapping-{n}\"\nurl = \"{url}\"\n")
        })
        .collect();
    let text = targets(&steady, &table(&collector, "grpc", "logs = true")) + &more;
    let daemon = Daemon::run(&text);
    until("metrics are pushed", secs(20.0), || {
        match collector.numbers("established").len() {
            31 => Ok(()),
            n => Err(n.to_string()),
        }
    });
    // What a target remembers of its ends has grown to its full size by then.
    daemon.scrape_until("each has dropped 20 times", secs(60.0), |scrape| {
        (0..30).all(|n| {
            let name = format!("flapping-{n}");
            scrape.of_target("ws_keepalive_disconnects_total", &name) >= Some(20.0)
        })
    });
    let held = daemon.process.anonymous_memory();
    collector.stop();
    let began = Instant::now();
    let dropped = "ws_keepalive_otlp_dropped_total";
    let after = daemon.scrape_until("a minute has passed", secs(120.0), |scrape| {
        began.elapsed() > secs(60.0) && scrape.value(dropped, &[("signal", "traces")]) > Some(0.0)
    });
    let (took, waited) = (began.elapsed(), longest_wait(&steady, began));
    assert!(waited < ON_TIME, "{waited:?} without a ping in {took:?}");
    let grew = daemon.process.anonymous_memory().saturating_sub(held);
    assert!(grew < 4 * 1024 * 1024, "{grew} bytes more");
    assert_eq!(after.of_target("ping_retry_count_total", "edge"), Some(0.0));
    let warnings = daemon.process.stderr.all();
    let warnings = warnings
        .iter()
        .filter(|line| line.text_of("event") == "otlp_failed")
        .count();
    assert!(
        (1..=2).contains(&warnings),
        "{warnings} warnings in {took:?}"
    );

    collector.forget();
    collector.restart();
    // It waits 30 s at most before it tries again.
    until("all of it is pushed again", secs(60.0), || {
        let (numbers, spans) = (collector.numbers("established").len(), collector.spans());
        match numbers == 31 && !spans.is_empty() && !collector.records().is_empty() {
            true => Ok(()),
            false => Err(format!("{numbers} targets, {} spans", spans.len())),
        }
    });
    let waited = longest_wait(&steady, began);
    assert!(waited < ON_TIME, "{waited:?} without a ping");
}

#[test]
fn a_collector_that_refuses_is_told_of_in_its_words_and_without_secrets() {
    let _machine = shared();
    let collector = Collector::start(Speaks::Http);
    let words = "no such key: s3cret-key".to_owned();
    collector.takes(Takes::Refuses(401, words));
    let peer = OddPeer::upgrading(Manner::default());
    let headers = "headers = { X-Api-Key = \"s3cret-key\" }";
    let more = table(&collector, "http/protobuf", headers);
    let daemon = Daemon::run(&targets(&peer, &more));
    let warned = until("it is told", secs(15.0), || {
        let lines = daemon.process.stderr.all();
        let found = lines
            .iter()
            .find(|line| line.text_of("event") == "otlp_failed");
        found.map(|line| line.text.clone()).ok_or_else(String::new)
    });
    assert!(
        warned.contains("it answers 401 Unauthorized: no such key: ***; check otlp.headers"),
        "{warned}"
    );
    assert!(collector.came() > 0 && collector.taken().is_empty());
    let name = "ws_keepalive_otlp_dropped_total";
    let traces = [("signal", "traces")];
    daemon.scrape_until("its spans are counted", secs(15.0), |scrape| {
        scrape.value(name, &traces) >= Some(3.0)
    });
    collector.takes(Takes::Partly("too old".to_owned()));
    let metrics = [("signal", "metrics")];
    daemon.scrape_until("what it refuses of more is", secs(15.0), |scrape| {
        scrape.value(name, &metrics) >= Some(1.0)
    });
    let first = &collector.taken()[0];
    assert_eq!(first.path, "/v1/metrics");
    assert_eq!(first.headers["x-api-key"], "s3cret-key");
    let said = daemon.process.stderr.texts().join("\n");
    assert!(!said.contains("s3cret-key"), "{said}");
}

#[test]
fn a_reload_sends_to_another_collector_and_a_removed_target_goes() {
    let _machine = shared();
    let (first, second) = (
        Collector::start(Speaks::Http),
        Collector::start(Speaks::Grpc),
    );
    let peer = OddPeer::upgrading(Manner::default());
    let text = targets(&peer, &table(&first, "http/protobuf", ""));
    let url = peer.url();
    let both = format!("{text}[[target]]\nname = \"other\"\nurl = \"{url}\"\n");
    let daemon = Daemon::run(&both);
    until("both are pushed", secs(15.0), || {
        match first.numbers("established").len() {
            2 => Ok(()),
            n => Err(n.to_string()),
        }
    });
    let text = targets(&peer, &table(&second, "grpc", ""));
    daemon.dir.overwrite(&daemon.text(&text));
    until("one is pushed elsewhere", secs(15.0), || {
        match second.numbers("established").len() {
            1 => Ok(()),
            n => Err(n.to_string()),
        }
    });
    // What is pushed to the first when it is given up may come late.
    until("nothing is pushed to the first", secs(60.0), || {
        first.forget();
        second.forget();
        until("three pushes to the second", secs(15.0), || {
            let pushed = second.metrics().into_iter();
            match pushed.filter(|metric| metric.name == "established").count() {
                3.. => Ok(()),
                n => Err(n.to_string()),
            }
        });
        let taken = first.taken();
        taken.is_empty().then_some(()).ok_or(format!("{taken:?}"))
    });
}

#[test]
fn a_reload_and_its_steps_are_spans_and_a_refused_one_says_why() {
    let _machine = shared();
    let collector = Collector::start(Speaks::Http);
    let peer = OddPeer::upgrading(Manner::default());
    let text = targets(&peer, &table(&collector, "http/protobuf", ""));
    let daemon = Daemon::run(&text);
    let reloads = |count: usize| {
        until(&format!("{count} reloads are pushed"), secs(30.0), || {
            let spans = collector.spans();
            match named(&spans, "reload").len() {
                n if n == count => Ok(spans),
                n => Err(n.to_string()),
            }
        })
    };
    let relabelled = text.replace("region = \"eu\"", "region = \"us\"");
    daemon.dir.rename_over(&daemon.text(&relabelled));
    let spans = reloads(1);
    let reload = named(&spans, "reload")[0];
    for (name, value) in [
        ("ws_keepalive.trigger", "a file change"),
        ("ws_keepalive.kept", "0"),
        ("ws_keepalive.retuned", "1"),
    ] {
        assert_eq!(attribute(&reload.attributes, name), value, "{reload:?}");
    }
    assert!(reload.parent_span_id.is_empty());
    let mut steps: Vec<&Span> = spans
        .iter()
        .filter(|span| span.parent_span_id == reload.span_id)
        .collect();
    steps.sort_by_key(|span| span.start_time_unix_nano);
    let names: Vec<&str> = steps.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["load", "bind", "apply"]);
    for pair in steps.windows(2) {
        assert!(pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano);
    }
    assert!(steps[0].start_time_unix_nano >= reload.start_time_unix_nano);
    assert!(steps[2].end_time_unix_nano <= reload.end_time_unix_nano);

    let broken = text.replace("[[target]]", "colour = 1\n[[target]]\nsize = 2");
    daemon.dir.rename_over(&daemon.text(&broken));
    let spans = reloads(2);
    let refused = named(&spans, "reload")[1];
    let status = refused.status.as_ref().unwrap();
    assert_eq!(status.code, StatusCode::Error as i32);
    assert!(status.message.contains("colour"), "{}", status.message);
    assert_eq!(
        attribute(&refused.attributes, "ws_keepalive.mistakes"),
        "2",
        "{refused:?}"
    );
}

#[test]
fn rotel_shows_what_is_scraped_and_every_dial_by_grpc_and_by_http() {
    let _machine = shared();
    let rotel = Rotel::start();
    for (protocol, port) in [("grpc", rotel.grpc), ("http/protobuf", rotel.http)] {
        let service = format!("by {protocol}");
        let (daemon, _peers) = at_rest(&format!(
            "[otlp]\nendpoint = \"http://127.0.0.1:{port}\"\nprotocol = \"{protocol}\"\ninterval = \"1s\"\n\
             compression = \"gzip\"\nresource = {{ \"service.name\" = \"{service}\" }}"
        ));
        let times = |name: &str| {
            let times = rotel.received(&service).times;
            times.get(name).copied().unwrap_or_default()
        };
        let numbers = |name: &str| {
            let mut numbers = rotel.received(&service).numbers;
            numbers.remove(name).unwrap_or_default()
        };
        pushed_is_scraped(&daemon, times, numbers);
        let dials = dials(&daemon);
        until("rotel shows every dial and its steps", secs(30.0), || {
            let spans = rotel.received(&service).spans;
            let count = |name: &str| spans.iter().filter(|span| *span == name).count();
            // One for each that came up, one for each that reached somebody.
            match (count("connect"), count("upgrade")) {
                (connects, 3) if connects == dials => Ok(()),
                _ => Err(format!("{dials} dials, {spans:?}")),
            }
        });
        let failures = daemon.scrape();
        for signal in ["metrics", "traces"] {
            let count = failures.value(
                "ws_keepalive_otlp_export_failures_total",
                &[("signal", signal)],
            );
            assert_eq!(count, Some(0.0), "{signal}");
        }
    }
}
