//! One HTTP/1.1 request on a fresh stream, on hyper: what the upgrade and CONNECT have in common.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::io::Io;
use crate::os;

/// Largest answer head that is read.
const MAX_HEAD: usize = 64 * 1024;
/// Most headers of an answer that are read.
const MOST_HEADERS: usize = 100;
/// The first bytes of a TLS record with an alert or a handshake message in it (RFC 8446 section
/// 5.1): content type 21 or 22, and a version 3.x.
const TLS_ALERT: u8 = 21;
const TLS_HANDSHAKE: u8 = 22;

/// What came in so far, for whoever has to say why no answer did.
#[derive(Debug, Default)]
pub(super) struct Received {
    bytes: AtomicUsize,
    /// The first two bytes and, above them, how many of them there are.
    first: AtomicU32,
}

impl Received {
    /// How many bytes came in.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Whether what came in is TLS.
    pub(super) fn is_tls(&self) -> bool {
        let first = self.first.load(Relaxed);
        let [_, known, one, two] = first.to_be_bytes();
        known == 2 && matches!(one, TLS_ALERT | TLS_HANDSHAKE) && two == 3
    }

    fn take(&self, new: &[u8]) {
        self.bytes.fetch_add(new.len(), Relaxed);
        let [_, mut known, mut one, mut two] = self.first.load(Relaxed).to_be_bytes();
        for byte in new.iter().take(2 - usize::from(known)) {
            (one, two) = if known == 0 { (*byte, 0) } else { (one, *byte) };
            known += 1;
        }
        self.first
            .store(u32::from_be_bytes([0, known, one, two]), Relaxed);
    }
}

/// A stream that tells [`Received`] what comes in.
struct Counted<S> {
    io: S,
    received: Arc<Received>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.received.take(&buf.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// hyper's own type has no public name.
pub(super) type Connection = dyn Future<Output = hyper::Result<()>> + Send;

/// A request that was answered.
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    /// `None` once it has ended.
    connection: Option<Pin<Box<Connection>>>,
}

/// Sends `request` on `io` and waits for the head of the answer. The caller bounds the time.
pub(super) async fn ask<S>(
    io: S,
    request: Request<Empty<Bytes>>,
    received: Arc<Received>,
) -> Result<Answered, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let seen = received.clone();
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_headers(MOST_HEADERS)
        .handshake(TokioIo::new(Counted { io, received }))
        .await
        .map_err(|error| format!("the request could not be sent: {error}"))?;
    let mut connection: Pin<Box<Connection>> = Box::pin(connection.with_upgrades());
    let mut response = std::pin::pin!(sender.send_request(request));
    let mut driven = false;
    // The connection may finish, its upgrade done or its stream broken, before the response is
    // looked at; the response tells which.
    let response = tokio::select! {
        biased;
        response = &mut response => response,
        _ = &mut connection => {
            driven = true;
            response.await
        }
    };
    Ok(Answered {
        response: response.map_err(|error| broken_answer(&error, &seen))?,
        connection: (!driven).then_some(connection),
    })
}

impl Answered {
    /// At most `limit` bytes of the body, `None` if it is blank. The caller bounds the time.
    pub(super) async fn beginning_of_body(&mut self, limit: usize) -> Option<Vec<u8>> {
        let read = beginning_of(self.response.body_mut(), limit);
        let Some(connection) = &mut self.connection else {
            return read.await;
        };
        tokio::select! {
            biased;
            read = read => read,
            // The body's own end is seen by `read`; how the stream ends no longer matters.
            () = async {
                let _ = connection.await;
                std::future::pending().await
            } => None,
        }
    }

    /// The body, and what drives it until it has ended.
    pub(super) fn into_body(self) -> (Incoming, Option<Pin<Box<Connection>>>) {
        (self.response.into_body(), self.connection)
    }

    /// The stream, if it was an [`Io`], after a 101 or a 2xx to CONNECT, and what came along with the answer.
    pub(super) async fn upgraded(self) -> Result<(Io, Bytes), String> {
        if let Some(connection) = self.connection {
            connection.await.map_err(|error| broken_words(&error))?;
        }
        let upgraded = hyper::upgrade::on(self.response)
            .await
            .map_err(|error| broken_words(&error))?;
        let parts = upgraded
            .downcast::<TokioIo<Counted<Io>>>()
            .map_err(|_| "the upgraded stream is of an unexpected kind")?;
        Ok((parts.io.into_inner().io, parts.read_buf))
    }
}

async fn beginning_of(body: &mut Incoming, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < limit {
        match body.frame().await {
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |d| &d[..])),
            Some(Err(_)) | None => break,
        }
    }
    bytes.truncate(limit);
    let text = bytes.iter().any(|b| !b.is_ascii_whitespace());
    text.then_some(bytes)
}

fn broken_answer(error: &hyper::Error, received: &Received) -> String {
    let closed = is_closed(error);
    if received.is_tls() {
        "the peer answered in TLS: wss:// instead of ws://?".into()
    } else if closed && received.bytes() == 0 {
        "the peer closed without an answer".into()
    } else if closed {
        "the peer closed before its answer was complete".into()
    } else if error.is_parse_too_large() && received.bytes() < MAX_HEAD {
        // hyper has one word for what it counts, too.
        format!("the answer has more than {MOST_HEADERS} headers, or a length beyond all bounds")
    } else if error.is_parse_too_large() {
        "the answer's head is larger than 64 KiB".into()
    } else if error.is_parse() {
        format!("the answer is not HTTP/1.1 ({error}); is the port right?")
    } else {
        broken_words(error)
    }
}

/// Whether the peer ended the stream. Before the request has left, that cancels the request.
fn is_closed(error: &(dyn Error + 'static)) -> bool {
    let mut chain = successors(Some(error), |error| (*error).source());
    chain.any(|error| {
        let error = error.downcast_ref::<hyper::Error>();
        error.is_some_and(hyper::Error::is_incomplete_message)
    })
}

fn broken_words(error: &hyper::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        words = format!("{words}: {inner}");
        source = inner.source();
    }
    format!("the peer broke off: {}", os::words(&words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_known_by_its_first_two_bytes_however_they_come() {
        for (pieces, is_tls) in [
            (vec![&[21_u8, 3, 1][..]], true),
            (vec![&[22][..], &[3, 3][..]], true),
            (vec![&[][..], &[21][..], &[][..], &[3][..]], true),
            (vec![&[21][..]], false),
            (vec![&b"HTTP/1.1 400"[..]], false),
            (vec![&[21, 4][..]], false),
            (vec![&[3, 21][..], &[21, 3][..]], false),
        ] {
            let received = Received::default();
            for piece in &pieces {
                received.take(piece);
            }
            assert_eq!(received.is_tls(), is_tls, "{pieces:?}");
            assert_eq!(received.bytes(), pieces.concat().len());
        }
    }
}
