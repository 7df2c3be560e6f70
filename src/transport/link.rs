//! What moves messages once a peer is reached: a closed set, so that a session is one concrete type.

use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::coop;

use super::sse::{Resume, SseLink};
use super::ws::WsLink;
use crate::proto::close::{CloseFrame, Ending};
use crate::proto::event::{Message, TcpInfo};

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// The pong is queued; it leaves with the next `recv`.
    Ping,
    Pong(Bytes),
    /// A message; of an event stream, an event's data.
    Message(Message),
    /// The reply is queued; `recv` sends it and then waits for the end of the stream.
    Close(CloseFrame),
    /// A comment of an event stream.
    Comment,
    /// Bytes of an event stream; what they mean follows.
    Bytes,
}

/// A connection after its handshake.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most are WebSockets, and each costs what it must"
)]
pub(crate) enum Link {
    Ws(WsLink),
    /// Boxed, so that it adds nothing to the size of the other.
    Sse(Box<SseLink>),
}

impl Link {
    /// Our address.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ws(ws) => ws.local_addr(),
            Self::Sse(sse) => sse.local_addr(),
        }
    }

    /// What the kernel knows of the connection at this moment.
    pub(crate) fn tcp_info(&self) -> Option<TcpInfo> {
        match self {
            Self::Ws(ws) => ws.tcp_info(),
            Self::Sse(sse) => sse.tcp_info(),
        }
    }

    /// Whether messages can be sent: an event stream goes one way.
    pub(crate) fn sends(&self) -> bool {
        matches!(self, Self::Ws(_))
    }

    /// Where an event stream is to be taken up again.
    pub(crate) fn resume(&self) -> Option<Box<Resume>> {
        match self {
            Self::Ws(_) => None,
            Self::Sse(sse) => sse.resume(),
        }
    }

    /// The next thing that means something.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Ending>> {
        // One read can bring thousands of messages. Each counts as a read does towards what a task
        // may do before the others have their turn: a peer that floods us delays nobody's pings.
        let turn = ready!(coop::poll_proceed(cx));
        let came = match self {
            Self::Ws(ws) => ws.poll_recv(cx),
            Self::Sse(sse) => sse.poll_recv(cx),
        };
        // Pending with nothing left to spend may only mean that it is the others' turn. Then it is
        // theirs: an alarm of ours must not take it for a peer that said nothing.
        if came.is_ready() || !coop::has_budget_remaining() {
            turn.made_progress();
        }
        came
    }

    /// The next thing that means something. Cancel safe.
    pub(crate) async fn recv(&mut self) -> Result<Incoming, Ending> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Queues a ping; [`Self::flush`] sends it.
    pub(crate) fn start_ping(&mut self, payload: [u8; 8]) -> Result<(), Ending> {
        match self {
            Self::Ws(ws) => ws.start_ping(payload),
            // An event stream is only listened to: nobody asks for this.
            Self::Sse(_) => Ok(()),
        }
    }

    /// Queues a data message; [`Self::flush`] sends it.
    pub(crate) fn start_message(&mut self, message: Message) -> Result<(), Ending> {
        match self {
            Self::Ws(ws) => ws.start_message(message),
            Self::Sse(_) => Ok(()),
        }
    }

    /// Queues a Close; [`Self::flush`] sends it, and `recv` waits for the reply.
    pub(crate) fn start_close(&mut self, frame: &CloseFrame) -> Result<(), Ending> {
        match self {
            Self::Ws(ws) => ws.start_close(frame),
            Self::Sse(_) => Ok(()),
        }
    }

    /// Tries once to send a Close, waiting for nothing; whether it left.
    pub(crate) fn try_close(&mut self, frame: &CloseFrame) -> bool {
        match self {
            Self::Ws(ws) => ws.try_close(frame),
            Self::Sse(_) => false,
        }
    }

    /// Hands what is queued to the operating system. Cancel safe, and without a deadline of its
    /// own.
    pub(crate) async fn flush(&mut self) -> Result<(), Ending> {
        match self {
            Self::Ws(ws) => ws.flush().await,
            Self::Sse(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::transport::io::Io;
    use crate::transport::memory::wire;

    #[tokio::test]
    async fn thousands_of_messages_that_came_at_once_let_others_have_their_turns() {
        const MESSAGES: usize = 2000;
        let (ours, mut theirs, _breaker) = wire();
        let empty_text = [0x81, 0x00];
        theirs
            .write_all(&empty_text.repeat(MESSAGES))
            .await
            .unwrap();
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let flooded = tokio::spawn(async move {
            let mut link = Link::Ws(WsLink::client(Io::Memory(ours), &[], 1000));
            for _ in 0..MESSAGES {
                let came = link.recv().await;
                assert!(matches!(came, Ok(Incoming::Message(_))), "{came:?}");
            }
        });
        flooded.await.unwrap();
        other.abort();
        assert!(turns.load(Relaxed) >= 10, "{turns:?} turns");
    }
}
