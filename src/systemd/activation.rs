//! Sockets that the service manager opened for us (sd_listen_fds(3)), by name: `metrics`, `server`.

#![allow(
    unsafe_code,
    reason = "a descriptor's number comes by an environment variable"
)]

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use socket2::{Domain, Socket, Type};
use tracing::warn;

use crate::os;

/// The sockets passed to this process. They are kept until it ends: a listener that a reload
/// closes may be wanted again by the next.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// For `/metrics`.
    pub(crate) metrics: Vec<Listening>,
    /// For the embedded server.
    pub(crate) server: Option<Listening>,
}

/// A socket that listens, and where; whoever opened it.
#[derive(Debug)]
pub(crate) enum Listening {
    Tcp(TcpListener, SocketAddr),
    /// The path, if it has one; its file is whose who made it.
    Unix(UnixListener, Option<PathBuf>),
}

impl Listening {
    /// A socket of our own.
    pub(crate) fn tcp(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self::Tcp(socket, address))
    }

    /// A second handle of the same socket.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket, address) => Self::Tcp(socket.try_clone()?, *address),
            Self::Unix(socket, path) => Self::Unix(socket.try_clone()?, path.clone()),
        })
    }

    fn of(descriptor: OwnedFd) -> Result<Self, String> {
        const WANTED: &str = "is not a stream socket that listens: its unit needs ListenStream= \
                              and Accept=no";
        let socket = Socket::from(descriptor);
        let listens = socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
            && socket.is_listener().unwrap_or(false);
        if !listens {
            return Err(WANTED.to_owned());
        }
        let failed = |error: io::Error| os::words(&error);
        socket.set_nonblocking(true).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        match socket.domain().map_err(failed)? {
            Domain::IPV4 | Domain::IPV6 => match address.as_socket() {
                Some(address) => Ok(Self::Tcp(socket.into(), address)),
                None => Err(WANTED.to_owned()),
            },
            Domain::UNIX => {
                let path = address.as_pathname().map(PathBuf::from);
                Ok(Self::Unix(OwnedFd::from(socket).into(), path))
            }
            _ => Err("is neither a TCP nor a unix socket".to_owned()),
        }
    }
}

impl fmt::Display for Listening {
    /// As a listener is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => write!(f, "{address}"),
            Self::Unix(_, Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(_, None) => f.write_str("a unix socket without a path"),
        }
    }
}

/// What `$LISTEN_FDS` and `$LISTEN_FDNAMES` hand to this process. To be called once. A name that
/// nobody here goes by is warned of, and its socket closed.
pub(crate) fn take_passed() -> Result<Passed, String> {
    let failed = |error: io::Error| {
        let why = os::words(&error);
        format!("cannot take the sockets of the service manager ($LISTEN_FDS): {why}")
    };
    // Variables meant for another process, inherited from a parent, are none of ours; without this
    // their names would be too many for no sockets, and an error.
    if sd_notify::listen_fds().map_err(failed)?.len() == 0 {
        return Ok(Passed::default());
    }
    let passed = sd_notify::listen_fds_with_names().map_err(failed)?;
    // SAFETY: by its protocol the variables are meant for the process of `$LISTEN_PID`, which is
    // checked; the descriptors are open, for they were just made close-on-exec; and nobody else in
    // this process knows their numbers, which were opened before it began.
    let owned = |number: RawFd| unsafe { OwnedFd::from_raw_fd(number) };
    sort(passed.map(|(number, name)| (owned(number), name)))
}

fn sort(passed: impl Iterator<Item = (OwnedFd, String)>) -> Result<Passed, String> {
    let mut sorted = Passed::default();
    for (descriptor, name) in passed {
        if !["metrics", "server"].contains(&name.as_str()) {
            let name = name.escape_debug();
            warn!(
                event = "socket_unknown",
                "the service manager passed a socket named `{name}`, which nobody uses; known are \
                 `metrics` and `server` (FileDescriptorName=)"
            );
            continue;
        }
        let socket = Listening::of(descriptor)
            .map_err(|why| format!("the socket `{name}` of the service manager {why}"))?;
        if name == "metrics" {
            sorted.metrics.push(socket);
        } else if let Some(first) = &sorted.server {
            return Err(format!(
                "the service manager passed two sockets named `server`, {first} and {socket}: \
                 the server has one"
            ));
        } else {
            sorted.server = Some(socket);
        }
    }
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn sorted(passed: Vec<(OwnedFd, &str)>) -> Result<Passed, String> {
        let named = passed.into_iter().map(|(fd, name)| (fd, name.to_owned()));
        sort(named)
    }

    fn tcp() -> (OwnedFd, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener.into(), address)
    }

    #[test]
    fn sockets_go_by_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.sock");
        let unix = UnixListener::bind(&path).unwrap();
        let ((one, at), (two, elsewhere), (other, _)) = (tcp(), tcp(), tcp());
        let passed = sorted(vec![
            (one, "metrics"),
            (other, "console"),
            (two, "server"),
            (unix.into(), "metrics"),
        ])
        .unwrap();
        let metrics: Vec<String> = passed.metrics.iter().map(ToString::to_string).collect();
        assert_eq!(
            metrics,
            [at.to_string(), format!("unix:{}", path.display())]
        );
        assert_eq!(passed.server.unwrap().to_string(), elsewhere.to_string());
        drop(passed.metrics);
        assert!(path.exists(), "the file is not ours");
    }

    #[test]
    fn what_does_not_listen_and_a_second_server_are_refused() {
        let not_listening = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        for (wrong, name) in [
            (
                OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()),
                "metrics",
            ),
            (UnixDatagram::unbound().unwrap().into(), "server"),
            (not_listening.into(), "server"),
            (std::fs::File::open("/dev/null").unwrap().into(), "metrics"),
        ] {
            let error = sorted(vec![(wrong, name)]).unwrap_err();
            let begins = format!("the socket `{name}` of the service manager is not a stream");
            assert!(error.starts_with(&begins), "{error}");
        }
        let error = sorted(vec![(tcp().0, "server"), (tcp().0, "server")]).unwrap_err();
        assert!(error.contains("two sockets named `server`"), "{error}");
    }
}
