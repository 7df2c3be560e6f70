//! Names to addresses, by the system's resolver.
//!
//! getaddrinfo(3) blocks and cannot be cancelled: it may hang for 20 s and more after the dial that
//! asked has given up. Each lookup has a thread of its own, so that a runtime's shutdown never
//! waits for one, and the threads are given out so that names that hang leave room for others:
//!
//! - Lookups of one name at one time are one. Nothing is kept of an answer: the next dial asks anew.
//! - A name is *slow* from [`Limits::slow_after`] on, and its later lookups are as well, until one
//!   is fast or some minutes have passed. Slow names have at most three quarters of the threads.
//! - What a name not known to be slow will do, nobody knows; when a zone's servers die, all its
//!   names hang at once. So those on trial get at once no more threads than half of what they leave
//!   free, and beyond it one each time a part of [`Limits::hang`] has passed that grows as free
//!   threads get rare. The newest is taken first: it will be waited for longest.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::config::IpFamily;

/// How often one that waits for a thread looks whether time alone has made room.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Names known to be slow that are remembered at most; the rest is forgotten.
const SLOW_NAMES: usize = 16_384;

/// The addresses of `host`, those of `family`, as the system's resolver orders them but families in
/// turn. Cancel safe: who no longer waits leaves nothing behind but a thread that ends by itself.
pub(crate) async fn resolve(
    host: &str,
    port: u16,
    family: IpFamily,
) -> io::Result<Vec<SocketAddr>> {
    static SYSTEM: LazyLock<Resolver> = LazyLock::new(|| Resolver::new(system, Limits::USUAL));
    SYSTEM.resolve(host, port, family).await
}

/// Asks the operating system; blocks.
fn system(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}

/// Families in turn, beginning with the family the resolver put first (RFC 8305 section 4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) = addresses
        .into_iter()
        .partition(|a| a.is_ipv6() == first_is_v6);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    while !first.is_empty() || !second.is_empty() {
        ordered.extend(first.pop_front());
        ordered.extend(second.pop_front());
    }
    ordered
}

/// The answer as a dial wants it.
fn usable(found: &[SocketAddr], port: u16, family: IpFamily) -> io::Result<Vec<SocketAddr>> {
    if found.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    let wanted = |address: &SocketAddr| match family {
        IpFamily::Any => true,
        IpFamily::V4 => address.is_ipv4(),
        IpFamily::V6 => address.is_ipv6(),
    };
    let mut seen = HashSet::new();
    let mut addresses: Vec<SocketAddr> = found.iter().copied().filter(wanted).collect();
    addresses.iter_mut().for_each(|a| a.set_port(port));
    addresses.retain(|address| seen.insert(*address));
    if addresses.is_empty() {
        let version = if family == IpFamily::V4 { "4" } else { "6" };
        let message = format!("the name has no IPv{version} address");
        return Err(io::Error::other(message));
    }
    Ok(interleave(addresses))
}

/// How threads are given out.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Lookups under way at once.
    threads: usize,
    /// Of these, by names that are slow.
    slow_threads: usize,
    /// A lookup that takes longer is slow.
    slow_after: Duration,
    /// For how long a lookup hangs whose servers are dead: the usual resolv.conf(5) tries two
    /// servers twice for 5 s.
    hang: Duration,
    /// For how long a name is known to be slow after a lookup that was.
    remember: Duration,
}

impl Limits {
    const USUAL: Self = Self {
        threads: 128,
        slow_threads: 96,
        slow_after: Duration::from_secs(2),
        hang: Duration::from_secs(20),
        remember: Duration::from_secs(300),
    };
}

/// What a lookup gave, for each who waits for it.
type Answer = Result<Arc<[SocketAddr]>, Failed>;

/// An [`io::Error`] that can be given to many.
#[derive(Debug, Clone)]
struct Failed {
    kind: io::ErrorKind,
    text: Arc<str>,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self {
            kind: error.kind(),
            text: error.to_string().into(),
        }
    }
}

/// Finds a name's addresses, with any port; blocks.
type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Gives lookups to threads.
#[derive(Clone)]
struct Resolver(Arc<Shared>);

struct Shared {
    lookup: Box<Lookup>,
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Who waits for a name's lookup, under way or not yet.
    waiting: HashMap<Arc<str>, Waiting>,
    /// Names that wait for a thread, by arrival: those known to be slow, and the others.
    queue: [BTreeMap<u64, Arc<str>>; 2],
    running: HashMap<Arc<str>, Running>,
    /// Names known to be slow, and until when.
    slow: HashMap<Arc<str>, Instant>,
    /// When a name on trial last got a thread.
    last_trial: Option<Instant>,
    /// Numbers arrivals.
    arrivals: u64,
}

struct Waiting {
    /// The arrival by which the name stands in the queue.
    queued_as: u64,
    lane: Lane,
    callers: Vec<(u64, oneshot::Sender<Answer>)>,
}

struct Running {
    since: Instant,
    lane: Lane,
}

/// Which of the queues a name waits in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Trial,
    Slow,
}

impl Resolver {
    fn new(
        lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
        limits: Limits,
    ) -> Self {
        Self(Arc::new(Shared {
            lookup: Box::new(lookup),
            limits,
            state: Mutex::default(),
        }))
    }

    async fn resolve(
        &self,
        host: &str,
        port: u16,
        family: IpFamily,
    ) -> io::Result<Vec<SocketAddr>> {
        let (caller, mut answer) = Caller::join(&self.0, host);
        self.0.start();
        let found = loop {
            tokio::select! {
                biased;
                found = &mut answer => break found,
                () = sleep(LOOK_EVERY), if caller.waits_for_a_thread() => self.0.start(),
            }
        };
        match found {
            Ok(Ok(found)) => usable(&found, port, family),
            Ok(Err(failed)) => Err(io::Error::new(failed.kind, &*failed.text)),
            Err(_) => Err(io::Error::other("the lookup ended without an answer")),
        }
    }
}

/// One who waits for an answer, until it is dropped.
struct Caller<'a> {
    shared: &'a Shared,
    host: Arc<str>,
    id: u64,
}

impl<'a> Caller<'a> {
    fn join(shared: &'a Shared, host: &str) -> (Self, oneshot::Receiver<Answer>) {
        let (send, answer) = oneshot::channel();
        let (host, id) = shared.state().join(host, send, Instant::now());
        (Self { shared, host, id }, answer)
    }

    fn waits_for_a_thread(&self) -> bool {
        let state = self.shared.state();
        state.waiting.contains_key(&self.host) && !state.running.contains_key(&self.host)
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.shared.state().leave(&self.host, self.id);
    }
}

impl Shared {
    /// A panic elsewhere cannot leave the state half changed: no code of others runs under the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a thread to each name that may have one now.
    fn start(self: &Arc<Self>) {
        loop {
            let next = self.state().next(&self.limits, Instant::now());
            let Some(host) = next else {
                return;
            };
            let (shared, name) = (self.clone(), host.clone());
            let thread = thread::Builder::new().name("resolver".to_owned());
            if let Err(error) = thread.spawn(move || shared.work(name)) {
                let failed = Failed::from(error);
                let text = format!("no thread for the lookup: {}", failed.text).into();
                let (kind, now) = (failed.kind, Instant::now());
                let mut state = self.state();
                state.finish(&host, Err(Failed { kind, text }), &self.limits, now);
            }
        }
    }

    /// A thread's life: one lookup after the other, as long as there is one that may run.
    fn work(self: Arc<Self>, host: Arc<str>) {
        let mut next = Some(host);
        while let Some(host) = next {
            let looked_up = catch_unwind(AssertUnwindSafe(|| (self.lookup)(&host)));
            let answer = match looked_up {
                Ok(Ok(found)) => Ok(found.into()),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err(io::Error::other("the lookup panicked").into()),
            };
            let now = Instant::now();
            let mut state = self.state();
            state.finish(&host, answer, &self.limits, now);
            next = state.next(&self.limits, now);
        }
    }
}

impl State {
    fn join(&mut self, host: &str, send: oneshot::Sender<Answer>, now: Instant) -> (Arc<str>, u64) {
        self.arrivals += 1;
        let id = self.arrivals;
        if let Some((host, _)) = self.waiting.get_key_value(host) {
            let host = host.clone();
            if let Some(waiting) = self.waiting.get_mut(&host) {
                waiting.callers.push((id, send));
            }
            return (host, id);
        }
        let host: Arc<str> = host.into();
        let lane = match self.slow.get(&host) {
            Some(until) if *until > now => Lane::Slow,
            Some(_) | None => Lane::Trial,
        };
        self.queue[lane as usize].insert(id, host.clone());
        let waiting = Waiting {
            queued_as: id,
            lane,
            callers: vec![(id, send)],
        };
        self.waiting.insert(host.clone(), waiting);
        (host, id)
    }

    fn leave(&mut self, host: &Arc<str>, id: u64) {
        let Some(waiting) = self.waiting.get_mut(host) else {
            return;
        };
        waiting.callers.retain(|(caller, _)| *caller != id);
        // A lookup nobody waits for needs no thread; one that has one keeps others from a second.
        if waiting.callers.is_empty() && !self.running.contains_key(host) {
            self.queue[waiting.lane as usize].remove(&waiting.queued_as);
            self.waiting.remove(host);
        }
    }

    /// The name that is to be looked up next, which has its thread from now on.
    fn next(&mut self, limits: &Limits, now: Instant) -> Option<Arc<str>> {
        let free = limits.threads.saturating_sub(self.running.len());
        let is_slow = |running: &&Running| {
            running.lane == Lane::Slow || now - running.since >= limits.slow_after
        };
        let slow = self.running.values().filter(is_slow).count();
        let on_trial = self.running.len() - slow;
        let pause = limits.hang / u32::try_from(free.max(1)).unwrap_or(u32::MAX);
        let trial = on_trial < free / 2 || self.last_trial.is_none_or(|last| now - last >= pause);
        let [trials, slows] = &mut self.queue;
        let (lane, (_, host)) = if free == 0 {
            return None;
        } else if trial && let Some(newest) = trials.pop_last() {
            self.last_trial = Some(now);
            (Lane::Trial, newest)
        } else if slow < limits.slow_threads {
            (Lane::Slow, slows.pop_last()?)
        } else {
            return None;
        };
        let running = Running { since: now, lane };
        self.running.insert(host.clone(), running);
        Some(host)
    }

    fn finish(&mut self, host: &Arc<str>, answer: Answer, limits: &Limits, now: Instant) {
        let took = match self.running.remove(host) {
            Some(running) => now - running.since,
            None => Duration::ZERO,
        };
        if took >= limits.slow_after {
            if self.slow.len() >= SLOW_NAMES {
                self.slow.retain(|_, until| *until > now);
            }
            if self.slow.len() < SLOW_NAMES {
                self.slow.insert(host.clone(), now + limits.remember);
            }
        } else {
            self.slow.remove(host);
        }
        for (_, caller) in self
            .waiting
            .remove(host)
            .into_iter()
            .flat_map(|w| w.callers)
        {
            // It may have been dropped just now.
            let _ = caller.send(answer.clone());
        }
    }
}

#[cfg(test)]
mod tests;
