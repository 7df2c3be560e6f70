//! The embedded listener: answers pings, pings clients that fall silent, discards those that stay
//! silent, and echoes messages on `/echo`. What is served without the session it hands on:
//! `/ticker`, `/events`, and faults.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn, ready};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use http::Request as HttpRequest;
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::events;
use super::faults::Served;
use super::listener::{Accepted, Listener, Origin};
use super::request::{Role, Take, Verdict, judge};
use super::talk::{self, Application};
use super::tls::TlsFiles;
use super::wire::Wire;
use crate::config::faults::Faults;
use crate::config::{FaultSwitches, Server};
use crate::proto::close::{Asked, Cause};
use crate::proto::event::{Event, Message};
use crate::proto::heartbeat::{HeartbeatPolicy, PingMode, Wishes};
use crate::session::{Host, Request, Session, SessionPolicy, SilentClose, Speech};
use crate::stats::{ListenerGuard, ListenerStats};
use crate::transport::io::Io;
use crate::transport::link::Link;
use crate::transport::ws::WsLink;

/// Largest request head that is read.
const MAX_HEAD: usize = 16 * 1024;
/// One write to a client that takes no bytes.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients that are told "503" at once; more are closed without a word.
const REFUSED_AT_ONCE: usize = 64;
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\
    Connection: close\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n\r\n\
    too many connections\n";

/// Serves `listener`, by `tls` if there is one - which no unix socket has -, until `shutdown`, then closes every connection with 1000, waits for the
/// replies up to `close_timeout`, and returns.
pub(crate) async fn serve(
    listener: Listener,
    config: Arc<Server>,
    tls: Option<Arc<TlsFiles>>,
    stats: ListenerGuard,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(config.max_connections));
    let refusals = Arc::new(Semaphore::new(REFUSED_AT_ONCE));
    let mut connections = JoinSet::new();
    match &config.faults {
        FaultSwitches::Off => {}
        FaultSwitches::ByQuery => {
            tracing::warn!(event = "faults", listener = %config.name, "serving the faults that clients ask for");
        }
        FaultSwitches::Always(faults) => {
            tracing::warn!(event = "faults", listener = %config.name, %faults, "serving faults to every client: {faults}");
        }
    }
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => {
                reaped(&stats, ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly a want of file descriptors, which lasts: no hot loop.
                stats.accept_failed();
                tracing::warn!(listener = %config.name, %error, "cannot accept a connection");
                tokio::select! {
                    () = sleep(Duration::from_millis(500)) => {}
                    () = shutdown.cancelled() => break,
                }
                continue;
            }
        };
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                let connection = Connection {
                    from,
                    config: config.clone(),
                    tls: tls.clone(),
                    stats: stats.stats().clone(),
                    shutdown: shutdown.clone(),
                    _place: place,
                };
                connections.spawn(connection.serve(stream));
            }
            Err(_) => {
                tracing::debug!(listener = %config.name, %from, "refused: max_connections reached");
                // By TLS the answer would cost a handshake, of which there are too many already.
                if tls.is_none()
                    && let Ok(permit) = refusals.clone().try_acquire_owned()
                {
                    connections.spawn(refuse(stream.into(), permit));
                }
            }
        }
    }
    drop(listener);
    let drained = timeout(config.close_timeout + Duration::from_secs(2), async {
        while let Some(ended) = connections.join_next().await {
            reaped(&stats, ended);
        }
    });
    if drained.await.is_err() {
        let left = connections.len();
        tracing::warn!(listener = %config.name, left, "connections did not close in time; cut");
        connections.shutdown().await;
    }
}

fn reaped(stats: &ListenerGuard, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        stats.task_panicked();
        tracing::error!(%error, "the task of a connection panicked");
    }
}

/// Tells a client that there is no place for it. It is read first: closing with bytes unread
/// would reset the connection and destroy the answer.
async fn refuse(mut stream: Io, _permit: OwnedSemaphorePermit) {
    let answer = async {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await?;
        stream.write_all(REFUSAL).await?;
        stream.shutdown().await?;
        while stream.read(&mut head).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Told or not, the client is gone after this.
    let _ = timeout(Duration::from_secs(2), answer).await;
}

/// One connection, and whose it is.
pub(super) struct Connection {
    pub(super) from: Origin,
    pub(super) config: Arc<Server>,
    tls: Option<Arc<TlsFiles>>,
    pub(super) stats: Arc<ListenerStats>,
    pub(super) shutdown: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// A connection whose request was agreed to, and told so.
struct Taken {
    io: Io,
    /// Bytes that came along with the request.
    early: Bytes,
    role: Role,
    faults: Faults,
}

impl Connection {
    async fn serve(self, stream: Accepted) {
        if let Accepted::Tcp(stream) = &stream {
            let _ = stream.set_nodelay(true);
        }
        if let FaultSwitches::Always(faults) = &self.config.faults
            && faults.accept_and_close
        {
            Served::new(&self.config.name, self.from, faults).tell("accept_and_close");
            return Wire::new(stream.into(), &[]).hang_up().await;
        }
        let handshake = Box::pin(self.handshake(stream));
        let Some(taken) = handshake.await else {
            return;
        };
        let Taken {
            io,
            early,
            role,
            faults,
        } = *taken;
        let _gone = (!matches!(role, Role::HeadOnly)).then(|| Gone::new(&self.stats));
        match role {
            Role::WebSocket(application @ (Application::Ignore | Application::Echo))
                if faults.is_none() =>
            {
                let link = WsLink::server(io, &early, self.config.max_message_size);
                let echo = matches!(application, Application::Echo);
                self.converse(link, echo).await;
            }
            Role::WebSocket(application) => {
                let wire = Wire::new(io, &early);
                Box::pin(talk::serve(&self, wire, application, &faults)).await;
            }
            Role::Events { stream, chunked } => {
                let wire = Wire::new(io, &[]);
                Box::pin(events::serve(&self, wire, stream, chunked, &faults)).await;
            }
            Role::HeadOnly => Wire::new(io, &[]).hang_up().await,
        }
    }

    /// A connection without a listener.
    #[cfg(test)]
    pub(super) fn alone(config: Server, shutdown: CancellationToken) -> Self {
        let registry = crate::stats::Registry::new();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned();
        Self {
            from: Origin(None),
            stats: registry.listener(&config.name).stats().clone(),
            config: Arc::new(config),
            tls: None,
            shutdown,
            _place: place.unwrap(),
        }
    }

    /// A connection in good order.
    async fn converse(&self, link: WsLink, echo: bool) {
        let interval = self.config.ping_interval;
        let policy = SessionPolicy {
            heartbeat: HeartbeatPolicy {
                interval,
                pong_timeout: self.config.pong_timeout,
                max_retries: 0,
                mode: PingMode::WhenSilent,
            },
            wishes: Wishes::default(),
            staleness: None,
            write_timeout: WRITE_TIMEOUT,
            close_timeout: self.config.close_timeout,
            silent: SilentClose::Silent,
        };
        let mut host = PeerHost {
            connection: self,
            shutdown: Box::pin(self.shutdown.cancelled()),
            echo,
        };
        let (link, from) = (Link::Ws(link), self.from.0);
        let session = Session::new(link, from, None, policy, |first| first, Speech::default());
        session.run(&mut host).await;
    }

    /// TLS, the request and the head of its answer, within their deadline; `None` if nothing is to
    /// follow it.
    async fn handshake(&self, stream: Accepted) -> Option<Box<Taken>> {
        let limit = self.config.handshake_timeout;
        let agreed = async {
            let io = match (stream, &self.tls) {
                (Accepted::Tcp(stream), Some(tls)) => self.secured(stream, tls).await?,
                (stream, _) => stream.into(),
            };
            self.requested(io).await
        };
        tokio::select! {
            agreed = timeout(limit, agreed) => agreed.unwrap_or_else(|_| {
                tracing::debug!(from = %self.from, "no handshake within {limit:?}");
                None
            }),
            () = self.shutdown.cancelled() => None,
        }
    }

    async fn secured(&self, stream: TcpStream, tls: &Arc<TlsFiles>) -> Option<Io> {
        let config = tls.current(&self.config.name).await;
        match TlsAcceptor::from(config).accept(stream).await {
            Ok(tls) => Some(Io::server_tls(tls)),
            Err(error) => {
                // Plain HTTP, a certificate the client does not trust, a port scan: the client's
                // affair, and no sign that accepting fails.
                tracing::debug!(from = %self.from, %error, "no TLS handshake");
                None
            }
        }
    }

    /// Reads the request. Answers it, or takes the connection out of HTTP's hands.
    async fn requested(&self, io: Io) -> Option<Box<Taken>> {
        let wanted: Mutex<Option<Take>> = Mutex::new(None);
        let serves = |faults: &Faults, switch| {
            Served::new(&self.config.name, self.from, faults).tell(switch);
        };
        let service = service_fn(|request: HttpRequest<Body>| {
            let answered = |answer| Either::Left(ready(Ok::<_, Infallible>(answer)));
            match judge(&request, &self.config.faults) {
                Verdict::Answer(answer) => answered(*answer),
                Verdict::Refuse(answer, faults) => {
                    serves(&faults, "status");
                    answered(*answer)
                }
                Verdict::Take(take) => {
                    *wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(take);
                    // Never to be answered here: the connection is taken below.
                    Either::Right(pending())
                }
            }
        });
        let mut http = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.handshake_timeout)
            .serve_connection(TokioIo::new(io), &service);
        let take = poll_fn(|cx| {
            let served = Pin::new(&mut http).poll(cx);
            let mut wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
            match wanted.take() {
                Some(take) => Poll::Ready(Ok(Some(take))),
                None => served.map_ok(|()| None),
            }
        });
        let take = match take.await {
            Ok(take) => take?,
            Err(error) => {
                tracing::debug!(from = %self.from, %error, "no handshake");
                return None;
            }
        };
        let parts = http.into_parts();
        let (mut io, early) = (parts.io.into_inner(), parts.read_buf);
        let (head, role, faults) = match take {
            Take::Serve { head, role, faults } => (head, role, faults),
            Take::HangUp(faults) => {
                serves(&faults, "accept_and_close");
                Wire::new(io, &early).hang_up().await;
                return None;
            }
        };
        let written = async {
            io.write_all(&head).await?;
            io.flush().await
        };
        if let Err(error) = written.await {
            tracing::debug!(from = %self.from, %error, "no handshake");
            return None;
        }
        Some(Box::new(Taken {
            io,
            early,
            role,
            faults,
        }))
    }
}

/// Counts a connection down however its task ends.
struct Gone<'a>(&'a ListenerStats);

impl<'a> Gone<'a> {
    fn new(stats: &'a ListenerStats) -> Self {
        stats.connections.fetch_add(1, Relaxed);
        Self(stats)
    }
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

struct PeerHost<'a> {
    connection: &'a Connection,
    shutdown: Pin<Box<WaitForCancellationFuture<'a>>>,
    echo: bool,
}

impl Host for PeerHost<'_> {
    fn observe(&mut self, event: Event) {
        let Connection { from, stats, .. } = self.connection;
        match event {
            Event::PingReceived => {
                stats.pings_received.fetch_add(1, Relaxed);
                stats.pongs_sent.fetch_add(1, Relaxed);
            }
            Event::Ended(end) if end.cause == Cause::PongTimeout => {
                tracing::info!(listener = %stats.name, %from, "discarded a silent client");
            }
            Event::Ended(end) => {
                tracing::debug!(listener = %stats.name, %from, cause = %end.cause, "{}", end.message);
            }
            _ => {}
        }
    }

    fn reply(&mut self, message: &Message) -> Option<Message> {
        self.echo.then(|| message.clone())
    }

    fn poll_asked(&mut self, cx: &mut Context<'_>) -> Poll<Request> {
        self.poll_asked_to_end(cx).map(Request::End)
    }

    fn poll_asked_to_end(&mut self, cx: &mut Context<'_>) -> Poll<Asked> {
        self.shutdown.as_mut().poll(cx).map(|()| Asked::Shutdown)
    }
}
