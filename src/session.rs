//! THE driver: one connection = a link, a heartbeat, and a host that is told and asks.
//!
//! The loop's `select!` only receives; everything is sent outside it, under a write timeout, and
//! hears the host's request to end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::future::Either;
use tokio::time::{sleep, timeout};

use crate::proto::close::{Asked, CloseFrame, Ending, Verdict};
use crate::proto::event::{End, Event, Message};
use crate::proto::heartbeat::{Action, Heartbeat, HeartbeatPolicy, Pong};
use crate::transport::ws::{Incoming, WsLink};

/// After both Close frames the peer ends TCP (RFC 6455 section 7.1.1); one that does not is left
/// after this long.
const LAST_FIN: Duration = Duration::from_secs(1);

/// Whom a connection belongs to.
pub(crate) trait Host {
    /// Something happened.
    fn observe(&mut self, event: Event);

    /// A message of the peer's: what to answer it with.
    fn reply(&mut self, message: &Message) -> Option<Message> {
        let _ = message;
        None
    }

    /// The next thing asked of the connection. Cancel safe: what was not returned is asked again.
    fn asked(&mut self) -> impl Future<Output = Request>;

    /// Resolves when the connection is to end, and takes nothing else: heard while a write waits.
    fn asked_to_end(&mut self) -> impl Future<Output = Asked>;
}

/// What a host asks of its connection.
#[derive(Debug)]
pub(crate) enum Request {
    /// Live by another policy from now on.
    Retune(SessionPolicy),
    /// End it in order.
    End(Asked),
    /// Send a message; the sender learns whether it was written.
    Send(Message, tokio::sync::oneshot::Sender<bool>),
}

/// What a session needs to know beside its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionPolicy {
    pub(crate) heartbeat: HeartbeatPolicy,
    pub(crate) write_timeout: Duration,
    pub(crate) close_timeout: Duration,
    /// How the Close frame to a silent peer reads; the client's and the server's differ.
    pub(crate) silent: SilentClose,
}

/// What a peer is told when it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SilentClose {
    /// 1011 "no pong": the client.
    NoPong,
    /// 1008 "silent": the server.
    Silent,
}

/// A connection that is up, as the session takes it over.
pub(crate) struct Session {
    link: WsLink,
    heartbeat: Heartbeat,
    policy: SessionPolicy,
    since: Instant,
    last_in: Option<Instant>,
    last_out: Option<Instant>,
}

/// How a session ended: judged, and announced to the host as [`Event::Ended`].
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) verdict: Verdict,
    pub(crate) since: Instant,
    pub(crate) at: Instant,
    pub(crate) outage_id: u64,
}

impl Session {
    /// A connection that came up now and is first pinged after `first`.
    pub(crate) fn new(link: WsLink, policy: SessionPolicy, first: Duration) -> Box<Self> {
        let now = clock();
        Box::new(Self {
            link,
            heartbeat: Heartbeat::new(policy.heartbeat, now, first, rand::random()),
            policy,
            since: now,
            last_in: None,
            last_out: None,
        })
    }

    pub(crate) fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        self.link.addresses()
    }

    /// Sends `on_open`, then holds the connection until it ends, and tells `host` all there is to
    /// tell. When this returns nothing of the connection is left.
    ///
    /// Boxed, as are the frames of what happens once in a connection's life: a task that holds a
    /// connection is as small as its loop.
    pub(crate) async fn run(
        mut self: Box<Self>,
        on_open: Vec<Message>,
        host: &mut impl Host,
    ) -> Finished {
        let greeted = match on_open.is_empty() {
            true => Ok(()),
            false => Box::pin(self.greet(on_open, host)).await,
        };
        let ending = match greeted {
            Ok(()) => self.hold(host).await,
            Err(ending) => ending,
        };
        Box::pin(self.finish(ending, host)).await
    }

    async fn greet(&mut self, on_open: Vec<Message>, host: &mut impl Host) -> Result<(), Ending> {
        for message in on_open {
            self.send_message(message, host).await?;
        }
        Ok(())
    }

    async fn hold(&mut self, host: &mut impl Host) -> Ending {
        let mut alarm = pin!(sleep(Duration::ZERO));
        loop {
            let now = clock();
            while let Some(action) = self.heartbeat.poll(now) {
                if let Err(ending) = self.act(action, host).await {
                    return ending;
                }
            }
            let deadline = self.heartbeat.deadline();
            if let Some(deadline) = deadline.map(Into::into)
                && alarm.deadline() != deadline
            {
                alarm.as_mut().reset(deadline);
            }
            let received = tokio::select! {
                biased;
                request = host.asked() => Either::Left(request),
                incoming = self.link.recv() => Either::Right(incoming),
                () = &mut alarm, if deadline.is_some() => continue,
            };
            let handled = match received {
                Either::Left(request) => self.requested(request, host).await,
                Either::Right(Ok(incoming)) => self.incoming(incoming, host).await,
                Either::Right(Err(ending)) => Err(ending),
            };
            if let Err(ending) = handled {
                return ending;
            }
        }
    }

    async fn act(&mut self, action: Action, host: &mut impl Host) -> Result<(), Ending> {
        match action {
            Action::Ping { seq, retry } => {
                self.link.start_ping(self.heartbeat.payload(seq))?;
                self.flush(host).await?;
                host.observe(Event::PingSent { seq, retry });
                Ok(())
            }
            Action::GiveUp => Err(Ending::PongTimeout {
                sent: self.heartbeat.outstanding(),
            }),
            Action::Stalled { late } => {
                host.observe(Event::Stalled { late });
                Ok(())
            }
        }
    }

    async fn incoming(&mut self, incoming: Incoming, host: &mut impl Host) -> Result<(), Ending> {
        let now = clock();
        self.last_in = Some(now);
        match incoming {
            Incoming::Pong(payload) => {
                let (rtt, mismatch) = match self.heartbeat.handle_pong(&payload, now) {
                    Pong::Answer { rtt, mismatch } => (rtt, mismatch),
                    Pong::Stray => (None, false),
                };
                host.observe(Event::Pong { rtt, mismatch });
                Ok(())
            }
            Incoming::Ping => {
                self.heartbeat.handle_traffic(now);
                self.last_out = Some(now);
                host.observe(Event::PingReceived);
                Ok(())
            }
            Incoming::Message(message) => {
                self.heartbeat.handle_traffic(now);
                let reply = host.reply(&message);
                host.observe(Event::Message(message));
                match reply {
                    Some(reply) => Box::pin(self.send_message(reply, host)).await,
                    None => Ok(()),
                }
            }
            Incoming::Close(frame) => Err(Ending::PeerClosed(frame)),
        }
    }

    async fn requested(&mut self, request: Request, host: &mut impl Host) -> Result<(), Ending> {
        match request {
            Request::Retune(policy) => {
                self.policy = policy;
                self.heartbeat.retune(policy.heartbeat, clock());
                Ok(())
            }
            Request::End(asked) => Err(Ending::Asked(asked)),
            Request::Send(message, written) => {
                let sent = Box::pin(self.send_message(message, host)).await;
                // A sender that no longer waits has given up on the answer, not on the message.
                let _ = written.send(sent.is_ok());
                sent
            }
        }
    }

    async fn send_message(&mut self, message: Message, host: &mut impl Host) -> Result<(), Ending> {
        let bytes = message.as_bytes().len();
        self.link.start_message(message)?;
        self.flush(host).await?;
        host.observe(Event::MessageSent { bytes });
        Ok(())
    }

    /// Sends what is queued, under the write timeout. The peer almost always takes the bytes at
    /// once, so the timer and the ear for the host are only made when it does not.
    async fn flush(&mut self, host: &mut impl Host) -> Result<(), Ending> {
        match self.link.flush().now_or_never() {
            Some(flushed) => flushed?,
            None => Box::pin(self.flush_patiently(host)).await?,
        }
        self.last_out = Some(clock());
        Ok(())
    }

    async fn flush_patiently(&mut self, host: &mut impl Host) -> Result<(), Ending> {
        tokio::select! {
            biased;
            flushed = self.link.flush() => flushed,
            asked = host.asked_to_end() => Err(Ending::Asked(asked)),
            () = sleep(self.policy.write_timeout) => Err(Ending::WriteTimeout),
        }
    }

    /// Judges the ending, says what is still owed to the peer, and tells the host.
    async fn finish(mut self: Box<Self>, ending: Ending, host: &mut impl Host) -> Finished {
        let at = clock();
        let outage_id = rand::random();
        let mut verdict = ending.classify();
        if let (Ending::PongTimeout { .. }, SilentClose::Silent) = (&ending, self.policy.silent) {
            verdict.close = Some(CloseFrame::new(1008, "silent"));
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
            }
            (_, Some(frame)) => {
                sent = self.link.try_close(&frame).then_some(frame);
            }
            (_, None) => {}
        }
        let (local, peer) = self.link.addresses();
        let ago = |instant: Option<Instant>| instant.map(|then| at.saturating_duration_since(then));
        let end = End {
            at: SystemTime::now(),
            outage_id,
            cause: verdict.cause,
            initiator: verdict.initiator,
            message: verdict.message.as_str().into(),
            received,
            sent,
            age: at.saturating_duration_since(self.since),
            since_last_frame_in: ago(self.last_in),
            since_last_frame_out: ago(self.last_out),
            outstanding_pings: self.heartbeat.outstanding(),
            retries: self.heartbeat.retries(),
            local,
            peer,
        };
        host.observe(Event::Ended(Box::new(end)));
        let linger = match &ending {
            Ending::PeerClosed(_) | Ending::Protocol { .. } | Ending::TooBig(_) => true,
            Ending::PongTimeout { .. } => self.policy.silent == SilentClose::Silent,
            _ => false,
        };
        if linger {
            // Lets the Close leave, and the peer end TCP first; a RST would destroy it on the way.
            let limit = LAST_FIN.min(self.policy.close_timeout);
            let _ = timeout(limit, self.drain()).await;
        }
        Finished {
            verdict,
            since: self.since,
            at,
            outage_id,
        }
    }

    /// Sends our Close and waits for the peer's, then for its FIN: what was sent and received.
    async fn close_in_order(
        &mut self,
        frame: CloseFrame,
    ) -> (Option<CloseFrame>, Option<CloseFrame>) {
        let limit = self.policy.close_timeout;
        if self.link.start_close(&frame).is_err() {
            return (None, None);
        }
        match timeout(limit.min(self.policy.write_timeout), self.link.flush()).await {
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
mod tests;
