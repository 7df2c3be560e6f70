use super::*;
use proptest::prelude::*;

const NONCE: u32 = 0xfeed_beef;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const TICK: Duration = Duration::from_nanos(1);

/// A heartbeat with its clock: time jumps from deadline to deadline.
struct Sim {
    start: Instant,
    now: Instant,
    heartbeat: Heartbeat,
    log: Vec<(Duration, Action)>,
}

impl Sim {
    fn new(policy: HeartbeatPolicy) -> Self {
        Self::first_after(policy, policy.interval)
    }

    fn first_after(policy: HeartbeatPolicy, first: Duration) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            heartbeat: Heartbeat::new(policy, start, first, NONCE),
            log: Vec::new(),
        }
    }

    /// Runs to `at` after the start, waking exactly at each deadline.
    fn run_to(&mut self, at: Duration) -> &mut Self {
        let until = self.start + at;
        for _ in 0..100_000 {
            match self.heartbeat.deadline().filter(|due| *due <= until) {
                Some(due) => {
                    self.now = self.now.max(due);
                    self.poll();
                }
                None => {
                    self.now = until;
                    return self;
                }
            }
        }
        panic!("the machine never comes to rest");
    }

    fn poll(&mut self) {
        while let Some(action) = self.heartbeat.poll(self.now) {
            self.log.push((self.now - self.start, action));
        }
    }

    fn pong(&mut self, seq: u32) -> Pong {
        self.heartbeat.handle_pong(&payload(NONCE, seq), self.now)
    }

    fn foreign_pong(&mut self) -> Pong {
        self.heartbeat.handle_pong(b"from server", self.now)
    }

    fn traffic(&mut self) {
        self.heartbeat.handle_traffic(self.now);
    }

    fn pings(&self) -> Vec<u64> {
        let pings = self
            .log
            .iter()
            .filter(|(_, a)| matches!(a, Action::Ping { .. }));
        pings.map(|(at, _)| at.as_secs()).collect()
    }

    fn given_up(&self) -> Option<u64> {
        let end = self.log.iter().find(|(_, a)| *a == Action::GiveUp);
        end.map(|(at, _)| at.as_secs())
    }
}

#[test]
fn a_peer_that_stalls_is_pinged_at_10_30_50_70_and_given_up_at_90() {
    let mut sim = Sim::new(HeartbeatPolicy::default());
    sim.run_to(secs(90) - TICK);
    assert_eq!(sim.pings(), [10, 30, 50, 70]);
    assert_eq!(sim.given_up(), None, "not a tick early");
    assert_eq!(
        (sim.heartbeat.retries(), sim.heartbeat.outstanding()),
        (3, 4)
    );
    sim.run_to(secs(90));
    assert_eq!(sim.given_up(), Some(90));
    assert_eq!(
        (sim.heartbeat.retries(), sim.heartbeat.outstanding()),
        (3, 4)
    );
    assert_eq!(sim.heartbeat.deadline(), None);
}

#[test]
fn one_second_three_retries_is_1_3_5_7_and_9() {
    let mut sim = Sim::new(HeartbeatPolicy::every(secs(1)));
    sim.run_to(secs(100));
    assert_eq!((sim.pings(), sim.given_up()), (vec![1, 3, 5, 7], Some(9)));
}

#[test]
fn with_limit_0_it_takes_30_seconds() {
    let policy = HeartbeatPolicy {
        max_retries: 0,
        ..HeartbeatPolicy::default()
    };
    let mut sim = Sim::new(policy);
    sim.run_to(secs(100));
    assert_eq!((sim.pings(), sim.given_up()), (vec![10], Some(30)));
}

#[test]
fn the_next_ping_leaves_one_interval_after_the_answered_one() {
    let mut sim = Sim::new(HeartbeatPolicy::default());
    sim.run_to(secs(14));
    let rtt = Some(secs(4));
    assert_eq!(
        sim.pong(1),
        Pong::Answer {
            rtt,
            mismatch: false
        }
    );
    sim.run_to(secs(25));
    assert_eq!(sim.pings(), [10, 20]);
}

#[test]
fn an_answer_clears_the_retries_and_a_late_one_lets_the_next_ping_leave_at_once() {
    let mut sim = Sim::new(HeartbeatPolicy::default());
    sim.run_to(secs(55));
    assert_eq!(sim.heartbeat.retries(), 2);
    assert_eq!(
        sim.pong(1),
        Pong::Answer {
            rtt: Some(secs(45)),
            mismatch: false
        }
    );
    assert_eq!(
        (sim.heartbeat.retries(), sim.heartbeat.outstanding()),
        (0, 0)
    );
    // The answers to the second and third ping follow: traffic.
    assert_eq!(sim.pong(2), Pong::Stray);
    sim.run_to(secs(94));
    assert_eq!(sim.pings(), [10, 30, 50, 55, 75]);
    assert_eq!(sim.heartbeat.retries(), 1, "counted anew");
}

#[test]
fn an_answer_to_an_older_ping_is_measured_from_that_ping() {
    let policy = HeartbeatPolicy {
        interval: secs(30),
        pong_timeout: secs(10),
        ..HeartbeatPolicy::default()
    };
    let mut sim = Sim::new(policy);
    sim.run_to(secs(52));
    assert_eq!(sim.pings(), [30, 40, 50]);
    assert_eq!(
        sim.pong(2),
        Pong::Answer {
            rtt: Some(secs(12)),
            mismatch: false
        }
    );
    sim.run_to(secs(71));
    assert_eq!(sim.pings(), [30, 40, 50, 70], "30 s after the ping of 40");
}

#[test]
fn a_pong_with_another_payload_is_life_and_counted_and_measured_only_while_one_ping_waits() {
    let mut sim = Sim::new(HeartbeatPolicy::default());
    sim.run_to(secs(11));
    assert_eq!(
        sim.foreign_pong(),
        Pong::Answer {
            rtt: Some(secs(1)),
            mismatch: true
        }
    );
    sim.run_to(secs(41));
    assert_eq!(sim.heartbeat.outstanding(), 2);
    assert_eq!(
        sim.foreign_pong(),
        Pong::Answer {
            rtt: None,
            mismatch: true
        }
    );
    assert_eq!(sim.foreign_pong(), Pong::Stray);
    assert_eq!(sim.given_up(), None);
}

#[test]
fn an_empty_pong_and_one_of_another_connection_are_mismatches() {
    let mut sim = Sim::new(HeartbeatPolicy::default());
    for pong in [
        &b""[..],
        &payload(NONCE + 1, 1),
        &payload(NONCE, 99),
        &payload(NONCE, 0),
    ] {
        let due = sim.heartbeat.deadline().unwrap();
        sim.run_to(due - sim.start);
        let answer = sim.heartbeat.handle_pong(pong, sim.now);
        assert_eq!(
            answer,
            Pong::Answer {
                rtt: Some(Duration::ZERO),
                mismatch: true
            }
        );
    }
}

#[test]
fn traffic_puts_off_giving_up_but_the_ping_is_sent_again_past_the_limit() {
    let policy = HeartbeatPolicy {
        max_retries: 1,
        ..HeartbeatPolicy::default()
    };
    let mut sim = Sim::new(policy);
    for at in [15, 35, 55, 75] {
        sim.run_to(secs(at));
        sim.traffic();
    }
    sim.run_to(secs(200));
    assert_eq!(sim.pings(), [10, 30, 50, 70, 90]);
    assert_eq!(sim.given_up(), Some(110), "the last traffic was at 75");
}

#[test]
fn traffic_exactly_pong_timeout_old_no_longer_counts() {
    let policy = HeartbeatPolicy {
        max_retries: 0,
        ..HeartbeatPolicy::default()
    };
    for (at, given_up) in [(secs(10), 30), (secs(10) + TICK, 50)] {
        let mut sim = Sim::new(policy);
        sim.run_to(at);
        sim.traffic();
        sim.run_to(secs(200));
        assert_eq!(sim.given_up(), Some(given_up));
    }
}

#[test]
fn a_server_pings_only_the_silent_and_discards_after_the_timeout() {
    let policy = HeartbeatPolicy {
        max_retries: 0,
        mode: PingMode::WhenSilent,
        ..HeartbeatPolicy::every(secs(5))
    };
    let mut sim = Sim::new(policy);
    for at in 1..=20 {
        sim.run_to(secs(at * 4));
        sim.traffic();
    }
    assert!(sim.pings().is_empty());
    sim.run_to(secs(86));
    assert_eq!(sim.pings(), [85]);
    assert_eq!(
        sim.pong(1),
        Pong::Answer {
            rtt: Some(secs(1)),
            mismatch: false
        }
    );
    sim.run_to(secs(300));
    assert_eq!((sim.pings(), sim.given_up()), (vec![85, 91], Some(101)));
}

#[test]
fn the_two_documented_defaults_never_fight() {
    let server_policy = HeartbeatPolicy {
        max_retries: 0,
        mode: PingMode::WhenSilent,
        ..HeartbeatPolicy::every(secs(5))
    };
    let mut client = Sim::new(HeartbeatPolicy::default());
    let mut server = Sim::new(server_policy);
    for at in 1..=3_600 {
        let (sent_c, sent_s) = (client.log.len(), server.log.len());
        client.run_to(secs(at));
        server.run_to(secs(at));
        for _ in sent_c..client.log.len() {
            server.traffic();
            client.foreign_pong();
        }
        for _ in sent_s..server.log.len() {
            client.traffic();
            server.foreign_pong();
        }
    }
    assert_eq!((client.given_up(), server.given_up()), (None, None));
    assert_eq!(client.pings().len(), 360);
}

#[test]
fn a_late_clock_is_not_the_peers_fault() {
    let mut sim = Sim::new(HeartbeatPolicy::default());
    sim.run_to(secs(75));
    // Asleep from 75 to 1000: the wait for the last ping would have ended at 90.
    sim.now = sim.start + secs(1_000);
    sim.poll();
    assert_eq!(
        sim.log.last().unwrap().1,
        Action::Stalled { late: secs(910) }
    );
    sim.run_to(secs(1_020) - TICK);
    assert_eq!(sim.given_up(), None);
    sim.run_to(secs(1_020));
    assert_eq!(
        sim.given_up(),
        Some(1_020),
        "the whole wait again, then given up"
    );
}

#[test]
fn lateness_up_to_an_interval_is_no_stall() {
    for (late, stalled) in [(secs(10), false), (secs(10) + TICK, true)] {
        let mut sim = Sim::new(HeartbeatPolicy::default());
        sim.now = sim.start + secs(10) + late;
        sim.poll();
        let said = sim
            .log
            .iter()
            .any(|(_, a)| matches!(a, Action::Stalled { .. }));
        assert_eq!(said, stalled);
        assert_eq!(sim.pings().len(), 1, "the ping itself leaves either way");
    }
}

#[test]
fn a_retune_is_measured_from_the_last_ping() {
    let mut sim = Sim::new(HeartbeatPolicy::default());
    sim.run_to(secs(11));
    sim.pong(1);
    let policy = HeartbeatPolicy::every(secs(60));
    sim.heartbeat.retune(policy, sim.now);
    sim.run_to(secs(69));
    assert_eq!(sim.pings(), [10]);
    sim.run_to(secs(70));
    assert_eq!(sim.pings(), [10, 70]);
    // Shorter while a ping waits: judged from when it was sent.
    sim.run_to(secs(75));
    sim.heartbeat
        .retune(HeartbeatPolicy::every(secs(1)), sim.now);
    sim.run_to(secs(77));
    assert_eq!(sim.pings(), [10, 70, 75, 77]);
    assert!(
        !sim.log
            .iter()
            .any(|(_, a)| matches!(a, Action::Stalled { .. }))
    );
}

#[test]
fn a_retune_in_the_same_moment_as_we_wake_late_hides_no_stall() {
    for pinged in [false, true] {
        let mut sim = Sim::new(HeartbeatPolicy::default());
        if pinged {
            sim.run_to(secs(10));
        }
        let woken = secs(900);
        sim.now = sim.start + woken;
        sim.heartbeat
            .retune(HeartbeatPolicy::every(secs(9)), sim.now);
        sim.poll();
        let stalls = sim.log.iter().filter(|(_, action)| {
            matches!(action, Action::Stalled { .. } | Action::GiveUp)
                || matches!(action, Action::Ping { retry: true, .. })
        });
        let stalls: Vec<_> = stalls.map(|(_, action)| action).collect();
        assert!(
            matches!(stalls[..], [Action::Stalled { .. }]),
            "{stalls:?}, pinged: {pinged}"
        );
    }
}

#[test]
fn a_retune_of_one_way_beats_is_measured_from_the_last_and_before_the_first_only_hastens() {
    let every = |interval| HeartbeatPolicy {
        mode: PingMode::OneWay,
        ..HeartbeatPolicy::every(interval)
    };
    let mut sim = Sim::new(every(secs(10)));
    sim.run_to(secs(2));
    sim.heartbeat.retune(every(secs(30)), sim.now);
    sim.run_to(secs(14));
    assert_eq!(sim.pings(), [10], "where it was, and no later");
    sim.heartbeat.retune(every(secs(20)), sim.now);
    sim.run_to(secs(51));
    assert_eq!(sim.pings(), [10, 30, 50]);
    sim.heartbeat.retune(every(secs(5)), sim.now);
    sim.run_to(secs(56));
    assert_eq!(sim.pings(), [10, 30, 50, 55]);

    let mut first = Sim::first_after(every(secs(100)), secs(100));
    first.heartbeat.retune(every(secs(10)), first.now);
    first.run_to(secs(19));
    assert_eq!(first.pings(), [10]);
}

#[test]
fn a_stray_pong_is_traffic_of_a_peer_that_is_pinged_when_silent() {
    let mut sim = Sim::new(HeartbeatPolicy {
        mode: PingMode::WhenSilent,
        ..HeartbeatPolicy::every(secs(5))
    });
    sim.run_to(secs(4));
    assert_eq!(sim.foreign_pong(), Pong::Stray);
    sim.run_to(secs(9));
    assert_eq!(sim.pings(), [9]);
}

#[test]
fn a_connection_that_is_never_pinged_has_no_deadline() {
    let policy = HeartbeatPolicy {
        mode: PingMode::Never,
        ..HeartbeatPolicy::default()
    };
    let mut sim = Sim::new(policy);
    sim.run_to(secs(1_000_000));
    assert!(sim.log.is_empty());
}

#[test]
fn first_pings_of_many_targets_are_spread_evenly_over_the_interval() {
    let interval = secs(10);
    let mut tenths = [0; 10];
    for n in 0..10_000 {
        let at = spread(&format!("target-{n}"), interval);
        assert!(at > Duration::ZERO && at <= interval);
        tenths[(at.as_millis() as usize / 1_000).min(9)] += 1;
    }
    assert!(
        tenths.iter().all(|n| (850..=1_150).contains(n)),
        "{tenths:?}"
    );
    assert_eq!(
        spread("edge-tokyo", interval),
        spread("edge-tokyo", interval)
    );
}

#[derive(Debug, Clone)]
enum Input {
    OwnPong { back: u32 },
    ForeignPong,
    Traffic,
    SpuriousPoll,
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        3 => (0_u32..4).prop_map(|back| Input::OwnPong { back }),
        1 => Just(Input::ForeignPong),
        2 => Just(Input::Traffic),
        1 => Just(Input::SpuriousPoll),
    ]
}

/// What the rules say, told a second time from the log alone: when each ping must leave, and when
/// the connection must be given up.
struct Oracle {
    policy: HeartbeatPolicy,
    /// When the next ping is due, and whether it is a retry.
    next: Duration,
    retry: bool,
    sent: Vec<Duration>,
    /// Index in `sent` of the first ping that waits.
    waiting_from: usize,
    traffic: Duration,
    over: bool,
}

impl Oracle {
    fn new(policy: HeartbeatPolicy, first: Duration) -> Self {
        Self {
            policy,
            next: first,
            retry: false,
            sent: Vec::new(),
            waiting_from: 0,
            traffic: Duration::ZERO,
            over: false,
        }
    }

    fn retries(&self) -> usize {
        (self.sent.len() - self.waiting_from).saturating_sub(1)
    }

    /// Checks what the machine did at `at`.
    fn did(&mut self, at: Duration, action: Action) {
        assert!(!self.over, "said something after giving up");
        assert_eq!(at, self.next, "early or late");
        let fresh = at - self.traffic < self.policy.pong_timeout;
        let due_to_give_up =
            self.retry && self.retries() >= self.policy.max_retries as usize && !fresh;
        match action {
            Action::Ping { seq, retry } => {
                assert!(!due_to_give_up, "should have given up at {at:?}");
                assert_eq!((seq as usize, retry), (self.sent.len() + 1, self.retry));
                self.sent.push(at);
                self.next = at + self.policy.pong_timeout;
                self.retry = true;
            }
            Action::GiveUp => {
                assert!(due_to_give_up, "gave up at {at:?}");
                self.over = true;
            }
            Action::Stalled { .. } => panic!("no stall in this run"),
        }
    }

    fn pong(&mut self, at: Duration, seq: Option<usize>) {
        if self.sent.len() == self.waiting_from {
            self.traffic = at;
            return;
        }
        if self.over {
            return;
        }
        let answered = seq
            .filter(|seq| *seq > self.waiting_from)
            .unwrap_or(self.sent.len());
        self.next = at.max(self.sent[answered - 1] + self.policy.interval);
        self.retry = false;
        self.waiting_from = self.sent.len();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_sequence_of_inputs_pings_too_soon_loses_a_deadline_or_gives_up_off_the_tick(
        interval in 1_u64..100,
        timeout in 1_u64..300,
        max_retries in 0_u32..5,
        first in 1_u64..100,
        inputs in prop::collection::vec((0_u64..150, input()), 0..60),
    ) {
        let policy = HeartbeatPolicy {
            interval: secs(interval),
            pong_timeout: secs(timeout),
            max_retries,
            mode: PingMode::Always,
        };
        let mut sim = Sim::first_after(policy, secs(first));
        let mut oracle = Oracle::new(policy, secs(first));
        let mut at = Duration::ZERO;
        let mut checked = 0;
        for (gap, input) in inputs {
            at += secs(gap);
            sim.run_to(at);
            for (when, action) in &sim.log[checked..] {
                oracle.did(*when, *action);
            }
            checked = sim.log.len();
            prop_assert_eq!(sim.heartbeat.deadline().is_none(), oracle.over);
            if oracle.over {
                break;
            }
            prop_assert!(oracle.next >= at, "a deadline was lost: {:?}", oracle.next);
            match input {
                Input::OwnPong { back } => {
                    let seq = (oracle.sent.len() as u32).saturating_sub(back).max(1);
                    sim.pong(seq);
                    oracle.pong(at, Some(seq as usize));
                }
                Input::ForeignPong => {
                    sim.foreign_pong();
                    oracle.pong(at, None);
                }
                Input::Traffic => {
                    sim.traffic();
                    oracle.traffic = at;
                }
                Input::SpuriousPoll => {
                    if sim.heartbeat.deadline().is_some_and(|due| due > sim.now) {
                        prop_assert_eq!(sim.heartbeat.poll(sim.now), None);
                    }
                }
            }
        }
    }

    #[test]
    fn no_lateness_of_ours_panics_or_gives_up_before_a_whole_wait(
        gaps in prop::collection::vec(0_u64..400_000, 1..50),
        mode in prop_oneof![Just(PingMode::Always), Just(PingMode::WhenSilent)],
    ) {
        let policy = HeartbeatPolicy { mode, ..HeartbeatPolicy::default() };
        let mut sim = Sim::new(policy);
        for gap in gaps {
            sim.now += Duration::from_millis(gap);
            sim.poll();
        }
        let mut last = Duration::ZERO;
        for (at, action) in &sim.log {
            if *action == Action::GiveUp {
                prop_assert!(*at - last >= policy.pong_timeout);
            }
            last = *at;
        }
    }
}
