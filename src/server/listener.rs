//! What the embedded server accepts from: a TCP or a unix socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::systemd::Listening;
use crate::transport::io::Io;

/// Registered with the runtime.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl TryFrom<Listening> for Listener {
    type Error = io::Error;

    /// Needs the runtime.
    fn try_from(socket: Listening) -> io::Result<Self> {
        match socket {
            Listening::Tcp(socket, _) => TcpListener::from_std(socket).map(Self::Tcp),
            Listening::Unix(socket, _) => UnixListener::from_std(socket).map(Self::Unix),
        }
    }
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<(Accepted, Origin)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((Accepted::Tcp(stream), Origin(Some(from))))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Unix(stream), Origin(None)))
            }
        }
    }
}

/// A client's stream.
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl From<Accepted> for Io {
    fn from(stream: Accepted) -> Self {
        match stream {
            Accepted::Tcp(stream) => Self::tcp(stream),
            Accepted::Unix(stream) => Self::unix(stream),
        }
    }
}

/// Where a client comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin(pub(super) Option<SocketAddr>);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("a unix socket"),
        }
    }
}
