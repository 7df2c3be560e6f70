use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::config::LogLevel;
use crate::proto::close::{Cause, CloseFrame, Initiator};
use crate::proto::event::{Facts, Recovered, TcpInfo, TlsFacts};
use crate::proto::reconnect::Advice;
use crate::stats::{Buckets, Identity};
use crate::telemetry::logs::tests::{captured_json, captured_text};

fn stats() -> TargetStats {
    speaking(Protocol::WebSocket)
}

fn speaking(protocol: Protocol) -> TargetStats {
    let identity = Identity {
        name: "edge-tokyo".into(),
        url: "wss://edge-tokyo.example.com/ws".into(),
        protocol,
        server_beats: false,
        watches_staleness: false,
        labels: [].into(),
        fan_out: None,
    };
    TargetStats::new(Arc::new(identity), &Buckets::default(), Instant::now())
}

fn up(recovered: Option<Recovered>, attempts: u32) -> Event {
    let ms = |n| Some(Duration::from_millis(n));
    Event::Established(Box::new(Established {
        at: SystemTime::now(),
        times: [ms(1), ms(20), None, None, ms(300), None],
        local: None,
        peer: Some(([10, 0, 0, 7], 443).into()),
        facts: None,
        recovered,
        attempts,
    }))
}

fn end(cause: Cause) -> Event {
    Event::Ended(Box::new(End {
        at: SystemTime::now(),
        outage_id: 0xfeed,
        cause,
        initiator: Initiator::Peer,
        message: "peer vanished (FIN, no Close)".into(),
        received: None,
        sent: Some(CloseFrame::new(1000, "")),
        age: Duration::from_secs(3_723),
        since_last_frame_in: Some(Duration::from_secs(60)),
        since_last_frame_out: Some(Duration::from_millis(210)),
        outstanding_pings: 0,
        retries: 0,
        local: None,
        peer: Some(([10, 0, 0, 7], 443).into()),
        facts: None,
        tcp_info: None,
    }))
}

fn failure(attempts: u32, message: &str) -> Event {
    Event::DialFailed(Box::new(DialFailure {
        at: SystemTime::now(),
        phase: Phase::Tcp,
        message: message.into(),
        status: None,
        times: Default::default(),
        attempts,
        certificate_not_after: None,
        peer: None,
        advice: Advice::Backoff,
    }))
}

fn text(level: LogLevel, events: &[Event]) -> Vec<String> {
    let stats = stats();
    let text = captured_text(level, || {
        for event in events {
            observe(&stats, event);
        }
    });
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(_, line)| line.trim_start().to_owned())
        .collect()
}

#[test]
fn two_lines_frame_an_outage_and_share_its_id() {
    let back = Recovered {
        outage_id: 0xfeed,
        after: Duration::from_millis(1_310),
    };
    let lines = text(
        LogLevel::Info,
        &[
            up(None, 1),
            end(Cause::Fin),
            Event::Waiting {
                wait: Duration::from_secs(1),
            },
            Event::Connecting,
            up(Some(back), 2),
        ],
    );
    assert_eq!(
        lines,
        [
            "INFO edge-tokyo established in 0.3 s (dns 1.0 ms, tcp 20.0 ms, upgrade 0.3 s) \
             via 10.0.0.7:443",
            "WARN edge-tokyo lost: peer vanished (FIN, no Close) after 1h2m3s; last frame in \
             60.0 s ago, out 0.2 s ago; via 10.0.0.7:443 outage_id=000000000000feed",
            "INFO edge-tokyo back after 1.3 s, attempt 2 outage_id=000000000000feed",
        ]
    );
}

#[test]
fn the_record_is_in_the_fields_of_the_lost_line() {
    let stats = stats();
    let json = captured_json(LogLevel::Info, || observe(&stats, &end(Cause::Fin)));
    let line: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    for (field, value) in [
        ("event", serde_json::json!("lost")),
        ("target", "edge-tokyo".into()),
        ("outage_id", "000000000000feed".into()),
        ("cause", "fin".into()),
        ("initiator", "peer".into()),
        ("age_seconds", 3723.0.into()),
        ("since_last_frame_in_seconds", 60.0.into()),
        ("outstanding_pings", 0.into()),
        ("retries", 0.into()),
        ("sent_code", 1000.into()),
        ("peer", "10.0.0.7:443".into()),
    ] {
        assert_eq!(line[field], value, "{field} in {json}");
    }
    assert!(line.get("received_code").is_none());
}

#[test]
fn an_end_we_were_asked_for_is_no_warning() {
    for cause in [Cause::Replaced, Cause::Removed, Cause::Shutdown] {
        let lines = text(LogLevel::Info, &[end(cause)]);
        assert!(lines[0].starts_with("INFO edge-tokyo ended: "), "{lines:?}");
        assert!(text(LogLevel::Warn, &[end(cause)]).is_empty());
    }
}

#[test]
fn a_dial_that_fails_again_the_same_way_is_told_once() {
    let lines = text(
        LogLevel::Info,
        &[
            failure(1, "connection refused"),
            failure(2, "connection refused"),
            failure(3, "timed out"),
            failure(4, "timed out"),
            up(None, 5),
            end(Cause::Fin),
            failure(1, "timed out"),
        ],
    );
    let failures: Vec<&String> = lines
        .iter()
        .filter(|l| l.contains("cannot connect"))
        .collect();
    assert_eq!(
        failures,
        [
            "WARN edge-tokyo cannot connect (tcp): connection refused",
            "WARN edge-tokyo cannot connect (tcp): timed out, attempt 3",
            "WARN edge-tokyo cannot connect (tcp): timed out",
        ]
    );
    let debug = text(LogLevel::Debug, &[failure(2, "x"), failure(3, "x")]);
    assert!(
        debug[1].starts_with("DEBUG edge-tokyo cannot connect"),
        "{debug:?}"
    );
}

#[test]
fn pings_are_told_at_debug_only() {
    let pings = [
        Event::PingSent {
            seq: 2,
            retry: true,
        },
        Event::Pong {
            rtt: Some(Duration::from_micros(1_500)),
            mismatch: true,
        },
        Event::PingReceived,
    ];
    assert!(text(LogLevel::Info, &pings).is_empty());
    assert_eq!(
        text(LogLevel::Debug, &pings),
        [
            "DEBUG edge-tokyo ping 2 sent again",
            "DEBUG edge-tokyo pong after 1.5 ms, another payload",
            "DEBUG edge-tokyo pinged us",
        ]
    );
}

#[test]
fn staleness_is_told_when_it_begins_and_when_it_ends() {
    let quiet = Duration::from_millis;
    let events = [
        Event::Stale {
            quiet: quiet(30_002),
        },
        Event::Fresh {
            quiet: quiet(41_000),
        },
    ];
    assert_eq!(
        text(LogLevel::Info, &events),
        [
            "WARN edge-tokyo stale: no application message for 30 s; the connection stands",
            "INFO edge-tokyo fresh again after 41 s",
        ]
    );
    for (event, name, seconds) in [(&events[0], "stale", 30.002), (&events[1], "fresh", 41.0)] {
        let stats = stats();
        let json = captured_json(LogLevel::Info, || observe(&stats, event));
        let line: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(line["event"], name, "{json}");
        assert_eq!(line["target"], "edge-tokyo", "{json}");
        assert_eq!(line["quiet_seconds"], seconds, "{json}");
        assert_eq!(stats.is_stale(), name == "stale");
    }
}

#[test]
fn what_the_peer_begins_is_told_at_debug() {
    let events = [
        Event::HeartbeatReceived,
        Event::Arrived {
            gap: Duration::from_secs(3),
        },
        Event::FirstEvent {
            delay: Duration::from_millis(12),
        },
    ];
    assert!(text(LogLevel::Info, &events).is_empty());
    assert_eq!(
        text(LogLevel::Debug, &events),
        [
            "DEBUG edge-tokyo heartbeat came in",
            "DEBUG edge-tokyo is heard of after 3.0 s",
            "DEBUG edge-tokyo first event after 12.0 ms",
        ]
    );
    let stats = stats();
    let json = captured_json(LogLevel::Debug, || {
        for event in &events {
            observe(&stats, event);
        }
    });
    for field in [
        r#""event":"heartbeat_received""#,
        r#""event":"arrived""#,
        r#""gap_seconds":3.0"#,
        r#""event":"first_event""#,
        r#""delay_seconds":0.012"#,
    ] {
        assert!(json.contains(field), "{field} is not in {json}");
    }
    assert_eq!(stats.heartbeats_received(), 1);
}

#[test]
fn a_connection_that_speaks_a_protocol_says_which() {
    let stats = speaking(Protocol::ActionCable);
    let line = captured_text(LogLevel::Info, || observe(&stats, &up(None, 2)));
    let words = " via 10.0.0.7:443, protocol actioncable, attempt 2";
    assert!(line.trim_end().ends_with(words), "{line}");
    let back = Recovered {
        outage_id: 1,
        after: Duration::from_secs(1),
    };
    for recovered in [None, Some(back)] {
        let json = captured_json(LogLevel::Info, || observe(&stats, &up(recovered, 1)));
        assert!(json.contains(r#""protocol":"actioncable""#), "{json}");
    }
}

#[test]
fn a_stalled_machine_says_so_once_not_once_per_target() {
    let stats = stats();
    let last = AtomicU64::new(0);
    let text = captured_text(LogLevel::Info, || {
        for _ in 0..100 {
            stalled(&stats, Duration::from_secs(12), &last);
        }
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains("WARN this machine stalled: a timer fired 12.0 s late"),
        "{text}"
    );
}

fn facts() -> Option<Arc<Facts>> {
    let headers = [("server", "ng\u{1b}inx"), ("via", "1.1 google")];
    Some(Arc::new(Facts {
        subprotocol: Some("v2.chat".into()),
        proxy: Some("http://proxy.example.com:3128".into()),
        tls: Some(TlsFacts {
            version: "TLSv1.3",
            cipher: "TLS13_AES_256_GCM_SHA384",
            not_after: Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
        }),
        headers: headers
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
    }))
}

fn troubled(unacked: u32, retransmits: u32) -> Option<TcpInfo> {
    Some(TcpInfo {
        state: "ESTAB",
        rtt: Duration::from_millis(250),
        rtt_variation: Duration::from_millis(50),
        retransmits,
        unacked,
    })
}

#[test]
fn the_evidence_is_in_the_sentences() {
    let (Event::Established(mut up), Event::Ended(mut end)) = (up(None, 2), end(Cause::Fin)) else {
        unreachable!("up() is Established, end() is Ended");
    };
    up.facts = facts();
    end.facts = facts();
    end.outstanding_pings = 1;
    end.tcp_info = troubled(3, 5);
    let lines = text(LogLevel::Info, &[Event::Established(up), Event::Ended(end)]);
    assert_eq!(
        lines,
        [
            "INFO edge-tokyo established in 0.3 s (dns 1.0 ms, tcp 20.0 ms, upgrade 0.3 s) \
             via 10.0.0.7:443 by proxy http://proxy.example.com:3128, \
             TLSv1.3 TLS13_AES_256_GCM_SHA384, subprotocol v2.chat, attempt 2",
            "WARN edge-tokyo lost: peer vanished (FIN, no Close) after 1h2m3s; last frame in \
             60.0 s ago, out 0.2 s ago; 1 ping unanswered; 3 segments unacknowledged, 5 \
             retransmitted; via 10.0.0.7:443 by proxy http://proxy.example.com:3128 \
             (Server: ng\\u{1b}inx, Via: 1.1 google) outage_id=000000000000feed",
        ]
    );
}

#[test]
fn the_evidence_is_in_the_fields() {
    let back = Recovered {
        outage_id: 0xfeed,
        after: Duration::from_millis(1_310),
    };
    let agreed = [
        ("proxy", serde_json::json!("http://proxy.example.com:3128")),
        ("tls_version", "TLSv1.3".into()),
        ("tls_cipher", "TLS13_AES_256_GCM_SHA384".into()),
        ("certificate_not_after", "2027-01-15T08:00:00Z".into()),
        ("subprotocol", "v2.chat".into()),
        ("server", "ng\\u{1b}inx".into()),
        ("via", "1.1 google".into()),
        ("headers", "server: ng\\u{1b}inx; via: 1.1 google".into()),
    ];
    let kernel = [
        ("tcp_state", serde_json::json!("ESTAB")),
        ("tcp_rtt_seconds", 0.25.into()),
        ("tcp_rtt_variation_seconds", 0.05.into()),
        ("tcp_retransmits", 5.into()),
        ("tcp_unacked", 3.into()),
    ];
    for event in [up(None, 1), up(Some(back), 2), end(Cause::Fin)] {
        let (event, expected) = match event {
            Event::Established(mut up) => {
                up.facts = facts();
                (Event::Established(up), agreed.to_vec())
            }
            Event::Ended(mut end) => {
                end.facts = facts();
                end.tcp_info = troubled(3, 5);
                (Event::Ended(end), [&agreed[..], &kernel].concat())
            }
            other => unreachable!("{other:?}"),
        };
        let stats = stats();
        let json = captured_json(LogLevel::Info, || observe(&stats, &event));
        let line: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        for (field, value) in expected {
            assert_eq!(line[field], value, "{field} in {json}");
        }
    }
}

#[test]
fn only_trouble_that_explains_an_end_is_in_its_sentence() {
    let line = |tcp_info, received| {
        let Event::Ended(mut end) = end(Cause::Fin) else {
            unreachable!("end() is Ended");
        };
        (end.tcp_info, end.received) = (tcp_info, received);
        text(LogLevel::Info, &[Event::Ended(end)]).remove(0)
    };
    for (tcp_info, words) in [
        (
            troubled(1, 0),
            "out 0.2 s ago; 1 segment unacknowledged; via",
        ),
        (
            troubled(0, 1),
            "out 0.2 s ago; 1 segment retransmitted; via",
        ),
        (troubled(0, 0), "out 0.2 s ago; via"),
        (None, "out 0.2 s ago; via"),
    ] {
        let line = line(tcp_info, None);
        assert!(line.contains(words), "{line}");
    }
    let closed = line(troubled(0, 12), Some(CloseFrame::new(1000, "")));
    assert!(!closed.contains("retransmitted"), "{closed}");
}

#[test]
fn a_failed_dial_says_when_the_certificate_it_was_shown_ends() {
    let Event::DialFailed(mut failure) = failure(1, "the certificate expired") else {
        unreachable!("failure() is DialFailed");
    };
    failure.certificate_not_after = Some(UNIX_EPOCH);
    let stats = stats();
    let json = captured_json(LogLevel::Info, || {
        observe(&stats, &Event::DialFailed(failure));
    });
    let expected = r#""certificate_not_after":"1970-01-01T00:00:00Z""#;
    assert!(json.contains(expected), "{json}");
}
