use super::*;
use crate::proto::close::Initiator;
use crate::proto::event::{End, Established, Event, Phase};
use crate::proto::reconnect::Advice;
use crate::stats::{Buckets, EntryGuard, Identity};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

fn target(registry: &Arc<Registry>, name: &str) -> EntryGuard {
    let identity = Identity {
        name: name.into(),
        url: format!("ws://{name}.example.com/ws").into(),
        protocol: crate::stats::Protocol::WebSocket,
        server_beats: false,
        watches_staleness: false,
        labels: [("region".into(), "eu".into())].into(),
        fan_out: None,
    };
    registry.target(Arc::new(identity), &Buckets::default())
}

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis)
}

fn end(millis: u64, cause: Cause) -> Event {
    Event::Ended(Box::new(End {
        at: at(millis),
        outage_id: 0xabc,
        cause,
        initiator: Initiator::Peer,
        message: "peer closed".into(),
        received: Some(CloseFrame::new(1001, "by\u{1b}e")),
        sent: None,
        age: Duration::from_millis(3_723_500),
        since_last_frame_in: Some(Duration::from_secs(60)),
        since_last_frame_out: None,
        outstanding_pings: 2,
        retries: 1,
        local: None,
        peer: Some(([10, 0, 0, 7], 443).into()),
        facts: None,
        tcp_info: None,
    }))
}

fn dial(millis: u64) -> Event {
    Event::DialFailed(Box::new(DialFailure {
        at: at(millis),
        phase: Phase::Upgrade,
        message: "503 Service Unavailable".into(),
        status: Some(503),
        times: Default::default(),
        attempts: 4,
        certificate_not_after: None,
        peer: None,
        advice: Advice::Backoff,
    }))
}

#[test]
fn the_whole_json_of_a_target_with_an_end() {
    let registry = Registry::new();
    let edge = self::target(&registry, "edge");
    edge.stats().apply(&end(0, Cause::ClosedGoingAway));
    let json = targets(&registry);
    let since = json.targets[0].since.clone();
    let text = serde_json::to_string(&json).expect("JSON");
    let golden = r#"{"targets":[{"name":"edge","address_index":null,"address":null,"url":"ws://edge.example.com/ws","protocol":"websocket","state":"waiting","since":"SINCE","labels":{"region":"eu"},"last_rtt_seconds":null,"stale":null,"heartbeats_received":0,"arrival_gap_seconds":null,"first_event_delay_seconds":null,"tls":null,"subprotocol":null,"last_error":{"at":"2023-11-14T22:13:20.000Z","phase":null,"cause":"closed_going_away","message":"peer closed","attempts":null},"ends":[{"at":"2023-11-14T22:13:20.000Z","outage_id":"0000000000000abc","cause":"closed_going_away","initiator":"peer","message":"peer closed","received":{"code":1001,"reason":"by\\u{1b}e"},"sent":null,"age_seconds":3723.5,"since_last_frame_in_seconds":60.0,"since_last_frame_out_seconds":null,"outstanding_pings":2,"retries":1,"local":null,"peer":"10.0.0.7:443","proxy":null,"tls":null,"headers":null,"tcp_info":null,"recovered_after_seconds":null}]}]}"#;
    assert_eq!(text.replace(&since, "SINCE"), golden);
    let read: TargetsJson = serde_json::from_str(&text).expect("what we wrote");
    assert_eq!(read, json);
}

#[test]
fn an_event_stream_tells_what_a_proxy_on_its_way_does_to_it() {
    let registry = Registry::new();
    let edge = self::target(&registry, "edge");
    let identity = Identity {
        protocol: Protocol::Sse,
        server_beats: true,
        watches_staleness: true,
        ..(*edge.stats().identity()).clone()
    };
    let watched = Arc::new(identity);
    edge.stats().retune(watched.clone(), &Buckets::default());
    let told = || {
        let target = targets(&registry).targets.remove(0);
        (
            target.stale,
            target.heartbeats_received,
            target.arrival_gap_seconds,
            target.first_event_delay_seconds,
        )
    };
    assert_eq!(told(), (Some(false), 0, None, None));
    let secs = Duration::from_secs;
    for event in [
        established(Facts::default()),
        Event::Arrived { gap: secs(70) },
        Event::HeartbeatReceived,
        Event::FirstEvent { delay: secs(71) },
        Event::Stale { quiet: secs(30) },
    ] {
        edge.stats().apply(&event);
    }
    assert_eq!(told(), (Some(true), 1, Some(70.0), Some(71.0)));
    let table = table(&targets(&registry));
    assert!(table.contains("established, stale  "), "{table}");
    // Another protocol, as far as the next connection: its numbers are none of this one's.
    let identity = Identity {
        protocol: Protocol::WebSocket,
        server_beats: false,
        watches_staleness: false,
        ..(*watched).clone()
    };
    edge.stats().retune(Arc::new(identity), &Buckets::default());
    assert_eq!(told(), (None, 1, None, None));
}

#[test]
fn nothing_wrong_means_no_error_and_no_ends() {
    let registry = Registry::new();
    let _edge = self::target(&registry, "edge");
    let json = targets(&registry);
    assert_eq!(
        (&json.targets[0].last_error, json.targets[0].ends.len()),
        (&None, 0)
    );
}

#[test]
fn the_last_error_is_the_newest_of_dial_and_end_and_never_what_we_were_asked_to_do() {
    let registry = Registry::new();
    let edge = self::target(&registry, "edge");
    let error = |event: &Event| {
        edge.stats().apply(event);
        let error = targets(&registry).targets.remove(0).last_error;
        error.map(|e| (e.phase, e.cause, e.attempts))
    };
    let dialing = Some((Some("upgrade".into()), None, Some(4)));
    let reset = Some((None, Some("reset".into()), None));
    assert_eq!(error(&end(0, Cause::Replaced)), None);
    assert_eq!(error(&dial(10)), dialing);
    assert_eq!(error(&end(20, Cause::Reset)), reset);
    assert_eq!(error(&end(30, Cause::Shutdown)), reset);
    assert_eq!(error(&dial(40)), dialing);
}

#[test]
fn the_table_is_aligned_and_counts_drops() {
    let registry = Registry::new();
    let edge = self::target(&registry, "edge-tokyo");
    let flaky = self::target(&registry, "flaky");
    edge.stats().apply(&Event::Pong {
        rtt: Some(Duration::from_micros(12_340)),
        mismatch: false,
    });
    for n in 0..21 {
        flaky.stats().apply(&end(n, Cause::PongTimeout));
    }
    let mut json = targets(&registry);
    json.targets[0].since = rfc3339(at(0));
    json.targets[1].since = rfc3339(at(0) + Duration::from_secs(190));
    let text = table_at(&json, at(0) + Duration::from_secs(192));
    let expected = "\
TARGET      STATE       SINCE      RTT      DROPS               URL
edge-tokyo  connecting  3m12s ago  12.3 ms  0                   ws://edge-tokyo.example.com/ws
flaky       waiting     2s ago     -        20+ (pong_timeout)  ws://flaky.example.com/ws
  lost: peer closed
";
    assert_eq!(text, expected, "{text}");
}

#[test]
fn the_table_says_why_a_target_is_down_and_nothing_of_one_that_is_up() {
    let registry = Registry::new();
    let edge = self::target(&registry, "edge");
    let why = |events: &[Event]| {
        for event in events {
            edge.stats().apply(event);
        }
        let table = table(&targets(&registry));
        let lines: Vec<String> = table.lines().skip(2).map(str::to_owned).collect();
        lines.join("|")
    };
    let refused = "  upgrade: 503 Service Unavailable; 4 attempts";
    assert_eq!(why(&[]), "", "its first dial");
    assert_eq!(why(&[dial(0)]), refused, "still connecting");
    let waiting = Event::Waiting {
        wait: Duration::from_secs(1),
    };
    assert_eq!(why(&[waiting]), refused);
    assert_eq!(why(&[Event::Connecting]), refused);
    assert_eq!(why(&[Event::Stopped]), refused);
    assert_eq!(why(&[established(Facts::default())]), "");
    assert_eq!(why(&[end(10, Cause::Replaced)]), "", "we were asked to");
    assert_eq!(why(&[end(20, Cause::Fin)]), "  lost: peer closed");
    let Event::DialFailed(mut failure) = dial(30) else {
        unreachable!("dial() is DialFailed");
    };
    failure.attempts = 1;
    failure.message = format!("it says: \u{1b}[2J{}", "ü ".repeat(200)).into();
    let line = why(&[Event::DialFailed(failure)]);
    assert!(
        line.starts_with("  upgrade: it says: \\u{1b}[2Jü ü"),
        "{line}"
    );
    assert!(line.ends_with("ü..; 1 attempt"), "{line}");
    let columns = line.chars().count();
    assert!((WHY_COLUMNS - 1..=WHY_COLUMNS).contains(&columns), "{line}");
}

fn facts(headers: &[(&str, &str)]) -> Facts {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()));
    Facts {
        subprotocol: Some("v2.chat".into()),
        proxy: Some("http://proxy.example.com:3128".into()),
        tls: Some(TlsFacts {
            version: "TLSv1.3",
            cipher: "TLS13_AES_256_GCM_SHA384",
            not_after: Some(at(0)),
        }),
        headers: headers.collect(),
    }
}

fn established(facts: Facts) -> Event {
    Event::Established(Box::new(Established {
        at: at(0),
        times: Default::default(),
        local: None,
        peer: None,
        facts: Some(Arc::new(facts)),
        recovered: None,
        attempts: 1,
    }))
}

/// An end with all the evidence there can be.
fn evident(facts: Facts, reason: &str) -> Event {
    let Event::Ended(mut end) = end(0, Cause::ClosedRefused) else {
        unreachable!("end() is Ended");
    };
    end.facts = Some(Arc::new(facts));
    end.tcp_info = Some(TcpInfo {
        state: "CLOSE-WAIT",
        rtt: Duration::from_micros(1_500),
        rtt_variation: Duration::from_micros(700),
        retransmits: 5,
        unacked: 3,
    });
    end.message = format!("peer refused us (Close 4401 \"{reason}\")").into();
    end.received = Some(CloseFrame::new(4401, reason));
    end.sent = end.received.clone();
    end.local = Some(([10, 0, 0, 1], 40_000).into());
    end.since_last_frame_out = end.since_last_frame_in;
    Event::Ended(end)
}

#[test]
fn a_connection_s_facts_are_the_target_s_and_an_end_has_all_the_evidence() {
    let registry = Registry::new();
    let edge = self::target(&registry, "edge");
    let headers = [
        ("server", "ng\u{1b}inx"),
        ("via", "1.1 a"),
        ("via", "1.1 b"),
    ];
    edge.stats().apply(&established(facts(&headers)));
    edge.stats().apply(&evident(facts(&headers), "expired"));
    let json = targets(&registry);
    let text = serde_json::to_value(&json).expect("JSON");
    let target = &text["targets"][0];
    let tls = serde_json::json!({
        "version": "TLSv1.3",
        "cipher": "TLS13_AES_256_GCM_SHA384",
        "not_after": "2023-11-14T22:13:20Z",
    });
    assert_eq!(target["tls"], tls);
    assert_eq!(target["subprotocol"], "v2.chat");
    let end = &target["ends"][0];
    assert_eq!(end["proxy"], "http://proxy.example.com:3128");
    assert_eq!(end["tls"], tls);
    let headers = serde_json::json!({"server": "ng\\u{1b}inx", "via": "1.1 a, 1.1 b"});
    assert_eq!(end["headers"], headers);
    let tcp_info = serde_json::json!({
        "state": "CLOSE-WAIT",
        "rtt_seconds": 0.0015,
        "rtt_variation_seconds": 0.0007,
        "retransmits": 5,
        "unacked": 3,
    });
    assert_eq!(end["tcp_info"], tcp_info);
    let read: TargetsJson = serde_json::from_value(text).expect("what we wrote");
    assert_eq!(read, json);
    // By TLS, and nobody said who they are.
    edge.stats().apply(&evident(facts(&[]), "expired"));
    assert_eq!(targets(&registry).targets[0].ends[0].headers, None);
}

#[test]
fn an_end_is_a_kilobyte_of_json_and_at_most_half_of_one_more() {
    let usual = [
        ("server", "nginx/1.25.3"),
        ("via", "1.1 varnish"),
        ("x-request-id", "2f6d6f0c-9d5a-4c38-8f4e-6f8b7c0f7f11"),
        ("cf-ray", "8a1b2c3d4e5f6789-NRT"),
    ];
    let long = "v".repeat(128);
    let names: Vec<String> = (0..12).map(|n| format!("x-amzn-{n:08}")).collect();
    let longest: Vec<(&str, &str)> = names.iter().map(|n| (&**n, &*long)).collect();
    for (headers, reason, most) in [
        (&usual[..], "token expired", 1_150),
        (&longest, &"r".repeat(123), 1_536),
    ] {
        let registry = Registry::new();
        let edge = self::target(&registry, "edge");
        edge.stats().apply(&evident(facts(headers), reason));
        let json = targets(&registry);
        let text = serde_json::to_string(&json.targets[0].ends[0]).expect("JSON");
        assert!(text.len() <= most, "{} bytes: {text}", text.len());
    }
}
