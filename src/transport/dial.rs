//! From a target to a link: each step timed, bounded, and failing by its own name.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use super::answer::{Refusal, Wanted};
use super::exchange::Received;
use super::io::Io;
use super::link::Link;
use super::proxy::{self, Destination, Proxy};
use super::request;
use super::resolver;
use super::sse::{Limits, Resume};
use super::subscribe::{self, StreamRequest};
use super::tcp;
use super::tls::{self, Prepared, TlsWatch};
use super::trace::Trace;
use super::upgrade::{self, UpgradeRequest};
use super::ws::WsLink;
use crate::config::{Heartbeat, IpFamily, Place, ProxyKind, ResolveTo, Target, TlsOptions, mask};
use crate::os;
use crate::proto::event::{Facts, Passed, PassedStep, Phase, PhaseTimes, TlsFacts};
use crate::proto::reconnect::Advice;

/// A peer reached.
pub(crate) struct Dialed {
    pub(crate) link: Link,
    /// By when the whole dial has to be done, a hello included.
    pub(crate) until: std::time::Instant,
    pub(crate) times: PhaseTimes,
    /// What else was learned; `None` if there is nothing to tell.
    pub(crate) facts: Option<Arc<Facts>>,
    /// The address that answered: the proxy's, if there is one.
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
    /// When the certificate of the presented chain that ends earliest does.
    pub(crate) certificate_not_after: Option<SystemTime>,
    /// The address that was connected to, if one was: the proxy's, if there is one.
    pub(crate) peer: Option<SocketAddr>,
}

/// Where a dial stands: which phase, since when, and by when it all must be done.
struct Progress<'p> {
    began: Instant,
    /// Where each step is written down, if anybody wants to know.
    passed: Option<&'p mut Passed>,
    times: PhaseTimes,
    phase: Phase,
    since: Instant,
    overall: Instant,
    connect_timeout: Duration,
    certificate_not_after: Option<SystemTime>,
    peer: Option<SocketAddr>,
}

impl Progress<'_> {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }

    /// Runs one phase under its own limit and the whole dial's, and books its time: after a
    /// redirect the sum.
    async fn run<T>(
        &mut self,
        limit: (&str, Duration),
        waited_for: impl FnOnce() -> String,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, DialError> {
        let (key, limit) = limit;
        let own = self.since + limit;
        let result = timeout_at(own.min(self.overall), work).await;
        let took = self.since.elapsed();
        let time = &mut self.times[self.phase as usize];
        *time = Some(time.unwrap_or_default() + took);
        if let Some(passed) = &mut self.passed {
            passed.steps.push(PassedStep {
                phase: self.phase,
                after: self.since.saturating_duration_since(self.began),
                took,
            });
        }
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
            phase: failure.phase.unwrap_or(self.phase),
            message: failure.message,
            status: failure.status,
            advice: failure.advice,
            times: self.times,
            certificate_not_after: self.certificate_not_after,
            peer: self.peer,
        }
    }

    fn refused(&self, message: String) -> DialError {
        self.failed(Failure::plain(message))
    }
}

struct Failure {
    message: String,
    status: Option<u16>,
    advice: Advice,
    /// The phase to blame, where it is not the one under way.
    phase: Option<Phase>,
}

impl Failure {
    fn plain(message: String) -> Self {
        Self {
            message,
            status: None,
            advice: Advice::Backoff,
            phase: None,
        }
    }
}

/// Reaches `target`'s peer and makes it speak WebSocket, or send an event stream, which is taken up
/// at `resume`.
///
/// Its steps are written down in `passed`, which also says what the request carries of it.
pub(crate) async fn dial(
    target: &Target,
    resume: Option<&Resume>,
    passed: Option<&mut Passed>,
) -> Result<Dialed, DialError> {
    dialed(target, resume, &mut Trace::default(), passed).await
}

/// The same from the beginning, for people who want to see what passed.
pub(crate) async fn dial_traced(target: &Target, trace: &mut Trace) -> Result<Dialed, DialError> {
    dialed(target, None, trace, None).await
}

async fn dialed(
    target: &Target,
    resume: Option<&Resume>,
    trace: &mut Trace,
    mut passed: Option<&mut Passed>,
) -> Result<Dialed, DialError> {
    let timeouts = &target.policy.timeouts;
    let now = Instant::now();
    let traceparent = passed.as_deref_mut().and_then(|passed| {
        passed.began = Some(SystemTime::now());
        passed.traceparent.clone()
    });
    let mut progress = Progress {
        began: now,
        passed,
        times: PhaseTimes::default(),
        phase: Phase::Upgrade,
        since: now,
        overall: now + timeouts.connect,
        connect_timeout: timeouts.connect,
        certificate_not_after: None,
        peer: None,
    };
    // Resolving the configuration has parsed it before: an error here has no secret to show.
    let first = Place::parse(target.url.expose())
        .map_err(|error| progress.refused(format!("the url is broken: {error}")))?;
    let mut place = first.clone();
    let wanted = match target.connection.heartbeat == Heartbeat::Sse {
        true => Wanted::Stream,
        false => Wanted::Upgrade,
    };
    let mut redirects = 0;
    loop {
        let dial = Dial {
            target,
            wanted,
            resume,
            place: &place,
            is_own: same_origin(&first, &place),
            traceparent: traceparent.as_deref(),
        };
        let reached = dial.once(&mut progress, trace).await;
        let next = match reached {
            Ok(Reached::Peer(dialed)) => return Ok(*dialed),
            Ok(Reached::Redirect(next)) => next,
            Err(error) if redirects == 0 => return Err(error),
            Err(error) => {
                let message = format!("redirected to {place}: {}", error.message);
                return Err(concealed(DialError { message, ..error }, target));
            }
        };
        redirects += 1;
        let most = target.connection.max_redirects;
        place = followed(wanted, &place, &next, redirects, most)
            .map_err(|message| concealed(progress.refused(message), target))?;
        trace
            .redirects
            .push(without(&target.secrets(), &place.to_string()));
        progress.peer = None;
    }
}

/// After a redirect the place is the peer's choice, and a peer may make it of what it was sent.
fn concealed(error: DialError, target: &Target) -> DialError {
    let message = without(&target.secrets(), &error.message);
    DialError { message, ..error }
}

/// Masks, in lower case, too, as a host is.
fn without(secrets: &[String], text: &str) -> String {
    let lower: Vec<String> = secrets.iter().map(|s| s.to_ascii_lowercase()).collect();
    mask(&mask(text, secrets), &lower)
}

fn same_origin(a: &Place, b: &Place) -> bool {
    let same_address = (&a.host, &a.zone, a.port, &a.unix) == (&b.host, &b.zone, b.port, &b.unix);
    a.secure == b.secure && same_address
}

/// Of a name in DNS, as it is written (RFC 1035 section 3.1).
const LONGEST_HOST: usize = 253;

/// The place that redirect number `count` from `place` leads to.
fn followed(
    wanted: Wanted,
    place: &Place,
    location: &str,
    count: u32,
    most: u32,
) -> Result<Place, String> {
    let next = place.join(location);
    let next = next.map_err(|error| format!("the peer redirects, and its Location {error}"))?;
    if next.host.len() > LONGEST_HOST {
        return Err(format!(
            "the peer redirects to a host of {} bytes: no name is that long",
            next.host.len()
        ));
    }
    if place.secure && !next.secure {
        let [from, to] = wanted.schemes();
        return Err(format!(
            "the peer redirects from {from} to {to}, to {}: not followed, for what is sent would \
             be readable on the way",
            next.authority
        ));
    }
    if count > most {
        return Err(format!(
            "more than {most} redirects (max_redirects), the last to {}",
            next.authority
        ));
    }
    Ok(next)
}

/// How one request to one place ended.
enum Reached {
    Peer(Box<Dialed>),
    /// To this location, as it was sent.
    Redirect(Box<str>),
}

/// One way to one place.
struct Dial<'a> {
    target: &'a Target,
    wanted: Wanted,
    /// Where an event stream is taken up.
    resume: Option<&'a Resume>,
    place: &'a Place,
    /// Whether this is where the target's url points, and not where a redirect led: credentials,
    /// `resolve` and `server_name` are for that place alone.
    is_own: bool,
    /// The header of that name.
    traceparent: Option<&'a str>,
}

/// The first hop.
enum Hop {
    Tcp(Vec<SocketAddr>),
    Unix(Box<Path>),
}

impl Dial<'_> {
    async fn once(
        &self,
        progress: &mut Progress<'_>,
        trace: &mut Trace,
    ) -> Result<Reached, DialError> {
        let options = &self.target.connection;
        let timeouts = &self.target.policy.timeouts;
        progress.enter(Phase::Proxy);
        let proxy = match &self.place.unix {
            None => Proxy::of(&options.proxy, self.place),
            Some(_) => Ok(None),
        };
        let proxy = proxy.map_err(|message| progress.refused(message))?;
        // Before the first packet: what our own files take is no time of the peer's.
        let proxy_tls = match &proxy {
            Some(proxy) if proxy.kind == ProxyKind::Https => {
                let prepared = self.prepared(progress, &options.proxy_tls).await;
                Some(prepared.map_err(|error| DialError {
                    message: proxy::of_the_proxy(&error.message),
                    ..error
                })?)
            }
            Some(_) | None => None,
        };
        progress.enter(Phase::Tls);
        let tls = match self.place.secure {
            true => Some(self.prepared(progress, &self.tls_options()).await?),
            false => None,
        };

        let hop = self.first_hop(progress, proxy.as_ref()).await?;
        let destination = self.destination(progress, proxy.as_ref()).await?;
        let (mut io, peer) = self.connect(progress, &hop, proxy.as_ref(), trace).await?;

        if let Some(proxy) = &proxy {
            progress.enter(Phase::Proxy);
            let opened = async {
                let secrets = || self.secrets(Some(proxy));
                let opened =
                    proxy::tunnel(io, proxy, proxy_tls.as_ref(), destination, &secrets).await;
                opened.map_err(|failure| Failure {
                    message: failure.message,
                    status: failure.status,
                    advice: failure.advice,
                    phase: None,
                })
            };
            let waited_for = || format!("no tunnel through the proxy {}", proxy.shown);
            io = progress
                .run(("proxy_timeout", timeouts.proxy), waited_for, opened)
                .await?;
        }

        let (io, secured) = self.secure(progress, io, tls.as_ref(), trace).await?;
        let agreed = self
            .upgrade(progress, io, &secured, proxy.as_ref(), trace)
            .await?;
        Ok(match agreed {
            Agreed::Redirect(location) => Reached::Redirect(location),
            Agreed::Link(agreement) => {
                let facts = Facts {
                    subprotocol: agreement.subprotocol,
                    proxy: proxy.map(|proxy| proxy.shown.into()),
                    tls: secured.map(|(facts, _)| facts),
                    headers: agreement.headers,
                };
                Reached::Peer(Box::new(Dialed {
                    link: agreement.link,
                    until: progress.overall.into_std(),
                    times: progress.times,
                    facts: (facts != Facts::default()).then(|| Arc::new(facts)),
                    peer,
                }))
            }
        })
    }

    /// What must not be shown if a peer or a proxy repeats it, the longest first.
    fn secrets(&self, proxy: Option<&Proxy>) -> Vec<String> {
        let mut secrets = self.target.secrets();
        secrets.extend(proxy.iter().flat_map(|proxy| proxy.secrets()));
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }

    fn tls_options(&self) -> Arc<TlsOptions> {
        let mut options = self.target.connection.tls.clone();
        if !self.is_own {
            // The name is the target's own, and the certificate a credential.
            let options = Arc::make_mut(&mut options);
            (options.server_name, options.cert, options.key) = (None, None, None);
        }
        options
    }

    /// Reads TLS files under the whole dial's limit alone, in the phase under way.
    async fn prepared(
        &self,
        progress: &Progress<'_>,
        options: &Arc<TlsOptions>,
    ) -> Result<Prepared, DialError> {
        let message = match timeout_at(progress.overall, tls::prepare(options)).await {
            Ok(Ok(prepared)) => return Ok(prepared),
            Ok(Err(message)) => message,
            Err(_) => "the TLS files could not be read within connect_timeout".to_owned(),
        };
        Err(progress.refused(message))
    }

    /// Where the first connection goes: to the proxy, if there is one.
    async fn first_hop(
        &self,
        progress: &mut Progress<'_>,
        proxy: Option<&Proxy>,
    ) -> Result<Hop, DialError> {
        if let Some(proxy) = proxy {
            let addresses = self
                .resolve(progress, &proxy.host, None, proxy.port)
                .await?;
            return Ok(Hop::Tcp(addresses));
        }
        if let Some(path) = &self.place.unix {
            return Ok(Hop::Unix(path.as_path().into()));
        }
        if let Some(ResolveTo::Unix(path)) = self.fixed().first() {
            return Ok(Hop::Unix(path.as_path().into()));
        }
        self.addresses(progress).await.map(Hop::Tcp)
    }

    /// Where the proxy's tunnel leads; of no account without one.
    async fn destination(
        &self,
        progress: &mut Progress<'_>,
        proxy: Option<&Proxy>,
    ) -> Result<Destination<'_>, DialError> {
        let (host, port) = (self.place.host.as_str(), self.place.port);
        let by_name = match proxy {
            Some(proxy) => proxy.resolves_names() && self.fixed().is_empty(),
            None => true,
        };
        if by_name {
            return Ok(match host.parse::<IpAddr>() {
                Ok(ip) => Destination::Address((ip, port).into()),
                Err(_) => Destination::Name(host, port),
            });
        }
        let addresses = self.addresses(progress).await?;
        match addresses.first() {
            Some(address) => Ok(Destination::Address(*address)),
            None => Err(progress.refused(format!("{host} has no address"))),
        }
    }

    /// What `resolve` says.
    fn fixed(&self) -> &[ResolveTo] {
        match self.is_own {
            true => &self.target.connection.address.resolve,
            false => &[],
        }
    }

    /// The addresses of the place: those of `resolve`, else what DNS says.
    async fn addresses(&self, progress: &mut Progress<'_>) -> Result<Vec<SocketAddr>, DialError> {
        let fixed = self.fixed();
        let (host, port) = (self.place.host.as_str(), self.place.port);
        if fixed.is_empty() {
            let zone = self.place.zone.as_deref();
            return self.resolve(progress, host, zone, port).await;
        }
        progress.enter(Phase::Dns);
        let family = self.target.connection.address.family;
        let mut addresses = Vec::with_capacity(fixed.len());
        for resolve in fixed {
            if let ResolveTo::Ip {
                ip,
                zone,
                port: own,
            } = resolve
                && is_of(family, *ip)
            {
                let address = with_zone(*ip, zone.as_deref(), own.unwrap_or(port));
                addresses.push(address.map_err(|message| progress.refused(message))?);
            }
        }
        if addresses.is_empty() {
            let message = "`resolve` has no address of the ip_family wanted".to_owned();
            return Err(progress.refused(message));
        }
        Ok(addresses)
    }

    async fn resolve(
        &self,
        progress: &mut Progress<'_>,
        host: &str,
        zone: Option<&str>,
        port: u16,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let family = self.target.connection.address.family;
        progress.enter(Phase::Dns);
        if let Ok(ip) = host.parse() {
            if !is_of(family, ip) {
                let message = format!("{host} is not of the ip_family wanted");
                return Err(progress.refused(message));
            }
            let address = with_zone(ip, zone, port).map_err(|message| progress.refused(message))?;
            return Ok(vec![address]);
        }
        let lookup = async {
            let found = resolver::resolve(host, port, family).await;
            found.map_err(|error| {
                let words = os::words(&error);
                Failure::plain(format!("cannot resolve {host}: {words}"))
            })
        };
        let waited_for = || format!("no answer for the name {host}");
        let limit = ("dns_timeout", self.target.policy.timeouts.dns);
        progress.run(limit, waited_for, lookup).await
    }

    async fn connect(
        &self,
        progress: &mut Progress<'_>,
        hop: &Hop,
        proxy: Option<&Proxy>,
        trace: &mut Trace,
    ) -> Result<(Io, Option<SocketAddr>), DialError> {
        progress.enter(Phase::Tcp);
        let whom = match proxy {
            Some(proxy) => format!("the proxy {} at ", proxy.shown),
            None => String::new(),
        };
        let limit = ("tcp_timeout", self.target.policy.timeouts.tcp);
        match hop {
            Hop::Tcp(addresses) => {
                trace.dialing(addresses);
                let connect = async {
                    let options = &self.target.connection.address;
                    let connected = tcp::connect(addresses, options).await;
                    connected.map_err(|failed| {
                        Failure::plain(format!("cannot connect to {whom}{failed}"))
                    })
                };
                let waited_for = || {
                    let listed = tcp::some_of(addresses.iter().map(ToString::to_string));
                    format!("no connection to {whom}{listed}")
                };
                let stream = progress.run(limit, waited_for, connect).await?;
                // Asked for while there is one: of a connection that was reset the kernel no
                // longer tells.
                let peer = stream.peer_addr().ok();
                progress.peer = peer;
                Ok((Io::tcp(stream), peer))
            }
            Hop::Unix(path) => {
                let shown = path.display();
                let connect = async {
                    let connected = UnixStream::connect(path).await;
                    connected.map_err(|error| {
                        let words = os::words(&error);
                        Failure::plain(format!("cannot connect to unix:{shown}: {words}"))
                    })
                };
                let waited_for = || format!("no connection to unix:{shown}");
                let stream = progress.run(limit, waited_for, connect).await?;
                Ok((Io::unix(stream), None))
            }
        }
    }

    /// TLS, if the place wants it.
    async fn secure(
        &self,
        progress: &mut Progress<'_>,
        io: Io,
        prepared: Option<&Prepared>,
        trace: &mut Trace,
    ) -> Result<(Io, Option<(TlsFacts, TlsWatch)>), DialError> {
        let Some(prepared) = prepared else {
            return Ok((io, None));
        };
        progress.enter(Phase::Tls);
        let host = self.place.host.as_str();
        let mut not_after = None;
        let handshake = async {
            let secured = tls::connect(io, host, prepared).await;
            secured.map_err(|failure| {
                let failure = failure.concealed(&self.secrets(None));
                not_after = failure.not_after;
                trace.presented(failure.chain, Vec::new);
                Failure::plain(self.wanted.in_its_schemes(failure.message))
            })
        };
        let waited_for = || {
            format!(
                "no TLS with {}: the handshake was not done",
                self.place.authority
            )
        };
        let limit = ("tls_timeout", self.target.policy.timeouts.tls);
        let secured = progress.run(limit, waited_for, handshake).await;
        let secured = secured.map_err(|error| DialError {
            certificate_not_after: not_after.or(error.certificate_not_after),
            ..error
        })?;
        progress.certificate_not_after = secured.facts.not_after;
        trace.presented(secured.chain, || self.secrets(None));
        Ok((secured.io, Some((secured.facts, secured.watch))))
    }

    async fn upgrade(
        &self,
        progress: &mut Progress<'_>,
        io: Io,
        secured: &Option<(TlsFacts, TlsWatch)>,
        proxy: Option<&Proxy>,
        trace: &mut Trace,
    ) -> Result<Agreed, DialError> {
        progress.enter(Phase::Upgrade);
        let options = &self.target.connection;
        let headers = request::headers(self.target, self.place, self.is_own, self.traceparent)
            .map_err(|message| progress.refused(message))?;
        let secrets = self.secrets(proxy);
        let host = match &options.host_header {
            Some(host) if self.is_own => host,
            Some(_) | None => self.place.authority.as_str(),
        };
        let follows = options.max_redirects > 0;
        let received = Arc::<Received>::default();
        let agree = async {
            let agreed = match self.wanted {
                Wanted::Upgrade => {
                    let request = UpgradeRequest {
                        path: &self.place.path,
                        host,
                        headers,
                        subprotocols: &options.subprotocols,
                        require_subprotocol: options.require_subprotocol,
                        follows,
                        secrets: &secrets,
                    };
                    let upgraded = upgrade::upgrade(io, request, received.clone(), trace).await;
                    upgraded.map(|upgraded| {
                        let max = self.target.policy.max_message_size;
                        let link = WsLink::client(upgraded.io, &upgraded.early, max);
                        Agreement {
                            link: Link::Ws(link),
                            subprotocol: upgraded.subprotocol,
                            headers: upgraded.headers,
                        }
                    })
                }
                Wanted::Stream => {
                    let request = StreamRequest {
                        path: &self.place.path,
                        host,
                        headers,
                        limits: Limits {
                            line: self.target.policy.max_line,
                            event: self.target.policy.max_event,
                        },
                        resume: self.resume,
                        follows,
                        secrets: &secrets,
                    };
                    let stream = subscribe::subscribe(io, request, received.clone(), trace).await;
                    stream.map(|stream| Agreement {
                        link: Link::Sse(stream.link),
                        subprotocol: None,
                        headers: stream.headers,
                    })
                }
            };
            match agreed {
                Ok(agreement) => Ok(Agreed::Link(Box::new(agreement))),
                Err(Refusal {
                    location: Some(location),
                    ..
                }) if follows => Ok(Agreed::Redirect(location.expose().clone())),
                Err(refusal) => Err(self.judged(refusal, secured)),
            }
        };
        let what = self.wanted.request();
        let waited_for = || match received.bytes() {
            0 => match self.wanted {
                Wanted::Upgrade => format!("no answer to {what}"),
                // nginx' default: not even the head is passed on before a buffer is full.
                Wanted::Stream => format!("no answer to {what} (does a proxy hold it back?)"),
            },
            1 => format!("the answer to {what} stopped after 1 byte; not complete"),
            n => format!("the answer to {what} stopped after {n} bytes; not complete"),
        };
        let limit = ("upgrade_timeout", self.target.policy.timeouts.upgrade);
        progress.run(limit, waited_for, agree).await
    }

    /// A TLS 1.3 peer judges our certificate after our handshake is done: what then breaks the
    /// upgrade is a failure of TLS.
    fn judged(&self, refusal: Refusal, secured: &Option<(TlsFacts, TlsWatch)>) -> Failure {
        let broken = refusal.status.is_none();
        let by_tls = secured.as_ref().and_then(|(_, watch)| watch.failure());
        match by_tls {
            Some(message) if broken => Failure {
                phase: Some(Phase::Tls),
                ..Failure::plain(message)
            },
            Some(_) | None => Failure {
                message: refusal.message,
                status: refusal.status,
                advice: refusal.advice,
                phase: None,
            },
        }
    }
}

/// What the request led to.
enum Agreed {
    Link(Box<Agreement>),
    Redirect(Box<str>),
}

/// What was agreed on.
struct Agreement {
    link: Link,
    subprotocol: Option<Box<str>>,
    /// Headers that tell who answered.
    headers: Box<[(Box<str>, Box<str>)]>,
}

fn is_of(family: IpFamily, ip: IpAddr) -> bool {
    match family {
        IpFamily::Any => true,
        IpFamily::V4 => ip.is_ipv4(),
        IpFamily::V6 => ip.is_ipv6(),
    }
}

pub(super) fn with_zone(ip: IpAddr, zone: Option<&str>, port: u16) -> Result<SocketAddr, String> {
    let mut address = SocketAddr::new(ip, port);
    if let (SocketAddr::V6(v6), Some(zone)) = (&mut address, zone) {
        let scope = tcp::scope_id(zone).map_err(|error| format!("[{ip}%{zone}]: {error}"))?;
        v6.set_scope_id(scope);
    }
    Ok(address)
}

#[cfg(test)]
mod proxy_tests;
#[cfg(test)]
mod redirect_tests;
#[cfg(test)]
mod secure_tests;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
pub(super) mod tests;
