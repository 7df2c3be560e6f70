//! One connection from the dial to its end: pings go out, what comes in is told, signals are heard.
//! An event stream is handed on once it stands.

use std::future::pending;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until, timeout_at};

use super::listen::Listening;
use super::report::{Ended, Report};
use crate::cli::connection::in_flags;
use crate::config::Target;
use crate::proto::close::{Asked, CloseFrame, Ending};
use crate::proto::event::Message;
use crate::proto::probe::{Action, Probe, ProbePolicy};
use crate::signal::{Signal, Signals};
use crate::transport::dial::{Dialed, dial_traced};
use crate::transport::link::{Incoming, Link};
use crate::transport::trace::Trace;

/// After both Close frames the peer ends TCP (RFC 6455 section 7.1.1); one that does not is left
/// after this long.
const LAST_FIN: Duration = Duration::from_secs(1);

/// Who asks for the end.
pub(super) trait Interrupts {
    /// The next request to end. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Signal>;
}

impl Interrupts for Signals {
    fn next(&mut self) -> impl Future<Output = Signal> {
        Signals::next(self)
    }
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There was a connection, and it is over.
    Over,
    /// There was none: why, in words.
    NotConnected(String),
}

/// What cut it short.
#[derive(Debug)]
pub(super) enum Halt {
    /// A second signal.
    Forced(Signal),
    /// The output takes no more.
    Output(io::Error),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Connects to `target`, pings it or listens to it, and tells `report` all there is to tell.
pub(super) async fn ping<W: Write>(
    target: &Target,
    policy: ProbePolicy,
    report: &mut Report<W>,
    interrupts: &mut impl Interrupts,
) -> Result<Outcome, Halt> {
    let mut trace = match report.is_verbose() {
        true => Trace::wanted(),
        false => Trace::default(),
    };
    let dialed = tokio::select! {
        biased;
        signal = interrupts.next() => {
            let signal = signal.as_str();
            let words = format!("stopped by {signal} before it was connected");
            return Ok(Outcome::NotConnected(words));
        }
        dialed = dial_traced(target, &mut trace) => dialed,
    };
    let dialed = match dialed {
        Ok(dialed) => dialed,
        Err(error) => {
            report.not_connected(&error, &trace)?;
            let via = error
                .peer
                .map_or(String::new(), |peer| format!(" (via {peer})"));
            let why = in_flags(&error.message);
            let words = format!("not connected: {}: {why}{via}", error.phase);
            return Ok(Outcome::NotConnected(words));
        }
    };
    report.connected(&dialed, &trace)?;
    drop(trace);
    match dialed.link {
        Link::Ws(_) => {
            let run = Run::new(target, policy, dialed, report, interrupts);
            run.run().await?;
        }
        Link::Sse(_) => {
            let count = policy.count;
            let listening = Listening::new(target, count, dialed.link, report, interrupts);
            listening.run().await?;
        }
    }
    Ok(Outcome::Over)
}

/// A connection that is pinged.
struct Run<'a, W, I> {
    link: Link,
    probe: Probe,
    wait: Duration,
    target: &'a Target,
    report: &'a mut Report<W>,
    interrupts: &'a mut I,
    /// A signal has asked for the end: the next one ends it at once.
    asked: bool,
    since: Instant,
}

/// Why the pinging is over.
enum Over {
    /// Every ping was answered, or waited for in vain.
    Done,
    /// A signal asked for the end.
    Asked,
    /// The connection is lost.
    Lost(Ending),
}

impl<'a, W: Write, I: Interrupts> Run<'a, W, I> {
    fn new(
        target: &'a Target,
        policy: ProbePolicy,
        dialed: Dialed,
        report: &'a mut Report<W>,
        interrupts: &'a mut I,
    ) -> Self {
        let now = clock();
        Self {
            link: dialed.link,
            probe: Probe::new(policy, now, rand::random()),
            wait: policy.wait,
            target,
            report,
            interrupts,
            asked: false,
            since: now,
        }
    }

    async fn run(mut self) -> Result<(), Halt> {
        match self.hold().await? {
            Over::Done => self.finish("every ping was sent").await,
            Over::Asked => {
                self.asked = true;
                self.finish("asked to stop").await
            }
            Over::Lost(ending) => self.lost(ending).await,
        }
    }

    /// Sends what is sent on open, then pings.
    async fn hold(&mut self) -> io::Result<Over> {
        for text in &self.target.policy.on_open {
            let message = Message::text(text.expose().to_string());
            if let Err(over) = self.send(|link| link.start_message(message)).await {
                return Ok(over);
            }
        }
        loop {
            if let Some(over) = self.do_what_is_due().await? {
                return Ok(over);
            }
            if self.probe.is_done() {
                return Ok(Over::Done);
            }
            let alarm = alarm(self.probe.deadline());
            let incoming = tokio::select! {
                biased;
                _ = self.interrupts.next() => return Ok(Over::Asked),
                incoming = self.link.recv() => incoming,
                () = alarm => continue,
            };
            if let Some(ending) = self.received(incoming)? {
                return Ok(Over::Lost(ending));
            }
        }
    }

    /// Sends and tells what the clock asks for.
    async fn do_what_is_due(&mut self) -> io::Result<Option<Over>> {
        while let Some(action) = self.probe.poll(clock()) {
            match action {
                Action::Ping { seq } => {
                    let payload = self.probe.payload(seq);
                    self.report.sent(self.probe.counts());
                    if let Err(over) = self.send(|link| link.start_ping(payload)).await {
                        return Ok(Some(over));
                    }
                }
                Action::NoAnswer { seq } => self.report.no_answer(seq, self.wait)?,
                Action::Stalled { late } => {
                    let seconds = late.as_secs_f64();
                    tracing::warn!(
                        event = "stalled",
                        late_seconds = seconds,
                        "this program stood still for {seconds:.1} s; pings that waited then are \
                         given their time again and no round trip"
                    );
                }
            }
        }
        Ok(None)
    }

    /// Queues something and sends it, under the write timeout.
    async fn send(
        &mut self,
        start: impl FnOnce(&mut Link) -> Result<(), Ending>,
    ) -> Result<(), Over> {
        start(&mut self.link).map_err(Over::Lost)?;
        tokio::select! {
            biased;
            flushed = self.link.flush() => flushed.map_err(Over::Lost),
            _ = self.interrupts.next() => Err(Over::Asked),
            () = sleep(self.target.policy.timeouts.write) => Err(Over::Lost(Ending::WriteTimeout)),
        }
    }

    /// Tells what came in; how the connection ended if it did.
    fn received(&mut self, incoming: Result<Incoming, Ending>) -> io::Result<Option<Ending>> {
        match incoming {
            Ok(Incoming::Pong(payload)) => {
                let answer = self.probe.handle_pong(&payload, clock());
                self.report.pong(answer, self.probe.counts())?;
            }
            Ok(Incoming::Ping) => self.report.pinged(),
            Ok(Incoming::Message(_)) => self.report.message(),
            Ok(Incoming::Comment | Incoming::Bytes) => {}
            Ok(Incoming::Close(mut frame)) => {
                frame.reason = self.report.conceal(&frame.reason);
                return Ok(Some(Ending::PeerClosed(frame)));
            }
            Err(ending) => return Ok(Some(ending)),
        }
        Ok(None)
    }

    /// Ends the connection in order. The summary does not wait for the peer's Close, but for the
    /// answers that are still under way.
    async fn finish(mut self, why: &str) -> Result<(), Halt> {
        self.probe.stop();
        let timeouts = self.target.policy.timeouts;
        let deadline = clock() + timeouts.close;
        let mut verdict = Ending::Asked(Asked::Shutdown).classify();
        verdict.message = why.to_owned();
        let close = CloseFrame::new(1000, "");
        let mut forced = None;
        let sent = match self.link.start_close(&close) {
            Ok(()) => {
                let limit = deadline.min(clock() + timeouts.write);
                tokio::select! {
                    biased;
                    flushed = timeout_at(limit.into(), self.link.flush()) => {
                        matches!(flushed, Ok(Ok(())))
                    }
                    signal = self.interrupts.next() => {
                        forced = Some(signal);
                        false
                    }
                }
            }
            Err(_) => false,
        };
        let mut reply = None;
        let mut gone = !sent;
        while forced.is_none() && !gone && !self.probe.is_done() && clock() < deadline {
            // No pings are due any more, only answers that did not come.
            if let Some(over) = self.do_what_is_due().await? {
                gone = matches!(over, Over::Lost(_));
                continue;
            }
            // The last that waited may just have been told to have no answer.
            if self.probe.is_done() {
                break;
            }
            let due = self.probe.deadline();
            let alarm = alarm(Some(due.map_or(deadline, |due| due.min(deadline))));
            let incoming = tokio::select! {
                biased;
                signal = self.interrupts.next() => {
                    forced = Some(signal);
                    continue;
                }
                incoming = self.link.recv() => incoming,
                () = alarm => continue,
            };
            match self.received(incoming)? {
                Some(Ending::PeerClosed(frame)) => {
                    reply = Some(frame);
                    break;
                }
                Some(_) => gone = true,
                None => {}
            }
        }
        let age = clock().saturating_duration_since(self.since);
        self.report.over(&Ended {
            verdict: &verdict,
            received: reply.as_ref(),
            sent: sent.then_some(&close),
            age,
            waiting: &self.probe.unanswered(),
            by_wish: true,
        })?;
        if let Some(signal) = forced {
            return self.cut_short(signal);
        }
        if gone {
            return Ok(());
        }
        if reply.is_none() {
            // Who looks once does not wait long for a goodbye.
            let deadline = deadline.min(clock() + LAST_FIN);
            let closed = tokio::select! {
                biased;
                signal = self.interrupts.next() => return self.cut_short(signal),
                closed = timeout_at(deadline.into(), closed(&mut self.link)) => closed,
            };
            if !matches!(closed, Ok(true)) {
                return Ok(());
            }
        }
        self.drain(deadline.min(clock() + LAST_FIN)).await
    }

    /// A signal while the connection is being closed: nothing more is waited for, and it is told
    /// by the exit status if it is the second.
    fn cut_short(&self, signal: Signal) -> Result<(), Halt> {
        match self.asked {
            true => Err(Halt::Forced(signal)),
            false => Ok(()),
        }
    }

    /// The connection ended otherwise: tells who did it, and says what is still owed to the peer.
    async fn lost(mut self, ending: Ending) -> Result<(), Halt> {
        let mut verdict = ending.classify();
        let owed = verdict.close.take();
        let (received, sent) = match &ending {
            // The reply repeats the peer's code (RFC 6455 section 5.5.1); the link has it queued.
            Ending::PeerClosed(frame) => (Some(frame.clone()), Some(frame.clone())),
            _ => (None, owed.filter(|close| self.link.try_close(close))),
        };
        let age = clock().saturating_duration_since(self.since);
        self.report.over(&Ended {
            verdict: &verdict,
            received: received.as_ref(),
            sent: sent.as_ref(),
            age,
            waiting: &self.probe.unanswered(),
            by_wish: false,
        })?;
        if sent.is_none() {
            return Ok(());
        }
        // Lets the Close leave, and the peer end TCP first; a RST would destroy it on the way.
        let limit = LAST_FIN.min(self.target.policy.timeouts.close);
        self.drain(clock() + limit).await
    }

    /// Reads until nothing more comes, or until `deadline`.
    async fn drain(&mut self, deadline: Instant) -> Result<(), Halt> {
        let drained = async { while self.link.recv().await.is_ok() {} };
        tokio::select! {
            biased;
            signal = self.interrupts.next() => self.cut_short(signal),
            // A peer that does not end TCP is left.
            _ = timeout_at(deadline.into(), drained) => Ok(()),
        }
    }
}

/// Waits for the peer's Close: whether it came.
async fn closed(link: &mut Link) -> bool {
    loop {
        match link.recv().await {
            Ok(Incoming::Close(_)) => return true,
            Ok(
                Incoming::Ping
                | Incoming::Pong(_)
                | Incoming::Message(_)
                | Incoming::Comment
                | Incoming::Bytes,
            ) => {}
            Err(_) => return false,
        }
    }
}

/// Ready at `deadline`; never without one.
pub(super) async fn alarm(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

pub(super) fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}
