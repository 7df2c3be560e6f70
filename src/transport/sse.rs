//! The event stream: a response whose body does not end.

use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use super::link::Incoming;
use crate::proto::close::Ending;
use crate::proto::event::TcpInfo;

/// Where a stream is to be taken up again, and how soon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Resume {
    /// Sent as `Last-Event-ID`, unless it is empty.
    pub(crate) last_event_id: Box<str>,
    /// What the server's last `retry` said.
    pub(crate) retry: Option<Duration>,
}

/// One event stream after its 200.
#[derive(Debug)]
pub(crate) struct SseLink {}

impl SseLink {
    /// Our address.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// What the kernel knows of the connection at this moment.
    pub(crate) fn tcp_info(&self) -> Option<TcpInfo> {
        None
    }

    /// Where the stream is to be taken up again; `None` if it said nothing of it.
    pub(crate) fn resume(&self) -> Option<Box<Resume>> {
        None
    }

    /// The next thing that means something.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Ending>> {
        let _ = cx;
        Poll::Pending
    }
}
