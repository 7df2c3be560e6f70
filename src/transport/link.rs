//! What moves messages once a peer is reached: a closed set, so that a session is one concrete type.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;

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
        match self {
            Self::Ws(ws) => ws.poll_recv(cx),
            Self::Sse(sse) => sse.poll_recv(cx),
        }
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
