use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry_proto::tonic::metrics::v1::metric;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::spans::Spans;
use super::testing::{Collector, Speaks, Takes, What, attribute, series};
use super::*;
use crate::config::load::{Sources, load};
use crate::config::{Secret, Target};
use crate::proto::close::{Cause, CloseFrame, Initiator};
use crate::proto::event::{
    DialFailure, End, Established, Event, Passed, PassedStep, Phase, Recovered,
};
use crate::proto::reconnect::Advice;
use crate::stats::{Buckets, EntryGuard, Identity, Protocol, TargetStats};
use crate::telemetry::metrics::scrape;
use crate::transport::tls::testing::{Ca, Order};

const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `done` gives something.
fn until<T>(what: &str, done: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, done)
}

fn until_within<T>(patience: Duration, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let by = Instant::now() + patience;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < by, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The `[otlp]` of a file, with the variables' delays short.
fn otlp(table: &str) -> Arc<Otlp> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.toml");
    std::fs::write(&file, format!("[otlp]\n{table}\n")).unwrap();
    let sources = Sources {
        file: Some(file),
        required: true,
        ..Sources::default()
    };
    let loaded = load(&sources).unwrap_or_else(|report| panic!("{report}"));
    let mut otlp = Otlp::clone(loaded.config.otlp.as_ref().unwrap());
    (otlp.span_delay, otlp.log_delay) = (Duration::from_millis(20), Duration::from_millis(20));
    Arc::new(otlp)
}

fn to(collector: &Collector, protocol: &str, more: &str) -> Arc<Otlp> {
    let url = collector.url();
    otlp(&format!(
        "endpoint = \"{url}\"\nprotocol = \"{protocol}\"\n{more}"
    ))
}

/// An exporter of a registry of its own, which ends with it.
struct Pushed {
    registry: Arc<Registry>,
    exporter: Exporter,
}

impl Pushed {
    fn new(config: &Arc<Otlp>) -> Self {
        let registry = Registry::new();
        let mut exporter = Exporter::new(registry.clone(), Arc::default());
        exporter.apply(Some(config)).unwrap();
        Self { registry, exporter }
    }

    fn target(&self, name: &str) -> EntryGuard {
        let identity = identity(name, &[("region", "eu")]);
        self.registry
            .target(Arc::new(identity), &Buckets::default())
    }

    fn spans(&self) -> Spans {
        Spans::new(self.exporter.traces().clone())
    }

    fn shutdown(&mut self) -> Duration {
        let runtime = start_runtime().unwrap();
        let began = Instant::now();
        runtime.block_on(self.exporter.shutdown());
        began.elapsed()
    }

    fn failures(&self, signal: Signal) -> u64 {
        self.registry.pushes[signal.index()].failures.load(Relaxed)
    }

    fn dropped(&self, signal: Signal) -> u64 {
        self.registry.pushes[signal.index()].dropped.load(Relaxed)
    }
}

impl Drop for Pushed {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn identity(name: &str, labels: &[(&str, &str)]) -> Identity {
    let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    Identity {
        name: name.into(),
        url: format!("ws://{name}.example.com/ws").into(),
        protocol: Protocol::WebSocket,
        server_beats: false,
        watches_staleness: false,
        labels: labels.collect(),
        fan_out: None,
    }
}

fn target(traceparent: bool) -> Target {
    let policy = crate::config::Policy {
        traceparent,
        ..crate::config::Policy::default()
    };
    Target {
        identity: Arc::new(identity("a", &[])),
        url: Secret::new("ws://a.example.com/ws".into()),
        connection: Arc::default(),
        policy: Arc::new(policy),
    }
}

fn peer() -> SocketAddr {
    ([127, 0, 0, 1], 9000).into()
}

fn established(at: SystemTime, recovered: Option<Recovered>) -> Event {
    Event::Established(Box::new(Established {
        at,
        times: Default::default(),
        local: Some(([127, 0, 0, 1], 40_000).into()),
        peer: Some(peer()),
        facts: None,
        recovered,
        attempts: 2,
    }))
}

fn failed(at: SystemTime, phase: Phase) -> Event {
    Event::DialFailed(Box::new(DialFailure {
        at,
        phase,
        message: "connection refused\u{1b}[2J".into(),
        status: Some(503),
        times: Default::default(),
        attempts: 1,
        certificate_not_after: None,
        peer: Some(peer()),
        advice: Advice::Backoff,
    }))
}

fn lost(at: SystemTime, cause: Cause) -> Event {
    Event::Ended(Box::new(End {
        at,
        outage_id: 0xabc,
        cause,
        initiator: Initiator::Peer,
        message: "the peer closed with 1001".into(),
        received: Some(CloseFrame::new(1001, "bye")),
        sent: None,
        age: Duration::from_secs(60),
        since_last_frame_in: Some(Duration::from_millis(1500)),
        since_last_frame_out: None,
        outstanding_pings: 1,
        retries: 2,
        local: None,
        peer: Some(peer()),
        facts: None,
        tcp_info: None,
    }))
}

/// A dial that took 10 ms of dns and 20 ms of tcp.
fn passed(began: SystemTime) -> Box<Passed> {
    let ms = Duration::from_millis;
    let step = |phase, after, took| PassedStep { phase, after, took };
    Box::new(Passed {
        traceparent: None,
        began: Some(began),
        steps: vec![
            step(Phase::Dns, ms(0), ms(10)),
            step(Phase::Tcp, ms(12), ms(20)),
        ],
    })
}

fn named<'s>(spans: &'s [Span], name: &str) -> Vec<&'s Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[test]
fn counters_are_those_of_a_scrape_by_their_own_names_whatever_carries_them() {
    for (speaks, protocol, gzip) in [
        (Speaks::Http, "http/protobuf", true),
        (Speaks::Http, "http/protobuf", false),
        (Speaks::Grpc, "grpc", true),
        (Speaks::Grpc, "grpc", false),
    ] {
        let collector = Collector::start(speaks);
        let compression = if gzip { "gzip" } else { "none" };
        let config = to(
            &collector,
            protocol,
            &format!(
                "interval = \"1s\"\ncompression = \"{compression}\"\ntraces = false\n\
                 headers = {{ X-Api-Key = \"s3cret-key\" }}\n\
                 resource = {{ \"deployment.environment.name\" = \"test\" }}"
            ),
        );
        let pushed = Pushed::new(&config);
        let (one, two) = (pushed.target("one"), pushed.target("two"));
        for seq in 1..=3 {
            one.stats().apply(&Event::PingSent {
                seq,
                retry: seq == 3,
            });
        }
        let rtt = Some(Duration::from_millis(3));
        one.stats().apply(&Event::Pong {
            rtt,
            mismatch: false,
        });
        two.stats().apply(&established(SystemTime::now(), None));
        two.stats().apply(&lost(SystemTime::now(), Cause::Fin));
        two.stats().apply(&failed(SystemTime::now(), Phase::Tcp));
        let text = scrape(&pushed.registry).unwrap();
        until("both are exported", || {
            (collector.numbers("sent_ping").len() == 2).then_some(())
        });
        let series = |name: &str| format!("region=eu,target={name}");
        let sent = collector.numbers("sent_ping");
        assert_eq!(sent[&series("one")], 3.0);
        assert_eq!(sent[&series("two")], 0.0);
        assert!(text.contains("sent_ping_total{region=\"eu\",target=\"one\"} 3"));
        assert_eq!(collector.numbers("ping_retry_count")[&series("one")], 1.0);
        let causes = collector.numbers("ws_keepalive.disconnects_by_cause");
        assert_eq!(causes.len(), 1);
        assert_eq!(causes["cause=fin,region=eu,target=two"], 1.0);
        let failures = collector.numbers("ws_keepalive.connect_failures");
        assert_eq!(failures.len(), 12);
        assert_eq!(failures["phase=tcp,region=eu,target=two"], 1.0);
        assert_eq!(
            collector.numbers("ws_keepalive.otlp_export_failures")["signal=metrics"],
            0.0
        );
        // Every family of the scrape is there, by its own name.
        let scraped = text
            .lines()
            .filter(|line| line.starts_with("# TYPE "))
            .count();
        let mut names: Vec<String> = collector.metrics().into_iter().map(|m| m.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), scraped, "{names:?}");
        let first = &collector.taken()[0];
        assert_eq!(first.headers["x-api-key"], "s3cret-key");
        let encoding = match speaks {
            Speaks::Http => first.headers.get("content-encoding"),
            Speaks::Grpc => first.headers.get("grpc-encoding"),
        };
        assert_eq!(
            encoding.map(String::as_str),
            gzip.then_some("gzip"),
            "{first:?}"
        );
        let What::Metrics(request) = &first.what else {
            panic!("{first:?}");
        };
        let resource = request.resource_metrics[0].resource.as_ref().unwrap();
        for (name, value) in [
            ("service.name", "ws-keepalive"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("deployment.environment.name", "test"),
        ] {
            assert_eq!(testing::attribute(&resource.attributes, name), value);
        }
    }
}

#[test]
fn a_counter_counts_from_the_registration_of_its_target_and_goes_with_it() {
    let collector = Collector::start(Speaks::Http);
    let pushed = Pushed::new(&to(&collector, "http/protobuf", "interval = \"1s\""));
    let _stays = pushed.target("stays");
    until("one is exported", || {
        (collector.numbers("sent_ping").len() == 1).then_some(())
    });
    // A second later than exporter and registry.
    collector.forget();
    let before = nanos_now();
    let gone = pushed.target("gone");
    let after = nanos_now();
    until("both are exported", || {
        (collector.numbers("sent_ping").len() == 2).then_some(())
    });
    let slack = 50_000_000; // what the two clocks differ in being read
    for metric in collector
        .metrics()
        .into_iter()
        .filter(|m| m.name == "sent_ping")
    {
        let Some(metric::Data::Sum(sum)) = metric.data else {
            panic!("{metric:?}");
        };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
        for point in sum.data_points {
            let start = point.start_time_unix_nano;
            assert!(point.time_unix_nano >= start);
            match series(&point.attributes).as_str() {
                "region=eu,target=gone" => assert!(
                    (before - slack..after + slack).contains(&start),
                    "{before} {start} {after}"
                ),
                _ => assert!(start < before - slack, "{start} {before}"),
            }
        }
    }
    drop(gone);
    collector.forget();
    let sent = until("one is exported", || {
        Some(collector.numbers("sent_ping")).filter(|sent| !sent.is_empty())
    });
    assert_eq!(
        sent.into_keys().collect::<Vec<_>>(),
        ["region=eu,target=stays"]
    );
}

fn nanos_now() -> u64 {
    super::spans::nanos(SystemTime::now())
}

#[test]
fn round_trips_are_counted_from_one_export_to_the_next_and_none_is_lost_by_one_that_failed() {
    let collector = Collector::start(Speaks::Http);
    let pushed = Pushed::new(&to(&collector, "http/protobuf", "interval = \"1s\""));
    let one = pushed.target("one");
    let pong = |ms| Event::Pong {
        rtt: Some(Duration::from_millis(ms)),
        mismatch: false,
    };
    let points = || {
        let metrics = collector.metrics().into_iter();
        let rtt = metrics.filter(|metric| metric.name == "ws_keepalive.rtt");
        let points = rtt.flat_map(|metric| match metric.data {
            Some(metric::Data::Histogram(histogram)) => {
                assert_eq!(histogram.aggregation_temporality, 1, "delta");
                histogram.data_points
            }
            other => panic!("{other:?}"),
        });
        points.collect::<Vec<_>>()
    };
    one.stats().apply(&pong(3));
    let first = until("the first is exported", || points().first().cloned());
    assert_eq!((first.count, first.sum), (1, Some(0.003)));
    assert_eq!(first.bucket_counts.len(), first.explicit_bounds.len() + 1);
    assert_eq!(first.bucket_counts[3], 1, "{first:?}");

    collector.takes(Takes::Refuses(503, "busy".into()));
    one.stats().apply(&pong(4));
    let came = collector.came();
    until("an export failed", || {
        (collector.came() > came + 1).then_some(())
    });
    one.stats().apply(&pong(20_000));
    collector.takes(Takes::All);
    let second = until("the second is exported", || points().get(1).cloned());
    assert_eq!(second.count, 2);
    assert_eq!(second.start_time_unix_nano, first.time_unix_nano);
    assert_eq!(
        (second.bucket_counts[3], second.bucket_counts.last()),
        (1, Some(&1))
    );
    // Nothing happened since: nothing is told.
    let came = collector.came();
    until("two exports more", || {
        (collector.came() >= came + 4).then_some(())
    });
    assert_eq!(points().len(), 2);
}

#[test]
fn cumulative_round_trips_are_those_of_a_scrape() {
    let collector = Collector::start(Speaks::Http);
    let config = to(
        &collector,
        "http/protobuf",
        "interval = \"1s\"\nrtt = \"cumulative\"",
    );
    let pushed = Pushed::new(&config);
    let one = pushed.target("one");
    for ms in [1, 2, 700] {
        let rtt = Some(Duration::from_millis(ms));
        one.stats().apply(&Event::Pong {
            rtt,
            mismatch: false,
        });
    }
    let metric = until("they are exported", || {
        collector
            .metrics()
            .into_iter()
            .find(|metric| metric.name == "ws_keepalive.rtt")
    });
    let Some(metric::Data::Histogram(histogram)) = metric.data else {
        panic!("{metric:?}");
    };
    assert_eq!(histogram.aggregation_temporality, 2);
    let [point] = &histogram.data_points[..] else {
        panic!("{histogram:?}");
    };
    let scraped = one.stats().rtt();
    let mut below = 0;
    for (n, (bound, count)) in scraped.cumulative.iter().enumerate() {
        below += point.bucket_counts[n];
        assert_eq!(
            (point.explicit_bounds[n], below),
            (bound.as_secs_f64(), *count)
        );
    }
    assert_eq!(
        (point.count, point.sum),
        (scraped.count, Some(scraped.sum.as_secs_f64()))
    );
}

#[test]
fn thousands_of_targets_are_all_there_and_no_request_is_too_large() {
    let collector = Collector::start(Speaks::Grpc);
    let config = to(&collector, "grpc", "interval = \"1s\"\ntraces = false");
    let pushed = Pushed::new(&config);
    let targets: Vec<_> = (0..2_500)
        .map(|n| pushed.target(&format!("t{n}")))
        .collect();
    for target in &targets {
        target.stats().apply(&Event::PingSent {
            seq: 1,
            retry: false,
        });
    }
    let mut looked_at = 0;
    // So many take long where the machine is busy.
    let sent = until_within(PATIENCE * 3, "all are exported", || {
        // A look copies all that was taken, and each second adds as much again.
        let came = collector.came();
        if came == std::mem::replace(&mut looked_at, came) {
            return None;
        }
        let sent = collector.numbers("sent_ping");
        (sent.len() == targets.len() && sent.values().all(|n| *n == 1.0)).then_some(sent)
    });
    assert!(sent.keys().all(|series| !series.contains("overflow")));
    for one in collector.taken() {
        let What::Metrics(request) = one.what else {
            panic!("{one:?}");
        };
        let size = prost::Message::encoded_len(&request);
        assert!(size < 1 << 20, "{size}");
    }
}

#[test]
fn a_dial_is_a_span_with_its_steps_below_it_and_an_outage_is_linked_to_those_that_tried() {
    let collector = Collector::start(Speaks::Http);
    let pushed = Pushed::new(&to(&collector, "http/protobuf", "metrics = false"));
    let entry = pushed.target("one");
    let stats = entry.stats();
    let mut spans = pushed.spans();
    let at = |secs: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + secs);
    let ms = Duration::from_millis;

    let wanted = spans.dialing(&target(true)).unwrap();
    let parent = wanted.traceparent.clone().unwrap();
    spans.passed(passed(at(0)));
    assert!(spans.event(stats, &established(at(1), None)).is_some());
    let outage = spans
        .event(stats, &lost(at(10), Cause::ClosedGoingAway))
        .unwrap();
    spans.event(stats, &Event::Connecting);
    assert_eq!(spans.dialing(&target(false)).unwrap().traceparent, None);
    spans.passed(passed(at(11)));
    let tried = spans.event(stats, &failed(at(12), Phase::Tcp)).unwrap();
    spans.event(stats, &Event::Connecting);
    spans.dialing(&target(false)).unwrap();
    spans.passed(passed(at(13)));
    let recovered = Recovered {
        outage_id: 0xabc,
        after: Duration::from_secs(4),
    };
    let ended = spans
        .event(stats, &established(at(14), Some(recovered)))
        .unwrap();

    let all = until("ten spans came", || {
        Some(collector.spans()).filter(|s| s.len() == 10)
    });
    let [first, second, third] = named(&all, "connect")[..] else {
        panic!("{all:?}");
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let own = format!("00-{}-{}-01", hex(&first.trace_id), hex(&first.span_id));
    assert_eq!(*parent, *own);
    assert_eq!(first.start_time_unix_nano, super::spans::nanos(at(0)));
    assert_eq!(first.end_time_unix_nano, super::spans::nanos(at(1)));
    assert!(
        first.parent_span_id.is_empty() && first.kind == 3,
        "{first:?}"
    );
    assert!(first.status.is_none());
    assert_eq!(attribute(&first.attributes, "ws_keepalive.target"), "one");
    assert_eq!(attribute(&first.attributes, "region"), "eu");
    assert_eq!(
        attribute(&first.attributes, "url.full"),
        "ws://one.example.com/ws"
    );
    assert_eq!(attribute(&first.attributes, "network.peer.port"), "9000");
    let steps = named(&all, "tcp");
    assert_eq!(steps[0].parent_span_id, first.span_id);
    assert_eq!(steps[0].trace_id, first.trace_id);
    assert_eq!(
        steps[0].start_time_unix_nano,
        super::spans::nanos(at(0) + ms(12))
    );
    assert_eq!(
        steps[0].end_time_unix_nano,
        super::spans::nanos(at(0) + ms(32))
    );
    assert!(steps[0].status.is_none());

    let status = second.status.as_ref().unwrap();
    assert_eq!(
        (status.code, &*status.message),
        (2, "connection refused\\u{1b}[2J")
    );
    assert_eq!(
        steps[1].status, second.status,
        "the step that failed says so, too"
    );
    assert!(named(&all, "dns")[1].status.is_none());
    assert_eq!(attribute(&second.attributes, "error.type"), "tcp");
    assert_eq!(
        attribute(&second.attributes, "http.response.status_code"),
        "503"
    );
    assert_eq!(
        (second.trace_id.as_slice(), third.trace_id.as_slice()),
        (&tried.trace[..], &ended.trace[..])
    );

    let [span] = named(&all, "outage")[..] else {
        panic!("{all:?}");
    };
    assert_eq!(
        (span.trace_id.as_slice(), span.span_id.as_slice()),
        (&outage.trace[..], &outage.span[..])
    );
    assert_eq!(span.start_time_unix_nano, super::spans::nanos(at(10)));
    assert_eq!(span.end_time_unix_nano, super::spans::nanos(at(14)));
    for (name, value) in [
        ("ws_keepalive.target", "one"),
        ("ws_keepalive.cause", "closed_going_away"),
        ("ws_keepalive.initiator", "peer"),
        ("ws_keepalive.outage_id", "0000000000000abc"),
        ("ws_keepalive.received_code", "1001"),
        ("ws_keepalive.received_reason", "bye"),
        ("ws_keepalive.age_seconds", "60"),
        ("ws_keepalive.since_last_frame_in_seconds", "1.5"),
        ("ws_keepalive.since_last_frame_out_seconds", ""),
        ("ws_keepalive.outstanding_pings", "1"),
        ("ws_keepalive.attempts", "2"),
        ("ws_keepalive.unfinished", ""),
    ] {
        assert_eq!(attribute(&span.attributes, name), value, "{name}");
    }
    let linked: Vec<_> = span
        .links
        .iter()
        .map(|link| link.span_id.as_slice())
        .collect();
    assert_eq!(
        linked,
        [second.span_id.as_slice(), third.span_id.as_slice()]
    );
}

#[test]
fn what_is_cut_short_is_unfinished_and_what_never_began_is_no_span() {
    let collector = Collector::start(Speaks::Http);
    let pushed = Pushed::new(&to(&collector, "http/protobuf", "metrics = false"));
    let entry = pushed.target("one");
    let stats = entry.stats();
    let now = SystemTime::now();
    let mut spans = pushed.spans();
    spans.event(stats, &lost(now, Cause::Fin));
    // One that waits for its place at the gate, then one that is given up under way.
    spans.dialing(&target(false)).unwrap();
    spans.passed(Box::new(Passed {
        began: None,
        ..*passed(now)
    }));
    spans.event(stats, &Event::Connecting);
    spans.dialing(&target(false)).unwrap();
    spans.passed(passed(now));
    spans.event(stats, &Event::Stopped);
    let all = until("four spans came", || {
        Some(collector.spans()).filter(|s| s.len() == 4)
    });
    for name in ["connect", "outage"] {
        let [span] = named(&all, name)[..] else {
            panic!("{all:?}");
        };
        assert_eq!(
            attribute(&span.attributes, "ws_keepalive.unfinished"),
            "true"
        );
    }
    // A task that panics drops them; what was asked for is no outage.
    collector.forget();
    let mut spans = pushed.spans();
    spans.event(stats, &lost(now, Cause::Shutdown));
    drop(spans);
    let mut spans = pushed.spans();
    spans.event(stats, &lost(now, Cause::Replaced));
    drop(spans);
    let all = until("a span came", || {
        Some(collector.spans()).filter(|s| !s.is_empty())
    });
    assert_eq!(
        attribute(&all[0].attributes, "ws_keepalive.cause"),
        "replaced"
    );
}

#[test]
fn an_outage_of_many_dials_keeps_the_last_links_and_says_how_many_there_were() {
    let collector = Collector::start(Speaks::Http);
    let pushed = Pushed::new(&to(&collector, "http/protobuf", "metrics = false"));
    let entry = pushed.target("one");
    let stats = entry.stats();
    let now = SystemTime::now();
    let mut spans = pushed.spans();
    spans.event(stats, &lost(now, Cause::Reset));
    let mut last = None;
    for _ in 0..100 {
        spans.dialing(&target(false)).unwrap();
        spans.passed(passed(now));
        last = spans.event(stats, &failed(now, Phase::Tcp));
    }
    drop(spans);
    let outage = until("the outage came", || {
        collector
            .spans()
            .into_iter()
            .find(|span| span.name == "outage")
    });
    assert_eq!((outage.links.len(), outage.dropped_links_count), (32, 68));
    assert_eq!(outage.links[31].span_id, last.unwrap().span);
    assert_eq!(
        attribute(&outage.attributes, "ws_keepalive.attempts"),
        "100"
    );
}

#[test]
fn nothing_is_kept_of_a_target_whose_connection_stands_or_where_traces_are_off() {
    let registry = Registry::new();
    let exporter = Exporter::new(registry.clone(), Arc::default());
    let entry = registry.target(Arc::new(identity("one", &[])), &Buckets::default());
    let mut spans = Spans::new(exporter.traces().clone());
    assert!(spans.dialing(&target(true)).is_none());
    assert_eq!(
        spans.event(entry.stats(), &lost(SystemTime::now(), Cause::Fin)),
        None
    );
    assert!(!spans.is_open());
    assert!(size_of::<Spans>() <= 16);

    let collector = Collector::start(Speaks::Http);
    let pushed = Pushed::new(&to(&collector, "http/protobuf", "metrics = false"));
    let mut spans = pushed.spans();
    spans.dialing(&target(false)).unwrap();
    assert!(spans.is_open());
    spans.passed(passed(SystemTime::now()));
    spans.event(entry.stats(), &established(SystemTime::now(), None));
    assert!(!spans.is_open());
}

#[test]
fn tls_of_a_private_authority_is_trusted_and_another_is_not() {
    let authority = Ca::new("collectors");
    let issued = authority.issue(&Order::server(&["localhost"]));
    let pem = || Some((issued.cert_pem(), issued.key.serialize_pem()));
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    for (speaks, protocol) in [(Speaks::Http, "http/protobuf"), (Speaks::Grpc, "grpc")] {
        let collector = Collector::start_with(speaks, pem());
        let tls = format!("interval = \"1s\"\ntls = {{ ca = {ca:?} }}");
        let pushed = Pushed::new(&to(&collector, protocol, &tls));
        drop(pushed.target("one"));
        until("metrics came", || {
            (!collector.taken().is_empty()).then_some(())
        });
        drop(pushed);
        collector.forget();
        let pushed = Pushed::new(&to(&collector, protocol, "interval = \"1s\""));
        until("it failed", || {
            (pushed.failures(Signal::Metrics) > 0).then_some(())
        });
        assert!(collector.taken().is_empty());
    }
}

#[test]
fn a_collector_that_was_away_gets_what_waited_for_it() {
    for (speaks, protocol) in [(Speaks::Http, "http/protobuf"), (Speaks::Grpc, "grpc")] {
        let mut collector = Collector::start(speaks);
        let pushed = Pushed::new(&to(&collector, protocol, "interval = \"1s\""));
        let entry = pushed.target("one");
        until("metrics came", || {
            (!collector.taken().is_empty()).then_some(())
        });
        collector.stop();
        let mut spans = pushed.spans();
        spans.event(entry.stats(), &lost(SystemTime::now(), Cause::Fin));
        drop(spans);
        until("both failed", || {
            let failed = |signal| pushed.failures(signal) > 0;
            (failed(Signal::Traces) && failed(Signal::Metrics)).then_some(())
        });
        collector.forget();
        collector.restart();
        until("the outage came", || {
            (named(&collector.spans(), "outage").len() == 1).then_some(())
        });
        until("metrics came again", || {
            (!collector.metrics().is_empty()).then_some(())
        });
        assert_eq!(pushed.dropped(Signal::Traces), 0);
    }
}

#[test]
fn what_a_collector_refuses_for_good_is_dropped_and_what_it_refuses_for_now_is_not() {
    for (speaks, protocol, never, later) in [
        (Speaks::Http, "http/protobuf", 400, 503),
        // INVALID_ARGUMENT, UNAVAILABLE.
        (Speaks::Grpc, "grpc", 3, 14),
    ] {
        let collector = Collector::start(speaks);
        let pushed = Pushed::new(&to(&collector, protocol, "metrics = false"));
        let entry = pushed.target("one");
        let lose = || {
            let mut spans = pushed.spans();
            spans.event(entry.stats(), &lost(SystemTime::now(), Cause::Fin));
        };
        collector.takes(Takes::Refuses(never, "no".into()));
        lose();
        until("it is dropped", || {
            (pushed.dropped(Signal::Traces) == 1).then_some(())
        });
        collector.takes(Takes::Refuses(later, "busy".into()));
        lose();
        until("it failed", || {
            // It is tried again meanwhile.
            (pushed.failures(Signal::Traces) >= 2).then_some(())
        });
        collector.takes(Takes::All);
        until("it came", || (collector.spans().len() == 1).then_some(()));
        assert_eq!(pushed.dropped(Signal::Traces), 1);
        collector.takes(Takes::Partly("too old".into()));
        lose();
        until("part of it was refused", || {
            (pushed.dropped(Signal::Traces) == 2).then_some(())
        });
    }
}

/// Answers one request after the other, and hands out what they carried.
fn answering(answers: Vec<&'static str>) -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (came, requests) = mpsc::channel();
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        while answers.len() > 0 {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            while let Some(body) = request(&mut stream) {
                came.send(body).unwrap();
                let answer = answers.next().unwrap();
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    (url, requests)
}

/// The body of the next request; `None` at the end of the connection.
fn request(stream: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    Some(body)
}

#[test]
fn metrics_that_are_refused_for_good_hold_up_none_behind_them() {
    // A partial success: 3 data points are refused, for they are "old".
    const TAKEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n\x0a\x07\x08\x03\x12\x03old";
    const NEVER: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    const LATER: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    // The program's own and three parts of the targets; what may be taken later ends an export.
    let answers = vec![NEVER, TAKEN, NEVER, TAKEN, NEVER, LATER];
    let (url, requests) = answering(answers);
    let config = otlp(&format!(
        "endpoint = \"{url}\"\ninterval = \"1h\"\ntraces = false"
    ));
    let registry = Registry::new();
    let targets: Vec<_> = (0..120)
        .map(|n| {
            let identity = Arc::new(identity(&format!("t{n:03}"), &[]));
            let entry = registry.target(identity, &Buckets::default());
            entry.stats().apply(&Event::Pong {
                rtt: Some(Duration::from_millis(3)),
                mismatch: false,
            });
            entry
        })
        .collect();
    let stats: Vec<_> = targets.iter().map(|entry| entry.stats().clone()).collect();
    let exporter = Exporter::new(registry, Arc::default());
    let work = Work {
        shared: exporter.shared.clone(),
        config: config.clone(),
        envelope: Envelope::new(Vec::new()),
        end: CancellationToken::new(),
        last: Arc::default(),
    };
    let runtime = start_runtime().unwrap();
    let (first, second) = runtime.block_on(async {
        let mut client = Client::new(config.metrics.as_ref().unwrap());
        (
            work.export_metrics(&mut client, &stats).await.unwrap_err(),
            work.export_metrics(&mut client, &stats).await.unwrap_err(),
        )
    });
    assert!(
        first.message.contains("400") && !first.may_retry,
        "{first:?}"
    );
    assert!(
        second.message.contains("400"),
        "the first error: {second:?}"
    );
    let push = &exporter.shared.registry.pushes[Signal::Metrics.index()];
    assert_eq!(push.dropped.load(Relaxed), 6, "of both that were taken");
    let bodies: Vec<_> = requests.try_iter().collect();
    assert_eq!(bodies.len(), 6);
    for (n, name) in [(1, "t000"), (2, "t040"), (3, "t080"), (5, "t000")] {
        assert!(holds(&bodies[n], name), "{n} {name}");
    }
    // Of what was refused nothing counts as told.
    let told = |n: usize| is_told(&exporter.shared, &config, &stats[n]);
    assert!(told(0) && !told(40) && told(80));
}

fn holds(body: &[u8], name: &str) -> bool {
    body.windows(name.len()).any(|w| w == name.as_bytes())
}

/// Whether every round trip of `stats` is booked as told to a collector.
fn is_told(shared: &Shared, config: &Otlp, stats: &Arc<TargetStats>) -> bool {
    let Shared {
        registry, anchor, ..
    } = shared;
    let part = std::slice::from_ref(stats);
    let exported = lock(&shared.exported);
    let (items, _) = metrics::of_targets(part, registry, anchor, config.rtt, &exported);
    !items.iter().any(|item| holds(item, "ws_keepalive.rtt"))
}

#[test]
fn a_web_servers_page_is_no_answer_of_a_collector() {
    let (url, _requests) = answering(vec![
        "HTTP/1.1 202 Accepted\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
    ]);
    let error = export_to(&url);
    assert_eq!(
        error.message,
        "it answers 202 Accepted with a page and no protobuf; is otlp.endpoint a collector's?"
    );
    assert!(!error.may_retry);
}

#[test]
fn the_zone_of_a_collectors_address_is_its_own() {
    let error = export_to("http://[fe80::1%25nosuch0]:4318");
    assert_eq!(
        error.message,
        "[fe80::1%nosuch0]: this machine has no interface nosuch0"
    );
}

/// How an export to `url` fails.
fn export_to(url: &str) -> ExportError {
    let config = otlp(&format!("endpoint = \"{url}\""));
    let mut client = Client::new(config.metrics.as_ref().unwrap());
    let runtime = start_runtime().unwrap();
    runtime.block_on(client.export(Vec::new())).unwrap_err()
}

#[test]
fn a_wait_grows_up_to_a_bound_and_is_what_the_collector_asks_for_at_least() {
    let secs = Duration::from_secs;
    for _ in 0..100 {
        assert!((FIRST_WAIT / 2..=FIRST_WAIT).contains(&next_wait(None, None)));
        assert!((secs(4)..=secs(8)).contains(&next_wait(Some(secs(4)), None)));
        assert!((secs(15)..=secs(30)).contains(&next_wait(Some(secs(300)), None)));
        assert_eq!(next_wait(None, Some(secs(120))), secs(120));
        assert!(next_wait(Some(secs(20)), Some(secs(1))) >= secs(15));
    }
}

#[test]
fn what_waits_when_the_program_ends_is_counted_as_lost() {
    let collector = Collector::start(Speaks::Http);
    collector.takes(Takes::Refuses(503, "busy".into()));
    let mut pushed = Pushed::new(&to(&collector, "http/protobuf", "metrics = false"));
    let entry = pushed.target("one");
    for _ in 0..3 {
        let mut spans = pushed.spans();
        spans.event(entry.stats(), &lost(SystemTime::now(), Cause::Fin));
    }
    pushed.exporter.keep_for_the_last();
    pushed.shutdown();
    assert!(pushed.failures(Signal::Traces) > 0);
    assert_eq!(pushed.dropped(Signal::Traces), 3);
    assert_eq!(
        kept(Signal::Traces, true, true),
        "these are lost: the program ends"
    );
    assert_eq!(
        kept(Signal::Metrics, false, false),
        "what it refused is sent again at the next interval"
    );
}

#[test]
fn a_collector_that_hangs_holds_one_export_and_the_end_waits_no_longer_than_it_may() {
    for (speaks, protocol) in [(Speaks::Http, "http/protobuf"), (Speaks::Grpc, "grpc")] {
        let collector = Collector::start(speaks);
        collector.takes(Takes::Hangs);
        let mut pushed = Pushed::new(&to(&collector, protocol, "interval = \"1s\""));
        let entry = pushed.target("one");
        // More than has room.
        for _ in 0..5_000 {
            let mut spans = pushed.spans();
            spans.event(entry.stats(), &lost(SystemTime::now(), Cause::Fin));
        }
        until("it hangs", || (collector.came() > 0).then_some(()));
        assert!(pushed.exporter.shared.traces.queue.bytes() <= 1 << 20);
        pushed.exporter.keep_for_the_last();
        let took = pushed.shutdown();
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
}

#[test]
fn the_end_is_exported_with_what_happened_in_it() {
    let collector = Collector::start(Speaks::Http);
    let mut pushed = Pushed::new(&to(&collector, "http/protobuf", "interval = \"1h\""));
    let entry = pushed.target("one");
    let stats = entry.stats().clone();
    pushed.exporter.keep_for_the_last();
    stats.apply(&established(SystemTime::now(), None));
    stats.apply(&lost(SystemTime::now(), Cause::Shutdown));
    drop(entry);
    let mut spans = pushed.spans();
    spans.event(&stats, &lost(SystemTime::now(), Cause::Fin));
    drop(spans);
    assert!(pushed.shutdown() < Duration::from_secs(2));
    let ended = collector.numbers("ws_keepalive.disconnects");
    assert_eq!(ended["region=eu,target=one"], 1.0);
    assert_eq!(named(&collector.spans(), "outage").len(), 1);
}

#[test]
fn another_configuration_takes_the_place_of_the_one_before_and_loses_nothing() {
    let (first, second) = (
        Collector::start(Speaks::Http),
        Collector::start(Speaks::Grpc),
    );
    let config = to(&first, "http/protobuf", "interval = \"1s\"");
    let mut pushed = Pushed::new(&config);
    let entry = pushed.target("one");
    let pong = || Event::Pong {
        rtt: Some(Duration::from_millis(3)),
        mismatch: false,
    };
    entry.stats().apply(&pong());
    until("the first has it", || {
        first
            .metrics()
            .iter()
            .any(|m| m.name == "ws_keepalive.rtt")
            .then_some(())
    });
    // The collector has it before its answer is here.
    until("it is booked", || {
        is_told(&pushed.exporter.shared, &config, entry.stats()).then_some(())
    });
    assert_eq!(
        pushed
            .exporter
            .apply(Some(&to(&first, "http/protobuf", "interval = \"1s\"")))
            .unwrap(),
        None
    );
    first.takes(Takes::Hangs);
    let mut spans = pushed.spans();
    spans.event(entry.stats(), &lost(SystemTime::now(), Cause::Fin));
    drop(spans);
    entry.stats().apply(&pong());
    let words = pushed
        .exporter
        .apply(Some(&to(&second, "grpc", "interval = \"1s\"")))
        .unwrap();
    let port = second.address.port();
    assert!(
        words
            .unwrap()
            .contains(&format!("metrics to http://localhost:{port}/"))
    );
    until("the second has the span", || {
        (second.spans().len() == 1).then_some(())
    });
    let rtt = until("the second has what was new", || {
        second
            .metrics()
            .into_iter()
            .find(|metric| metric.name == "ws_keepalive.rtt")
    });
    let Some(metric::Data::Histogram(histogram)) = rtt.data else {
        panic!("{rtt:?}");
    };
    assert_eq!(
        histogram.data_points[0].count, 1,
        "the first's pong is not told again"
    );
    let words = pushed.exporter.apply(None).unwrap();
    assert_eq!(words.unwrap(), "nothing is pushed by OTLP any more");
    assert!(!scrape(&pushed.registry).unwrap().contains("otlp"));
}

#[test]
fn a_trace_is_recorded_or_not_as_a_whole() {
    use crate::config::otlp::Sampled;
    let quarter = Sampled::share(0.25);
    let taken = (0..10_000)
        .filter(|_| quarter.takes(rand::random()))
        .count();
    assert!((2_000..3_000).contains(&taken), "{taken}");
    assert!(Sampled::ALL.takes([0xff; 16]) && !Sampled(0).takes([0; 16]));

    let collector = Collector::start(Speaks::Http);
    let mut config = Otlp::clone(&to(&collector, "http/protobuf", "metrics = false"));
    config.sampled = Sampled(0);
    let pushed = Pushed::new(&Arc::new(config));
    let entry = pushed.target("one");
    let mut spans = pushed.spans();
    let wanted = spans.dialing(&target(true)).unwrap();
    assert!(wanted.traceparent.unwrap().ends_with("-00"));
    spans.passed(passed(SystemTime::now()));
    spans.event(entry.stats(), &failed(SystemTime::now(), Phase::Tcp));
    assert_eq!(pushed.exporter.shared.traces.queue.bytes(), 0);
}

#[test]
fn trouble_is_told_once_a_minute_and_its_end_if_it_was_told() {
    let mut trouble = Trouble::default();
    assert!(trouble.fails(Signal::Metrics));
    assert!(!trouble.fails(Signal::Traces) && !trouble.fails(Signal::Metrics));
    assert!(!trouble.works(Signal::Metrics), "traces still fail");
    assert!(trouble.works(Signal::Traces));
    assert!(!trouble.works(Signal::Traces), "it was told");
    // Again within the minute: neither.
    assert!(!trouble.fails(Signal::Logs) && !trouble.works(Signal::Logs));
    trouble.warned = trouble.warned.and_then(|at| at.checked_sub(SILENCE));
    assert!(trouble.fails(Signal::Logs) && trouble.works(Signal::Logs));
}

#[test]
fn a_signal_that_a_reload_turned_off_fails_no_more() {
    let only_metrics = otlp("traces = false");
    let exporter = Exporter::new(Registry::new(), Arc::default());
    let shared = &exporter.shared;
    let collector = only_metrics.metrics.as_ref().unwrap();
    let fails = |signal| shared.book(signal, collector, &Err(too_late()), false);
    shared.switch(Some(&otlp("")));
    fails(Signal::Traces);
    fails(Signal::Metrics);
    shared.switch(Some(&only_metrics));
    // One that was under way.
    fails(Signal::Traces);
    assert!(lock(&shared.trouble).works(Signal::Metrics), "all works");
    // What alone failed is gone: nothing was told that could end.
    shared.switch(Some(&otlp("")));
    *lock(&shared.trouble) = Trouble::default();
    fails(Signal::Traces);
    shared.switch(Some(&only_metrics));
    assert!(!lock(&shared.trouble).works(Signal::Metrics));
}

#[test]
fn lines_are_records_with_their_fields_and_the_span_they_belong_to() {
    use crate::telemetry::logs::LineSink;
    use serde_json::Value;
    let collector = Collector::start(Speaks::Grpc);
    let pushed = Pushed::new(&to(&collector, "grpc", "metrics = false\nlogs = true"));
    let lines = Lines(pushed.exporter.shared.lines.clone());
    assert!(lines.is_on());
    let span = pushed.spans().event(
        pushed.target("one").stats(),
        &lost(SystemTime::now(), Cause::Fin),
    );
    let fields = [
        ("event", Value::from("lost")),
        ("target", "one".into()),
        ("retries", 2.into()),
        ("age_seconds", 1.5.into()),
        ("retry", true.into()),
    ];
    lines::within(span, || {
        lines.line(tracing::Level::WARN, "one lost\u{1b}", &fields)
    });
    lines.line(tracing::Level::INFO, "hello", &[]);
    let unsampled = span.map(|ids| super::spans::Ids {
        sampled: false,
        ..ids
    });
    lines::within(unsampled, || lines.line(tracing::Level::INFO, "x", &[]));
    let records = until("three came", || {
        Some(collector.records()).filter(|r| r.len() == 3)
    });
    let flags: Vec<u32> = records.iter().map(|record| record.flags).collect();
    assert_eq!(flags, [1, 0, 0]);
    let first = &records[0];
    assert_eq!((first.severity_number, &*first.severity_text), (13, "warn"));
    assert_eq!(first.event_name, "lost");
    assert_eq!(first.trace_id, span.unwrap().trace);
    assert_eq!(first.span_id, span.unwrap().span);
    let all = series(&first.attributes);
    assert_eq!(
        all,
        "age_seconds=1.5,event=lost,retries=2,retry=true,target=one"
    );
    let body = format!("{:?}", first.body);
    assert!(body.contains("one lost\\\\u{1b}"), "{body}");
    assert!(records[1].trace_id.is_empty());
}

#[test]
fn what_a_collector_says_shows_no_secret() {
    let collector = Collector::start(Speaks::Http);
    let url = collector.url().replace("http://", "http://joe:pa55word-x@");
    let config = otlp(&format!(
        "endpoint = \"{url}?key=QUERY-SECRET\"\nheaders = {{ X-Api-Key = \"s3cret-key\" }}"
    ));
    let place = config.metrics.as_ref().unwrap();
    collector.takes(Takes::Refuses(
        401,
        "bad s3cret-key of joe:pa55word-x QUERY-SECRET".into(),
    ));
    let runtime = start_runtime().unwrap();
    let export = async { Client::new(place).export(Vec::new()).await };
    let error = runtime.block_on(export).unwrap_err();
    assert!(
        error
            .message
            .starts_with("it answers 401 Unauthorized: bad ***"),
        "{error:?}"
    );
    assert!(error.message.ends_with("; check otlp.headers"), "{error:?}");
    for secret in ["s3cret-key", "pa55word-x", "QUERY-SECRET"] {
        assert!(!error.message.contains(secret), "{error:?}");
        assert!(
            !format!("{:?} {}", place, place.place).contains(secret),
            "{place:?}"
        );
    }
    collector.takes(Takes::All);
    let export = async { Client::new(place).export(Vec::new()).await };
    runtime.block_on(export).unwrap();
    let taken = &collector.taken()[0];
    assert_eq!(taken.path, "/v1/metrics?key=QUERY-SECRET");
    assert_eq!(taken.headers["authorization"], "Basic am9lOnBhNTV3b3JkLXg=");
}
