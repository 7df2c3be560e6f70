//! Lookups on real threads, which hang as long as the test wants.

use std::future::Future;
use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;

use futures_util::{FutureExt, poll};
use tokio::time::timeout;

use super::*;

/// What a test waits for at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lookups of names that begin with `hang` return only while it is open.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    turned: Condvar,
    lookups: AtomicUsize,
}

impl Gate {
    fn look_up(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        self.lookups.fetch_add(1, Relaxed);
        if host.starts_with("hang") {
            let mut open = self.open.lock().unwrap();
            while !*open {
                open = self.turned.wait(open).unwrap();
            }
        }
        match host {
            "unknown" => Err(io::Error::other("no such name")),
            "panics" => panic!("fell over"),
            _ => Ok(addresses(&["[::1]:0", "127.0.0.1:0"])),
        }
    }

    fn turn(&self, open: bool) {
        *self.open.lock().unwrap() = open;
        self.turned.notify_all();
    }

    fn lookups(&self) -> usize {
        self.lookups.load(Relaxed)
    }
}

/// Threads that hang at a test's end would stay until the process ends.
struct Bench {
    gate: Arc<Gate>,
    resolver: Resolver,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.gate.turn(true);
    }
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let gate = Arc::new(Gate::default());
        let looking = gate.clone();
        let resolver = Resolver::new(move |host| looking.look_up(host), limits);
        Self { gate, resolver }
    }

    fn resolve(&self, host: &str) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + 'static {
        let (resolver, host) = (self.resolver.clone(), host.to_owned());
        async move { resolver.resolve(&host, 80, IpFamily::Any).await }
    }

    async fn answers(&self, host: &str, within: Duration) {
        let found = timeout(within, self.resolve(host)).await;
        assert_eq!(found.expect("in time").unwrap().len(), 2);
    }

    /// Sees that never more than `most` run until `done`.
    async fn until(&self, most: usize, done: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            {
                let state = self.resolver.0.state();
                assert!(state.running.len() <= most, "{}", state.running.len());
                if done(&state) {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "did not come about");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

fn addresses(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|a| a.parse().unwrap()).collect()
}

#[test]
fn families_alternate_beginning_with_the_resolvers_first() {
    let mixed = addresses(&[
        "[::1]:1",
        "[::2]:1",
        "127.0.0.1:1",
        "127.0.0.2:1",
        "127.0.0.3:1",
    ]);
    let ordered = [
        "[::1]:1",
        "127.0.0.1:1",
        "[::2]:1",
        "127.0.0.2:1",
        "127.0.0.3:1",
    ];
    assert_eq!(interleave(mixed), addresses(&ordered));
}

#[test]
fn an_answer_is_filtered_by_family_and_has_nothing_twice() {
    let found = addresses(&["127.0.0.1:0", "[::1]:0", "127.0.0.1:0", "127.0.0.2:0"]);
    let any = addresses(&["127.0.0.1:9", "[::1]:9", "127.0.0.2:9"]);
    assert_eq!(usable(&found, 9, IpFamily::Any).unwrap(), any);
    let v4 = addresses(&["127.0.0.1:9", "127.0.0.2:9"]);
    assert_eq!(usable(&found, 9, IpFamily::V4).unwrap(), v4);
    assert_eq!(
        usable(&found, 9, IpFamily::V6).unwrap(),
        addresses(&["[::1]:9"])
    );
    let by_family = addresses(&["[::1]:0", "[::2]:0", "127.0.0.1:0"]);
    let in_turn = addresses(&["[::1]:9", "127.0.0.1:9", "[::2]:9"]);
    assert_eq!(usable(&by_family, 9, IpFamily::Any).unwrap(), in_turn);
    let error = |found: &[SocketAddr], family| usable(found, 9, family).unwrap_err().to_string();
    assert_eq!(
        error(&found[1..2], IpFamily::V4),
        "the name has no IPv4 address"
    );
    assert_eq!(
        error(&found[..1], IpFamily::V6),
        "the name has no IPv6 address"
    );
    assert_eq!(error(&[], IpFamily::V4), "the name has no address");
}

#[tokio::test]
async fn the_systems_resolver_knows_localhost() {
    let found = resolve("localhost", 7, IpFamily::V4).await.unwrap();
    assert_eq!(found, addresses(&["127.0.0.1:7"]));
    // A label of more than 63 bytes fails before anything is sent.
    let error = resolve(&"x".repeat(64), 7, IpFamily::Any).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("lookup"), "{error}");
}

#[tokio::test]
async fn errors_and_panics_are_answers() {
    let bench = Bench::new(Limits::USUAL);
    let error = bench.resolve("unknown").await.unwrap_err().to_string();
    assert_eq!(error, "no such name");
    let error = bench.resolve("panics").await.unwrap_err().to_string();
    assert_eq!(error, "the lookup panicked");
    bench
        .until(0, |s| s.running.is_empty() && s.waiting.is_empty())
        .await;
}

#[tokio::test]
async fn one_name_that_hangs_does_not_delay_another() {
    let bench = Bench::new(Limits::USUAL);
    let mut hanging = Box::pin(bench.resolve("hang"));
    assert!(poll!(&mut hanging).is_pending());
    bench.answers("good", Duration::from_secs(1)).await;
    assert!(poll!(&mut hanging).is_pending());
    bench.gate.turn(true);
    assert_eq!(timeout(PATIENCE, hanging).await.unwrap().unwrap().len(), 2);
}

#[tokio::test]
async fn two_hundred_names_that_hang_do_not_either() {
    let bench = Bench::new(Limits::USUAL);
    let hanging: Vec<_> = (0..200)
        .map(|n| tokio::spawn(bench.resolve(&format!("hang-{n}"))))
        .collect();
    bench.until(128, |s| s.waiting.len() == 200).await;
    // Now, and while they fill what threads they can get.
    for n in 0..3 {
        bench
            .answers(&format!("good-{n}"), Duration::from_secs(2))
            .await;
    }
    assert!(bench.resolver.0.state().running.len() < 128);
    bench.gate.turn(true);
    for task in hanging {
        let found = timeout(PATIENCE, task).await.expect("released").unwrap();
        assert_eq!(found.unwrap().len(), 2);
    }
    bench.until(128, |s| s.waiting.is_empty()).await;
}

#[tokio::test]
async fn names_known_to_be_slow_have_three_quarters_of_the_threads_and_no_more() {
    let limits = Limits {
        threads: 8,
        slow_threads: 6,
        slow_after: Duration::from_millis(20),
        hang: Duration::from_millis(40),
        remember: Duration::from_secs(300),
    };
    let bench = Bench::new(limits);
    let ask = || -> Vec<_> {
        let names = (0..40).map(|n| tokio::spawn(bench.resolve(&format!("hang-{n}"))));
        names.collect()
    };
    // Nothing is known of them yet: with time they get every thread.
    let first = ask();
    bench.until(8, |s| s.running.len() == 8).await;
    let slow = Instant::now() + limits.slow_after;
    bench.until(8, |_| Instant::now() > slow).await;
    // Those that are known from here on have hung; the others never had a thread.
    let known = bench.resolver.0.state().running.len();
    first.iter().for_each(tokio::task::JoinHandle::abort);
    bench.until(8, |s| s.waiting.len() == known).await;
    bench.gate.turn(true);
    bench.until(8, |s| s.running.is_empty()).await;
    bench.gate.turn(false);
    let names: Vec<_> = bench.resolver.0.state().slow.keys().cloned().collect();
    assert_eq!(names.len(), 8);

    let again: Vec<_> = names
        .iter()
        .map(|n| tokio::spawn(bench.resolve(n)))
        .collect();
    bench.until(6, |s| s.running.len() == 6).await;
    let much_later = Instant::now() + limits.hang * 3;
    bench.until(6, |_| Instant::now() > much_later).await;
    for n in 0..20 {
        bench.answers(&format!("good-{n}"), PATIENCE).await;
    }
    // One answer in time, and it is a name as any other. A thread may be late on a busy machine.
    again.iter().for_each(tokio::task::JoinHandle::abort);
    bench.gate.turn(true);
    bench.until(6, |s| s.running.is_empty()).await;
    let in_time = async {
        while bench.resolver.0.state().slow.contains_key(&names[0]) {
            bench.answers(&names[0], PATIENCE).await;
        }
    };
    timeout(PATIENCE, in_time).await.expect("forgiven");
}

#[tokio::test]
async fn lookups_of_one_name_at_a_time_are_one_and_nothing_is_kept_of_it() {
    let bench = Bench::new(Limits::USUAL);
    let callers: Vec<_> = (0..50)
        .map(|_| tokio::spawn(bench.resolve("hang")))
        .collect();
    bench
        .until(1, |s| {
            s.waiting.get("hang").is_some_and(|w| w.callers.len() == 50)
        })
        .await;
    bench.gate.turn(true);
    for caller in callers {
        let found = timeout(PATIENCE, caller).await.expect("an answer").unwrap();
        assert_eq!(found.unwrap().len(), 2);
    }
    assert_eq!(bench.gate.lookups(), 1);
    bench.answers("hang", PATIENCE).await;
    assert_eq!(bench.gate.lookups(), 2);
    let state = bench.resolver.0.state();
    assert!(state.waiting.is_empty() && state.slow.is_empty());
}

#[tokio::test]
async fn who_no_longer_waits_leaves_nothing_behind() {
    let limits = Limits {
        threads: 2,
        slow_threads: 1,
        ..Limits::USUAL
    };
    let bench = Bench::new(limits);
    let mut first = Box::pin(bench.resolve("hang"));
    assert!(poll!(&mut first).is_pending());
    let mut second = Box::pin(bench.resolve("hang"));
    assert!(poll!(&mut second).is_pending());
    // One that waits for a thread.
    let mut queued = Box::pin(bench.resolve("hang-too"));
    assert!(poll!(&mut queued).is_pending());
    assert_eq!(bench.resolver.0.state().waiting.len(), 2);
    drop(queued);
    {
        let state = bench.resolver.0.state();
        assert_eq!(state.waiting.len(), 1);
        assert!(state.queue.iter().all(BTreeMap::is_empty));
    }
    // The lookup was begun for the first, and is the second's as well.
    drop(first);
    for _ in 0..100 {
        assert_eq!(bench.resolve("hang").now_or_never().map(|_| ()), None);
    }
    assert_eq!(bench.resolver.0.state().waiting["hang"].callers.len(), 1);
    bench.until(1, |_| bench.gate.lookups() == 1).await;
    bench.gate.turn(true);
    let found = timeout(PATIENCE, second).await.expect("an answer");
    assert_eq!(found.unwrap().len(), 2);
    bench
        .until(1, |s| s.running.is_empty() && s.waiting.is_empty())
        .await;
    assert_eq!(bench.gate.lookups(), 1);
}

#[tokio::test]
async fn a_lookup_that_nobody_waits_for_ends_by_itself() {
    let bench = Bench::new(Limits::USUAL);
    assert!(matches!(
        poll!(Box::pin(bench.resolve("hang"))),
        Poll::Pending
    ));
    assert_eq!(bench.resolver.0.state().running.len(), 1);
    bench.gate.turn(true);
    bench
        .until(1, |s| s.running.is_empty() && s.waiting.is_empty())
        .await;
}

#[test]
fn names_on_trial_and_slow_ones_get_threads_by_the_rules_the_newest_first() {
    let limits = Limits {
        threads: 8,
        slow_threads: 6,
        slow_after: Duration::from_secs(2),
        hang: Duration::from_secs(1_000),
        remember: Duration::from_secs(300),
    };
    let mut state = State::default();
    let mut callers = Vec::new();
    let now = Instant::now();
    let mut ask = |state: &mut State, host: String, at| {
        let (send, caller) = oneshot::channel();
        callers.push(caller);
        state.join(&host, send, at);
    };
    let begin = |state: &mut State, at| -> Vec<String> {
        let next = std::iter::from_fn(|| state.next(&limits, at));
        next.map(|host| host.to_string()).collect()
    };
    for n in 0..20 {
        ask(&mut state, format!("new-{n}"), now);
    }
    // Half of the eight that are free, which are fewer each time.
    assert_eq!(begin(&mut state, now), ["new-19", "new-18", "new-17"]);
    // They hang, and are slow from now on: of five that are left two may be tried.
    let later = now + limits.slow_after;
    assert_eq!(begin(&mut state, later), ["new-16", "new-15"]);
    for n in 0..4 {
        let known = later + limits.remember;
        state.slow.insert(format!("slow-{n}").into(), known);
        ask(&mut state, format!("slow-{n}"), later);
    }
    // Three of six are taken.
    assert_eq!(begin(&mut state, later), ["slow-3", "slow-2", "slow-1"]);
}
