use proptest::prelude::*;

use super::*;

const NONCE: u32 = 7;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A probe, and the time it began.
struct Bench {
    start: Instant,
    probe: Probe,
}

impl Bench {
    fn new(interval: u64, wait: u64, count: Option<u32>) -> Self {
        let start = Instant::now();
        let policy = ProbePolicy {
            interval: ms(interval),
            wait: ms(wait),
            count,
        };
        Self {
            start,
            probe: Probe::new(policy, start, NONCE),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + ms(millis)
    }

    /// Everything due at this time.
    fn poll(&mut self, millis: u64) -> Vec<Action> {
        let now = self.at(millis);
        std::iter::from_fn(|| self.probe.poll(now)).collect()
    }

    fn pong(&mut self, millis: u64, seq: u32) -> Answer {
        self.probe
            .handle_pong(&payload(NONCE, seq), self.at(millis))
    }

    fn foreign(&mut self, millis: u64) -> Answer {
        self.probe.handle_pong(b"their own", self.at(millis))
    }
}

fn ping(seq: u32) -> Action {
    Action::Ping { seq }
}

fn in_time(seq: u32, rtt: u64) -> Answer {
    Answer::InTime {
        seq,
        rtt: Some(ms(rtt)),
        mismatch: false,
    }
}

#[test]
fn the_first_ping_leaves_at_once_and_the_others_by_the_clock() {
    let mut bench = Bench::new(1000, 2000, Some(3));
    assert_eq!(bench.poll(0), [ping(1)]);
    assert_eq!(bench.poll(0), []);
    assert_eq!(bench.probe.deadline(), Some(bench.at(1000)));
    assert_eq!(bench.pong(10, 1), in_time(1, 10));
    // Late by a little: the third still leaves at 2 s.
    assert_eq!(bench.poll(1003), [ping(2)]);
    assert_eq!(bench.pong(1013, 2), in_time(2, 10));
    assert_eq!(bench.poll(1999), []);
    assert_eq!(bench.poll(2000), [ping(3)]);
    assert!(!bench.probe.is_done(), "its answer is still awaited");
    assert_eq!(bench.pong(2020, 3), in_time(3, 20));
    assert!(bench.probe.is_done());
    assert_eq!(bench.probe.deadline(), None);
    let counts = bench.probe.counts();
    assert_eq!((counts.sent, counts.answered), (3, 3));
}

#[test]
fn an_unanswered_ping_is_told_once_and_never_sent_again() {
    let mut bench = Bench::new(1000, 1500, Some(2));
    assert_eq!(bench.poll(0), [ping(1)]);
    assert_eq!(bench.poll(1000), [ping(2)]);
    assert_eq!(bench.poll(1500), [Action::NoAnswer { seq: 1 }]);
    assert_eq!(bench.poll(2499), []);
    assert_eq!(bench.poll(2500), [Action::NoAnswer { seq: 2 }]);
    assert!(bench.probe.is_done());
    assert_eq!(bench.probe.counts().answered, 0);
}

#[test]
fn what_is_due_together_is_told_in_the_order_of_time() {
    let mut bench = Bench::new(1000, 1000, None);
    bench.poll(0);
    // The wait of the first and the second ping are both due at 1 s.
    let due = bench.poll(1000);
    assert_eq!(due, [Action::NoAnswer { seq: 1 }, ping(2)]);
}

#[test]
fn a_late_answer_is_an_answer_and_said_to_be_late() {
    let mut bench = Bench::new(1000, 500, None);
    bench.poll(0);
    assert_eq!(bench.poll(500), [Action::NoAnswer { seq: 1 }]);
    let rtt = Some(ms(700));
    assert_eq!(bench.pong(700, 1), Answer::Late { seq: 1, rtt });
    assert_eq!(bench.pong(701, 1), Answer::Again { seq: 1 });
    let counts = bench.probe.counts();
    assert_eq!((counts.answered, counts.late, counts.repeated), (1, 1, 1));
}

#[test]
fn answers_may_come_in_any_order() {
    let mut bench = Bench::new(10, 1000, None);
    for millis in [0, 10, 20] {
        bench.poll(millis);
    }
    assert_eq!(bench.pong(25, 2), in_time(2, 15));
    assert_eq!(bench.pong(26, 1), in_time(1, 26));
    assert_eq!(bench.pong(27, 3), in_time(3, 7));
}

#[test]
fn a_payload_of_the_peers_own_is_measured_only_while_one_ping_waits() {
    let foreign = |seq, rtt: Option<u64>| Answer::InTime {
        seq,
        rtt: rtt.map(ms),
        mismatch: true,
    };
    let mut bench = Bench::new(100, 250, None);
    assert_eq!(bench.foreign(0), Answer::Stray, "nothing was asked yet");
    bench.poll(0);
    assert_eq!(bench.foreign(10), foreign(1, Some(10)));
    assert_eq!(bench.foreign(11), Answer::Stray);
    bench.poll(100);
    bench.poll(200);
    assert_eq!(bench.foreign(210), foreign(2, None), "it may be for either");
    assert_eq!(bench.foreign(220), foreign(3, Some(20)));
    // One that was waited for in vain may be answered after all.
    bench.poll(300);
    bench.poll(400);
    bench.poll(500);
    assert_eq!(bench.poll(550), [Action::NoAnswer { seq: 4 }]);
    assert_eq!(bench.foreign(560), foreign(5, None));
    assert_eq!(bench.foreign(570), foreign(6, Some(70)));
    assert_eq!(bench.probe.counts().mismatched, 5);

    // Alone it waits, but the pong may be the late answer to the one before.
    let mut bench = Bench::new(100, 50, None);
    bench.poll(0);
    assert_eq!(bench.poll(50), [Action::NoAnswer { seq: 1 }]);
    bench.poll(100);
    assert_eq!(bench.foreign(110), foreign(2, None));
    bench.poll(200);
    assert_eq!(bench.foreign(210), foreign(3, Some(10)));
}

#[test]
fn pongs_that_only_look_like_ours_are_the_peers_own() {
    let mut bench = Bench::new(1000, 2000, None);
    bench.poll(0);
    let now = bench.at(5);
    for pong in [
        payload(NONCE + 1, 1).as_slice(),
        &payload(NONCE, 0),
        &payload(NONCE, 2),
        &payload(NONCE, 1)[..7],
        b"",
    ] {
        let mut probe = Probe::new(bench.probe.policy, bench.start, NONCE);
        probe.poll(bench.start);
        let answer = probe.handle_pong(pong, now);
        assert!(
            matches!(answer, Answer::InTime { mismatch: true, .. }),
            "{pong:?}: {answer:?}"
        );
    }
}

#[test]
fn a_stall_of_ours_is_not_the_peers_fault_and_no_round_trip() {
    let mut bench = Bench::new(1000, 2000, None);
    bench.poll(0);
    // Stopped for half a minute; the alarm is looked at first.
    let late = ms(29_000);
    assert_eq!(bench.poll(30_000), [Action::Stalled { late }, ping(2)]);
    let unmeasured = |seq| Answer::InTime {
        seq,
        rtt: None,
        mismatch: false,
    };
    assert_eq!(bench.pong(30_010, 1), unmeasured(1));
    assert_eq!(bench.pong(30_010, 2), in_time(2, 10));
    // The same, and the pong is read first.
    bench.poll(31_000);
    assert_eq!(bench.pong(60_000, 3), unmeasured(3));
    let late = ms(28_000);
    assert_eq!(bench.poll(60_000), [Action::Stalled { late }, ping(4)]);
    // Pings that were not sent meanwhile are not made up for.
    assert_eq!(bench.probe.deadline(), Some(bench.at(61_000)));
}

#[test]
fn asked_to_stop_it_waits_for_what_is_under_way() {
    let mut bench = Bench::new(1000, 2000, None);
    bench.poll(0);
    bench.poll(1000);
    bench.pong(1010, 1);
    bench.probe.stop();
    assert!(!bench.probe.is_done());
    assert_eq!(bench.poll(2500), []);
    assert_eq!(bench.poll(3000), [Action::NoAnswer { seq: 2 }]);
    assert!(bench.probe.is_done());
}

#[test]
fn nothing_grows_beside_a_peer_that_never_answers() {
    let mut bench = Bench::new(10, 100, None);
    for millis in (0..100_000).step_by(10) {
        bench.poll(millis);
        assert!(bench.probe.unanswered().len() <= 10);
    }
    assert_eq!(bench.probe.overdue.len(), REMEMBERED);
    // A pong to one that was forgotten is no answer.
    assert_eq!(bench.pong(100_000, 1), Answer::Again { seq: 1 });
}

/// What happens to a probe.
#[derive(Debug, Clone)]
enum Input {
    Wait(u64),
    Pong(u32),
    Foreign,
}

proptest! {
    #[test]
    fn every_ping_is_answered_or_not_and_told_so_once(
        interval in 10_u64..500,
        wait in 10_u64..2_000,
        count in 1_u32..40,
        inputs in prop::collection::vec(
            prop_oneof![
                (0_u64..700).prop_map(Input::Wait),
                (0_u32..50).prop_map(Input::Pong),
                Just(Input::Foreign),
            ],
            0..120,
        ),
    ) {
        let mut bench = Bench::new(interval, wait, Some(count));
        let (mut now, mut told, mut expected_seq) = (0, std::collections::BTreeSet::new(), 1);
        let mut actions = Vec::new();
        for input in inputs {
            actions.extend(bench.poll(now));
            match input {
                Input::Wait(millis) => now += millis,
                Input::Pong(seq) => {
                    let answer = bench.pong(now, seq);
                    if let Answer::InTime { seq, .. } = answer {
                        prop_assert!(told.insert(seq), "{seq} was settled before");
                    }
                }
                Input::Foreign => {
                    if let Answer::InTime { seq, .. } = bench.foreign(now) {
                        prop_assert!(told.insert(seq), "{seq} was settled before");
                    }
                }
            }
        }
        // To the end, by its own alarm.
        while let Some(due) = bench.probe.deadline() {
            now = now.max((due - bench.start).as_millis() as u64);
            let due = bench.poll(now);
            prop_assert!(!due.is_empty(), "an alarm with nothing to say");
            actions.extend(due);
        }
        for action in actions {
            match action {
                Action::Ping { seq } => {
                    prop_assert_eq!(seq, expected_seq);
                    expected_seq += 1;
                }
                Action::NoAnswer { seq } => {
                    prop_assert!(told.insert(seq), "{} was settled before", seq);
                }
                Action::Stalled { .. } => {}
            }
        }
        prop_assert!(bench.probe.is_done());
        let counts = bench.probe.counts();
        prop_assert_eq!(counts.sent, count);
        prop_assert_eq!(told.len(), count as usize);
        prop_assert!(counts.answered <= counts.sent);
        prop_assert!(counts.late + counts.mismatched <= counts.answered);
    }
}
