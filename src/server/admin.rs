//! The metrics listener: `/metrics`, `/healthz`, `/readyz`, `/api/v1/targets`, `POST /-/reload`.
//!
//! It runs on its own thread with its own runtime, so that no scrape delays a ping, and it is built
//! to be left open to a network: heads, connections, time and texts in memory are all bounded. TLS,
//! client certificates and passwords close it to those who have none.

mod access;
mod auth;
mod connections;
mod first;
mod gather;
mod listen;
mod query;
mod routes;

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use access::Access;
pub(crate) use connections::Limits;
pub(crate) use listen::{BindError, BoundListener, adopt, bind, bind_with_mode};

use crate::config::{Listen, Metrics};
use crate::reload::ReloadSender;
use crate::server::tls::TlsFiles;
use crate::stats::Registry;
use connections::{Connections, Entry, Watched};
use first::{Begun, begun};
use listen::{BoundSocket, SocketFile, words};
use routes::Routes;

/// One for each of the two texts, one for passwords, one for the files of TLS: none of them waits
/// for another.
const BLOCKING_THREADS: usize = 4;

/// Waits after an accept that failed: the first, and the longest.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Whether `/readyz` says yes: the configuration is applied and every listener bound, and the
/// program is not draining.
#[derive(Debug, Default)]
pub(crate) struct Readiness(AtomicBool);

impl Readiness {
    /// Not ready yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.0.store(ready, Relaxed);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The running metrics listener. Dropped without [`Admin::shutdown`], it stops without waiting for
/// requests under way.
#[derive(Debug)]
pub(crate) struct Admin {
    shared: Arc<Shared>,
    served: Mutex<Vec<Served>>,
    runtime: Handle,
    /// Ends the thread, requests under way or not.
    end: CancellationToken,
    ended: mpsc::Receiver<()>,
}

/// A listener that is being served.
#[derive(Debug)]
struct Served {
    /// As the configuration has it.
    listen: Listen,
    local: Listen,
    stop: CancellationToken,
}

/// What every connection needs.
#[derive(Debug)]
struct Shared {
    routes: Routes,
    registry: Arc<Registry>,
    connections: Arc<Connections>,
    limits: Limits,
    tasks: TaskTracker,
}

/// Listeners bound for a reload, and who may ask them; not yet swapped in. Dropped, they change
/// nothing.
#[derive(Debug)]
pub(crate) struct ListenerChange {
    wanted: Vec<Listen>,
    bound: Vec<BoundListener>,
    socket_mode: Option<u32>,
    access: Arc<Access>,
}

/// Serves `listeners` on a thread of their own, to everybody. `reload` is where `POST /-/reload`
/// goes; without it the path is not found.
pub(crate) fn start(
    listeners: Vec<BoundListener>,
    registry: Arc<Registry>,
    readiness: Arc<Readiness>,
    reload: Option<ReloadSender>,
) -> io::Result<Admin> {
    let routes = (registry, readiness, reload);
    start_with(listeners, Access::open(), routes, Limits::default())
}

/// As [`start`], for those whom `access` admits, and without `POST /-/reload`.
pub(crate) fn start_for(
    access: Arc<Access>,
    listeners: Vec<BoundListener>,
    registry: Arc<Registry>,
    readiness: Arc<Readiness>,
) -> io::Result<Admin> {
    let routes = (registry, readiness, None);
    start_with(listeners, access, routes, Limits::default())
}

fn start_with(
    listeners: Vec<BoundListener>,
    access: Arc<Access>,
    (registry, readiness, reload): (Arc<Registry>, Arc<Readiness>, Option<ReloadSender>),
    limits: Limits,
) -> io::Result<Admin> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("metrics-work")
        .thread_keep_alive(Duration::from_secs(5))
        .build()?;
    let connections = Arc::new(Connections::default());
    let routes = Routes::new(registry.clone(), readiness, reload, connections.clone());
    routes.set_access(access);
    let shared = Arc::new(Shared {
        routes,
        registry,
        connections,
        limits,
        tasks: TaskTracker::new(),
    });
    let end = CancellationToken::new();
    let (has_ended, ended) = mpsc::channel();
    let admin = Admin {
        shared,
        served: Mutex::default(),
        runtime: runtime.handle().clone(),
        end: end.clone(),
        ended,
    };
    for listener in listeners {
        admin.serve(listener)?;
    }
    std::thread::Builder::new()
        .name("metrics".into())
        .spawn(move || {
            runtime.block_on(end.cancelled());
            // A gather under way is left to itself.
            runtime.shutdown_background();
            // Nobody may wait for it any more.
            let _ = has_ended.send(());
        })?;
    Ok(admin)
}

impl Admin {
    /// The first half of a reload: binds what `wanted` has and we have not, and reads the files of
    /// its TLS. Fails with nothing changed, in one line.
    pub(crate) fn prepare(
        &self,
        wanted: &Metrics,
        flag: &'static str,
    ) -> Result<ListenerChange, String> {
        let served = self.listens();
        let new = wanted.listen.iter();
        let new = new.filter(|listen| !served.contains(listen));
        let bound = new
            .map(|listen| {
                let bound = bind_with_mode(listen, flag, wanted.socket_mode);
                bound.map_err(|error| error.beside(&served))
            })
            .collect::<Result<_, _>>()?;
        Ok(ListenerChange {
            wanted: wanted.listen.clone(),
            bound,
            socket_mode: wanted.socket_mode,
            access: self.shared.routes.access().changed_to(&wanted.access)?,
        })
    }

    /// The second half: serves the new listeners and closes those no longer wanted; unchanged
    /// ones are kept. Who may ask is another from the next request on; connections end if TLS is
    /// another. Returns what changed, in words. An error names a listener that was bound and
    /// cannot be served, which takes a process out of file descriptors.
    pub(crate) fn commit(&self, change: ListenerChange) -> io::Result<Vec<String>> {
        let mut changes = Vec::new();
        // First, so that no listener serves as before what was opened for this.
        let before = self.shared.routes.set_access(change.access.clone());
        if let Some(words) = before.changes(&change.access) {
            changes.push(words);
        }
        for listener in change.bound {
            let local = words(&listener.local).to_string();
            if let Err(error) = self.serve(listener) {
                // Who is served as before is asked as before.
                self.shared.routes.set_access(before);
                return Err(error);
            }
            changes.push(format!("metrics listener {local} opened"));
        }
        self.served().retain(|served| {
            let kept = change.wanted.contains(&served.listen);
            if !kept {
                served.stop.cancel();
                changes.push(format!("metrics listener {} closed", words(&served.local)));
            }
            kept
        });
        for served in self.served().iter() {
            changes.extend(listen::set_mode(&served.local, change.socket_mode));
        }
        if !before.shares_tls_with(&change.access) {
            before.retired.cancel();
        }
        Ok(changes)
    }

    /// Answers `POST /-/reload` from now on, or no longer.
    pub(crate) fn set_reload(&self, reload: Option<ReloadSender>) {
        self.shared.routes.set_reload(reload);
    }

    /// What is listened on, as it was asked for.
    pub(crate) fn listens(&self) -> Vec<Listen> {
        self.served().iter().map(|s| s.listen.clone()).collect()
    }

    /// Whether TLS is spoken.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.shared.routes.access().tls.is_some()
    }

    /// What is listened on, with the ports that were assigned.
    pub(crate) fn local_addrs(&self) -> Vec<Listen> {
        self.served().iter().map(|s| s.local.clone()).collect()
    }

    /// Stops listening, lets requests under way finish until `deadline` has passed, and ends the
    /// thread. Blocks up to `deadline`: on an I/O thread use `spawn_blocking`.
    pub(crate) fn shutdown(self, deadline: Duration) {
        for served in self.served().drain(..) {
            served.stop.cancel();
        }
        let tasks = self.shared.tasks.clone();
        let end = self.end.clone();
        tasks.close();
        self.runtime.spawn(async move {
            let drained = tokio::time::timeout(deadline, tasks.wait()).await;
            if drained.is_err() {
                tracing::warn!(
                    connections = tasks.len(),
                    "metrics requests cut at shutdown"
                );
            }
            end.cancel();
        });
        // The thread's own deadline is the same; a little more for it to end.
        let patience = deadline + Duration::from_millis(500);
        if self.ended.recv_timeout(patience).is_err() {
            tracing::warn!("the metrics thread did not end in time");
        }
    }

    fn serve(&self, listener: BoundListener) -> io::Result<()> {
        let BoundListener {
            listen,
            local,
            socket,
        } = listener;
        let stop = CancellationToken::new();
        let (shared, tasks) = (self.shared.clone(), &self.shared.tasks);
        // Registers the socket with the metrics thread's runtime.
        let _runtime = self.runtime.enter();
        match socket {
            BoundSocket::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                let accept = accept(listener, shared, stop.clone());
                tasks.spawn_on(accept, &self.runtime);
            }
            BoundSocket::Unix(listener, file) => {
                let listener = UnixListener::from_std(listener)?;
                let accept = accept((listener, file), shared, stop.clone());
                tasks.spawn_on(accept, &self.runtime);
            }
        }
        self.served().push(Served {
            listen,
            local,
            stop,
        });
        Ok(())
    }

    fn served(&self) -> MutexGuard<'_, Vec<Served>> {
        // Every change is complete in itself.
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// What the accept loop accepts from.
trait Listener: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and where it comes from: of a unix socket nowhere.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<IpAddr>)>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Option<IpAddr>)> {
        let (stream, from) = self.accept().await?;
        // An answer's last segment must not wait for an acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a metrics connection was gone before it was served");
        }
        Ok((stream, Some(from.ip())))
    }
}

/// The socket's file lives as long as its listener.
impl Listener for (UnixListener, Option<SocketFile>) {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Option<IpAddr>)> {
        Ok((self.0.accept().await?.0, None))
    }
}

async fn accept(listener: impl Listener, shared: Arc<Shared>, stop: CancellationToken) {
    let (shortest, longest) = ACCEPT_BACKOFF;
    let mut wait = shortest;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.next() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                wait = shortest;
                let connection = Connection {
                    entry: shared.connections.enter(shared.limits.connections),
                    access: shared.routes.access(),
                    from,
                    shared: shared.clone(),
                    stop: stop.clone(),
                };
                shared.tasks.spawn(connection.serve(stream));
            }
            // The client's doing: the listener is well.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                shared.registry.accept_errors.fetch_add(1, Relaxed);
                if wait == shortest {
                    tracing::warn!(%error, "cannot accept a metrics connection");
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(longest);
            }
        }
    }
}

/// One connection, and whose it is.
struct Connection {
    entry: Entry,
    /// As it was when the connection was made: by this TLS it is spoken.
    access: Arc<Access>,
    from: Option<IpAddr>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Connection {
    async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.access.tls.clone() {
            None => self.answer(stream).await,
            Some(tls) => {
                if let Some(stream) = self.secured(stream, &tls).await {
                    self.answer(stream).await;
                }
            }
        }
    }

    /// Shakes hands, within the time there is for the first request's head.
    async fn secured<S>(&self, stream: S, tls: &Arc<TlsFiles>) -> Option<TlsStream<Begun<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = &self.entry.activity;
        let agreed = async {
            let Some(stream) = begun(stream).await? else {
                return Err(io::Error::other("it speaks HTTP"));
            };
            let config = tls.current("metrics").await;
            TlsAcceptor::from(config).accept(stream).await
        };
        tokio::select! {
            agreed = Box::pin(agreed) => match agreed {
                Ok(stream) => return Some(stream),
                // HTTP, a certificate that is not taken, a port scan: the client's affair.
                Err(error) => tracing::debug!(%error, "a metrics client came to no TLS"),
            },
            () = tokio::time::sleep_until(activity.deadline(&self.shared.limits)) => {
                tracing::debug!("a metrics connection was cut: no TLS handshake in time");
            }
            () = activity.evicted.cancelled() => {
                tracing::debug!("a metrics connection made room for another");
            }
            () = self.stopped() => {}
        }
        None
    }

    /// The listener closes, or speaks another TLS.
    async fn stopped(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.access.retired.cancelled() => {}
        }
    }

    /// Answers requests until it ends, is too slow, or is evicted.
    async fn answer<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (shared, from) = (&self.shared, self.from);
        let activity = self.entry.activity.clone();
        let stream = Watched {
            stream,
            activity: activity.clone(),
        };
        let service = service_fn(|request| shared.routes.answer(request, activity.clone(), from));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // hyper's own clock for heads also runs between requests; ours does not.
            .header_read_timeout(None)
            .max_buf_size(shared.limits.head_bytes)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let mut evicted = pin!(activity.evicted.cancelled());
        let mut stopped = pin!(self.stopped());
        let mut draining = false;
        let mut deadline = activity.deadline(&shared.limits);
        let mut timer = pin!(tokio::time::sleep_until(deadline));
        poll_fn(|cx| {
            if !draining && stopped.as_mut().poll(cx).is_ready() {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a metrics connection ended badly");
                }
                return Poll::Ready(());
            }
            if evicted.as_mut().poll(cx).is_ready() {
                tracing::debug!("a metrics connection made room for another");
                return Poll::Ready(());
            }
            // What it is doing changes only while it is polled, just above.
            let due = activity.deadline(&shared.limits);
            if due != deadline {
                deadline = due;
                timer.as_mut().reset(due);
            }
            timer.as_mut().poll(cx).map(|()| {
                tracing::debug!("a metrics connection was cut: {}", activity.doing());
            })
        })
        .await;
    }
}

#[cfg(test)]
mod tests;
