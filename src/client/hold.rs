//! One target, held for ever: dial, session, wait, dial again.

use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::gate::DialGate;
use crate::config::{Heartbeat, Target, mask};
use crate::proto::backoff::BackoffPolicy;
use crate::proto::close::{Asked, Cause};
use crate::proto::event::{
    DialFailure, Established, Event, Message, Passed, PassedStep, Phase, Recovered,
};
use crate::proto::heartbeat::{HeartbeatPolicy, PingMode, spread};
use crate::proto::reconnect::{Advice, Reconnect};
use crate::session::hello::{self, Greeted};
use crate::session::{Finished, Host, Request, Session, SessionPolicy, SilentClose};
use crate::transport::dial::{DialError, dial};
use crate::transport::sse::Resume;

/// What is wanted of a target's task: level-triggered, so that nothing is lost and nothing queues
/// when wishes come faster than connections close.
///
/// One task waits on it, so that one waker will do; a notifier with a list would cost every
/// target three times the memory.
#[derive(Debug)]
pub(crate) struct Desired(Mutex<Want>);

#[derive(Debug)]
struct Want {
    wish: Wish,
    waiting: Option<Waker>,
}

#[derive(Debug, Clone)]
enum Wish {
    Hold(Arc<Target>),
    End(Asked),
}

impl Desired {
    /// A task is to hold `target`.
    pub(crate) fn new(target: Arc<Target>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Want {
            wish: Wish::Hold(target),
            waiting: None,
        })))
    }

    /// From now on it is to hold `target`: in place if the connection is the same, else by
    /// ending the old one, with cause `replaced`, before the new one is dialed.
    pub(crate) fn set(&self, target: Arc<Target>) {
        let mut want = self.lock();
        // A task that was asked to end stays asked.
        if let Wish::Hold(_) = want.wish {
            want.wish = Wish::Hold(target);
        }
        if let Some(waiting) = want.waiting.take() {
            waiting.wake();
        }
    }

    /// It is to end.
    pub(crate) fn stop(&self, asked: Asked) {
        let mut want = self.lock();
        want.wish = Wish::End(asked);
        if let Some(waiting) = want.waiting.take() {
            waiting.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Want> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The target wanted, or why none is.
    fn target(&self) -> Result<Arc<Target>, Asked> {
        match &self.lock().wish {
            Wish::Hold(target) => Ok(target.clone()),
            Wish::End(asked) => Err(*asked),
        }
    }

    /// What is wanted instead of `held`.
    fn poll_other_than(
        &self,
        held: &Arc<Target>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Arc<Target>, Asked>> {
        let mut want = self.lock();
        match &want.wish {
            Wish::Hold(target) if Arc::ptr_eq(target, held) => {
                wait(&mut want.waiting, cx);
                Poll::Pending
            }
            Wish::Hold(target) => Poll::Ready(Ok(target.clone())),
            Wish::End(asked) => Poll::Ready(Err(*asked)),
        }
    }

    /// What is wanted instead of `held`.
    async fn other_than(&self, held: &Arc<Target>) -> Result<Arc<Target>, Asked> {
        poll_fn(|cx| self.poll_other_than(held, cx)).await
    }

    /// Why the connection made for `held` has to end.
    fn poll_end_of(&self, held: &Target, cx: &mut Context<'_>) -> Poll<Asked> {
        let mut want = self.lock();
        match &want.wish {
            Wish::Hold(target) if target.same_connection(held) => {
                wait(&mut want.waiting, cx);
                Poll::Pending
            }
            Wish::Hold(_) => Poll::Ready(Asked::Replaced),
            Wish::End(asked) => Poll::Ready(*asked),
        }
    }
}

fn wait(waiting: &mut Option<Waker>, cx: &Context<'_>) {
    match waiting {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waiting = Some(cx.waker().clone()),
    }
}

/// Who is told what happens to a target, and may speak through it.
pub(crate) trait Observer {
    /// Something happened.
    fn observe(&mut self, event: Event);

    /// `target` is about to be dialed: where to write down how that passes, if it is wanted.
    fn dialing(&mut self, target: &Target) -> Option<Box<Passed>> {
        let _ = target;
        None
    }

    /// How it passed, whatever came of it. The event that says so follows, unless the dial was
    /// given up.
    fn passed(&mut self, passed: Box<Passed>) {
        drop(passed);
    }

    /// The next message to send.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<(Message, oneshot::Sender<bool>)> {
        let _ = cx;
        Poll::Pending
    }

    /// Whether to go on after the connection ended, or a dial failed. The daemon never stops.
    fn dial_again(&mut self) -> bool {
        true
    }

    /// Whether to stay when the peer wants no connection ever again: for another target may be
    /// wished for. Where nobody can wish, there is nothing to stay for.
    fn stays_stopped(&self) -> bool {
        true
    }
}

/// When the first ping of each connection leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstPing {
    /// At a point of (0, interval] given by a hash of the name: the daemon, whose targets must
    /// not all ping together.
    Spread,
    /// Exactly one interval after the connection came up: a single client.
    AfterInterval,
}

/// Holds what `desired` wants until it wants nothing more.
///
/// The holder is made outside of the future: an argument of an async function is stored twice.
pub(crate) fn hold(
    desired: Arc<Desired>,
    gate: Arc<DialGate>,
    first_ping: FirstPing,
    observer: impl Observer,
) -> impl Future<Output = ()> {
    let mut holder = desired.target().map(|target| Holder {
        desired,
        target,
        observer,
        first_ping,
        reconnect: Reconnect::default(),
        attempts: 0,
        outage: None,
        resume: None,
    });
    async move {
        if let Ok(holder) = &mut holder {
            while holder.round(&gate).await.is_ok() {}
            holder.observer.observe(Event::Stopped);
        }
    }
}

struct Holder<O> {
    desired: Arc<Desired>,
    target: Arc<Target>,
    observer: O,
    first_ping: FirstPing,
    reconnect: Reconnect,
    /// Dials since the last connection.
    attempts: u32,
    outage: Option<Outage>,
    /// Where an event stream ended. As the failures, it is forgotten with the connection it is of.
    resume: Option<Box<Resume>>,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    id: u64,
    since: Instant,
}

/// Nothing more is wanted.
struct Over;

impl<O: Observer> Holder<O> {
    /// A dial, the session if it succeeds, and the wait after either.
    async fn round(&mut self, gate: &DialGate) -> Result<(), Over> {
        self.observer.observe(Event::Connecting);
        // Boxed: as large as the rest of the task together, and gone once the connection is up.
        let Some(dialed) = Box::pin(self.dial(gate)).await? else {
            return Ok(());
        };
        let wait = match dialed {
            Ok(dialed) => match self.session(dialed).await {
                Some(wait) => wait,
                None => return self.desired.target().map(drop).map_err(|_| Over),
            },
            Err(error) => {
                let advice = error.advice;
                let wait = self.dial_failed(error);
                if advice == Advice::Stop {
                    return Box::pin(self.stopped()).await;
                }
                wait
            }
        };
        if !self.observer.dial_again() {
            return Err(Over);
        }
        self.observer.observe(Event::Waiting { wait });
        Box::pin(self.wait(wait)).await
    }

    /// `None` if another connection is wanted by now.
    async fn dial(
        &mut self,
        gate: &DialGate,
    ) -> Result<Option<Result<Box<Greeted>, Box<DialError>>>, Over> {
        self.attempts = self.attempts.saturating_add(1);
        let dialing = self.target.clone();
        let resume = self.resume.clone();
        let failing = self.reconnect.failures() > 0;
        let mut passed = self.observer.dialing(&dialing);
        let outcome = {
            let passed = &mut passed;
            let mut dialed = std::pin::pin!(async {
                let _place = gate.enter(failing).await;
                // Large, and only made once there is a place: thousands may wait for one.
                let way = passed.as_deref_mut();
                let dialed = Box::pin(dial(&dialing, resume.as_deref(), way)).await;
                let greeted = match dialed {
                    Ok(dialed) => {
                        let greeted = Box::pin(hello::greet(dialed, &dialing)).await;
                        if let Some(passed) = passed {
                            add_hello(passed, &greeted);
                        }
                        greeted
                    }
                    Err(error) => Err(error),
                };
                gate.dialed(greeted.is_ok());
                greeted
            });
            loop {
                tokio::select! {
                    biased;
                    wish = self.desired.other_than(&self.target) => match wish {
                        Err(_) => break Err(Over),
                        Ok(wanted) => {
                            let same = wanted.same_connection(&dialing);
                            self.target = wanted;
                            if !same {
                                self.forget();
                                break Ok(None);
                            }
                        }
                    },
                    dialed = &mut dialed => {
                        break Ok(Some(dialed.map(Box::new).map_err(Box::new)));
                    }
                }
            }
        };
        if let Some(passed) = passed {
            self.observer.passed(passed);
        }
        outcome
    }

    #[expect(clippy::boxed_local, reason = "it comes in a box, and is freed here")]
    fn dial_failed(&mut self, error: Box<DialError>) -> Duration {
        let policy = self.backoff();
        let wait = self
            .reconnect
            .dial_failed(&policy, error.advice, rand::random());
        self.observer
            .observe(Event::DialFailed(Box::new(DialFailure {
                at: SystemTime::now(),
                phase: error.phase,
                message: error.message.into(),
                status: error.status,
                times: error.times,
                attempts: self.attempts,
                certificate_not_after: error.certificate_not_after,
                peer: error.peer,
                advice: error.advice,
            })));
        wait
    }

    /// Runs a connection to its end: how long to wait then, `None` to look at what is wanted.
    async fn session(&mut self, dialed: Box<Greeted>) -> Option<Duration> {
        let session = self.established(dialed);
        let finished = session.run(self).await;
        self.finished(finished)
    }

    /// Announces a connection that came up. Not async, so that the emptied box is freed here.
    fn established(&mut self, greeted: Box<Greeted>) -> Box<Session> {
        let Greeted { dialed, speech } = *greeted;
        let policy = session_policy(&self.target);
        let first = |interval| match self.first_ping {
            FirstPing::AfterInterval => interval,
            FirstPing::Spread => spread(&self.target.identity.name, interval),
        };
        let facts = dialed.facts.clone();
        let (link, peer) = (dialed.link, dialed.peer);
        let session = Session::new(link, peer, facts, policy, first, speech);
        let local = session.local_addr();
        let outage = self.outage.take();
        self.observer
            .observe(Event::Established(Box::new(Established {
                at: SystemTime::now(),
                times: dialed.times,
                local,
                peer: dialed.peer,
                facts: dialed.facts,
                recovered: outage.map(|outage| Recovered {
                    outage_id: outage.id,
                    after: outage.since.elapsed(),
                }),
                attempts: self.attempts,
            })));
        self.attempts = 0;
        session
    }

    fn finished(&mut self, finished: Finished) -> Option<Duration> {
        self.outage = Some(Outage {
            id: finished.outage_id,
            since: finished.at.into(),
        });
        let wanted = self.desired.target().ok()?;
        let same = wanted.same_connection(&self.target);
        self.target = wanted;
        if !same {
            self.forget();
            return None;
        }
        self.resume = finished.resume;
        if finished.verdict.cause == Cause::Replaced {
            // Wished back while the peer's Close was awaited: nothing failed, and nothing is to be
            // waited for.
            return None;
        }
        let policy = self.backoff();
        let (advice, since, at) = (finished.verdict.advice, finished.since, finished.at);
        Some(
            self.reconnect
                .ended(&policy, advice, since, at, rand::random()),
        )
    }

    /// How long waits are: an event stream's `retry` takes the place of the first one's length.
    fn backoff(&self) -> BackoffPolicy {
        let policy = self.target.policy.reconnect;
        let retry = self.resume.as_ref().and_then(|resume| resume.retry);
        retry.map_or(policy, |retry| policy.beginning_at(retry))
    }

    /// Another connection is wanted: nothing of the one before counts for it.
    fn forget(&mut self) {
        self.reconnect = Reconnect::default();
        self.resume = None;
    }

    /// The peer wants no connection ever again: waits for the wish for another one.
    async fn stopped(&mut self) -> Result<(), Over> {
        if !self.observer.stays_stopped() || !self.observer.dial_again() {
            return Err(Over);
        }
        self.observer.observe(Event::Stopped);
        loop {
            let wish = self.desired.other_than(&self.target).await;
            let wanted = wish.map_err(|_| Over)?;
            let same = wanted.same_connection(&self.target);
            self.target = wanted;
            if !same {
                self.forget();
                // What it says is news, if it is the same words.
                self.attempts = 0;
                return Ok(());
            }
        }
    }

    async fn wait(&mut self, wait: Duration) -> Result<(), Over> {
        let mut until = Instant::now() + wait;
        loop {
            let alarm = sleep(until.saturating_duration_since(Instant::now()));
            tokio::select! {
                biased;
                wish = self.desired.other_than(&self.target) => {
                    let wanted = wish.map_err(|_| Over)?;
                    let same = wanted.same_connection(&self.target);
                    // A shorter longest wait counts from now.
                    until = until.min(Instant::now() + wanted.policy.reconnect.max);
                    self.target = wanted;
                    if !same {
                        self.forget();
                        return Ok(());
                    }
                }
                () = alarm => return Ok(()),
            }
        }
    }
}

/// A hello follows the dial's own steps at once.
fn add_hello(passed: &mut Passed, greeted: &Result<Greeted, DialError>) {
    let times = match greeted {
        Ok(greeted) => &greeted.dialed.times,
        Err(error) => &error.times,
    };
    if let Some(took) = times[Phase::Hello as usize] {
        let last = passed.steps.last();
        let after = last.map_or(Duration::ZERO, |last| last.after + last.took);
        passed.steps.push(PassedStep {
            phase: Phase::Hello,
            after,
            took,
        });
    }
}

impl<O: Observer> Host for Holder<O> {
    fn observe(&mut self, event: Event) {
        self.observer.observe(event);
    }

    fn conceal(&self, text: &str) -> Box<str> {
        match text {
            "" => "".into(),
            text => mask(text, &self.target.secrets()).into(),
        }
    }

    fn poll_asked(&mut self, cx: &mut Context<'_>) -> Poll<Request> {
        if let Poll::Ready(wish) = self.desired.poll_other_than(&self.target, cx) {
            return Poll::Ready(match wish {
                Err(asked) => Request::End(asked),
                Ok(wanted) if wanted.same_connection(&self.target) => {
                    self.target = wanted;
                    Request::Retune(Box::new(session_policy(&self.target)))
                }
                Ok(_) => Request::End(Asked::Replaced),
            });
        }
        let outgoing = self.observer.poll_outgoing(cx);
        outgoing.map(|(message, written)| Request::Send(Box::new(message), written))
    }

    fn poll_asked_to_end(&mut self, cx: &mut Context<'_>) -> Poll<Asked> {
        self.desired.poll_end_of(&self.target, cx)
    }
}

/// What the session needs of a target's policy.
fn session_policy(target: &Target) -> SessionPolicy {
    let policy = &target.policy;
    SessionPolicy {
        heartbeat: HeartbeatPolicy {
            mode: match target.connection.heartbeat {
                Heartbeat::None => PingMode::Never,
                // A dialect's own timing takes its place.
                _ => PingMode::Always,
            },
            ..policy.heartbeat
        },
        wishes: policy.wishes,
        staleness: policy.staleness,
        write_timeout: policy.timeouts.write,
        close_timeout: policy.timeouts.close,
        silent: SilentClose::NoPong,
    }
}

#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
