use super::*;
use crate::proto::close::{Cause, CloseFrame, Initiator};
use crate::proto::event::{DialFailure, End, Established, Recovered, TcpInfo, TlsFacts};
use crate::proto::reconnect::Advice;

fn identity() -> Arc<Identity> {
    Arc::new(Identity {
        name: "edge".into(),
        url: "ws://example.com/ws".into(),
        protocol: Protocol::WebSocket,
        server_beats: false,
        watches_staleness: false,
        labels: [].into(),
        fan_out: None,
    })
}

fn up() -> Event {
    Event::Established(Box::new(Established {
        at: SystemTime::now(),
        times: Default::default(),
        local: None,
        peer: None,
        facts: None,
        recovered: None,
        attempts: 1,
    }))
}

fn end(outage_id: u64) -> End {
    End {
        at: SystemTime::now(),
        outage_id,
        cause: Cause::Fin,
        initiator: Initiator::Peer,
        message: "peer vanished".into(),
        received: None,
        sent: None,
        age: Duration::from_secs(1),
        since_last_frame_in: None,
        since_last_frame_out: None,
        outstanding_pings: 0,
        retries: 0,
        local: None,
        peer: None,
        facts: None,
        tcp_info: None,
    }
}

#[test]
fn time_up_and_time_down_add_up_and_never_go_back() {
    let epoch = Instant::now();
    let stats = TargetStats::new(identity(), &Buckets::default(), epoch);
    let mut before = (Duration::ZERO, Duration::ZERO);
    for round in 0..1_000 {
        match round % 3 {
            0 => stats.apply(&up()),
            1 => stats.apply(&Event::Ended(Box::new(end(round)))),
            _ => stats.apply(&Event::Connecting),
        }
        let now = stats.availability();
        assert!(now.0 >= before.0 && now.1 >= before.1, "{before:?} {now:?}");
        if round % 3 == 0 {
            let later = stats.availability();
            assert_eq!(later.1, now.1, "no time down while up");
        } else {
            assert_eq!(stats.availability().0, now.0, "no time up while down");
        }
        before = now;
    }
    let elapsed = epoch.elapsed();
    let (up, down) = stats.availability();
    let born = Duration::from_nanos(stats.born);
    assert!(born + up + down >= elapsed && born + up + down <= epoch.elapsed());
}

#[test]
fn a_reader_on_another_thread_never_sees_time_up_go_back() {
    let stats = Arc::new(TargetStats::new(
        identity(),
        &Buckets::default(),
        Instant::now(),
    ));
    let writer = stats.clone();
    let turning = std::thread::spawn(move || {
        for id in 0..20_000 {
            writer.apply(&up());
            writer.apply(&Event::Ended(Box::new(end(id))));
        }
    });
    let mut before = stats.availability();
    while !turning.is_finished() {
        let now = stats.availability();
        assert!(now.0 >= before.0 && now.1 >= before.1, "{before:?} {now:?}");
        before = now;
    }
    turning.join().expect("the writer ran through");
}

#[test]
fn a_recovery_is_written_to_the_end_it_follows_and_only_twenty_ends_are_kept() {
    let stats = TargetStats::new(identity(), &Buckets::default(), Instant::now());
    for id in 1..=25 {
        stats.apply(&up());
        stats.apply(&Event::Ended(Box::new(end(id))));
    }
    let Event::Established(mut back) = up() else {
        unreachable!("up() is Established");
    };
    back.recovered = Some(Recovered {
        outage_id: 25,
        after: Duration::from_secs(3),
    });
    stats.apply(&Event::Established(back));
    stats.with_history(|history| {
        let history = history.expect("something ended");
        assert_eq!(history.ends.len(), history::ENDS);
        let ids: Vec<u64> = history.ends.iter().map(|p| p.end.outage_id).collect();
        assert_eq!((ids[0], ids[19]), (25, 6));
        let recovered: Vec<_> = history.ends.iter().map(|p| p.recovered_after).collect();
        assert_eq!(recovered[0], Some(Duration::from_secs(3)));
        assert!(recovered[1..].iter().all(Option::is_none));
        assert_eq!(history.causes[Cause::Fin as usize], 25);
    });
    assert_eq!((stats.connects.get(), stats.disconnects.get()), (26, 25));
}

#[test]
fn an_outage_that_is_over_is_that_end_s_and_no_other_s() {
    let registry = Registry::new();
    let guard = registry.target(identity(), &Buckets::default());
    let stats = guard.stats();
    stats.apply(&Event::Ended(Box::new(end(7))));
    let Event::Established(mut back) = up() else {
        unreachable!("up() is Established");
    };
    back.recovered = Some(Recovered {
        outage_id: 6,
        after: Duration::from_secs(3),
    });
    stats.apply(&Event::Established(back));
    stats.with_history(|history| {
        let ends = &history.expect("something ended").ends;
        assert_eq!(ends[0].recovered_after, None);
    });
}

#[test]
fn a_successor_of_the_same_name_survives_its_predecessors_guard() {
    let registry = Registry::new();
    let first = registry.target(identity(), &Buckets::default());
    let second = registry.target(identity(), &Buckets::default());
    drop(first);
    assert_eq!(registry.target_count(), 1);
    drop(second);
    assert_eq!(registry.target_count(), 0);
}

#[test]
fn connections_that_stand_are_counted_as_they_come_and_go() {
    let registry = Registry::new();
    let ended = || Event::Ended(Box::new(end(7)));
    let one = registry.target(identity(), &Buckets::default());
    let other = Identity {
        name: "other".into(),
        ..(*identity()).clone()
    };
    let other = registry.target(Arc::new(other), &Buckets::default());
    assert_eq!(
        (registry.established_count(), registry.target_count()),
        (0, 2)
    );
    one.stats().apply(&up());
    one.stats().apply(&up());
    other.stats().apply(&up());
    assert_eq!(registry.established_count(), 2);
    one.stats().apply(&ended());
    one.stats().apply(&Event::Stopped);
    assert_eq!(registry.established_count(), 1);
    // Removed while it stands: its connection is still being closed, and no target's any more.
    let closing = other.stats().clone();
    drop(other);
    assert_eq!(
        (registry.established_count(), registry.target_count()),
        (0, 1)
    );
    closing.apply(&ended());
    closing.apply(&up());
    assert_eq!(registry.established_count(), 0);
}

fn with_tls(not_after: Option<SystemTime>) -> Event {
    let Event::Established(mut up) = up() else {
        unreachable!("up() is Established");
    };
    let tls = TlsFacts {
        version: "TLSv1.3",
        cipher: "TLS13_AES_256_GCM_SHA384",
        not_after,
    };
    up.facts = Some(Arc::new(Facts {
        tls: Some(tls),
        ..Facts::default()
    }));
    Event::Established(up)
}

fn dial_failed(certificate_not_after: Option<SystemTime>) -> Event {
    Event::DialFailed(Box::new(DialFailure {
        at: SystemTime::now(),
        phase: Phase::Tls,
        message: "the certificate expired".into(),
        status: None,
        times: Default::default(),
        attempts: 1,
        certificate_not_after,
        peer: None,
        advice: Advice::Backoff,
    }))
}

#[test]
fn the_certificate_s_end_is_that_of_the_last_one_presented_accepted_or_not() {
    let stats = TargetStats::new(identity(), &Buckets::default(), Instant::now());
    let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
    // The last second of the year 9999: "no end", as certificates say it.
    let never = 253_402_300_799;
    for (event, expected) in [
        (dial_failed(None), None),
        (dial_failed(at(500)), at(500)),
        (with_tls(at(never)), at(never)),
        (Event::Ended(Box::new(end(1))), at(never)),
        (dial_failed(None), at(never)),
        (dial_failed(at(700)), at(700)),
        (
            dial_failed(Some(UNIX_EPOCH - Duration::from_secs(9))),
            at(0),
        ),
        (with_tls(at(900)), at(900)),
        (up(), None),
    ] {
        stats.apply(&event);
        assert_eq!(stats.certificate_not_after(), expected, "{event:?}");
    }
}

#[test]
fn what_was_learned_is_kept_until_the_next_connection() {
    let stats = TargetStats::new(identity(), &Buckets::default(), Instant::now());
    let tls = |stats: &TargetStats| stats.facts().is_some_and(|facts| facts.tls.is_some());
    assert!(stats.facts().is_none());
    stats.apply(&with_tls(None));
    stats.apply(&Event::Ended(Box::new(end(1))));
    stats.apply(&dial_failed(None));
    assert!(tls(&stats));
    stats.apply(&up());
    assert!(stats.facts().is_none());
}

/// An end with all there can be, of a Close reason of this many bytes, and `headers` headers with
/// values of `length` bytes.
fn full(reason: usize, headers: usize, length: usize) -> End {
    let reason = "r".repeat(reason);
    let header = |n| (format!("x-amzn-{n:08}").into(), "v".repeat(length).into());
    End {
        message: format!("peer refused us (Close 4401 \"{reason}\")").into(),
        received: Some(CloseFrame::new(4401, &reason)),
        sent: Some(CloseFrame::new(4401, &reason)),
        local: Some(([10, 0, 0, 1], 40_000).into()),
        peer: Some(([10, 0, 0, 7], 443).into()),
        facts: Some(Arc::new(Facts {
            subprotocol: Some("v2.chat".into()),
            proxy: Some("http://proxy.example.com:3128".into()),
            tls: Some(TlsFacts {
                version: "TLSv1.3",
                cipher: "TLS13_AES_256_GCM_SHA384",
                not_after: Some(UNIX_EPOCH),
            }),
            headers: (0..headers).map(header).collect(),
        })),
        tcp_info: Some(TcpInfo {
            state: "CLOSE-WAIT",
            rtt: Duration::from_micros(1_500),
            rtt_variation: Duration::from_micros(700),
            retransmits: 5,
            unacked: 3,
        }),
        ..end(1)
    }
}

#[test]
fn a_kept_end_takes_a_kilobyte_at_most_whatever_headers_the_peer_sent() {
    for (reason, headers, length, kept) in [
        (123, 12, 128, 1),
        (123, 12, 16, 2),
        (13, 5, 20, 5),
        (0, 12, 128, 3),
        (0, 1_000, 128, 3),
        (0, 0, 0, 0),
    ] {
        let stats = TargetStats::new(identity(), &Buckets::default(), Instant::now());
        let end = full(reason, headers, length);
        for _ in 0..100 {
            stats.apply(&Event::Ended(Box::new(end.clone())));
        }
        stats.with_history(|history| {
            let history = history.expect("something ended");
            assert!(history.ends.capacity() <= history::ENDS + 4);
            let past = &history.ends[0];
            assert!(past.size() <= 1024, "{} bytes", past.size());
            let facts = past.end.facts.as_ref().expect("facts");
            let all = end.facts.as_ref().expect("facts");
            assert_eq!(facts.headers[..], all.headers[..facts.headers.len()]);
            assert_eq!(facts.headers.len(), kept, "{} bytes", past.size());
            assert_eq!((&facts.proxy, facts.tls), (&all.proxy, all.tls));
        });
    }
}

fn beating() -> TargetStats {
    let identity = Identity {
        protocol: Protocol::Sse,
        server_beats: true,
        watches_staleness: true,
        ..(*identity()).clone()
    };
    TargetStats::new(Arc::new(identity), &Buckets::default(), Instant::now())
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn the_peer_s_heartbeats_are_counted_across_connections() {
    let stats = beating();
    assert_eq!(stats.heartbeats_received(), 0);
    stats.apply(&up());
    stats.apply(&Event::HeartbeatReceived);
    stats.apply(&Event::Ended(Box::new(end(1))));
    stats.apply(&up());
    stats.apply(&Event::HeartbeatReceived);
    assert_eq!(stats.heartbeats_received(), 2);
}

#[test]
fn the_gap_runs_from_when_the_connection_came_up_and_stops_when_it_ends() {
    let stats = beating();
    assert_eq!(stats.arrival_gap(), None, "never up");
    stats.apply(&up());
    // A path that lets nothing through has no arrival to tell the gap.
    let first = stats.arrival_gap();
    assert!(first.is_some());
    let deadline = Instant::now() + secs(10);
    while stats.arrival_gap() <= first {
        assert!(Instant::now() < deadline, "the running gap stands still");
    }
    stats.apply(&Event::Arrived { gap: secs(100) });
    assert_eq!(stats.arrival_gap(), Some(secs(100)));
    stats.apply(&Event::Ended(Box::new(end(1))));
    assert_eq!(
        stats.arrival_gap(),
        Some(secs(100)),
        "of the last 5 minutes"
    );
}

#[test]
fn a_machine_that_stood_still_begins_the_running_gap_again() {
    let stats = beating();
    stats.apply(&up());
    let deadline = Instant::now() + secs(10);
    loop {
        let before = stats.arrival_gap();
        stats.apply(&Event::Stalled { late: secs(9) });
        // This thread may be held up just here.
        if stats.arrival_gap() < before {
            break;
        }
        assert!(Instant::now() < deadline, "the gap runs on");
    }
}

#[test]
fn a_target_that_became_a_plain_one_has_no_gaps_left() {
    let stats = beating();
    stats.apply(&up());
    stats.apply(&Event::Arrived { gap: secs(100) });
    stats.apply(&Event::Ended(Box::new(end(1))));
    stats.retune(identity(), &Buckets::default());
    stats.apply(&up());
    assert_eq!(stats.arrival_gap(), None);
}

#[test]
fn the_first_event_is_the_present_connection_s() {
    let stats = beating();
    let delay = Event::FirstEvent { delay: secs(2) };
    stats.apply(&up());
    assert_eq!(stats.first_event_delay(), None);
    stats.apply(&delay);
    assert_eq!(stats.first_event_delay(), Some(secs(2)));
    stats.apply(&Event::Ended(Box::new(end(1))));
    assert_eq!(stats.first_event_delay(), None, "gone with its connection");
    // A task that panicked leaves no end behind.
    stats.apply(&delay);
    stats.apply(&up());
    assert_eq!(stats.first_event_delay(), None);
}

#[test]
fn staleness_is_a_state_of_an_established_connection() {
    let stats = beating();
    let stale = Event::Stale { quiet: secs(30) };
    stats.apply(&up());
    assert!(!stats.is_stale());
    stats.apply(&stale);
    assert!(stats.is_stale());
    assert_eq!(stats.state(), State::Established);
    stats.apply(&Event::Fresh { quiet: secs(41) });
    assert!(!stats.is_stale());
    for gone in [Event::Ended(Box::new(end(1))), Event::Stopped, up()] {
        stats.apply(&up());
        stats.apply(&stale);
        stats.apply(&gone);
        assert!(!stats.is_stale(), "{gone:?}");
    }
}

#[test]
fn a_plain_target_takes_no_memory_for_what_a_beating_peer_has() {
    let stats = TargetStats::new(identity(), &Buckets::default(), Instant::now());
    stats.apply(&up());
    stats.apply(&Event::Stalled { late: secs(9) });
    assert!(lock(&stats.rare).is_none());
    stats.apply(&Event::Ended(Box::new(end(1))));
    let rare = lock(&stats.rare);
    assert!(rare.as_ref().is_some_and(|rare| rare.beats.is_none()));
    drop(rare);
    assert!(!stats.has_beats.load(Relaxed));
    assert_eq!(
        (stats.heartbeats_received(), stats.arrival_gap()),
        (0, None)
    );
}

#[test]
fn what_every_target_has_stays_small() {
    // All targets pay for each field, those without TLS and without trouble too.
    let size = size_of::<TargetStats>();
    assert!(size <= 296, "{size} bytes");
}
