//! How hard the network is hit when many targets dial at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

use crate::config::DialLimits;

/// Bounds the dials under way at once, and those begun per second.
///
/// Targets whose last dial failed share three quarters of the places, so that a thousand black
/// holes, each of which holds a place for seconds, cannot starve the targets that would connect.
/// While dials fail, fewer are begun: down to an eighth of the rate as long as none succeeds, and
/// at the whole rate again within three that do. A dead far side costs little, and its return is met
/// at full speed.
#[derive(Debug)]
pub(crate) struct DialGate {
    places: Lane,
    for_failing: Lane,
    pace: Mutex<Pace>,
    crowd: Mutex<Crowd>,
    dispersed: Notify,
}

/// Those who wait for a place.
#[derive(Debug, Default)]
struct Crowd {
    waiting: usize,
    /// How many have waited since there was last nobody.
    were: usize,
}

/// So many that waited together leave holes in the heap that are worth closing.
const CROWD: usize = 1_000;

/// A semaphore whose size can change.
#[derive(Debug)]
struct Lane {
    semaphore: Semaphore,
    size: Mutex<usize>,
}

#[derive(Debug)]
struct Pace {
    /// Between two dials.
    gap: Duration,
    /// What the gap is multiplied by: 1 while dials succeed, up to [`SLOWEST`].
    slowdown: f64,
    /// When the next dial may begin.
    next: Instant,
}

/// How much slower dials are begun while none succeeds, and how fast that is reached.
const SLOWEST: f64 = 8.0;
const SLOWER: f64 = 1.05;

/// A place in the gate, for as long as the dial takes.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    _place: SemaphorePermit<'a>,
    _failing: Option<SemaphorePermit<'a>>,
}

impl DialGate {
    pub(crate) fn new(limits: DialLimits) -> Arc<Self> {
        Arc::new(Self {
            places: Lane::new(limits.concurrency),
            for_failing: Lane::new(share_of_failing(limits.concurrency)),
            pace: Mutex::new(Pace {
                gap: gap(limits.per_second),
                slowdown: 1.0,
                next: Instant::now(),
            }),
            crowd: Mutex::default(),
            dispersed: Notify::new(),
        })
    }

    /// A thousand or more had waited for a place, and nobody does any more. Cancel safe.
    pub(crate) async fn crowd_dispersed(&self) {
        self.dispersed.notified().await;
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies new limits; dials under way are not disturbed.
    pub(crate) fn set_limits(&self, limits: DialLimits) {
        self.places.resize(limits.concurrency);
        self.for_failing
            .resize(share_of_failing(limits.concurrency));
        self.pace().gap = gap(limits.per_second);
    }

    /// A dial succeeded, or failed.
    pub(crate) fn dialed(&self, succeeded: bool) {
        let mut pace = self.pace();
        pace.slowdown = match succeeded {
            true => (pace.slowdown / 2.0).max(1.0),
            false => (pace.slowdown * SLOWER).min(SLOWEST),
        };
    }

    /// What the gap between two dials is multiplied by.
    #[cfg(test)]
    pub(super) fn slowdown(&self) -> f64 {
        self.pace().slowdown
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. `failing` says that this target's last dial failed.
    pub(crate) async fn enter(&self, failing: bool) -> Place<'_> {
        let _waiting = Waiting::new(self);
        let _failing = match failing {
            true => Some(self.for_failing.enter().await),
            false => None,
        };
        let _place = self.places.enter().await;
        let turn = {
            let mut pace = self.pace();
            let turn = pace.next.max(Instant::now());
            pace.next = turn + pace.gap.mul_f64(pace.slowdown);
            turn
        };
        if turn > Instant::now() {
            sleep_until(turn).await;
        }
        Place { _place, _failing }
    }
}

/// One who waits.
struct Waiting<'a>(&'a DialGate);

impl<'a> Waiting<'a> {
    fn new(gate: &'a DialGate) -> Self {
        let mut crowd = gate.crowd();
        crowd.waiting += 1;
        crowd.were += 1;
        drop(crowd);
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut crowd = self.0.crowd();
        crowd.waiting -= 1;
        if crowd.waiting == 0 && std::mem::take(&mut crowd.were) >= CROWD {
            self.0.dispersed.notify_one();
        }
    }
}

impl Lane {
    fn new(size: usize) -> Self {
        Self {
            semaphore: Semaphore::new(size),
            size: Mutex::new(size),
        }
    }

    async fn enter(&self) -> SemaphorePermit<'_> {
        // The semaphore belongs to the lane and is never closed.
        self.semaphore
            .acquire()
            .await
            .expect("the gate is never closed")
    }

    fn resize(&self, to: usize) {
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if to >= *size {
            self.semaphore.add_permits(to - *size);
            *size = to;
        } else {
            // Places in use cannot be taken away; what could not is taken at the next change.
            *size -= self.semaphore.forget_permits(*size - to);
        }
    }
}

fn share_of_failing(concurrency: usize) -> usize {
    (concurrency * 3 / 4).max(1)
}

fn gap(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn gate(concurrency: usize, per_second: u32) -> Arc<DialGate> {
        DialGate::new(DialLimits {
            concurrency,
            per_second,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_dials_at_once_than_places() {
        let gate = gate(2, 1_000_000);
        let first = gate.enter(false).await;
        let _second = gate.enter(false).await;
        assert!(
            tokio::time::timeout(Duration::from_secs(9), gate.enter(false))
                .await
                .is_err()
        );
        drop(first);
        gate.enter(false).await;
    }

    #[tokio::test(start_paused = true)]
    async fn dials_that_keep_failing_leave_places_to_the_others() {
        let gate = gate(4, 1_000_000);
        let mut black_holes = Vec::new();
        for _ in 0..3 {
            black_holes.push(gate.enter(true).await);
        }
        assert!(
            tokio::time::timeout(Duration::from_secs(9), gate.enter(true))
                .await
                .is_err()
        );
        gate.enter(false).await;
    }

    #[tokio::test(start_paused = true)]
    async fn dials_begin_no_faster_than_the_rate() {
        let gate = gate(64, 10);
        let start = Instant::now();
        for _ in 0..11 {
            gate.enter(false).await;
        }
        assert_eq!(start.elapsed().as_millis(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn while_dials_fail_fewer_are_begun_and_three_successes_bring_the_rate_back() {
        async fn ten(gate: &DialGate) -> u128 {
            gate.enter(false).await;
            let start = Instant::now();
            for _ in 0..10 {
                gate.enter(false).await;
            }
            start.elapsed().as_millis()
        }
        let gate = gate(64, 10);
        for _ in 0..100 {
            gate.dialed(false);
        }
        assert_eq!(ten(&gate).await, 8_000);
        gate.dialed(true);
        gate.dialed(true);
        gate.dialed(true);
        gate.enter(false).await;
        assert_eq!(ten(&gate).await, 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_change_while_dials_are_under_way() {
        let gate = gate(1, 1_000_000);
        let held = gate.enter(false).await;
        gate.set_limits(DialLimits {
            concurrency: 2,
            per_second: 1_000_000,
        });
        let second = gate.enter(false).await;
        gate.set_limits(DialLimits {
            concurrency: 1,
            per_second: 1_000_000,
        });
        drop((held, second));
        gate.set_limits(DialLimits {
            concurrency: 1,
            per_second: 1_000_000,
        });
        let _only = gate.enter(false).await;
        assert!(gate.enter(false).now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_that_has_dispersed_is_told_of_once_and_a_few_are_none() {
        let gate = gate(1, 1_000_000);
        let told = || gate.crowd_dispersed().now_or_never().is_some();
        for _ in 0..CROWD {
            drop(gate.enter(false).await);
        }
        assert!(!told(), "they came one by one");
        let first = gate.enter(false).await;
        let crowd = (0..CROWD).map(|_| {
            let gate = gate.clone();
            tokio::spawn(async move { drop(gate.enter(false).await) })
        });
        let crowd: Vec<_> = crowd.collect();
        tokio::task::yield_now().await;
        drop(first);
        assert!(!told(), "they wait");
        for one in crowd {
            one.await.unwrap();
        }
        assert!(told());
        assert!(!told());
    }
}
