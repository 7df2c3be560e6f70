//! The first byte of a connection by which TLS is to be spoken: who speaks HTTP instead is told so, as
//! exporters do, and not answered in TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

const TOLD: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\r\n\
    this is HTTPS, and the request came by HTTP; ask https://\n";

/// How long somebody may take to read that, and how much it may still have to say.
const PATIENCE: Duration = Duration::from_secs(1);
const MOST: u64 = 64 * 1024;

/// A stream of which one byte was read, and is read again.
pub(super) struct Begun<S> {
    first: Option<u8>,
    stream: S,
}

/// Waits for the first byte. `None`: it was no TLS, and that was said.
pub(super) async fn begun<S>(mut stream: S) -> io::Result<Option<Begun<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = stream.read_u8().await?;
    // The first of a TLS record is its type: 22, a handshake. Of HTTP it is that of a method.
    if first.is_ascii_uppercase() {
        stream.write_all(TOLD).await?;
        stream.shutdown().await?;
        // Closed with bytes unread, the connection would be reset and the answer lost.
        let mut rest = stream.take(MOST);
        let mut nowhere = tokio::io::sink();
        let _ = timeout(PATIENCE, tokio::io::copy(&mut rest, &mut nowhere)).await;
        return Ok(None);
    }
    Ok(Some(Begun {
        first: Some(first),
        stream,
    }))
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
