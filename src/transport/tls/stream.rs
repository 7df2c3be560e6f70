//! The client's end of a TLS connection as a byte stream, on rustls' unbuffered connection.
//!
//! rustls' buffered connection keeps 4 KiB for incoming records as long as it lives. Here records
//! are read into a buffer that all connections of a thread share, so that an idle connection has
//! no buffer at all: what is kept between two calls is an incomplete record, plaintext the caller
//! had no room for, and ciphertext the socket did not take; each is freed when it is used up.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus,
};
use rustls::{ClientConfig, Error};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::verifier::{Observed, observing};
use super::watch::Watch;
use crate::transport::io::{Io, READ_AHEAD};

/// The largest TLS record there is: TLS 1.2's, header included (RFC 5246 section 6.2.3).
const LARGEST_RECORD: usize = 5 + (16 << 10) + 2048;

/// Plaintext taken by one write: a record's fill.
const WRITTEN_AT_ONCE: usize = 16 << 10;

/// Bytes of records that may wait for the rest of a handshake message. rustls takes messages of up
/// to 64 KiB; the rest is what cutting them into records costs.
const MOST_PENDING: usize = 128 << 10;

/// Bytes of what the peer said first that are kept until the handshake is done.
const OPENING: usize = 8;

thread_local! {
    /// Buffers that are used only within a call. TLS in TLS takes two at once.
    static SCRATCH: RefCell<Vec<Scratch>> = const { RefCell::new(Vec::new()) };
}

type Scratch = Vec<u8>;

/// Room for an incomplete record and a whole read after it.
const SCRATCH_SIZE: usize = LARGEST_RECORD + READ_AHEAD;

/// Runs `work` with a buffer of [`SCRATCH_SIZE`] bytes at least, their content left over.
fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    let kept = SCRATCH.with_borrow_mut(Vec::pop);
    let mut scratch = kept.unwrap_or_else(|| vec![0; SCRATCH_SIZE]);
    let result = work(&mut scratch);
    // One that had to grow is not kept: few handshakes are that large.
    if scratch.len() <= SCRATCH_SIZE {
        SCRATCH.with_borrow_mut(|kept| {
            if kept.len() < 2 {
                kept.push(scratch);
            }
        });
    }
    result
}

/// A TLS connection, ours the client's end.
pub(crate) struct TlsStream {
    io: Io,
    tls: UnbufferedClientConnection,
    /// Ciphertext of a record, or of records that carry one handshake message, not yet complete.
    /// rustls remembers places in it: it is handed over unchanged, with what came next.
    pending: Vec<u8>,
    /// Plaintext that waits for the reader.
    plain: Option<Box<Plain>>,
    /// Ciphertext that waits for the socket.
    outgoing: Vec<u8>,
    /// Why nothing can be read or written any more.
    failed: Option<Box<Error>>,
    /// Until the first application data comes.
    watch: Option<Arc<Watch>>,
    peer_closed: bool,
    close_sent: bool,
    /// A writer waits for the socket, and moves `outgoing` along when it is woken. A reader that
    /// did it too would take the writer's place with the socket.
    writer_waits: bool,
}

struct Plain {
    bytes: Vec<u8>,
    taken: usize,
}

/// What a handshake told, good or bad.
#[derive(Default)]
pub(super) struct Told {
    pub(super) observed: Observed,
    /// The first bytes that came.
    pub(super) opening: Vec<u8>,
    /// Bytes that came.
    pub(super) received: usize,
}

/// Why a handshake failed.
#[derive(Debug)]
pub(super) enum Broken {
    Tls(Error),
    Io(io::Error),
    /// The peer ended the stream.
    Eof,
}

/// Where the plaintext of incoming records goes.
struct Sink<'a, 'b> {
    buf: Option<&'a mut ReadBuf<'b>>,
    rest: Vec<u8>,
    any: bool,
}

impl Sink<'_, '_> {
    fn take(&mut self, payload: &[u8]) {
        self.any |= !payload.is_empty();
        let room = self.buf.as_ref().map_or(0, |buf| buf.remaining());
        // In order: nothing goes to the reader past what already waits.
        let now = if self.rest.is_empty() { room } else { 0 };
        let (now, later) = payload.split_at(now.min(payload.len()));
        if let Some(buf) = &mut self.buf {
            buf.put_slice(now);
        }
        self.rest.extend_from_slice(later);
    }
}

impl TlsStream {
    pub(super) fn new(
        io: Io,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Error> {
        Ok(Self {
            io,
            tls: UnbufferedClientConnection::new(config, name)?,
            pending: Vec::new(),
            plain: None,
            outgoing: Vec::new(),
            failed: None,
            watch: None,
            peer_closed: false,
            close_sent: false,
            writer_waits: false,
        })
    }

    /// Shakes hands, and sends what that takes.
    pub(super) fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
        told: &mut Told,
    ) -> Poll<Result<(), Broken>> {
        loop {
            // Begins with the ClientHello, and ends with our Finished.
            if let Err(error) = observing(&mut told.observed, || self.process_pending()) {
                self.send_last_words(cx);
                return Poll::Ready(Err(Broken::Tls(error)));
            }
            let sent = self.poll_send(cx);
            if !self.tls.is_handshaking() {
                ready!(sent).map_err(Broken::Io)?;
                return Poll::Ready(Ok(()));
            }
            // An alert may stand in what can still be read: it tells more than a failed write.
            let mut sink = Sink {
                buf: None,
                rest: Vec::new(),
                any: false,
            };
            let read = with_scratch(|scratch| {
                let read = ready!(self.poll_fill(cx, scratch))?;
                let new = &scratch[self.pending.len()..][..read];
                told.received += read;
                let missing = OPENING.saturating_sub(told.opening.len());
                told.opening.extend(new.iter().take(missing));
                let filled = self.pending.len() + read;
                let result = observing(&mut told.observed, || {
                    self.process(&mut scratch[..filled], &mut sink)
                });
                Poll::Ready(Ok((read, result)))
            });
            self.keep(sink);
            match read {
                Poll::Ready(Ok((_, Err(error)))) => {
                    self.send_last_words(cx);
                    return Poll::Ready(Err(Broken::Tls(error)));
                }
                Poll::Ready(Ok((0, Ok(())))) => return Poll::Ready(Err(Broken::Eof)),
                Poll::Ready(Ok((_, Ok(())))) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Io(error))),
                Poll::Pending => {
                    if let Poll::Ready(Err(error)) = sent {
                        return Poll::Ready(Err(Broken::Io(error)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// From now on until application data comes, `watch` is told how the stream fails.
    pub(super) fn watch(&mut self, watch: Arc<Watch>) {
        // Some came along with the handshake.
        if self.plain.is_none() {
            self.watch = Some(watch);
        }
        // Of it nothing is left but spare room.
        self.pending.shrink_to_fit();
        self.outgoing.shrink_to_fit();
    }

    pub(super) fn version(&self) -> Option<rustls::ProtocolVersion> {
        self.tls.protocol_version()
    }

    pub(super) fn cipher(&self) -> Option<rustls::CipherSuite> {
        let suite = self.tls.negotiated_cipher_suite();
        suite.map(|suite| suite.suite())
    }

    pub(super) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.peer_certificates().unwrap_or_default()
    }

    pub(crate) fn tcp_stream(&self) -> Option<&TcpStream> {
        self.io.tcp_stream()
    }

    /// Reads what there is behind the incomplete record, which is put in front of it.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Poll<io::Result<usize>> {
        let waiting = self.pending.len();
        if scratch.len() < waiting + READ_AHEAD {
            scratch.resize(waiting + READ_AHEAD, 0);
        }
        scratch[..waiting].copy_from_slice(&self.pending);
        let mut room = ReadBuf::new(&mut scratch[waiting..]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut room))?;
        Poll::Ready(Ok(room.filled().len()))
    }

    /// Has rustls go on with what is there already.
    fn process_pending(&mut self) -> Result<(), Error> {
        let mut sink = Sink {
            buf: None,
            rest: Vec::new(),
            any: false,
        };
        let mut pending = std::mem::take(&mut self.pending);
        let result = self.process(&mut pending, &mut sink);
        self.keep(sink);
        result
    }

    /// Has rustls process `input`, the incomplete record and what came next, to its end. What it
    /// cannot use yet becomes the new `pending`.
    fn process(&mut self, input: &mut [u8], sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let mut used = 0;
        let result = loop {
            let UnbufferedStatus { mut discard, state } =
                self.tls.process_tls_records(&mut input[used..]);
            let end = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                    match traffic.next_record() {
                        Some(Ok(record)) => {
                            discard += record.discard;
                            sink.take(record.payload);
                        }
                        Some(Err(error)) => break Some(Err(error)),
                        None => break None,
                    }
                },
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, &mut self.outgoing).map(Err)
                }
                // It is in `outgoing`, where it cannot be forgotten.
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_closed = true;
                    None
                }
                Ok(
                    ConnectionState::BlockedHandshake
                    | ConnectionState::WriteTraffic(_)
                    | ConnectionState::Closed,
                ) => Some(Ok(())),
                // Only servers see early data.
                Ok(_) => Some(Err(Error::General("a TLS state not known here".to_owned()))),
                Err(error) => Some(Err(error)),
            };
            used += discard;
            if let Some(result) = end {
                break result;
            }
        };
        // Nothing that comes after a close_notify or an error counts.
        if result.is_err() || self.peer_closed {
            self.pending = Vec::new();
        } else if input.len() - used > MOST_PENDING {
            // The peer's fault, and an error of TLS as any other.
            self.pending = Vec::new();
            return Err(Error::General("a handshake message without end".to_owned()));
        } else if used < input.len() {
            self.pending.clear();
            self.pending.extend_from_slice(&input[used..]);
        } else {
            self.pending = Vec::new();
        }
        result
    }

    fn keep(&mut self, sink: Sink<'_, '_>) {
        if sink.any {
            // Application data has come: from now on an error is the connection's own.
            self.watch = None;
        }
        if !sink.rest.is_empty() {
            self.plain = Some(Box::new(Plain {
                bytes: sink.rest,
                taken: 0,
            }));
        }
    }

    /// The connection is broken: says so to the watch, and to the peer, once and waiting for
    /// nothing.
    fn fail(&mut self, cx: &mut Context<'_>, error: Error) {
        if let Some(watch) = &self.watch {
            watch.broke(&error);
        }
        self.failed = Some(Box::new(error));
        self.send_last_words(cx);
    }

    /// Sends the alert that rustls has queued with its error, as far as the socket takes it now.
    fn send_last_words(&mut self, cx: &mut Context<'_>) {
        // While something is queued rustls hands it out and does not look at its input, so the
        // broken state is not touched.
        while self.tls.wants_write() {
            let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut []);
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    if encode(&mut data, &mut self.outgoing).is_some() {
                        break;
                    }
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while traffic.next_record().is_some() {}
                }
                _ => break,
            }
        }
        if !self.writer_waits {
            // The peer learns it now or not at all.
            let _ = self.poll_send(cx);
        }
    }

    fn error(&self) -> Option<io::Error> {
        let error = self.failed.as_deref()?.clone();
        Some(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Moves what waits to the socket.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = 0;
        let result = loop {
            if sent == self.outgoing.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.io).poll_write(cx, &self.outgoing[sent..]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if sent == self.outgoing.len() {
            self.outgoing = Vec::new();
        } else {
            self.outgoing.drain(..sent);
        }
        result
    }

    /// [`Self::poll_send`] for a writer, who is remembered while it waits.
    fn poll_send_as_writer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.poll_send(cx);
        self.writer_waits = sent.is_pending();
        if let Poll::Ready(Err(error)) = sent {
            return Poll::Ready(Err(self.write_failed(cx, error)));
        }
        sent
    }

    /// A write failed. Before the first application data that is how a refusal of our certificate
    /// looks whose alert has not been read: what can still be read may tell.
    fn write_failed(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        if self.watch.is_none() {
            return error;
        }
        match self.poll_receive(cx, None) {
            Poll::Ready(Ok(())) | Poll::Pending => {}
            // The write's own error comes first.
            Poll::Ready(Err(_)) => {}
        }
        if let Some(watch) = &self.watch {
            watch.ended();
        }
        self.error().unwrap_or(error)
    }

    /// Encrypts up to [`WRITTEN_AT_ONCE`] of `plaintext` and sends what the socket takes.
    fn encrypt(&mut self, cx: &mut Context<'_>, plaintext: &[u8]) -> io::Result<usize> {
        let plaintext = &plaintext[..plaintext.len().min(WRITTEN_AT_ONCE)];
        self.produce(cx, |traffic, out| traffic.encrypt(plaintext, out))?;
        Ok(plaintext.len())
    }

    /// Has `write` make records, and sends what the socket takes of them.
    fn produce(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::client::ClientConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        with_scratch(|scratch| {
            let made = loop {
                let mut pending = std::mem::take(&mut self.pending);
                let UnbufferedStatus { discard, state } =
                    self.tls.process_tls_records(&mut pending);
                let made = match state {
                    Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                        match write(&mut traffic, scratch) {
                            Ok(made) => Some(Ok(made)),
                            Err(EncryptError::InsufficientSize(InsufficientSizeError {
                                required_size,
                            })) => {
                                scratch.resize(required_size, 0);
                                None
                            }
                            Err(error) => Some(Err(io::Error::other(error))),
                        }
                    }
                    Ok(ConnectionState::EncodeTlsData(mut data)) => {
                        let error = encode(&mut data, &mut self.outgoing);
                        error.map(|error| Err(io::Error::new(io::ErrorKind::InvalidData, error)))
                    }
                    Ok(ConnectionState::TransmitTlsData(data)) => {
                        data.done();
                        None
                    }
                    Ok(ConnectionState::PeerClosed) => {
                        self.peer_closed = true;
                        None
                    }
                    // Reading processes all there is, so no record is left for here.
                    Ok(_) => Some(Err(io::ErrorKind::BrokenPipe.into())),
                    Err(error) => Some(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
                };
                pending.drain(..discard);
                self.pending = pending;
                if let Some(made) = made {
                    break made?;
                }
            };
            // Most of the time the socket takes all of it, and nothing is kept.
            let mut sent = 0;
            while self.outgoing.is_empty() && sent < made {
                match Pin::new(&mut self.io).poll_write(cx, &scratch[sent..made]) {
                    // The error shows when the rest is sent.
                    Poll::Ready(Ok(0) | Err(_)) | Poll::Pending => break,
                    Poll::Ready(Ok(n)) => sent += n,
                }
            }
            self.outgoing.extend_from_slice(&scratch[sent..made]);
            Ok(())
        })
    }

    /// Reads and decrypts what there is; plaintext goes to `buf` and, beyond its room, waits.
    /// Ready when plaintext came, or the peer's close_notify, or an error.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        mut buf: Option<&mut ReadBuf<'_>>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut sink = Sink {
                buf: buf.as_deref_mut(),
                rest: Vec::new(),
                any: false,
            };
            let read = with_scratch(|scratch| {
                let read = ready!(self.poll_fill(cx, scratch))?;
                let filled = self.pending.len() + read;
                let result = match read {
                    0 => Ok(()),
                    _ => self.process(&mut scratch[..filled], &mut sink),
                };
                Poll::Ready(io::Result::Ok((read, result)))
            });
            let any = sink.any;
            self.keep(sink);
            let (read, result) = match ready!(read) {
                Ok(done) => done,
                Err(error) => {
                    if let Some(watch) = &self.watch {
                        watch.ended();
                    }
                    return Poll::Ready(Err(error));
                }
            };
            if let Err(error) = result {
                self.fail(cx, error);
            } else if !self.outgoing.is_empty() && !self.writer_waits {
                // A warning of rustls' own. Nobody waits for it; its error shows at the next write.
                let _ = self.poll_send(cx);
            }
            if any {
                // The error, if there is one, comes with the next read.
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = self.error() {
                return Poll::Ready(Err(error));
            }
            if self.peer_closed || read == 0 {
                if let Some(watch) = &self.watch {
                    watch.ended();
                }
                return Poll::Ready(match self.peer_closed {
                    true => Ok(()),
                    // Cut: only a close_notify says that this was all (RFC 8446 section 6.1).
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                });
            }
        }
    }
}

/// Appends a record rustls has made to what waits.
fn encode(
    data: &mut EncodeTlsData<'_, rustls::client::ClientConnectionData>,
    outgoing: &mut Vec<u8>,
) -> Option<Error> {
    let before = outgoing.len();
    let mut room = 0;
    loop {
        match data.encode(&mut outgoing[before..]) {
            Ok(written) => {
                outgoing.truncate(before + written);
                return None;
            }
            // Asked with no room first, it tells how much it takes.
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size }))
                if required_size > room =>
            {
                room = required_size;
                outgoing.resize(before + room, 0);
            }
            Err(error) => {
                outgoing.truncate(before);
                return Some(Error::General(error.to_string()));
            }
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(plain) = &mut this.plain {
            let left = &plain.bytes[plain.taken..];
            let n = left.len().min(buf.remaining());
            buf.put_slice(&left[..n]);
            plain.taken += n;
            if plain.taken == plain.bytes.len() {
                this.plain = None;
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = this.error() {
            return Poll::Ready(Err(error));
        }
        if this.peer_closed || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        this.poll_receive(cx, Some(buf))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(error) = this.error() {
            return Poll::Ready(Err(error));
        }
        if this.close_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_send_as_writer(cx))?;
        Poll::Ready(this.encrypt(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send_as_writer(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send_as_writer(cx))?;
        if !this.close_sent && this.failed.is_none() {
            this.produce(cx, |traffic, out| traffic.queue_close_notify(out))?;
            this.close_sent = true;
        }
        ready!(this.poll_send_as_writer(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// No content: it is the users'.
impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("io", &self.io)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
