use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::*;
use crate::config::{TlsOptions, tls_files};
use crate::proto::close::{Cause, Initiator};
use crate::proto::event::{DialFailure, End, Established, Event, Facts, Phase, TlsFacts};
use crate::proto::reconnect::Advice;
use crate::stats::{Buckets, EntryGuard, Identity, Protocol};

fn plain(name: &str, labels: &[(&str, &str)]) -> Identity {
    let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    Identity {
        name: name.into(),
        url: format!("ws://{name}.example.com:9000/ws").into(),
        protocol: crate::stats::Protocol::WebSocket,
        server_beats: false,
        watches_staleness: false,
        labels: labels.collect(),
        fan_out: None,
    }
}

fn target(registry: &Arc<Registry>, name: &str, labels: &[(&str, &str)]) -> EntryGuard {
    registry.target(Arc::new(plain(name, labels)), &Buckets::default())
}

/// An event stream whose staleness is watched.
fn event_stream(registry: &Arc<Registry>, name: &str) -> EntryGuard {
    let identity = Identity {
        protocol: Protocol::Sse,
        server_beats: true,
        watches_staleness: true,
        ..plain(name, &[])
    };
    registry.target(Arc::new(identity), &Buckets::default())
}

fn established() -> Event {
    let ms = |n| Some(Duration::from_millis(n));
    Event::Established(Box::new(Established {
        at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        times: [ms(1), ms(2), None, None, ms(4), None],
        local: None,
        peer: None,
        facts: Some(Arc::new(Facts {
            tls: Some(TlsFacts {
                version: "TLSv1.3",
                cipher: "TLS13_AES_256_GCM_SHA384",
                not_after: Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
            }),
            ..Facts::default()
        })),
        recovered: None,
        attempts: 1,
    }))
}

fn ended(cause: Cause) -> Event {
    Event::Ended(Box::new(End {
        at: UNIX_EPOCH + Duration::from_secs(1_700_000_100),
        outage_id: 7,
        cause,
        initiator: Initiator::Peer,
        message: "peer vanished (FIN, no Close)".into(),
        received: None,
        sent: None,
        age: Duration::from_secs(100),
        since_last_frame_in: None,
        since_last_frame_out: None,
        outstanding_pings: 0,
        retries: 0,
        local: None,
        peer: None,
        facts: None,
        tcp_info: None,
    }))
}

fn refused() -> Event {
    Event::DialFailed(Box::new(DialFailure {
        at: UNIX_EPOCH + Duration::from_secs(1_700_000_050),
        phase: Phase::Tcp,
        message: "connection refused".into(),
        status: None,
        times: [Some(Duration::from_millis(1)), None, None, None, None, None],
        attempts: 1,
        certificate_not_after: None,
        peer: None,
        advice: Advice::Backoff,
    }))
}

fn pong(micros: u64) -> Event {
    Event::Pong {
        rtt: Some(Duration::from_micros(micros)),
        mismatch: false,
    }
}

fn apply(guard: &EntryGuard, events: &[Event]) {
    for event in events {
        guard.stats().apply(event);
    }
}

/// The samples of `text` whose names are ours and whose values do not depend on the clock.
fn samples(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter(|line| !line.starts_with("process_")).collect()
}

const TLS_FILES: &str = "ws_keepalive_tls_files_last_reload_successful ";

fn families(text: &str) -> BTreeSet<&str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).collect()
}

#[test]
fn a_target_that_never_came_up_has_exactly_the_series_that_exist_from_the_start() {
    let registry = Registry::new();
    let _edge = target(&registry, "edge", &[("region", "eu")]);
    let text = scrape(&registry).expect("a scrape");
    let edge = r#"{region="eu",target="edge"}"#;
    for name in [
        "established",
        "ping_retry_count_total",
        "sent_ping_total",
        "received_pong_total",
        "ws_keepalive_connects_total",
        "ws_keepalive_disconnects_total",
        "ws_keepalive_pong_mismatch_total",
        "ws_keepalive_connected_seconds_total",
        "ws_keepalive_connection_start_time_seconds",
        "ws_keepalive_last_disconnect_time_seconds",
        "ws_keepalive_messages_received_total",
        "ws_keepalive_received_bytes_total",
        "ws_keepalive_sent_bytes_total",
        "ws_keepalive_heartbeats_received_total",
        "ws_keepalive_rtt_seconds_sum",
        "ws_keepalive_rtt_seconds_count",
    ] {
        let line = format!("{name}{edge} 0");
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    for phase in Phase::ALL {
        let line = format!(
            r#"ws_keepalive_connect_failures_total{{phase="{phase}",region="eu",target="edge"}} 0"#
        );
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let bucket = r#"ws_keepalive_rtt_seconds_bucket{region="eu",target="edge",le="0.0005"} 0"#;
    assert!(text.contains(bucket), "{text}");
    for absent in [
        "ws_keepalive_last_rtt_seconds",
        "ws_keepalive_disconnects_by_cause_total",
        "ws_keepalive_connect_duration_seconds",
        "ws_keepalive_tls_certificate_not_after_seconds",
        "ws_keepalive_arrival_gap_seconds",
        "ws_keepalive_first_event_delay_seconds",
        "ws_keepalive_stale",
        "otel_",
        "\ntarget_info",
    ] {
        assert!(!text.contains(absent), "{absent} is in\n{text}");
    }
}

#[test]
fn the_whole_text_of_a_target_with_a_history() {
    let registry = Registry::new();
    let edge = target(&registry, "edge", &[("region", "eu"), ("url", "shadowed")]);
    apply(
        &edge,
        &[
            refused(),
            established(),
            Event::PingSent {
                seq: 1,
                retry: false,
            },
            Event::PingSent {
                seq: 2,
                retry: true,
            },
            pong(1_500),
            ended(Cause::Fin),
        ],
    );
    let listener = registry.listener("server");
    listener.stats().pings_received.store(5, Relaxed);
    registry.reload_successful.store(1, Relaxed);
    registry.reload_success_time.store(1_700_000_000, Relaxed);
    let text = scrape(&registry).expect("a scrape");
    let stable: String = samples(&text)
        .into_iter()
        .filter(|line| !line.contains("connected_seconds_total"))
        // Of the process, in which other tests have files that are bad.
        .filter(|line| !line.starts_with(TLS_FILES))
        .map(|line| line.replace(env!("CARGO_PKG_VERSION"), "VERSION") + "\n")
        .collect();
    let golden = include_str!("golden.prom");
    assert_eq!(stable, golden, "--- is now ---\n{stable}");
}

#[test]
fn bad_tls_files_show() {
    let options = Arc::new(TlsOptions {
        server_name: Some("bad-files.test".into()),
        ..TlsOptions::default()
    });
    tls_files::book(&options, false);
    let text = scrape(&Registry::new()).expect("a scrape");
    assert!(text.contains(&format!("\n{TLS_FILES}0\n")), "{text}");
}

#[test]
fn every_name_is_the_documented_one_and_documented() {
    let registry = Registry::new();
    let edge = target(&registry, "edge", &[]);
    apply(&edge, &[established(), pong(1), ended(Cause::Reset)]);
    let stream = event_stream(&registry, "stream");
    let delay = Duration::from_secs(1);
    apply(&stream, &[established(), Event::FirstEvent { delay }]);
    let _listener = registry.listener("server");
    registry.pushes[0].is_on.store(true, Relaxed);
    let text = scrape(&registry).expect("a scrape");
    let documented: BTreeSet<&str> = "established ping_retry_count_total sent_ping_total \
         received_pong_total received_ping_total sent_pong_total ws_keepalive_server_connections \
         ws_keepalive_connects_total ws_keepalive_disconnects_total \
         ws_keepalive_disconnects_by_cause_total ws_keepalive_connect_failures_total \
         ws_keepalive_connect_duration_seconds ws_keepalive_rtt_seconds \
         ws_keepalive_last_rtt_seconds ws_keepalive_pong_mismatch_total \
         ws_keepalive_connected_seconds_total ws_keepalive_disconnected_seconds_total \
         ws_keepalive_connection_start_time_seconds ws_keepalive_last_disconnect_time_seconds \
         ws_keepalive_messages_received_total ws_keepalive_received_bytes_total \
         ws_keepalive_sent_bytes_total ws_keepalive_heartbeats_received_total \
         ws_keepalive_arrival_gap_seconds ws_keepalive_first_event_delay_seconds \
         ws_keepalive_stale ws_keepalive_tls_certificate_not_after_seconds \
         ws_keepalive_target_info ws_keepalive_tls_files_last_reload_successful \
         ws_keepalive_config_last_reload_successful \
         ws_keepalive_config_last_reload_success_timestamp_seconds \
         ws_keepalive_accept_errors_total ws_keepalive_task_panics_total \
         ws_keepalive_otlp_export_failures_total ws_keepalive_otlp_dropped_total \
         ws_keepalive_rtt_clock_info ws_keepalive_build_info process_cpu_seconds_total \
         process_resident_memory_bytes process_virtual_memory_bytes process_open_fds \
         process_max_fds process_threads process_start_time_seconds"
        .split_whitespace()
        .collect();
    assert_eq!(families(&text), documented);
    let table: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(table, documented);
    let docs = include_str!("../../../docs/metrics.md");
    for cause in Cause::ALL {
        assert!(
            docs.contains(&format!("`{cause}`")),
            "{cause} is not in docs/metrics.md"
        );
    }
    for family in FAMILIES {
        assert!(family.help.ends_with('.'), "{}", family.name);
    }
}

/// OpenTelemetry's rules for Prometheus: dots to underscores, the unit in words unless the name
/// has it, `_total` for a counter.
fn translated(family: &Family, points: &Points) -> String {
    let mut name = family.otel.replace('.', "_");
    let unit = match family.unit {
        "s" => Some("seconds"),
        "By" => Some("bytes"),
        "" => None,
        counted => {
            let braces = counted
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'));
            assert!(braces.is_some_and(|word| !word.is_empty()), "{counted}");
            None
        }
    };
    if let Some(unit) = unit {
        // Exporters differ in what they do where the name has it already.
        assert!(name.split('_').all(|word| word != unit), "{name}");
        name = format!("{name}_{unit}");
    }
    assert!(name.split('_').all(|word| word != "total"), "{name}");
    match points {
        Points::Counts(_) | Points::Sums(_) => name + "_total",
        Points::Gauges(_) | Points::Histograms(_) => name,
    }
}

#[test]
fn opentelemetry_s_names_translate_to_those_that_are_scraped() {
    let registry = Registry::new();
    let snapshot = Snapshot::take(&registry);
    for family in FAMILIES {
        let points = family.points(&snapshot);
        assert_eq!(translated(family, &points), family.name);
    }
    let names: BTreeSet<&str> = FAMILIES.iter().map(|family| family.otel).collect();
    assert_eq!(names.len(), FAMILIES.len(), "one name, one instrument");
    for name in &names {
        let space = format!("{name}.");
        let within = names.iter().find(|other| other.starts_with(&space));
        assert_eq!(within, None, "{name} is a metric and a namespace");
    }
}

#[test]
fn the_kernel_s_numbers_of_this_process_are_there_and_no_others() {
    let text = scrape(&Registry::new()).expect("a scrape");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("{name} is not in\n{text}"));
        value.trim().parse::<f64>().expect("a number")
    };
    assert!(value("process_cpu_seconds_total ") >= 0.0);
    assert!(value("process_resident_memory_bytes ") > 1e6);
    assert!(value("process_virtual_memory_bytes ") > value("process_resident_memory_bytes "));
    assert!(value("process_max_fds ") > value("process_open_fds "));
    assert!(value("process_open_fds ") >= 3.0);
    assert!(value("process_threads ") >= 1.0);
    assert!(value("process_start_time_seconds ") > 1.7e9);
}

#[test]
fn a_target_has_as_many_series_as_the_sizing_notes_say() {
    let registry = Registry::new();
    let ms = |n| Some(Duration::from_millis(n));
    let not_after = Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let up = |with_tls: bool| {
        let tls = with_tls.then_some(TlsFacts {
            version: "TLSv1.3",
            cipher: "TLS13_AES_256_GCM_SHA384",
            not_after,
        });
        Event::Established(Box::new(Established {
            at: UNIX_EPOCH,
            times: [ms(1), ms(2), None, ms(3).filter(|_| with_tls), ms(4), None],
            local: None,
            peer: None,
            facts: Some(Arc::new(Facts {
                tls,
                ..Facts::default()
            })),
            recovered: None,
            attempts: 1,
        }))
    };
    let delay = Duration::from_secs(1);
    let mut guards = Vec::new();
    for (name, with_tls) in [("ws", false), ("wss", true)] {
        let guard = target(&registry, name, &[]);
        apply(&guard, &[up(with_tls), pong(1_500)]);
        guards.push(guard);
    }
    for (name, with_tls) in [("http", false), ("https", true)] {
        let identity = Identity {
            protocol: Protocol::Sse,
            server_beats: true,
            ..plain(name, &[])
        };
        let guard = registry.target(Arc::new(identity), &Buckets::default());
        apply(&guard, &[up(with_tls), Event::FirstEvent { delay }]);
        guards.push(guard);
    }
    let text = scrape(&registry).expect("a scrape");
    let notes = include_str!("../../../docs/sizing.md");
    for name in ["ws", "wss", "http", "https"] {
        let label = format!("target=\"{name}\"");
        let series = text.lines().filter(|line| line.contains(&label)).count();
        let row = format!("| `{name}` | {series} |");
        assert!(notes.contains(&row), "{row} is not in docs/sizing.md");
    }
}

#[test]
fn more_targets_than_the_sdk_s_default_limit_all_have_their_own_series() {
    const TARGETS: usize = 2_500;
    let registry = Registry::new();
    let guards: Vec<EntryGuard> = (0..TARGETS)
        .map(|n| target(&registry, &format!("edge-{n:05}"), &[]))
        .collect();
    for guard in &guards {
        // Two causes each: more series than targets in one family.
        apply(guard, &[ended(Cause::Fin), ended(Cause::Reset)]);
    }
    let started = Instant::now();
    let text = scrape(&registry).expect("a scrape");
    println!("{} bytes in {:?}", text.len(), started.elapsed());
    assert!(!text.contains("otel_metric_overflow"));
    let count = |prefix: &str| text.lines().filter(|l| l.starts_with(prefix)).count();
    assert_eq!(count("established{"), TARGETS);
    assert_eq!(count("ws_keepalive_connect_failures_total{"), 6 * TARGETS);
    assert_eq!(
        count("ws_keepalive_disconnects_by_cause_total{"),
        2 * TARGETS
    );
    assert_eq!(count("ws_keepalive_rtt_seconds_count{"), TARGETS);
}

#[test]
fn a_removed_target_is_gone_at_the_next_scrape() {
    let registry = Registry::new();
    let kept = target(&registry, "kept", &[]);
    let removed = target(&registry, "removed", &[]);
    apply(&removed, &[established(), ended(Cause::Removed)]);
    assert!(
        scrape(&registry)
            .expect("a scrape")
            .contains(r#"target="removed""#)
    );
    drop(removed);
    let text = scrape(&registry).expect("a scrape");
    assert!(!text.contains("removed\""), "{text}");
    assert!(text.contains(r#"established{target="kept"} 0"#));
    drop(kept);
    let text = scrape(&registry).expect("a scrape");
    assert!(!text.contains("target="), "{text}");
}

#[test]
fn a_label_s_new_value_shows_at_the_next_scrape() {
    let registry = Registry::new();
    let edge = target(&registry, "edge", &[("region", "eu")]);
    apply(&edge, &[established()]);
    let identity = Identity {
        labels: [("region".into(), "us \"east\"\\1\n".into())].into(),
        ..(*edge.stats().identity()).clone()
    };
    edge.stats().retune(Arc::new(identity), &Buckets::default());
    let text = scrape(&registry).expect("a scrape");
    let line = r#"established{region="us \"east\"\\1\n",target="edge"} 1"#;
    assert!(text.lines().any(|l| l == line), "{text}");
    assert!(!text.contains(r#"region="eu""#));
}

/// What `ws_keepalive_NAME` of `target` is, if it has any.
fn value(registry: &Arc<Registry>, name: &str, target: &str) -> Option<f64> {
    let text = scrape(registry).expect("a scrape");
    let start = format!(r#"ws_keepalive_{name}{{target="{target}"}} "#);
    let value = text.lines().find_map(|line| line.strip_prefix(&start));
    value.map(|value| value.parse().expect("a number"))
}

#[test]
fn an_event_stream_tells_its_beats_its_gap_its_first_event_and_its_staleness() {
    let registry = Registry::new();
    let stream = event_stream(&registry, "stream");
    let _plain = target(&registry, "plain", &[]);
    let is = |name: &str| value(&registry, name, "stream");
    let secs = Duration::from_secs;
    assert_eq!(is("heartbeats_received_total"), Some(0.0));
    assert_eq!(is("stale"), Some(0.0), "from the start");
    assert_eq!(is("arrival_gap_seconds"), None, "there is none to tell");
    apply(&stream, &[established()]);
    assert!(is("arrival_gap_seconds").is_some(), "it runs");
    assert_eq!(is("first_event_delay_seconds"), None, "before the first");
    let quiet = secs(30);
    apply(
        &stream,
        &[
            Event::Arrived { gap: secs(70) },
            Event::HeartbeatReceived,
            Event::FirstEvent { delay: secs(71) },
            Event::Stale { quiet },
        ],
    );
    assert_eq!(is("heartbeats_received_total"), Some(1.0));
    assert_eq!(is("arrival_gap_seconds"), Some(70.0));
    assert_eq!(is("first_event_delay_seconds"), Some(71.0));
    assert_eq!(is("stale"), Some(1.0));
    apply(&stream, &[ended(Cause::Fin)]);
    assert_eq!(is("stale"), Some(0.0), "when down");
    assert_eq!(is("arrival_gap_seconds"), Some(70.0));
    assert_eq!(is("first_event_delay_seconds"), None);
    let text = scrape(&registry).expect("a scrape");
    for name in ["arrival_gap", "first_event_delay", "stale"] {
        let none = format!(r#"ws_keepalive_{name}_seconds{{target="plain"}}"#);
        assert!(
            !text.contains(&none.replace("stale_seconds", "stale")),
            "{text}"
        );
    }
    let info = r#"ws_keepalive_target_info{protocol="sse",target="stream","#;
    assert!(text.contains(info), "{text}");
}

#[test]
fn each_of_the_gauges_is_that_of_the_targets_it_is_for() {
    let registry = Registry::new();
    // With messages of the server's own, and with a `staleness`.
    let [_beats, _watched] = [("beats", true), ("watched", false)].map(|(name, server_beats)| {
        let identity = Identity {
            server_beats,
            watches_staleness: !server_beats,
            ..plain(name, &[])
        };
        let guard = registry.target(Arc::new(identity), &Buckets::default());
        let delay = Duration::ZERO;
        apply(&guard, &[established(), Event::FirstEvent { delay }]);
        guard
    });
    let has = |name, target| value(&registry, name, target).is_some();
    assert!(has("arrival_gap_seconds", "beats") && !has("stale", "beats"));
    assert!(has("stale", "watched") && !has("arrival_gap_seconds", "watched"));
    assert!(!has("first_event_delay_seconds", "beats"));
    assert!(!has("first_event_delay_seconds", "watched"));
}

#[test]
fn what_a_reload_stopped_watching_has_no_series_at_the_next_scrape() {
    let registry = Registry::new();
    let stream = event_stream(&registry, "stream");
    let quiet = Duration::from_secs(30);
    apply(&stream, &[established(), Event::Stale { quiet }]);
    let identity = Identity {
        protocol: Protocol::EngineIo,
        server_beats: false,
        watches_staleness: false,
        ..(*stream.stats().identity()).clone()
    };
    let buckets = Buckets::default();
    stream.stats().retune(Arc::new(identity), &buckets);
    for name in ["arrival_gap_seconds", "first_event_delay_seconds", "stale"] {
        assert_eq!(value(&registry, name, "stream"), None, "{name}");
    }
    assert_eq!(
        value(&registry, "heartbeats_received_total", "stream"),
        Some(0.0)
    );
    let text = scrape(&registry).expect("a scrape");
    assert!(
        text.contains(r#"{protocol="engineio",target="stream","#),
        "{text}"
    );
}

#[test]
fn the_addresses_of_a_target_share_its_name_and_have_an_index() {
    let registry = Registry::new();
    let _edge = target(&registry, "edge", &[]);
    let guards: Vec<_> = [0, 12]
        .map(|index| {
            let one = target(&registry, &format!("fan[{index}]"), &[]);
            let identity = Identity {
                fan_out: Some(Box::new(crate::stats::FanOut {
                    target: "fan".into(),
                    index,
                    address: None,
                })),
                ..(*one.stats().identity()).clone()
            };
            one.stats().retune(Arc::new(identity), &Buckets::default());
            one
        })
        .into();
    let text = scrape(&registry).expect("a scrape");
    for line in [
        r#"established{target="edge"} 0"#,
        r#"established{address_index="0",target="fan"} 0"#,
        r#"established{address_index="12",target="fan"} 0"#,
        r#"ws_keepalive_rtt_seconds_count{address_index="12",target="fan"} 0"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("target=\"fan["), "{text}");
    let json = crate::telemetry::targets_json::targets(&registry);
    let named = |target: &crate::telemetry::targets_json::TargetJson| {
        (target.name.clone(), target.address_index)
    };
    let named: Vec<_> = json.targets.iter().map(named).collect();
    let fan = |index| ("fan".to_owned(), Some(index));
    assert_eq!(named, [("edge".to_owned(), None), fan(0), fan(12)]);
    drop(guards);
}
