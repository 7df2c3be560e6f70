//! The byte stream under a link.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::tls::TlsStream;

/// How much one system call reads at most.
pub(super) const READ_AHEAD: usize = 16 * 1024;

thread_local! {
    /// One buffer for all connections of a thread: it is only used within a call.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_AHEAD].into());
}

/// What carries the bytes: a closed set, so that a link is one concrete type and holds no box.
#[derive(Debug)]
pub(crate) enum Io {
    Tcp(TcpStream, ReadAhead),
    /// Boxed, so that it adds nothing to the size of the others.
    Unix(Box<(UnixStream, ReadAhead)>),
    /// Our end is the client's; it holds the stream it runs over.
    Tls(Box<TlsStream>),
    /// Our end is the embedded server's.
    ServerTls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// The in-memory twin, for tests under simulated time.
    #[cfg(test)]
    Memory(super::memory::Wire),
}

/// Bytes that were read from the socket before they were asked for.
///
/// A held connection asks for a few bytes at a time, from the small buffer that keeps it cheap. A
/// system call for each would make large messages expensive, so a call reads what there is and the
/// rest waits here; an idle connection has none, and no memory for it.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead(Option<Box<Rest>>);

#[derive(Debug)]
struct Rest {
    bytes: Vec<u8>,
    taken: usize,
}

impl ReadAhead {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(rest) = &mut self.0 {
            let left = &rest.bytes[rest.taken..];
            let n = left.len().min(buf.remaining());
            buf.put_slice(&left[..n]);
            rest.taken += n;
            if rest.taken == rest.bytes.len() {
                self.0 = None;
            }
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= READ_AHEAD {
            return Pin::new(socket).poll_read(cx, buf);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut ahead = ReadBuf::new(scratch);
            ready!(Pin::new(socket).poll_read(cx, &mut ahead))?;
            let (now, later) = ahead
                .filled()
                .split_at(buf.remaining().min(ahead.filled().len()));
            buf.put_slice(now);
            if !later.is_empty() {
                self.0 = Some(Box::new(Rest {
                    bytes: later.to_vec(),
                    taken: 0,
                }));
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl Io {
    /// A connected socket.
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        Self::Tcp(stream, ReadAhead::default())
    }

    /// A connected unix socket.
    pub(crate) fn unix(stream: UnixStream) -> Self {
        Self::Unix(Box::new((stream, ReadAhead::default())))
    }

    /// A client's TLS whose handshake is done.
    pub(super) fn tls(stream: TlsStream) -> Self {
        Self::Tls(Box::new(stream))
    }

    /// A server's TLS whose handshake is done.
    pub(crate) fn server_tls(stream: tokio_rustls::server::TlsStream<TcpStream>) -> Self {
        Self::ServerTls(Box::new(stream))
    }

    /// Our address.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp_stream().and_then(|tcp| tcp.local_addr().ok())
    }

    /// The TCP connection underneath it all, if there is one.
    pub(crate) fn tcp_stream(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp, _) => Some(tcp),
            Self::Unix(..) => None,
            Self::Tls(tls) => tls.tcp_stream(),
            Self::ServerTls(tls) => Some(tls.get_ref().0),
            #[cfg(test)]
            Self::Memory(_) => None,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp, ahead) => ahead.poll_read(tcp, cx, buf),
            Self::Unix(unix) => {
                let (unix, ahead) = &mut **unix;
                ahead.poll_read(unix, cx, buf)
            }
            Self::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
            Self::ServerTls(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
            #[cfg(test)]
            Self::Memory(wire) => Pin::new(wire).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp, _) => Pin::new(tcp).poll_write(cx, buf),
            Self::Unix(unix) => Pin::new(&mut unix.0).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, buf),
            Self::ServerTls(tls) => Pin::new(&mut **tls).poll_write(cx, buf),
            #[cfg(test)]
            Self::Memory(wire) => Pin::new(wire).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp, _) => Pin::new(tcp).poll_flush(cx),
            Self::Unix(unix) => Pin::new(&mut unix.0).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
            Self::ServerTls(tls) => Pin::new(&mut **tls).poll_flush(cx),
            #[cfg(test)]
            Self::Memory(wire) => Pin::new(wire).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp, _) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(&mut unix.0).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
            Self::ServerTls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
            #[cfg(test)]
            Self::Memory(wire) => Pin::new(wire).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn reading_ahead_loses_and_reorders_nothing(
            sent in prop::collection::vec(any::<u8>(), 0..60_000),
            sizes in prop::collection::vec(1_usize..20_000, 1..8),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let received = runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
                let mut far = far.unwrap().0;
                let outgoing = sent.clone();
                let writer = tokio::spawn(async move { far.write_all(&outgoing).await.unwrap() });
                let mut io = Io::tcp(near.unwrap());
                let mut received = Vec::new();
                for size in sizes.iter().cycle() {
                    let mut buffer = vec![0; *size];
                    match io.read(&mut buffer).await.unwrap() {
                        0 => break,
                        n => received.extend_from_slice(&buffer[..n]),
                    }
                }
                writer.await.unwrap();
                received
            });
            prop_assert_eq!(received, sent);
        }
    }
}
