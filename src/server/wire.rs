//! A stream that is read and written at once, for what is served without a session: every wait
//! has a deadline and hears the shutdown, and what is under way survives each wait.

use std::future::{pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::peer::WRITE_TIMEOUT;
use crate::transport::io::Io;

/// One read.
const READ: usize = 8 * 1024;
/// Unsent bytes beyond which nothing more is made for the client, or read from it.
pub(super) const ENOUGH: usize = 64 * 1024;
/// How long the client's FIN is waited for after ours: closing with bytes unread would reset the
/// connection and destroy what is on its way.
const LAST_FIN: Duration = Duration::from_secs(1);
/// A stalled socket with unread bytes is looked at this often, to learn that its client has gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A connection, what came and was not yet taken, and what is to leave.
pub(super) struct Wire {
    io: Io,
    pub(super) input: BytesMut,
    output: BytesMut,
    /// TLS keeps bytes of its own until it is flushed.
    flushed: bool,
    /// Since when the client has taken nothing of what waits for it.
    stuck_since: Option<Instant>,
}

/// What a wait ended with.
#[derive(Debug)]
pub(super) enum Step {
    /// Bytes came.
    Read,
    /// All bytes left.
    Drained,
    /// The moment that was waited for, or an earlier one.
    Due,
    Shutdown,
    Gone(Gone),
}

/// How the client went.
#[derive(Debug)]
pub(super) enum Gone {
    Fin,
    Failed(io::Error),
    /// It took no bytes for [`WRITE_TIMEOUT`].
    WriteTimeout,
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fin => f.write_str("the client ended the connection"),
            Self::Failed(error) => write!(f, "the connection failed: {error}"),
            Self::WriteTimeout => write!(f, "the client took no bytes for {WRITE_TIMEOUT:?}"),
        }
    }
}

impl Wire {
    /// `early` came along with the request.
    pub(super) fn new(io: Io, early: &[u8]) -> Self {
        if let Some(tcp) = io.tcp_stream() {
            // Nobody here pings a client that says nothing, and one that vanished takes a place.
            let keepalive = TcpKeepalive::new()
                .with_time(Duration::from_secs(60))
                .with_interval(Duration::from_secs(15));
            if let Err(error) = SockRef::from(tcp).set_tcp_keepalive(&keepalive) {
                tracing::debug!(%error, "no TCP keepalive on a connection");
            }
        }
        Self {
            io,
            input: early.into(),
            output: BytesMut::new(),
            flushed: true,
            stuck_since: None,
        }
    }

    /// Where to write what is to leave; the next [`Self::step`] sends it.
    pub(super) fn output(&mut self) -> &mut BytesMut {
        self.flushed = false;
        &mut self.output
    }

    /// Whether the client is to take what there is before it gets more.
    pub(super) fn is_full(&self) -> bool {
        self.output.len() >= ENOUGH
    }

    pub(super) fn is_drained(&self) -> bool {
        self.output.is_empty() && self.flushed
    }

    /// Sends what is to leave, reads what comes if `reading`, and waits for something to happen,
    /// until `wake`. Cancel safe.
    pub(super) async fn step(
        &mut self,
        reading: bool,
        wake: Option<Instant>,
        shutdown: &CancellationToken,
    ) -> Step {
        let patience = self.stuck_since.unwrap_or_else(Instant::now) + WRITE_TIMEOUT;
        let patience = (!self.is_drained()).then_some(patience);
        let until = [wake, patience].into_iter().flatten().min();
        let due = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Step::Shutdown,
            step = poll_fn(|cx| self.poll_move(reading, cx)) => step,
            () = due => {
                let stuck = self.stuck_since.is_some_and(|since| since.elapsed() >= WRITE_TIMEOUT);
                if stuck { Step::Gone(Gone::WriteTimeout) } else { Step::Due }
            }
        }
    }

    fn poll_move(&mut self, reading: bool, cx: &mut Context<'_>) -> Poll<Step> {
        if !self.is_drained() {
            match self.poll_send(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Step::Drained),
                Poll::Ready(Err(error)) => return Poll::Ready(Step::Gone(Gone::Failed(error))),
                Poll::Pending => {}
            }
        }
        if !reading {
            return Poll::Pending;
        }
        let mut room = [0; READ];
        let mut room = ReadBuf::new(&mut room);
        Pin::new(&mut self.io).poll_read(cx, &mut room).map(|read| {
            self.input.extend_from_slice(room.filled());
            match read {
                Ok(()) if room.filled().is_empty() => Step::Gone(Gone::Fin),
                Ok(()) => Step::Read,
                Err(error) => Step::Gone(Gone::Failed(error)),
            }
        })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = loop {
            if self.output.is_empty() {
                break Pin::new(&mut self.io).poll_flush(cx);
            }
            match Pin::new(&mut self.io).poll_write(cx, &self.output) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(taken)) => {
                    self.output.advance(taken);
                    self.stuck_since = None;
                }
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        match &sent {
            Poll::Ready(_) => {
                self.flushed = true;
                self.stuck_since = None;
            }
            Poll::Pending => {
                self.stuck_since.get_or_insert_with(Instant::now);
            }
        }
        sent
    }

    /// Sends what is to leave, `limit` at most, whatever comes meanwhile; whether it left.
    pub(super) async fn drain(&mut self, limit: Duration) -> bool {
        let sent = poll_fn(|cx| self.poll_send(cx));
        matches!(timeout(limit, sent).await, Ok(Ok(())))
    }

    /// Ends the stream as the operating system does it in order: FIN, which the client answers
    /// with its own.
    pub(super) async fn hang_up(mut self) {
        let last = async {
            self.io.shutdown().await?;
            let mut rest = [0; 1024];
            while self.io.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        // Whatever came of it, the connection is over.
        let _ = timeout(LAST_FIN, last).await;
    }

    /// Resets the connection.
    pub(super) fn reset(self) {
        if let Some(tcp) = self.io.tcp_stream()
            && let Err(error) = SockRef::from(tcp).set_linger(Some(Duration::ZERO))
        {
            tracing::debug!(%error, "a connection that was to be reset ends by FIN");
        }
    }

    /// Reads and writes nothing, and keeps the socket open until the client has ended it or
    /// `shutdown`.
    pub(super) async fn stall(self, shutdown: &CancellationToken) {
        let gone = async {
            let Some(tcp) = self.io.tcp_stream() else {
                return pending().await;
            };
            loop {
                match tcp.ready(Interest::READABLE).await {
                    Ok(ready) if ready.is_read_closed() => return,
                    // Unread bytes are always ready.
                    Ok(_) => sleep(LOOK_EVERY).await,
                    Err(_) => return,
                }
            }
        };
        tokio::select! {
            () = gone => {}
            () = shutdown.cancelled() => {}
        }
    }
}
