//! The embedded listener: answers pings, pings clients that fall silent, discards those that stay
//! silent, and echoes messages on `/echo`.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request as HttpRequest, Response, StatusCode, Version};
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::tls::TlsFiles;
use crate::config::Server;
use crate::proto::close::{Asked, Cause};
use crate::proto::event::{Event, Message};
use crate::proto::heartbeat::{HeartbeatPolicy, PingMode, Wishes};
use crate::session::{Host, Request, Session, SessionPolicy, SilentClose, Speech};
use crate::stats::{ListenerGuard, ListenerStats};
use crate::transport::io::Io;
use crate::transport::link::Link;
use crate::transport::upgrade::{accept_key, has_token};
use crate::transport::ws::WsLink;

/// Largest request head that is read.
const MAX_HEAD: usize = 16 * 1024;
/// One write to a client that takes no bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients that are told "503" at once; more are closed without a word.
const REFUSED_AT_ONCE: usize = 64;
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\
    Connection: close\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n\r\n\
    too many connections\n";

/// Serves `listener`, by `tls` if there is one, until `shutdown`, then closes every connection with 1000, waits for the
/// replies up to `close_timeout`, and returns.
pub(crate) async fn serve(
    listener: TcpListener,
    config: Arc<Server>,
    tls: Option<Arc<TlsFiles>>,
    stats: ListenerGuard,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(config.max_connections));
    let refusals = Arc::new(Semaphore::new(REFUSED_AT_ONCE));
    let mut connections = JoinSet::new();
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
                    connections.spawn(refuse(stream, permit));
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
async fn refuse(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
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

struct Connection {
    from: SocketAddr,
    config: Arc<Server>,
    tls: Option<Arc<TlsFiles>>,
    stats: Arc<ListenerStats>,
    shutdown: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// What a request asked to become.
struct Wanted {
    upgrade: OnUpgrade,
    echo: bool,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let handshake = Box::pin(self.handshake(stream));
        let Some((link, echo)) = handshake.await else {
            return;
        };
        self.stats.connections.fetch_add(1, Relaxed);
        let _gone = Gone(&self.stats);
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
            connection: &self,
            shutdown: Box::pin(self.shutdown.cancelled()),
            echo,
        };
        let (link, from) = (Link::Ws(link), Some(self.from));
        let session = Session::new(link, from, None, policy, |first| first, Speech::default());
        session.run(&mut host).await;
    }

    /// TLS and the upgrade, within their deadline; `None` if the client wanted, or did, something
    /// else.
    async fn handshake(&self, stream: TcpStream) -> Option<(WsLink, bool)> {
        let limit = self.config.handshake_timeout;
        let agreed = async {
            let io = match &self.tls {
                None => Io::tcp(stream),
                Some(tls) => self.secured(stream, tls).await?,
            };
            self.upgraded(io).await
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

    async fn upgraded(&self, io: Io) -> Option<(WsLink, bool)> {
        let wanted: Mutex<Option<Wanted>> = Mutex::new(None);
        let service = service_fn(|mut request: HttpRequest<Body>| {
            let answer = answer(&request);
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                let echo = request.uri().path() == "/echo";
                let upgrade = hyper::upgrade::on(&mut request);
                *wanted.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Wanted { upgrade, echo });
            }
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let served = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.handshake_timeout)
            .serve_connection(TokioIo::new(io), &service)
            .with_upgrades();
        if let Err(error) = served.await {
            tracing::debug!(from = %self.from, %error, "no handshake");
        }
        let wanted = wanted
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)?;
        let upgraded = wanted.upgrade.await.ok()?;
        let parts = upgraded.downcast::<TokioIo<Io>>().ok()?;
        let max = self.config.max_message_size;
        let link = WsLink::server(parts.io.into_inner(), &parts.read_buf, max);
        Some((link, wanted.echo))
    }
}

/// Counts a connection down however its task ends.
struct Gone<'a>(&'a ListenerStats);

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

/// The server's half of the opening handshake, RFC 6455 section 4.2.
fn answer(request: &HttpRequest<Body>) -> Response<String> {
    let headers = request.headers();
    if !has_token(headers, &header::UPGRADE, "websocket")
        || !has_token(headers, &header::CONNECTION, "upgrade")
    {
        let mut refusal = plain(
            StatusCode::UPGRADE_REQUIRED,
            "this is a WebSocket endpoint\n",
        );
        let upgrade = HeaderValue::from_static("websocket");
        refusal.headers_mut().insert(header::UPGRADE, upgrade);
        return refusal;
    }
    if request.method() != Method::GET || request.version() < Version::HTTP_11 {
        return plain(StatusCode::BAD_REQUEST, "an upgrade is a GET of HTTP/1.1\n");
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|v| v != "13")
    {
        // RFC 6455 section 4.4: say which version there is.
        let mut refusal = plain(StatusCode::UPGRADE_REQUIRED, "only version 13 is spoken\n");
        let version = HeaderValue::from_static("13");
        refusal
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_VERSION, version);
        return refusal;
    }
    let Some(key) = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == 24)
    else {
        return plain(
            StatusCode::BAD_REQUEST,
            "Sec-WebSocket-Key is not 16 bytes in base64\n",
        );
    };
    let mut agreed = Response::new(String::new());
    *agreed.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::from_str(&accept_key(key.as_bytes()));
    let fields = agreed.headers_mut();
    fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = accept {
        fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    // Any protocol will do for a peer that only answers pings; some clients insist on a choice.
    if let Some(first) = first_protocol(headers) {
        fields.insert(header::SEC_WEBSOCKET_PROTOCOL, first);
    }
    agreed
}

fn first_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    HeaderValue::from_str(offered.split(',').next()?.trim()).ok()
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut response = Response::new(text.to_owned());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    // Said here, and not by `keep_alive(false)`: hyper would then add it to the 101 as well, whose
    // `Connection` some clients take only as the one word.
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}
