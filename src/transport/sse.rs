//! The event stream: a response whose body does not end, on hyper.

use std::collections::VecDeque;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::poll_proceed;

use super::exchange::{Answered, Connection};
use super::io::Io;
use super::link::Incoming;
use super::tcp_info::tcp_info;
use super::ws::io_ending;
use crate::dialect::sse::{Item, Parser, TooBig};
use crate::proto::close::{Cut, Ending};
use crate::proto::event::{Message, TcpInfo};

/// How much is read into items at once, so that a burst of tiny events is not all in memory.
const PIECE: usize = 1024;
/// The longest id that is sent back, in bytes. Servers take 8 KiB of headers in all, and would
/// refuse us for as long as we repeat a longer one.
const LONGEST_ID: usize = 4096;

/// Where a stream is to be taken up again, and how soon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Resume {
    /// Sent as `Last-Event-ID`, unless it is empty.
    pub(crate) last_event_id: Box<str>,
    /// What the server's last `retry` said.
    pub(crate) retry: Option<Duration>,
}

/// How much of a stream is held at once, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Of a line, without its end.
    pub(super) line: usize,
    /// Of an event's type and data.
    pub(super) event: usize,
}

/// A stream that somebody else owns, and whose socket can still be asked about.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Owned>>);

struct Owned {
    io: Io,
    /// What the kernel knew when the owner shut it down, which changes what there is to know.
    at_shutdown: Option<TcpInfo>,
}

impl Owned {
    fn tcp_info(&self) -> Option<TcpInfo> {
        self.at_shutdown
            .or_else(|| self.io.tcp_stream().and_then(tcp_info))
    }
}

impl Shared {
    pub(super) fn new(io: Io) -> Self {
        Self(Arc::new(Mutex::new(Owned {
            io,
            at_shutdown: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Owned> {
        // Held within a poll alone, and by one task: never contended.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut owned = self.lock();
        if owned.at_shutdown.is_none() {
            owned.at_shutdown = owned.tcp_info();
        }
        Pin::new(&mut owned.io).poll_shutdown(cx)
    }
}

/// One event stream after its 200.
///
/// hyper's connection is driven here, within [`Self::poll_recv`]: whoever waits for events waits
/// for the socket, and there is no task beside.
pub(crate) struct SseLink {
    io: Shared,
    body: hyper::body::Incoming,
    /// `None` once it has ended.
    connection: Option<Pin<Box<Connection>>>,
    /// Whether the response tells where it ends, by its length or by a last chunk.
    has_end: bool,
    parser: Parser,
    /// Bytes that came in and are not read yet.
    rest: Bytes,
    /// What was read and not yet asked for; of one piece at most.
    read: VecDeque<Incoming>,
    retry: Option<Duration>,
}

impl fmt::Debug for SseLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseLink").finish_non_exhaustive()
    }
}

impl SseLink {
    /// The stream that `answered` begins, on `io`, taken up at `resume`.
    pub(super) fn new(
        io: Shared,
        answered: Answered,
        limits: Limits,
        resume: Option<&Resume>,
    ) -> Self {
        let headers = answered.response.headers();
        let has_end =
            headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
        let (body, connection) = answered.into_body();
        let last_event_id = resume.map_or("", |resume| &resume.last_event_id);
        Self {
            io,
            body,
            connection,
            has_end,
            parser: Parser::new(limits.line, limits.event).resuming(last_event_id),
            rest: Bytes::new(),
            read: VecDeque::new(),
            retry: resume.and_then(|resume| resume.retry),
        }
    }

    /// Our address.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.io.lock().io.local_addr()
    }

    /// What the kernel knows of the connection at this moment.
    pub(crate) fn tcp_info(&self) -> Option<TcpInfo> {
        self.io.lock().tcp_info()
    }

    /// Where the stream is to be taken up again; `None` if it said nothing of it.
    pub(crate) fn resume(&self) -> Option<Box<Resume>> {
        let id = self.parser.last_event_id();
        let id = if id.len() > LONGEST_ID { "" } else { id };
        let resume = Resume {
            last_event_id: id.into(),
            retry: self.retry,
        };
        (resume != Resume::default()).then(|| Box::new(resume))
    }

    /// The next thing that means something. Cancel safe.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Ending>> {
        loop {
            if let Some(incoming) = self.read.pop_front() {
                if self.read.is_empty() {
                    self.read = VecDeque::new();
                }
                return Poll::Ready(Ok(incoming));
            }
            if !self.rest.is_empty() {
                // A line of a megabyte means nothing until it ends, and takes its time.
                ready!(poll_proceed(cx)).made_progress();
                self.read_piece()?;
                continue;
            }
            return Poll::Ready(match ready!(self.poll_bytes(cx)) {
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                Some(Ok(bytes)) => {
                    self.rest = bytes;
                    Ok(Incoming::Bytes)
                }
                Some(Err(ending)) => Err(ending),
                None if self.has_end => Err(Ending::StreamEnded),
                None => Err(Ending::StreamCut(Cut::Endless)),
            });
        }
    }

    /// Reads some of the bytes that wait. After an error it fails for ever: nothing is taken.
    fn read_piece(&mut self) -> Result<(), Ending> {
        let piece = &self.rest[..self.rest.len().min(PIECE)];
        let (read, retry) = (&mut self.read, &mut self.retry);
        let fed = self.parser.feed(piece, |item| match item {
            Item::Event { data, .. } => read.push_back(Incoming::Message(Message::text(data))),
            Item::Comment => read.push_back(Incoming::Comment),
            Item::Retry(milliseconds) => *retry = Some(Duration::from_millis(milliseconds)),
        });
        let (max_line, max_event) = self.parser.limits();
        match fed {
            Ok(()) => {
                self.rest.advance(piece.len());
                Ok(())
            }
            Err(TooBig::Line) => Err(Ending::TooBig(format!(
                "a line of the event stream has more than {max_line} bytes (max_line)"
            ))),
            Err(TooBig::Event) => Err(Ending::TooBig(format!(
                "an event has more than {max_event} bytes (max_event)"
            ))),
        }
    }

    /// The next bytes of the body; `None` once it is complete, or seems to be.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Ending>>> {
        loop {
            // The body is asked first: the connection reads only what somebody wants.
            let mut frame = Pin::new(&mut self.body).poll_frame(cx);
            if frame.is_pending() && self.drive(cx) {
                frame = Pin::new(&mut self.body).poll_frame(cx);
            }
            match ready!(frame) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(ending(&error)))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// Lets the connection do what it can; whether there was one.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        if connection.as_mut().poll(cx).is_ready() {
            // How it ended is the body's to tell.
            self.connection = None;
        }
        true
    }
}

/// What the error that ended the body says about how the connection ended.
fn ending(error: &hyper::Error) -> Ending {
    let Some(cause) = cause(error) else {
        return Ending::StreamCut(Cut::Fin);
    };
    match cause.kind() {
        // hyper's words for chunks that are none; errors of TLS are of this kind, too.
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData if !is_tls(cause) => {
            Ending::Protocol {
                code: 1002,
                error: format!("chunked encoding: {}", cause.to_string().to_lowercase()),
            }
        }
        _ => match io_ending(cause) {
            Ending::Fin => Ending::StreamCut(Cut::Fin),
            Ending::Reset => Ending::StreamCut(Cut::Reset),
            ending => ending,
        },
    }
}

fn is_tls(error: &io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(|inner| inner.is::<rustls::Error>())
}

/// The error of the stream below that `error` comes from.
fn cause(error: &hyper::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        source = inner.source();
    }
    None
}

#[cfg(test)]
mod tests;
