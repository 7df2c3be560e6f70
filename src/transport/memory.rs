//! The network's in-memory twin: a byte stream that can be cut, reset and stalled, for tests
//! under simulated time.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// How the wire is at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Nothing passes, nothing is said: a silent half-open path.
    Stalled,
    /// Reads and writes fail as after a TCP reset.
    Reset,
    /// Writes block as with a peer that takes no bytes; reads still work.
    WritesBlocked,
}

#[derive(Debug, Default)]
struct Shared {
    fault: Fault,
    wakers: Vec<Waker>,
}

/// Our end of a wire.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: DuplexStream,
    shared: Arc<Mutex<Shared>>,
}

/// Breaks the wire, and mends it.
#[derive(Debug, Clone)]
pub(crate) struct Breaker(Arc<Mutex<Shared>>);

impl Breaker {
    pub(crate) fn set(&self, fault: Fault) {
        let mut shared = self.0.lock().unwrap();
        shared.fault = fault;
        shared.wakers.drain(..).for_each(Waker::wake);
    }
}

/// A wire: our end, the peer's, and its breaker.
pub(crate) fn wire() -> (Wire, DuplexStream, Breaker) {
    let (ours, theirs) = tokio::io::duplex(4096);
    let shared = Arc::new(Mutex::new(Shared::default()));
    let wire = Wire {
        stream: ours,
        shared: shared.clone(),
    };
    (wire, theirs, Breaker(shared))
}

/// A wire over `stream`, without a breaker.
pub(crate) fn over(stream: DuplexStream) -> Wire {
    Wire {
        stream,
        shared: Arc::default(),
    }
}

impl Wire {
    /// `Pending` or an error while the wire is broken for `writing` or reading.
    fn gate(&self, cx: &mut Context<'_>, writing: bool) -> Option<Poll<io::Result<()>>> {
        let mut shared = self.shared.lock().unwrap();
        match (shared.fault, writing) {
            (Fault::None, _) | (Fault::WritesBlocked, false) => None,
            (Fault::Reset, _) => Some(Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))),
            // A stalled path still takes what fits the send buffer.
            (Fault::Stalled, true) => Some(Poll::Ready(Ok(()))),
            (Fault::Stalled, false) | (Fault::WritesBlocked, true) => {
                shared.wakers.push(cx.waker().clone());
                Some(Poll::Pending)
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(answer) = self.gate(cx, false) {
            return answer;
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            // A fault set from now on wakes the reader too.
            self.shared.lock().unwrap().wakers.push(cx.waker().clone());
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.gate(cx, true) {
            Some(Poll::Ready(Ok(()))) => Poll::Ready(Ok(buf.len())),
            Some(Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            Some(Poll::Pending) => Poll::Pending,
            None => Pin::new(&mut self.stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
