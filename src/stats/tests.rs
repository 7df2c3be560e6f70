use super::*;
use crate::proto::close::Initiator;
use crate::proto::event::{Established, Recovered};

fn identity() -> Arc<Identity> {
    Arc::new(Identity {
        name: "edge".into(),
        url: "ws://example.com/ws".into(),
        protocol: "websocket",
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
        assert_eq!(history.ends.len(), HISTORY);
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
fn a_successor_of_the_same_name_survives_its_predecessors_guard() {
    let registry = Registry::new();
    let first = registry.target(identity(), &Buckets::default());
    let second = registry.target(identity(), &Buckets::default());
    drop(first);
    assert_eq!(registry.target_count(), 1);
    drop(second);
    assert_eq!(registry.target_count(), 0);
}
