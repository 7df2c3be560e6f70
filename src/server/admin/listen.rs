//! Binding, and saying why it did not work.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::Listen;
use crate::systemd::Listening;

/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// A listener that is bound and not yet served.
#[derive(Debug)]
pub(crate) struct BoundListener {
    /// As the configuration has it.
    pub(super) listen: Listen,
    /// With the port that was assigned.
    pub(super) local: Listen,
    pub(super) socket: BoundSocket,
}

#[derive(Debug)]
pub(super) enum BoundSocket {
    Tcp(TcpListener),
    /// With its file, if that is ours to remove.
    Unix(UnixListener, Option<SocketFile>),
}

#[cfg(test)]
impl BoundListener {
    /// Where it listens, with the port that was assigned.
    pub(crate) fn local_addr(&self) -> &Listen {
        &self.local
    }
}

/// An address that cannot be listened on; says which, where it was set, and what to do.
#[derive(Debug)]
pub(crate) struct BindError {
    listen: Listen,
    flag: &'static str,
    error: io::Error,
}

impl BindError {
    /// In words, for who listens on `served` already: the port may be taken by one of these.
    pub(super) fn beside(&self, served: &[Listen]) -> String {
        let same_port =
            |a: &SocketAddr, b: &Listen| matches!(b, Listen::Tcp(b) if a.port() == b.port());
        let ours = match &self.listen {
            Listen::Tcp(wanted) if self.error.kind() == io::ErrorKind::AddrInUse => {
                served.iter().find(|held| same_port(wanted, held))
            }
            Listen::Tcp(_) | Listen::Unix(_) => None,
        };
        match ours {
            Some(ours) => format!(
                "{self}, or restart: {} is this program's own, and a reload binds before it lets go",
                words(ours)
            ),
            None => self.to_string(),
        }
    }
}

impl std::error::Error for BindError {}

impl fmt::Display for BindError {
    /// `cannot listen on 0.0.0.0:8080 (--metrics-server, metrics.listen): Address already in use;
    /// choose another address`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            listen,
            flag,
            error,
        } = self;
        write!(f, "cannot listen on {} ({flag}): ", words(listen))?;
        match error.raw_os_error().map(Errno::from_raw) {
            Some(errno) => f.write_str(errno.desc())?,
            None => write!(f, "{error}")?,
        }
        let remedy = match (error.kind(), listen) {
            (io::ErrorKind::AddrInUse, _) => "choose another address",
            (io::ErrorKind::AddrNotAvailable, _) => "no interface of this machine has it",
            (io::ErrorKind::PermissionDenied, Listen::Tcp(_)) => {
                "ports below 1024 need CAP_NET_BIND_SERVICE"
            }
            (io::ErrorKind::PermissionDenied, Listen::Unix(_)) => {
                "the directory must be writable for this user"
            }
            (io::ErrorKind::NotFound, Listen::Unix(_)) => "create the directory",
            _ => return Ok(()),
        };
        write!(f, "; {remedy}")
    }
}

/// `0.0.0.0:8080` or `unix:/path`, as in the configuration.
pub(super) fn words(listen: &Listen) -> impl fmt::Display {
    match listen {
        Listen::Tcp(address) => address.to_string(),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Binds `listen`; `flag` names where the user set it, such as `--metrics-server, metrics.listen`.
/// The file of a Unix socket that nobody listens on any more is replaced.
pub(crate) fn bind(listen: &Listen, flag: &'static str) -> Result<BoundListener, BindError> {
    bind_with_mode(listen, flag, None)
}

/// The same, the file of a Unix socket having `mode` before anybody can connect.
pub(crate) fn bind_with_mode(
    listen: &Listen,
    flag: &'static str,
    mode: Option<u32>,
) -> Result<BoundListener, BindError> {
    let bound = match listen {
        Listen::Tcp(address) => bind_tcp(*address),
        Listen::Unix(path) => bind_unix(path, mode),
    };
    match bound {
        Ok((local, socket)) => Ok(BoundListener {
            listen: listen.clone(),
            local,
            socket,
        }),
        Err(error) => Err(BindError {
            listen: listen.clone(),
            flag,
            error,
        }),
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<(Listen, BoundSocket)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Connections of a predecessor in TIME_WAIT do not keep us from its port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from(socket);
    Ok((
        Listen::Tcp(listener.local_addr()?),
        BoundSocket::Tcp(listener),
    ))
}

fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<(Listen, BoundSocket)> {
    let bind = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        Ok::<_, io::Error>(socket)
    };
    let socket = match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            fs::remove_file(path)?;
            bind()?
        }
        other => other?,
    };
    let file = SocketFile::of(path)?;
    if let Some(mode) = mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from(OwnedFd::from(socket));
    Ok((
        Listen::Unix(path.to_owned()),
        BoundSocket::Unix(listener, Some(file)),
    ))
}

/// A socket that is bound already, by somebody else.
pub(crate) fn adopt(socket: Listening) -> BoundListener {
    let (listen, socket) = match socket {
        Listening::Tcp(socket, address) => (Listen::Tcp(address), BoundSocket::Tcp(socket)),
        Listening::Unix(socket, path) => (
            Listen::Unix(path.unwrap_or_default()),
            BoundSocket::Unix(socket, None),
        ),
    };
    BoundListener {
        local: listen.clone(),
        listen,
        socket,
    }
}

/// Gives the file of a Unix socket that is served another mode. Without one it keeps what it has.
/// Returns what changed, in words.
pub(super) fn set_mode(listen: &Listen, mode: Option<u32>) -> Option<String> {
    let (Listen::Unix(path), Some(mode)) = (listen, mode) else {
        return None;
    };
    let had = fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o7777);
    if had.is_ok_and(|had| had == mode) {
        return None;
    }
    if let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(mode)) {
        tracing::warn!(path = %path.display(), %error, "cannot change the socket's mode");
        return None;
    }
    Some(format!(
        "metrics socket {} has mode {mode:04o}",
        words(listen)
    ))
}

/// Whether `path` is a socket that refuses connections: its listener is gone.
fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    // Without blocking: a full backlog means that somebody listens.
    let refused = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    is_socket && refused().is_err_and(|e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// Removes the socket's file when its listener is closed, unless it is another's by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            inode: (metadata.dev(), metadata.ino()),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).map(|m| (m.dev(), m.ino()) == self.inode);
        if ours.unwrap_or(false)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket's file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAG: &str = "--metrics-server, metrics.listen";

    #[test]
    fn a_bind_error_names_address_flag_and_remedy() {
        let any = Listen::Tcp(([127, 0, 0, 1], 0).into());
        let first = bind(&any, FLAG).expect("a free port");
        let taken = first.local_addr().clone();
        let error = bind(&taken, FLAG).expect_err("taken");
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen on {} (--metrics-server, metrics.listen): Address already in use; \
                 choose another address",
                words(&taken)
            )
        );
        let Listen::Tcp(address) = &taken else {
            panic!("{taken:?}");
        };
        let all = Listen::Tcp(([0, 0, 0, 0], address.port()).into());
        let error = bind(&all, FLAG)
            .expect_err("taken")
            .beside(std::slice::from_ref(&taken));
        let own = format!("; choose another address, or restart: {address} is this program's own");
        assert!(error.contains(&own), "{error}");
        let elsewhere = Listen::Tcp(([192, 0, 2, 1], 9999).into());
        let error = bind(&elsewhere, FLAG).expect_err("not ours");
        assert!(
            error
                .to_string()
                .ends_with("; no interface of this machine has it"),
            "{error}"
        );
    }

    #[test]
    fn a_stale_socket_is_replaced_a_living_one_and_a_file_are_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("metrics.sock");
        let listen = Listen::Unix(path.clone());
        // Left behind by a process that was killed.
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists());
        let bound = bind(&listen, FLAG).expect("the stale file is replaced");
        let error = bind(&listen, FLAG).expect_err("somebody listens");
        assert!(
            error.to_string().contains("metrics.sock (--metrics-server"),
            "{error}"
        );
        drop(bound);
        assert!(!path.exists(), "removed with its listener");
        fs::write(&path, "precious").expect("written");
        bind(&listen, FLAG).expect_err("not a socket");
        assert_eq!(fs::read_to_string(&path).expect("kept"), "precious");
    }
}
