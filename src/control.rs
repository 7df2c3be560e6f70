//! The control socket: `ws-keepalive reload` and `status` ask the running daemon.
//!
//! One line of JSON is asked, one is answered, and the connection is over. Only the daemon's own
//! user and root may connect.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use crate::os;
use crate::reload::{Changes, ReloadRequest, ReloadSender, Trigger};
use crate::stats::Registry;
use crate::telemetry::targets_json::{self, TargetsJson};

/// Where the socket is if `$RUNTIME_DIRECTORY` does not say.
const DEFAULT_DIRECTORY: &str = "/run/ws-keepalive";

/// A request is one short line.
const MAX_REQUEST: u64 = 4 * 1024;

/// For the request to come.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// For a reload to be decided, the queue before it included.
const RELOAD_TIME: Duration = Duration::from_secs(60);

/// For the answer to be taken.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Connections at once; more are closed.
const MAX_CONNECTIONS: usize = 16;

/// The largest answer a client reads: 20 ends of 1 KB each for 50,000 targets.
const MAX_ANSWER: u64 = 1 << 30;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub(crate) enum Command {
    Reload,
    Status,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// The reload was applied.
    Changes(Changes),
    /// The reload was refused: every mistake, one to a line.
    Refused(String),
    Status(TargetsJson),
    /// The question was not understood, or could not be dealt with.
    Error(String),
}

/// `$RUNTIME_DIRECTORY/control.sock`, or the same below `/run/ws-keepalive`.
pub(crate) fn default_path() -> PathBuf {
    let directory = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
    // systemd separates several directories by colons.
    let first = directory.to_str().and_then(|list| list.split(':').next());
    let directory = first.filter(|dir| !dir.is_empty());
    Path::new(directory.unwrap_or(DEFAULT_DIRECTORY)).join("control.sock")
}

/// The control socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {} (control.socket): {why}", path.display())]
pub(crate) struct BindError {
    path: PathBuf,
    why: String,
}

/// A socket that is bound and not yet served. Removed from the file system when dropped.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: std::os::unix::net::UnixListener,
    file: SocketFile,
}

/// Binds `path`, mode 0600. A socket nobody answers on any more is replaced.
pub(crate) fn bind(path: &Path) -> Result<Bound, BindError> {
    let failed = |why: String| BindError {
        path: path.to_owned(),
        why,
    };
    let bound = match listen(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path).map_err(failed)?;
            listen(path)
        }
        other => other,
    };
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            failed(format!("{}; its directory has to exist", os::words(&error)))
        }
        _ => failed(os::words(&error)),
    })
}

fn listen(path: &Path) -> io::Result<Bound> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        id: (metadata.dev(), metadata.ino()),
    };
    // Before listen: until then nobody can connect, whatever the umask left open.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(64)?;
    socket.set_nonblocking(true)?;
    let listener = OwnedFd::from(socket).into();
    Ok(Bound { listener, file })
}

/// Removes what is at `path` if it is a socket nobody answers on.
fn remove_stale(path: &Path) -> Result<(), String> {
    let metadata = fs::symlink_metadata(path).map_err(|error| os::words(&error))?;
    if !metadata.file_type().is_socket() {
        return Err("there is a file that is no socket".to_owned());
    }
    let probe = || -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A full backlog is an answer, too: do not wait.
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    match probe() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| format!("cannot remove the stale socket: {}", os::words(&error))),
        _ => Err("another process answers on it".to_owned()),
    }
}

/// Removes the socket's file when dropped, unless another took its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino()) == self.id;
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| ours(&metadata)) {
            // What cannot be removed is found stale by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The served socket; closed and removed when dropped.
#[derive(Debug)]
pub(crate) struct ControlServer {
    file: SocketFile,
    _cancel: DropGuard,
}

impl ControlServer {
    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }
}

/// Serves `bound` on the runtime this is called on.
pub(crate) fn start(
    bound: Bound,
    registry: Arc<Registry>,
    reload: ReloadSender,
) -> io::Result<ControlServer> {
    let listener = UnixListener::from_std(bound.listener)?;
    let cancel = CancellationToken::new();
    let served = serve(listener, registry, reload);
    tokio::spawn(cancel.clone().run_until_cancelled_owned(served));
    Ok(ControlServer {
        file: bound.file,
        _cancel: cancel.drop_guard(),
    })
}

async fn serve(listener: UnixListener, registry: Arc<Registry>, reload: ReloadSender) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Mostly a want of file descriptors, which lasts: no hot loop.
                let error = os::words(&error);
                warn!(error, "cannot accept a connection on the control socket");
                sleep(Duration::from_millis(500)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let (registry, reload) = (registry.clone(), reload.clone());
        // Outlives the listener: the reload that is asked for here may be what closes it. Each
        // wait in it has its own deadline.
        tokio::spawn(async move {
            // A client that went away is its own affair.
            let _ = converse(stream, registry, reload).await;
            drop(place);
        });
    }
}

async fn converse(
    mut stream: UnixStream,
    registry: Arc<Registry>,
    reload: ReloadSender,
) -> io::Result<()> {
    let line = match timeout(REQUEST_TIME, read_line(&mut stream)).await {
        Ok(line) => line?,
        Err(_) => return Ok(()),
    };
    let answer = match serde_json::from_slice(&line) {
        Ok(Command::Reload) => {
            let outcome = timeout(RELOAD_TIME, ask_for_reload(&reload)).await;
            outcome.unwrap_or_else(|_| Answer::Error("the reload takes too long".to_owned()))
        }
        // Large, and made from locks and strings: not on the thread that pings.
        Ok(Command::Status) => {
            let status = move || Answer::Status(targets_json::targets(&registry));
            return write_answer(&mut stream, status).await;
        }
        Err(error) => Answer::Error(format!("not understood: {error}")),
    };
    write_answer(&mut stream, || answer).await
}

/// A line, or as much of one as is allowed.
async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut reader = tokio::io::BufReader::new(stream).take(MAX_REQUEST);
    reader.read_until(b'\n', &mut line).await?;
    Ok(line)
}

async fn ask_for_reload(reload: &ReloadSender) -> Answer {
    let (reply, outcome) = oneshot::channel();
    let request = ReloadRequest {
        trigger: Trigger::Control,
        reply: Some(reply),
    };
    let stopping = || Answer::Error("the daemon is stopping".to_owned());
    if reload.send(request).await.is_err() {
        return stopping();
    }
    match outcome.await {
        Ok(Ok(changes)) => Answer::Changes(changes),
        Ok(Err(mistakes)) => Answer::Refused(mistakes),
        Err(_) => stopping(),
    }
}

async fn write_answer(
    stream: &mut UnixStream,
    answer: impl FnOnce() -> Answer + Send + 'static,
) -> io::Result<()> {
    let line = tokio::task::spawn_blocking(move || {
        let mut line = serde_json::to_vec(&answer())?;
        line.push(b'\n');
        io::Result::Ok(line)
    });
    let line = line.await??;
    timeout(ANSWER_TIME, stream.write_all(&line)).await?
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody listens there.
    #[error("nobody answers on {}: {}", path.display(), os::words(source))]
    Nobody { path: PathBuf, source: io::Error },
    /// Somebody listened, and the conversation broke off.
    #[error("no answer on {}: {}", path.display(), os::words(source))]
    Broken { path: PathBuf, source: io::Error },
}

/// Asks the daemon on `path`. Blocks until it has answered, for about a minute at most.
pub(crate) fn ask(path: &Path, command: Command) -> Result<Answer, AskError> {
    let stream = StdUnixStream::connect(path).map_err(|source| AskError::Nobody {
        path: path.to_owned(),
        source,
    })?;
    converse_blocking(stream, command).map_err(|source| AskError::Broken {
        path: path.to_owned(),
        source,
    })
}

fn converse_blocking(mut stream: StdUnixStream, command: Command) -> io::Result<Answer> {
    stream.set_write_timeout(Some(REQUEST_TIME))?;
    stream.set_read_timeout(Some(RELOAD_TIME + REQUEST_TIME))?;
    let mut line = serde_json::to_vec(&command)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_until(b'\n', &mut answer)?;
    if answer.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn socket() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        (dir, path)
    }

    fn served(path: &Path) -> (ControlServer, mpsc::Receiver<ReloadRequest>) {
        let (reload, requests) = mpsc::channel(4);
        let server = start(bind(path).unwrap(), Registry::new(), reload).unwrap();
        (server, requests)
    }

    async fn ask_from_outside(path: &Path, command: Command) -> Result<Answer, AskError> {
        let path = path.to_owned();
        let asking = tokio::task::spawn_blocking(move || ask(&path, command));
        asking.await.unwrap()
    }

    #[tokio::test]
    async fn a_reload_waits_for_its_outcome() {
        let (_dir, path) = socket();
        let (_server, mut requests) = served(&path);
        for outcome in [Ok(Changes::default()), Err("a mistake".to_owned())] {
            let reloading = async {
                let request = requests.recv().await.unwrap();
                assert_eq!(request.trigger, Trigger::Control);
                request.reply.unwrap().send(outcome.clone()).unwrap();
            };
            let (answer, ()) = tokio::join!(ask_from_outside(&path, Command::Reload), reloading);
            match (answer.unwrap(), outcome) {
                (Answer::Changes(changes), Ok(expected)) => assert_eq!(changes, expected),
                (Answer::Refused(mistakes), Err(expected)) => assert_eq!(mistakes, expected),
                (answer, outcome) => panic!("{answer:?} for {outcome:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_reload_that_closes_the_socket_is_answered_on_it() {
        let (_dir, path) = socket();
        let (server, mut requests) = served(&path);
        let reloading = async move {
            let request = requests.recv().await.unwrap();
            drop(server);
            // Whoever is to notice the end of the server has had the time to.
            tokio::task::yield_now().await;
            request.reply.unwrap().send(Ok(Changes::default())).unwrap();
        };
        let (answer, ()) = tokio::join!(ask_from_outside(&path, Command::Reload), reloading);
        assert!(matches!(answer.unwrap(), Answer::Changes(_)));
    }

    #[tokio::test]
    async fn status_is_answered_and_nonsense_is_refused() {
        let (_dir, path) = socket();
        let (_server, _requests) = served(&path);
        let answer = ask_from_outside(&path, Command::Status).await.unwrap();
        assert!(matches!(answer, Answer::Status(_)), "{answer:?}");

        for nonsense in ["{\"command\":\"dance\"}\n".to_owned(), "x".repeat(5000)] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(nonsense.as_bytes()).await.unwrap();
            let mut answer = String::new();
            // The unread rest of an oversized line resets the connection after the answer.
            let _ = stream.read_to_string(&mut answer).await;
            assert!(
                answer.starts_with("{\"error\":\"not understood"),
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn only_the_owner_may_connect() {
        let (_dir, path) = socket();
        let (_server, _requests) = served(&path);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn connections_are_bounded() {
        let (_dir, path) = socket();
        let (_server, _requests) = served(&path);
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            idle.push(UnixStream::connect(&path).await.unwrap());
        }
        let mut one_more = UnixStream::connect(&path).await.unwrap();
        let mut byte = [0];
        let closed = timeout(REQUEST_TIME / 2, one_more.read(&mut byte)).await;
        assert_eq!(closed.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let (_dir, path) = socket();
        // As a killed process leaves it: bound, and nobody there.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (server, _requests) = served(&path);
        let error = bind(&path).unwrap_err().to_string();
        assert!(error.ends_with("another process answers on it"), "{error}");
        drop(server);
        assert!(!path.exists());

        fs::write(&path, "precious").unwrap();
        let error = bind(&path).unwrap_err().to_string();
        assert!(error.ends_with("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn nobody_there_is_said_with_the_path() {
        let (_dir, path) = socket();
        let error = ask(&path, Command::Status).unwrap_err();
        assert!(matches!(error, AskError::Nobody { .. }));
        assert!(error.to_string().contains("control.sock"));
    }
}
