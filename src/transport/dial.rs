//! From a target to a link: each step timed, bounded, and failing by its own name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{self, HeaderMap, HeaderValue};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::io::Io;
use super::upgrade::{self, UpgradeRequest};
use super::ws::WsLink;
use super::{resolver, tcp};
use crate::config::Target;
use crate::proto::event::{Facts, Phase, PhaseTimes};
use crate::proto::reconnect::Advice;

/// A peer reached.
pub(crate) struct Dialed {
    pub(crate) link: WsLink,
    pub(crate) times: PhaseTimes,
    /// What else was learned; `None` if there is nothing to tell.
    pub(crate) facts: Option<Arc<Facts>>,
    /// The address that answered.
    pub(crate) peer: Option<SocketAddr>,
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DialError {
    pub(crate) phase: Phase,
    /// What failed, on what, and what to do; one line, no secrets.
    pub(crate) message: String,
    pub(crate) status: Option<u16>,
    pub(crate) advice: Advice,
    pub(crate) times: PhaseTimes,
    /// When the first certificate of the presented chain ends.
    pub(crate) certificate_not_after: Option<SystemTime>,
}

/// Where a dial stands: which phase, since when, and by when it all must be done.
struct Progress {
    times: PhaseTimes,
    phase: Phase,
    since: Instant,
    overall: Instant,
    connect_timeout: Duration,
}

impl Progress {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }

    /// Runs one phase under its own limit and the whole dial's, and books its time.
    async fn run<T>(
        &mut self,
        limit: (&str, Duration),
        waited_for: impl FnOnce() -> String,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, DialError> {
        let (key, limit) = limit;
        let own = self.since + limit;
        let result = timeout_at(own.min(self.overall), work).await;
        self.times[self.phase as usize] = Some(self.since.elapsed());
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(failure)) => Err(self.failed(failure)),
            Err(_) => {
                let (key, limit) = if own <= self.overall {
                    (key, limit)
                } else {
                    ("connect_timeout", self.connect_timeout)
                };
                let message = format!("{} within {limit:?} ({key})", waited_for());
                Err(self.failed(Failure::plain(message)))
            }
        }
    }

    fn failed(&self, failure: Failure) -> DialError {
        DialError {
            phase: self.phase,
            message: failure.message,
            status: failure.status,
            advice: failure.advice,
            times: self.times,
            certificate_not_after: None,
        }
    }
}

struct Failure {
    message: String,
    status: Option<u16>,
    advice: Advice,
}

impl Failure {
    fn plain(message: String) -> Self {
        Self {
            message,
            status: None,
            advice: Advice::Backoff,
        }
    }
}

/// Reaches `target`'s peer and makes it speak WebSocket.
pub(crate) async fn dial(target: &Target) -> Result<Dialed, DialError> {
    let timeouts = &target.policy.timeouts;
    let now = Instant::now();
    let mut progress = Progress {
        times: PhaseTimes::default(),
        phase: Phase::Upgrade,
        since: now,
        overall: now + timeouts.connect,
        connect_timeout: timeouts.connect,
    };
    let place = Place::of(target).map_err(|message| progress.failed(Failure::plain(message)))?;

    let addresses = match tcp::literal(&place.host) {
        Some(ip) => vec![(ip, place.port).into()],
        None => {
            progress.enter(Phase::Dns);
            let host = place.host.as_str();
            let family = target.connection.address.family;
            let lookup = async {
                let found = resolver::resolve(host, place.port, family).await;
                found.map_err(|error| {
                    let words = tcp::os_words(&error);
                    Failure::plain(format!("cannot resolve {host}: {words}"))
                })
            };
            let waited_for = || format!("no answer for the name {host}");
            progress
                .run(("dns_timeout", timeouts.dns), waited_for, lookup)
                .await?
        }
    };

    progress.enter(Phase::Tcp);
    let connect = async {
        let connected = tcp::connect(&addresses).await;
        connected.map_err(|failed| Failure::plain(format!("cannot connect to {failed}")))
    };
    let waited_for = || {
        let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("no connection to {}", listed.join(", "))
    };
    let stream: TcpStream = progress
        .run(("tcp_timeout", timeouts.tcp), waited_for, connect)
        .await?;

    // Asked for while there is one: of a connection that was reset the kernel no longer tells.
    let peer = stream.peer_addr().ok();

    progress.enter(Phase::Upgrade);
    let headers = request_headers(target, &place)
        .map_err(|message| progress.failed(Failure::plain(message)))?;
    let request = UpgradeRequest {
        path: &place.path,
        host: &place.authority,
        headers,
        subprotocols: &target.connection.subprotocols,
        secrets: target.secrets(),
    };
    let received = Arc::new(AtomicUsize::new(0));
    let upgrade = async {
        let upgraded = upgrade::upgrade(Io::tcp(stream), request, received.clone()).await;
        upgraded.map_err(|refusal| Failure {
            message: refusal.message,
            status: refusal.status,
            advice: refusal.advice,
        })
    };
    let waited_for = || match received.load(Relaxed) {
        0 => "no answer to the upgrade request".to_owned(),
        1 => "the answer to the upgrade request stopped after 1 byte; not complete".to_owned(),
        n => format!("the answer to the upgrade request stopped after {n} bytes; not complete"),
    };
    let upgraded = progress
        .run(("upgrade_timeout", timeouts.upgrade), waited_for, upgrade)
        .await?;

    let max = target.policy.max_message_size;
    Ok(Dialed {
        link: WsLink::client(upgraded.io, &upgraded.early, max),
        times: progress.times,
        facts: upgraded.subprotocol.map(|subprotocol| {
            Arc::new(Facts {
                subprotocol: Some(subprotocol),
                ..Facts::default()
            })
        }),
        peer,
    })
}

/// Where a URL points.
struct Place {
    host: String,
    port: u16,
    /// For the Host header: the port only where it is not the scheme's own.
    authority: String,
    /// Path and query.
    path: String,
    /// `user:password` of the URL, as Basic credentials (RFC 7617).
    authorization: Option<String>,
}

impl Place {
    fn of(target: &Target) -> Result<Self, String> {
        // Resolving the configuration has parsed it before: an error here has no secret to show.
        let url = Url::parse(target.url.expose()).map_err(|e| format!("the url is broken: {e}"))?;
        let host = url.host_str().ok_or("the url has no host")?.to_owned();
        let port = url.port_or_known_default().ok_or("the url has no port")?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let credentials = !url.username().is_empty() || url.password().is_some();
        let authorization = credentials.then(|| {
            let decode = |text: &str| percent_decode(text);
            let mut pair = decode(url.username());
            pair.push(b':');
            pair.extend(decode(url.password().unwrap_or_default()));
            format!("Basic {}", BASE64.encode(pair))
        });
        Ok(Self {
            host,
            port,
            authority,
            path,
            authorization,
        })
    }
}

fn percent_decode(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

/// The user's headers, secrets read now: a rotated token is used by the next dial.
fn request_headers(target: &Target, place: &Place) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    if let Some(basic) = &place.authorization {
        let mut value =
            HeaderValue::from_str(basic).map_err(|_| "the url's credentials are broken")?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    let mut replaced = Vec::new();
    for (name, source) in &target.connection.headers {
        let value = source.value(&|variable| std::env::var_os(variable));
        let value = value.map_err(|error| format!("header {name}: {error}"))?;
        if !replaced.contains(&name) {
            headers.remove(name);
            replaced.push(name);
        }
        headers.append(name.clone(), value);
    }
    Ok(headers)
}
