//! What the daemon listens on and pushes to, and how a reload changes it: bind first, swap then.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::config::{self, Config, Listen};
use crate::control::{self, ControlServer};
use crate::os;
use crate::otlp::Exporter;
use crate::otlp::spans::Traces;
use crate::reload::ReloadSender;
use crate::server::admin::{self, Access, Admin, ListenerChange, Readiness};
use crate::server::listener::Listener;
use crate::server::peer;
use crate::server::tls::TlsFiles;
use crate::stats::Registry;
use crate::systemd::{Listening, Passed};

/// Where the address of the metrics listener was set.
const METRICS_FLAG: &str = "--metrics-server, metrics.listen";

/// Connections the kernel accepts before we do: a thousand clients come back at once.
const BACKLOG: i32 = 4096;

/// For requests under way on the metrics listener, once everything else has ended.
const METRICS_DRAIN: Duration = Duration::from_secs(1);

/// The embedded listener may take this much longer than its `close_timeout` to end.
const DRAIN_MARGIN: Duration = Duration::from_secs(1);

/// Everything that is listened on, and what is pushed.
pub(super) struct Listeners {
    registry: Arc<Registry>,
    readiness: Arc<Readiness>,
    reload: ReloadSender,
    /// What the service manager opened, in the place of what the configuration says.
    passed: Passed,
    metrics: Option<Admin>,
    peer: Option<Peer>,
    control: Option<ControlServer>,
    exporter: Exporter,
}

/// The embedded listener.
struct Peer {
    config: Arc<config::Server>,
    /// A second handle of the socket, so that a change of settings on the same address leaves
    /// no moment in which nobody listens.
    socket: Listening,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// Bound and not yet swapped in; dropped, it changes nothing.
pub(super) struct Change {
    metrics: MetricsChange,
    reload_by_http: bool,
    peer: PeerChange,
    control: ControlChange,
    otlp: Option<Arc<config::Otlp>>,
}

enum MetricsChange {
    Start(Admin),
    Change(ListenerChange),
    Stop,
}

enum PeerChange {
    Keep,
    Start {
        config: Arc<config::Server>,
        tls: Option<Arc<TlsFiles>>,
        socket: Listening,
        listener: Listener,
    },
    Stop,
}

enum ControlChange {
    Keep,
    Start(ControlServer),
    Stop,
}

impl Listeners {
    /// Listens on nothing yet.
    pub(super) fn new(
        registry: Arc<Registry>,
        readiness: Arc<Readiness>,
        reload: ReloadSender,
        passed: Passed,
        traces: Arc<Traces>,
    ) -> Self {
        Self {
            exporter: Exporter::new(registry.clone(), traces),
            registry,
            readiness,
            reload,
            passed,
            metrics: None,
            peer: None,
            control: None,
        }
    }

    /// Binds what `config` wants and is not bound yet. Fails with nothing changed. Needs the
    /// runtime.
    pub(super) fn prepare(&self, config: &Config) -> Result<Change, String> {
        let peer = self.prepare_peer(config.server.as_ref())?;
        let control = self.prepare_control(config.control.as_deref())?;
        // Last, because a new metrics listener answers from here on.
        let metrics = self.prepare_metrics(&config.metrics)?;
        Ok(Change {
            metrics,
            reload_by_http: config.metrics.reload,
            peer,
            control,
            otlp: config.otlp.clone(),
        })
    }

    fn prepare_metrics(&self, config: &config::Metrics) -> Result<MetricsChange, String> {
        let words = |error: admin::BindError| os::with_causes(&error);
        match &self.metrics {
            _ if !config.enabled => Ok(MetricsChange::Stop),
            // Passed sockets are served from the first moment on, and are not ours to change: only
            // who may ask is.
            Some(metrics) => {
                let passed = (!self.passed.metrics.is_empty()).then(|| config::Metrics {
                    listen: metrics.listens(),
                    socket_mode: None,
                    ..config.clone()
                });
                let change = metrics.prepare(passed.as_ref().unwrap_or(config), METRICS_FLAG);
                let change = change.map_err(|error| os::words(&error))?;
                Ok(MetricsChange::Change(change))
            }
            None => {
                let access = Access::new(&config.access)?;
                let mode = config.socket_mode;
                let bind =
                    |listen| admin::bind_with_mode(listen, METRICS_FLAG, mode).map_err(words);
                let bound: Result<Vec<_>, _> = match &self.passed.metrics[..] {
                    [] => config.listen.iter().map(bind).collect(),
                    passed => passed.iter().map(adopt).collect(),
                };
                let (registry, readiness) = (self.registry.clone(), self.readiness.clone());
                let started = admin::start_for(access, bound?, registry, readiness);
                let failed =
                    |error| format!("cannot start the metrics listener: {}", os::words(&error));
                Ok(MetricsChange::Start(started.map_err(failed)?))
            }
        }
    }

    fn prepare_peer(&self, config: Option<&config::Server>) -> Result<PeerChange, String> {
        let Some(config) = config else {
            return Ok(PeerChange::Stop);
        };
        let unchanged = |peer: &Peer| match &self.passed.server {
            // `listen` means nothing where the socket is passed.
            Some(_) => {
                let listen = peer.config.listen;
                let wanted = config::Server {
                    listen,
                    ..config.clone()
                };
                *peer.config == wanted
            }
            None => *peer.config == *config,
        };
        if self.peer.as_ref().is_some_and(unchanged) {
            return Ok(PeerChange::Keep);
        }
        let tls = config.tls.as_ref().map(TlsFiles::load).transpose();
        let tls = tls.map_err(|why| format!("cannot serve TLS (server.tls): {why}"))?;
        if let (Some(socket @ Listening::Unix(..)), Some(_)) = (&self.passed.server, &tls) {
            return Err(format!(
                "cannot serve TLS (server.tls) on {socket}, which the service manager passed; pass \
                 a TCP socket, or take the table out"
            ));
        }
        let same_address = self.peer.as_ref();
        let same_address = same_address.filter(|peer| peer.config.listen == config.listen);
        let bound = match (&self.passed.server, same_address) {
            (Some(passed), _) => passed.try_clone(),
            (None, Some(peer)) => peer.socket.try_clone(),
            (None, None) => listen(config.listen),
        };
        let listener = bound.and_then(|socket| {
            let listener = Listener::try_from(socket.try_clone()?)?;
            Ok((socket, listener))
        });
        let (socket, listener) = listener.map_err(|error| {
            let (listen, why) = (config.listen, os::words(&error));
            let ours = self.peer.as_ref().map(|peer| peer.config.listen);
            let remedy = match ours.filter(|ours| ours.port() == listen.port()) {
                Some(ours) => format!(
                    "choose another address, or restart: {ours} is this program's own, and a reload \
                     binds before it lets go"
                ),
                None => "choose another address".to_owned(),
            };
            format!("cannot listen on {listen} (server.listen): {why}; {remedy}")
        })?;
        Ok(PeerChange::Start {
            config: Arc::new(config.clone()),
            tls: tls.map(Arc::new),
            socket,
            listener,
        })
    }

    fn prepare_control(&self, path: Option<&Path>) -> Result<ControlChange, String> {
        let Some(path) = path else {
            return Ok(ControlChange::Stop);
        };
        let kept = self.control.as_ref();
        if kept.is_some_and(|control| control.path() == path) {
            return Ok(ControlChange::Keep);
        }
        let bound = control::bind(path).map_err(|error| os::with_causes(&error))?;
        let started = control::start(bound, self.registry.clone(), self.reload.clone());
        let failed = |error| format!("cannot start the control socket: {}", os::words(&error));
        Ok(ControlChange::Start(started.map_err(failed)?))
    }

    /// Swaps in what was prepared. Returns what changed, in words. Fails, with what is wanted
    /// already still served, for want of file descriptors.
    pub(super) fn commit(&mut self, change: Change) -> Result<Vec<String>, String> {
        let mut words = self.commit_metrics(change.metrics)?;
        if let Some(metrics) = &self.metrics {
            let reload = change.reload_by_http.then(|| self.reload.clone());
            metrics.set_reload(reload);
        }
        words.extend(self.commit_peer(change.peer));
        words.extend(self.commit_control(change.control));
        words.extend(self.exporter.apply(change.otlp.as_ref())?);
        Ok(words)
    }

    fn commit_metrics(&mut self, change: MetricsChange) -> Result<Vec<String>, String> {
        match (change, self.metrics.take()) {
            (MetricsChange::Start(started), _) => {
                self.metrics = Some(started);
                Ok(vec!["metrics listener opened".to_owned()])
            }
            (MetricsChange::Change(change), Some(metrics)) => {
                let words = metrics
                    .commit(change)
                    .map_err(|error| os::with_causes(&error));
                self.metrics = Some(metrics);
                words
            }
            (MetricsChange::Stop, Some(metrics)) => {
                // It blocks while requests are under way, and nobody waits for its end.
                tokio::task::spawn_blocking(move || metrics.shutdown(METRICS_DRAIN));
                Ok(vec!["metrics listener closed".to_owned()])
            }
            (MetricsChange::Change(_) | MetricsChange::Stop, None) => Ok(Vec::new()),
        }
    }

    fn commit_peer(&mut self, change: PeerChange) -> Option<String> {
        let (config, tls, socket, listener) = match change {
            PeerChange::Keep => return None,
            PeerChange::Stop => {
                let peer = self.peer.take()?;
                peer.shutdown.cancel();
                return Some(format!("server on {} stopped", peer.socket));
            }
            PeerChange::Start {
                config,
                tls,
                socket,
                listener,
            } => (config, tls, socket, listener),
        };
        let before = self.peer.take().map(|peer| {
            peer.shutdown.cancel();
            peer.task
        });
        let how = if before.is_some() {
            "restarted"
        } else {
            "opened"
        };
        // With the port that was assigned, where port 0 was asked for. A restart closes its connections, whose clients have to be told from those of a crash.
        let words = format!("server {how} on {socket}");
        let shutdown = CancellationToken::new();
        let (registry, served) = (self.registry.clone(), config.clone());
        let told = shutdown.clone();
        let task = tokio::spawn(async move {
            // Two of one name at a time would be two series of one name; until the old one has
            // drained, new clients wait in the kernel's queue.
            if let Some(before) = before {
                ended(before.await);
            }
            let stats = registry.listener(&served.name);
            peer::serve(listener, served, tls, stats, told).await;
        });
        self.peer = Some(Peer {
            config,
            socket,
            shutdown,
            task,
        });
        Some(words)
    }

    fn commit_control(&mut self, change: ControlChange) -> Option<String> {
        match change {
            ControlChange::Keep => None,
            ControlChange::Start(control) => {
                let words = format!("control socket {}", control.path().display());
                self.control = Some(control);
                Some(words)
            }
            ControlChange::Stop => {
                let control = self.control.take()?;
                Some(format!(
                    "control socket {} closed",
                    control.path().display()
                ))
            }
        }
    }

    /// What is listened on, one phrase each.
    pub(super) fn in_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.metrics.iter().flat_map(metrics_in_words));
        if let Some(peer) = &self.peer {
            let address = &peer.socket;
            let scheme = if peer.config.tls.is_some() {
                "wss"
            } else {
                "ws"
            };
            words.push(match address {
                Listening::Tcp(_, address) => format!("server on {scheme}://{address}"),
                Listening::Unix(..) => format!("server on {address}"),
            });
        }
        if let Some(control) = &self.control {
            words.push(format!("control socket {}", control.path().display()));
        }
        words
    }

    /// What is pushed where, in one phrase.
    pub(super) fn pushed_in_words(&self) -> Option<String> {
        self.exporter.in_words()
    }

    /// Says which passed sockets nobody serves: their clients would wait for ever.
    pub(super) fn warn_of_unserved(&self) {
        for socket in self
            .passed
            .metrics
            .iter()
            .filter(|_| self.metrics.is_none())
        {
            warn!(
                event = "socket_unused",
                "nobody answers on {socket}, the socket `metrics` of the service manager: \
                 metrics.enabled is false"
            );
        }
        if let (Some(socket), None) = (&self.passed.server, &self.peer) {
            warn!(
                event = "socket_unused",
                "nobody answers on {socket}, the socket `server` of the service manager: the \
                 configuration has no [server] table"
            );
        }
    }

    /// How long closing may take, beside the targets.
    pub(super) fn longest_drain(&self) -> Duration {
        let peer = self.peer.as_ref();
        let peer = peer.map(|peer| peer.config.close_timeout + DRAIN_MARGIN);
        peer.unwrap_or_default() + self.exporter.longest_end() + METRICS_DRAIN
    }

    /// Everything is about to be closed.
    pub(super) fn begin_drain(&self) {
        self.exporter.keep_for_the_last();
    }

    /// Closes every connection of the embedded listener with 1000 and waits for the replies.
    pub(super) async fn drain_peer(&mut self) {
        let Some(peer) = self.peer.take() else {
            return;
        };
        peer.shutdown.cancel();
        let limit = peer.config.close_timeout + DRAIN_MARGIN;
        match timeout(limit, peer.task).await {
            Ok(result) => ended(result),
            Err(_) => warn!("the server's clients did not close in time"),
        }
    }

    /// Ends what was kept for the operator to look at while the connections closed.
    pub(super) async fn shutdown(&mut self) {
        self.control = None;
        self.exporter.shutdown().await;
        if let Some(metrics) = self.metrics.take() {
            let ending = tokio::task::spawn_blocking(move || metrics.shutdown(METRICS_DRAIN));
            if ending.await.is_err() {
                warn!("the metrics listener ended badly");
            }
        }
    }
}

/// Where metrics are served, one phrase for each listener.
pub(super) fn metrics_in_words(metrics: &Admin) -> Vec<String> {
    let listeners = metrics.local_addrs().into_iter();
    let scheme = if metrics.speaks_tls() {
        "https"
    } else {
        "http"
    };
    let words = listeners.map(|listen| match listen {
        Listen::Tcp(address) => format!("metrics on {scheme}://{address}/metrics"),
        Listen::Unix(path) => format!("metrics on unix:{}", path.display()),
    });
    words.collect()
}

fn ended(result: Result<(), tokio::task::JoinError>) {
    if let Err(error) = result {
        error!(%error, "the server's task ended badly");
    }
}

/// A second handle, so that the socket outlives a reload that closes the listener.
fn adopt(passed: &Listening) -> Result<admin::BoundListener, String> {
    let again = passed.try_clone();
    let again = again.map_err(|error| {
        let why = os::words(&error);
        format!("cannot serve {passed}, which the service manager passed: {why}")
    })?;
    Ok(admin::adopt(again))
}

fn listen(address: SocketAddr) -> std::io::Result<Listening> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of the last run that still linger in TIME_WAIT do not hold the port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let local = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Listening::Tcp(socket.into(), local))
}
