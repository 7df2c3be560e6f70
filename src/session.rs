//! THE driver: one connection = a link, a dialect, a heartbeat, and a host that is told and asks.
//!
//! The loop's `select!` only receives; everything is sent outside it, under a write timeout, and
//! hears the host's request to end.

pub(crate) mod hello;
mod speech;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

pub(crate) use speech::Speech;
use speech::{More, heartbeat_policy};

use crate::dialect::{Dialect, Stamp, Step};
use crate::proto::close::{Asked, BeatNames, CloseFrame, Ending, Verdict};
use crate::proto::event::{End, Event, Facts, Message};
use crate::proto::heartbeat::{Action, Heartbeat, HeartbeatPolicy, Pong, Wishes};
use crate::transport::link::{Incoming, Link};
use crate::transport::sse::Resume;

/// After both Close frames the peer ends TCP (RFC 6455 section 7.1.1); one that does not is left
/// after this long.
const LAST_FIN: Duration = Duration::from_secs(1);
/// How much of what came in is read before what is due is looked at: a flood must not put that off
/// for ever.
const MOST_READ_FIRST: u32 = 1024;

/// Whom a connection belongs to.
pub(crate) trait Host {
    /// Something happened.
    fn observe(&mut self, event: Event);

    /// A message of the peer's: what to answer it with.
    fn reply(&mut self, message: &Message) -> Option<Message> {
        let _ = message;
        None
    }

    /// Text of the peer's without what is secret: it may repeat what it was sent.
    fn conceal(&self, text: &str) -> Box<str> {
        text.into()
    }

    /// The next thing asked of the connection.
    fn poll_asked(&mut self, cx: &mut Context<'_>) -> Poll<Request>;

    /// Ready when the connection is to end, and takes nothing else: heard while a write waits.
    fn poll_asked_to_end(&mut self, cx: &mut Context<'_>) -> Poll<Asked>;
}

/// What a host asks of its connection.
#[derive(Debug)]
pub(crate) enum Request {
    /// Live by another policy from now on.
    Retune(Box<SessionPolicy>),
    /// End it in order.
    End(Asked),
    /// Send a message; the sender learns whether it was written.
    Send(Box<Message>, oneshot::Sender<bool>),
}

/// What a session needs to know beside its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionPolicy {
    /// Of a connection without a dialect.
    pub(crate) heartbeat: HeartbeatPolicy,
    /// Of one with a dialect.
    pub(crate) wishes: Wishes,
    /// After how long without an application message the connection is stale.
    pub(crate) staleness: Option<Duration>,
    pub(crate) write_timeout: Duration,
    pub(crate) close_timeout: Duration,
    /// How the Close frame to a silent peer reads; the client's and the server's differ.
    pub(crate) silent: SilentClose,
}

/// What a peer is told when it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SilentClose {
    /// 1011 and what did not come, `no pong`: the client.
    NoPong,
    /// 1008 "silent": the server.
    Silent,
}

/// A connection that is up, as the session takes it over.
pub(crate) struct Session {
    link: Link,
    peer: Option<SocketAddr>,
    facts: Option<Arc<Facts>>,
    heartbeat: Heartbeat,
    write_timeout: Duration,
    close_timeout: Duration,
    silent: SilentClose,
    /// What most have none of.
    more: Option<Box<More>>,
    since: Instant,
    last_in: Moment,
    last_out: Moment,
}

/// A moment in a connection's life, or none: half the size of an instant that may be missing.
#[derive(Debug, Clone, Copy, Default)]
struct Moment(Option<NonZeroU64>);

impl Moment {
    fn new(now: Instant, since: Instant) -> Self {
        let age = now.saturating_duration_since(since).as_nanos();
        // One more than the age, which may be none; 584 years fit.
        Self(NonZeroU64::new(
            u64::try_from(age).map_or(u64::MAX, |n| n.saturating_add(1)),
        ))
    }

    /// How old the connection was then.
    fn age(self) -> Option<Duration> {
        self.0.map(|nanos| Duration::from_nanos(nanos.get() - 1))
    }
}

/// What an arrival or a request leads to.
enum Next {
    Go,
    Send(Box<Message>, Option<oneshot::Sender<bool>>),
    /// The protocol's own words, which count as nobody's messages.
    Speak(Vec<Message>),
    End(Box<Ending>),
}

/// How a session ended: judged, and announced to the host as [`Event::Ended`].
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) verdict: Verdict,
    pub(crate) since: Instant,
    pub(crate) at: Instant,
    pub(crate) outage_id: u64,
    /// Where the next connection takes up an event stream.
    pub(crate) resume: Option<Box<Resume>>,
}

impl Session {
    /// A connection that came up now and speaks as `speech` says; `first` is given the interval of
    /// our beats and tells when the first leaves.
    pub(crate) fn new(
        link: Link,
        peer: Option<SocketAddr>,
        facts: Option<Arc<Facts>>,
        policy: SessionPolicy,
        first: impl FnOnce(Duration) -> Duration,
        speech: Speech,
    ) -> Box<Self> {
        let now = clock();
        let more = More::new(speech, &policy, now);
        let heartbeat = heartbeat_policy(&policy, more.as_deref());
        let first = first(heartbeat.interval);
        Box::new(Self {
            link,
            peer,
            facts,
            heartbeat: Heartbeat::new(heartbeat, now, first, rand::random()),
            write_timeout: policy.write_timeout,
            close_timeout: policy.close_timeout,
            silent: policy.silent,
            more,
            since: now,
            last_in: Moment::default(),
            last_out: Moment::default(),
        })
    }

    /// Our address.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.link.local_addr()
    }

    /// Sends what is sent on open, then holds the connection until it ends, and tells `host` all there is to
    /// tell. When this returns nothing of the connection is left.
    ///
    /// Boxed, as are the frames of what happens once in a connection's life: a task that holds a
    /// connection is as small as its loop.
    pub(crate) async fn run(mut self: Box<Self>, host: &mut impl Host) -> Finished {
        let ending = self.hold(host).await;
        Box::pin(self.finish(ending, host)).await
    }

    /// What is done once at the beginning: what came in early, and what is sent first.
    async fn begin(&mut self, host: &mut impl Host) -> Result<(), Ending> {
        let Some(more) = &mut self.more else {
            return Ok(());
        };
        let early = std::mem::take(&mut more.speech.early);
        let on_open = std::mem::take(&mut more.speech.on_open);
        match self.meant(early, host) {
            Next::Go | Next::Send(..) => {}
            Next::Speak(words) => self.speak(words, host).await?,
            Next::End(ending) => return Err(*ending),
        }
        for message in on_open {
            self.send_message(message, host).await?;
        }
        self.more.take_if(|more| more.is_over());
        Ok(())
    }

    /// The loop. What is awaited in line is what a standing connection waits for; all else is
    /// done at once, or boxed.
    async fn hold(&mut self, host: &mut impl Host) -> Ending {
        if self.more.is_some()
            && let Err(ending) = Box::pin(self.begin(host)).await
        {
            return ending;
        }
        let mut alarm = pin!(sleep(Duration::ZERO));
        // What has come in is older than what is due, and among it may be what is missed: so it is
        // read first.
        let mut read = MOST_READ_FIRST;
        loop {
            if read >= MOST_READ_FIRST {
                read = 0;
                let now = clock();
                while let Some(action) = self.heartbeat.poll(now) {
                    match action {
                        Action::Ping { seq, retry } => {
                            // The peer almost always takes the bytes at once.
                            let flushed = match self.try_beat(seq) {
                                Some(flushed) => flushed,
                                None => Box::pin(self.flush(host)).await,
                            };
                            if let Err(ending) = flushed {
                                return ending;
                            }
                            self.last_out = Moment::new(clock(), self.since);
                            host.observe(Event::PingSent { seq, retry });
                        }
                        Action::GiveUp => {
                            let sent = self.heartbeat.outstanding();
                            let names = self.dialect().map_or(BeatNames::PING, Dialect::names);
                            return Ending::PongTimeout { sent, names };
                        }
                        Action::Stalled { late } => host.observe(Event::Stalled { late }),
                    }
                }
                if let Some(more) = &mut self.more
                    && let Err(ending) = more.poll(now, host)
                {
                    return ending;
                }
            }
            let deadline = self.deadline();
            if let Some(deadline) = deadline.map(Into::into)
                && alarm.deadline() != deadline
            {
                alarm.as_mut().reset(deadline);
            }
            let next = poll_fn(|cx| {
                // Only receiving; one frame of pointers, where a `select!` keeps every branch's
                // future and result.
                if let Poll::Ready(request) = host.poll_asked(cx) {
                    return Poll::Ready(self.requested(request, host));
                }
                if let Poll::Ready(incoming) = self.link.poll_recv(cx) {
                    read += 1;
                    return Poll::Ready(self.received(incoming, host));
                }
                match deadline {
                    Some(_) => alarm.as_mut().poll(cx).map(|()| {
                        read = MOST_READ_FIRST;
                        Next::Go
                    }),
                    None => Poll::Pending,
                }
            });
            let next = next.await;
            match next {
                Next::Go => {}
                Next::Send(message, written) => {
                    let sent = Box::pin(self.send_message(*message, host)).await;
                    if let Some(written) = written {
                        // A sender that no longer waits has given up on the answer, not on the
                        // message.
                        let _ = written.send(sent.is_ok());
                    }
                    if let Err(ending) = sent {
                        return ending;
                    }
                }
                Next::Speak(words) => {
                    if let Err(ending) = Box::pin(self.speak(words, host)).await {
                        return ending;
                    }
                }
                Next::End(ending) => return *ending,
            }
        }
    }

    /// When something of the heartbeat's, or beside it, is due.
    fn deadline(&self) -> Option<Instant> {
        let more = self.more.as_ref().and_then(|more| more.deadline());
        self.heartbeat.deadline().into_iter().chain(more).min()
    }

    fn dialect(&self) -> Option<&Dialect> {
        self.more.as_ref()?.speech.dialect.as_deref()
    }

    fn dialect_mut(&mut self) -> Option<&mut Dialect> {
        self.more.as_mut()?.speech.dialect.as_deref_mut()
    }

    /// Queues a beat and tries once to send it; `None` if it has to wait.
    fn try_beat(&mut self, seq: u32) -> Option<Result<(), Ending>> {
        let payload = self.heartbeat.payload(seq);
        let started = match self.dialect_mut() {
            None => self.link.start_ping(payload),
            Some(dialect) => {
                let unix = SystemTime::now().duration_since(UNIX_EPOCH);
                // A clock before 1970 is wrong; the beat need not be.
                let unix = unix.unwrap_or_default();
                match dialect.beat(Stamp { seq, unix }) {
                    Some(message) => self.link.start_message(message),
                    None => Ok(()),
                }
            }
        };
        match started {
            Ok(()) => self.link.flush().now_or_never(),
            Err(ending) => Some(Err(ending)),
        }
    }

    fn received(&mut self, incoming: Result<Incoming, Ending>, host: &mut impl Host) -> Next {
        let now = clock();
        let incoming = match incoming {
            Ok(incoming) => incoming,
            Err(ending) => return Next::End(Box::new(ending)),
        };
        self.last_in = Moment::new(now, self.since);
        match incoming {
            // Life is what the dialect says.
            Incoming::Pong(_) if self.dialect().is_some() => Next::Go,
            Incoming::Pong(payload) => {
                let (rtt, mismatch) = match self.heartbeat.handle_pong(&payload, now) {
                    Pong::Answer { rtt, mismatch } => (rtt, mismatch),
                    Pong::Stray => (None, false),
                };
                host.observe(Event::Pong { rtt, mismatch });
                Next::Go
            }
            Incoming::Ping => {
                if self.dialect().is_none() {
                    self.heartbeat.handle_traffic(now);
                }
                self.last_out = Moment::new(now, self.since);
                host.observe(Event::PingReceived);
                Next::Go
            }
            Incoming::Message(message) => {
                if let Some(dialect) = self.dialect_mut() {
                    let mut steps = Vec::new();
                    dialect.read(&message, &mut steps);
                    return self.meant(steps, host);
                }
                self.heartbeat.handle_traffic(now);
                if let Some(more) = &mut self.more {
                    more.message(now, host);
                }
                let reply = host.reply(&message);
                host.observe(Event::Message(message));
                reply.map_or(Next::Go, |reply| Next::Send(Box::new(reply), None))
            }
            Incoming::Close(mut frame) => {
                frame.reason = host.conceal(&frame.reason);
                Next::End(Box::new(Ending::PeerClosed(frame)))
            }
            Incoming::Comment => self.meant(vec![Step::Beat], host),
            Incoming::Bytes => {
                if let Some(more) = &mut self.more {
                    more.heard(now, host);
                }
                Next::Go
            }
        }
    }

    /// Takes what the dialect read, up to the end if it is one.
    fn meant(&mut self, steps: Vec<Step>, host: &mut impl Host) -> Next {
        let now = clock();
        let mut words = Vec::new();
        for step in steps {
            let Some(more) = &mut self.more else {
                return Next::Go; // without a dialect there are no steps
            };
            match step {
                Step::Message(message) => {
                    if !self.link.sends() && !std::mem::replace(&mut more.has_events, true) {
                        let delay = now.saturating_duration_since(self.since);
                        host.observe(Event::FirstEvent { delay });
                    }
                    more.message(now, host);
                    host.observe(Event::Message(message));
                }
                Step::Beat => {
                    let dialect = more.speech.dialect.as_ref();
                    // Of an event stream the bytes have been told.
                    if !dialect.is_some_and(|dialect| dialect.lives_by_bytes()) {
                        more.heard(now, host);
                    }
                    host.observe(Event::HeartbeatReceived);
                }
                Step::Life => more.heard(now, host),
                Step::Answer(seq) => {
                    let (rtt, mismatch) = match self.heartbeat.handle_answer(seq, now) {
                        Pong::Answer { rtt, mismatch } => (rtt, mismatch),
                        Pong::Stray => (None, false),
                    };
                    host.observe(Event::Pong { rtt, mismatch });
                }
                Step::Send(message) => words.push(message),
                Step::Refused(mut refusal) => {
                    refusal.words = host.conceal(&refusal.words).into();
                    return Next::End(Box::new(Ending::Dialect(refusal)));
                }
            }
        }
        match words.is_empty() {
            true => Next::Go,
            false => Next::Speak(words),
        }
    }

    fn requested(&mut self, request: Request, host: &mut impl Host) -> Next {
        match request {
            Request::Retune(policy) => {
                self.write_timeout = policy.write_timeout;
                self.close_timeout = policy.close_timeout;
                let now = clock();
                match &mut self.more {
                    Some(more) => more.retune(&policy, now, host),
                    None => self.more = More::new(Speech::default(), &policy, now),
                }
                let heartbeat = heartbeat_policy(&policy, self.more.as_deref());
                self.heartbeat.retune(heartbeat, now);
                Next::Go
            }
            Request::End(asked) => Next::End(Box::new(Ending::Asked(asked))),
            Request::Send(message, written) if self.link.sends() => {
                Next::Send(message, Some(written))
            }
            Request::Send(_, written) => {
                let _ = written.send(false); // one that no longer waits need not be told
                Next::Go
            }
        }
    }

    async fn send_message(&mut self, message: Message, host: &mut impl Host) -> Result<(), Ending> {
        let bytes = message.as_bytes().len();
        self.link.start_message(message)?;
        self.flush(host).await?;
        self.last_out = Moment::new(clock(), self.since);
        host.observe(Event::MessageSent { bytes });
        Ok(())
    }

    /// Sends the protocol's own words.
    async fn speak(&mut self, words: Vec<Message>, host: &mut impl Host) -> Result<(), Ending> {
        for word in words {
            self.link.start_message(word)?;
            self.flush(host).await?;
            self.last_out = Moment::new(clock(), self.since);
        }
        Ok(())
    }

    /// Sends what is queued, under the write timeout.
    async fn flush(&mut self, host: &mut impl Host) -> Result<(), Ending> {
        tokio::select! {
            biased;
            flushed = self.link.flush() => flushed,
            asked = poll_fn(|cx| host.poll_asked_to_end(cx)) => Err(Ending::Asked(asked)),
            () = sleep(self.write_timeout) => Err(Ending::WriteTimeout),
        }
    }

    /// Judges the ending, says what is still owed to the peer, and tells the host.
    async fn finish(mut self: Box<Self>, ending: Ending, host: &mut impl Host) -> Finished {
        let at = clock();
        // First of all: what is sent and drained below changes what the kernel has to tell.
        let tcp_info = self.link.tcp_info();
        let outage_id = rand::random();
        let mut verdict = ending.classify();
        if let (Ending::PongTimeout { .. }, SilentClose::Silent) = (&ending, self.silent) {
            verdict.close = Some(CloseFrame::new(1008, "silent"));
        }
        if let Ending::PeerClosed(frame) = &ending
            && let Some(words) = self.dialect().and_then(|d| d.explain(frame.code))
        {
            verdict.message.push_str(&format!(": {words}"));
        }
        if let Ending::PongTimeout { .. } | Ending::Silence(_) = &ending
            && let Some(remark) = self.dialect().and_then(Dialect::remark)
        {
            verdict.message.push_str(&format!("; {remark}"));
        }
        if !self.link.sends() {
            // An event stream just ends.
            verdict.close = None;
        }
        let mut received = None;
        let mut sent = None;
        match (&ending, verdict.close.take()) {
            (Ending::PeerClosed(frame), _) => {
                // The reply repeats the peer's code (RFC 6455 section 5.5.1); the link has it queued.
                sent = Some(frame.clone());
                received = Some(frame.clone());
            }
            (Ending::Asked(_), Some(frame)) => {
                (sent, received) = self.close_in_order(frame).await;
                if let Some(reply) = &mut received {
                    reply.reason = host.conceal(&reply.reason);
                }
                if sent.is_some() && received.is_none() {
                    verdict.message.push_str(" (no reply to Close)");
                }
            }
            (_, Some(frame)) => {
                sent = self.link.try_close(&frame).then_some(frame);
            }
            (_, None) => {}
        }
        let local = self.local_addr();
        let age = at.saturating_duration_since(self.since);
        let ago = |moment: Moment| moment.age().map(|then| age.saturating_sub(then));
        let end = End {
            at: SystemTime::now(),
            outage_id,
            cause: verdict.cause,
            initiator: verdict.initiator,
            message: verdict.message.as_str().into(),
            received,
            sent,
            age,
            since_last_frame_in: ago(self.last_in),
            since_last_frame_out: ago(self.last_out),
            outstanding_pings: self.heartbeat.outstanding(),
            retries: self.heartbeat.retries(),
            local,
            peer: self.peer,
            facts: self.facts.take(),
            tcp_info,
        };
        host.observe(Event::Ended(Box::new(end)));
        let linger = match &ending {
            Ending::PeerClosed(_)
            | Ending::Protocol { .. }
            | Ending::TooBig(_)
            | Ending::Dialect(_) => true,
            Ending::PongTimeout { .. } => self.silent == SilentClose::Silent,
            _ => false,
        };
        if linger {
            // Lets the Close leave, and the peer end TCP first; a RST would destroy it on the way.
            let limit = LAST_FIN.min(self.close_timeout);
            let _ = timeout(limit, self.drain()).await;
        }
        Finished {
            verdict,
            since: self.since,
            at,
            outage_id,
            resume: self.link.resume(),
        }
    }

    /// Sends our Close and waits for the peer's, then for its FIN: what was sent and received.
    async fn close_in_order(
        &mut self,
        frame: CloseFrame,
    ) -> (Option<CloseFrame>, Option<CloseFrame>) {
        let limit = self.close_timeout;
        if let Some(leave) = self.dialect_mut().and_then(Dialect::leave) {
            let _ = self.link.start_message(leave); // the Close that follows tells if it is broken
        }
        if self.link.start_close(&frame).is_err() {
            return (None, None);
        }
        match timeout(limit.min(self.write_timeout), self.link.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return (None, None),
        }
        let reply = async {
            loop {
                match self.link.recv().await {
                    Ok(Incoming::Close(reply)) => break Some(reply),
                    Ok(_) => {}
                    Err(_) => break None,
                }
            }
        };
        let reply = timeout(limit, reply).await.ok().flatten();
        if reply.is_some() {
            let _ = timeout(LAST_FIN.min(limit), self.drain()).await;
        }
        (Some(frame), reply)
    }

    /// Reads until nothing more comes.
    async fn drain(&mut self) {
        while self.link.recv().await.is_ok() {}
    }
}

fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod dialect_tests;
#[cfg(test)]
mod speech_tests;
#[cfg(test)]
mod staleness_tests;
#[cfg(test)]
mod tests;
