//! Through a proxy: CONNECT (RFC 9110 section 9.3.6) and SOCKS5 (RFC 1928, RFC 1929).

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::ext::ReasonPhrase;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio_socks::tcp::Socks5Stream;

use super::answer::shown;
use super::exchange::{self, Received};
use super::io::Io;
use super::tls::{self, Prepared};
use crate::config::{Place, ProxyChoice, ProxyKind, ProxyServer, mask};
use crate::os;
use crate::proto::reconnect::Advice;

/// The proxy a dial goes through, its credentials read.
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) kind: ProxyKind,
    pub(super) host: String,
    pub(super) port: u16,
    /// As a URL without credentials.
    pub(super) shown: String,
    credentials: Option<Credentials>,
}

#[derive(Clone)]
struct Credentials {
    user: String,
    password: String,
}

impl Proxy {
    /// The proxy for `place`, if there is one. Credentials are read now: a rotated password is
    /// used by the next dial.
    pub(super) fn of(choice: &ProxyChoice, place: &Place) -> Result<Option<Self>, String> {
        match choice {
            ProxyChoice::Direct => Ok(None),
            ProxyChoice::Environment => from_environment(place),
            ProxyChoice::Via(server) => Self::via(server).map(Some),
        }
    }

    fn via(server: &ProxyServer) -> Result<Self, String> {
        let credentials = match &server.credentials {
            Some((user, password)) => {
                let password = password.text();
                let password =
                    password.map_err(|error| format!("the password of the proxy: {error}"))?;
                Some(Credentials {
                    user: user.expose().to_string(),
                    password: password.expose().clone(),
                })
            }
            None => None,
        };
        Ok(Self {
            kind: server.kind,
            host: server.host.to_string(),
            port: server.port,
            shown: server.to_string(),
            credentials,
        })
    }

    /// Whether the name of the target is the proxy's to resolve.
    pub(super) fn resolves_names(&self) -> bool {
        self.kind != ProxyKind::Socks5
    }

    /// What must not be shown if the proxy repeats it.
    pub(super) fn secrets(&self) -> Vec<String> {
        let Some(Credentials { user, password }) = &self.credentials else {
            return Vec::new();
        };
        let pair = BASE64.encode(format!("{user}:{password}"));
        let long = |text: &String| text.len() >= 4;
        let all = [pair, password.clone(), user.clone()].into_iter();
        let mut secrets: Vec<String> = all.filter(long).collect();
        // As `mask` wants them.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }
}

/// The environment does not change while we run.
fn from_environment(place: &Place) -> Result<Option<Proxy>, String> {
    static MATCHER: OnceLock<Matcher> = OnceLock::new();
    let found = matched(MATCHER.get_or_init(Matcher::from_env), place)?;
    match found {
        Some(proxy) => Ok(Some(proxy)),
        None => unusable(&|name| std::env::var(name).ok(), place).map_or(Ok(None), Err),
    }
}

/// What is wrong with the variable that should have given a proxy for `place`, if there is one: the
/// matcher passes over what it cannot read, and going straight may be what must not happen.
fn unusable(variable: &dyn Fn(&str) -> Option<String>, place: &Place) -> Option<String> {
    let own = match place.secure {
        true => ["HTTPS_PROXY", "https_proxy"],
        false => ["HTTP_PROXY", "http_proxy"],
    };
    let names = own.into_iter().chain(["ALL_PROXY", "all_proxy"]);
    let set = |name: &&str| variable(name).is_some_and(|value| !value.is_empty());
    let name = names.into_iter().find(set)?;
    // One that is good for all: where it is not used, NO_PROXY says so.
    let no = ["NO_PROXY", "no_proxy"]
        .iter()
        .find_map(|name| variable(name));
    let any = Matcher::builder()
        .all("http://localhost")
        .no(no.unwrap_or_default())
        .build();
    match matched(&any, place) {
        Ok(Some(_)) => Some(format!(
            "{name} is set and is no proxy that can be used: http://, https://, socks5:// or \
             socks5h:// and HOST:PORT"
        )),
        Ok(None) | Err(_) => None,
    }
}

fn matched(matcher: &Matcher, place: &Place) -> Result<Option<Proxy>, String> {
    // The rules are those for the HTTP request that a WebSocket begins with.
    let scheme = if place.secure { "https" } else { "http" };
    let host = match place.host.contains(':') {
        true => format!("[{}]", place.host),
        false => place.host.clone(),
    };
    let uri = format!("{scheme}://{host}:{}/", place.port).parse::<Uri>();
    let uri = uri.map_err(|error| format!("no proxy can be asked for {host}: {error}"))?;
    matcher
        .intercept(&uri)
        .as_ref()
        .map(intercepted)
        .transpose()
}

fn intercepted(intercept: &Intercept) -> Result<Proxy, String> {
    let uri = intercept.uri();
    let (kind, default_port) = match uri.scheme_str() {
        Some("http") | None => (ProxyKind::Http, 80),
        Some("https") => (ProxyKind::Https, 443),
        Some("socks5") => (ProxyKind::Socks5, 1080),
        Some("socks5h") => (ProxyKind::Socks5h, 1080),
        Some(other) => {
            return Err(format!(
                "the proxy of the environment is of kind {other}; known are http, https, socks5 \
                 and socks5h"
            ));
        }
    };
    let host = uri
        .host()
        .ok_or("the proxy of the environment has no host")?;
    let host = host.trim_matches(['[', ']']).to_owned();
    // A port beyond 65535 is none to the parser.
    let has_port = uri.authority().map(|authority| authority.as_str()) != uri.host();
    let port = match uri.port_u16() {
        Some(port) => port,
        None if has_port => {
            return Err("the proxy of the environment has a port above 65535".to_owned());
        }
        None => default_port,
    };
    let credentials = match (intercept.raw_auth(), intercept.basic_auth()) {
        (Some((user, password)), _) => Some((user.to_owned(), password.to_owned())),
        (None, Some(basic)) => decoded(basic),
        (None, None) => None,
    };
    let shown = ProxyServer {
        kind,
        host: host.as_str().into(),
        port,
        credentials: None,
    };
    Ok(Proxy {
        kind,
        shown: shown.to_string(),
        host,
        port,
        credentials: credentials.map(|(user, password)| Credentials { user, password }),
    })
}

/// User and password of a `Basic` value.
fn decoded(basic: &HeaderValue) -> Option<(String, String)> {
    let pair = basic.to_str().ok()?.strip_prefix("Basic ")?;
    let pair = String::from_utf8(BASE64.decode(pair).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Where the tunnel is to lead.
#[derive(Clone, Copy)]
pub(super) enum Destination<'a> {
    /// A name for the proxy to resolve.
    Name(&'a str, u16),
    Address(SocketAddr),
}

impl std::fmt::Display for Destination<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The proxy did not open a tunnel.
pub(super) struct ProxyFailure {
    pub(super) message: String,
    /// The proxy's HTTP status.
    pub(super) status: Option<u16>,
    pub(super) advice: Advice,
}

impl ProxyFailure {
    fn plain(message: String) -> Self {
        Self {
            message,
            status: None,
            advice: Advice::Backoff,
        }
    }
}

/// Opens a tunnel through `proxy`, to which `io` leads, with TLS to it where `proxy_tls` is there.
/// `secrets` are asked for if it refuses, for it may repeat what passed through it before. The
/// caller bounds the time.
pub(super) async fn tunnel(
    io: Io,
    proxy: &Proxy,
    proxy_tls: Option<&Prepared>,
    to: Destination<'_>,
    secrets: &(dyn Fn() -> Vec<String> + Sync),
) -> Result<Io, ProxyFailure> {
    match (proxy.kind, proxy_tls) {
        (ProxyKind::Http | ProxyKind::Https, None) => connect(io, proxy, to, secrets).await,
        (ProxyKind::Http | ProxyKind::Https, Some(prepared)) => {
            let secured = tls::connect(io, &proxy.host, prepared).await;
            let secured = secured.map_err(|failure| {
                let failure = failure.concealed(&secrets());
                let message = format!("TLS with the proxy {}: {}", proxy.shown, failure.message);
                ProxyFailure::plain(message)
            })?;
            let watch = secured.watch;
            let connected = connect(secured.io, proxy, to, secrets).await;
            connected.map_err(|failure| match watch.failure() {
                // A TLS 1.3 proxy refuses our certificate after our handshake.
                Some(words) if failure.status.is_none() => {
                    let words = of_the_proxy(&words);
                    ProxyFailure::plain(format!("TLS with the proxy {}: {words}", proxy.shown))
                }
                Some(_) | None => failure,
            })
        }
        (ProxyKind::Socks5 | ProxyKind::Socks5h, _) => socks(io, proxy, to).await,
    }
}

async fn connect(
    io: Io,
    proxy: &Proxy,
    to: Destination<'_>,
    secrets: &(dyn Fn() -> Vec<String> + Sync),
) -> Result<Io, ProxyFailure> {
    let shown_proxy = &proxy.shown;
    let broken = |words: String| {
        ProxyFailure::plain(format!(
            "the proxy {shown_proxy} did not answer CONNECT {to}: {words}"
        ))
    };
    let request = connect_request(proxy, to).map_err(|error| broken(error.to_string()))?;
    let asked = exchange::ask(io, request, Arc::<Received>::default()).await;
    let mut answered = asked.map_err(|words| broken(in_the_proxys_name(&words)))?;
    let status = answered.response.status();
    if !status.is_success() {
        return Err(refused(&mut answered, proxy, to, &secrets()).await);
    }
    let (io, early) = answered
        .upgraded()
        .await
        .map_err(|words| broken(in_the_proxys_name(&words)))?;
    match early.len() {
        0 => Ok(io),
        // We speak first, in TLS as in HTTP: whoever speaks now is not the target.
        n => Err(broken(format!(
            "{n} bytes came before anything was asked of the target"
        ))),
    }
}

/// The words about TLS name the keys, and the schemes, of a target; here it is the proxy's.
pub(super) fn of_the_proxy(words: &str) -> String {
    words
        .replace("tls.", "proxy_tls.")
        .replace("ws:// instead of wss://", "http:// instead of https://")
}

/// The words for an answer that was none are of "the peer"; here that is the proxy.
fn in_the_proxys_name(words: &str) -> String {
    match words {
        "the peer answered in TLS: wss:// instead of ws://?" => {
            "it answered in TLS: https:// instead of http://?".to_owned()
        }
        words => words.replacen("the peer", "it", 1),
    }
}

fn connect_request(
    proxy: &Proxy,
    to: Destination<'_>,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let authority = to.to_string();
    let mut request = Request::connect(&authority)
        .header(header::HOST, &authority)
        .header(header::USER_AGENT, super::request::USER_AGENT)
        .body(Empty::new())?;
    if let Some(Credentials { user, password }) = &proxy.credentials {
        let basic = format!("Basic {}", BASE64.encode(format!("{user}:{password}")));
        let mut basic = HeaderValue::from_str(&basic)?;
        basic.set_sensitive(true);
        request
            .headers_mut()
            .insert(header::PROXY_AUTHORIZATION, basic);
    }
    Ok(request)
}

/// How much of a refusal's body is read, and how long it is waited for.
const BODY_READ: usize = 1024;
const BODY_WAIT: Duration = Duration::from_millis(300);

async fn refused(
    answered: &mut exchange::Answered,
    proxy: &Proxy,
    to: Destination<'_>,
    secrets: &[String],
) -> ProxyFailure {
    let response = &answered.response;
    let status = response.status();
    let reason = response.extensions().get::<ReasonPhrase>();
    let reason = match reason {
        Some(reason) => {
            shown(mask(&String::from_utf8_lossy(reason.as_bytes()), secrets).as_bytes())
        }
        None => status.canonical_reason().unwrap_or_default().to_owned(),
    };
    let hint = match (status, &proxy.credentials) {
        (StatusCode::PROXY_AUTHENTICATION_REQUIRED, None) => {
            "; it wants a user and a password: give them in `proxy`"
        }
        (StatusCode::PROXY_AUTHENTICATION_REQUIRED, Some(_)) => {
            "; it does not accept the user and password in `proxy`"
        }
        (StatusCode::FORBIDDEN, _) => "; its rules forbid this destination or its port",
        (StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED, _) => {
            "; is it a proxy at all?"
        }
        (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND, _) => {
            "; is it a proxy, and is the port right?"
        }
        (
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT,
            _,
        ) => "; it could not reach the destination",
        _ => "",
    };
    let mut message = format!(
        "the proxy {} answered {} {reason} to CONNECT {to}{hint}",
        proxy.shown,
        status.as_u16()
    );
    let read = answered.beginning_of_body(BODY_READ);
    if let Ok(Some(body)) = tokio::time::timeout(BODY_WAIT, read).await {
        let body = String::from_utf8_lossy(&body);
        // A page for browsers says nothing more than its status, at length.
        if !body.trim_start().starts_with('<') {
            let body = mask(&body, secrets);
            message.push_str(&format!("; it says: {}", shown(body.as_bytes())));
        }
    }
    ProxyFailure {
        message,
        status: Some(status.as_u16()),
        advice: match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::FORBIDDEN => Advice::Refused,
            _ => Advice::Backoff,
        },
    }
}

async fn socks(io: Io, proxy: &Proxy, to: Destination<'_>) -> Result<Io, ProxyFailure> {
    let credentials = proxy.credentials.as_ref();
    let credentials = credentials.map(|c| (c.user.as_str(), c.password.as_str()));
    let opened = match (to, credentials) {
        (Destination::Name(host, port), None) => {
            Socks5Stream::connect_with_socket(io, (host, port)).await
        }
        (Destination::Address(address), None) => {
            Socks5Stream::connect_with_socket(io, address).await
        }
        (Destination::Name(host, port), Some((user, password))) => {
            let target = (host, port);
            Socks5Stream::connect_with_password_and_socket(io, target, user, password).await
        }
        (Destination::Address(address), Some((user, password))) => {
            Socks5Stream::connect_with_password_and_socket(io, address, user, password).await
        }
    };
    opened.map(Socks5Stream::into_inner).map_err(|error| {
        let (words, advice) = socks_words(&error, credentials.is_some());
        ProxyFailure {
            message: format!("the proxy {} did not connect to {to}: {words}", proxy.shown),
            status: None,
            advice,
        }
    })
}

fn socks_words(error: &tokio_socks::Error, has_credentials: bool) -> (String, Advice) {
    use tokio_socks::Error as E;
    let wants_credentials = "it wants a user and a password: give them in `proxy`";
    let words = match error {
        E::NoAcceptableAuthMethods | E::AuthorizationRequired if !has_credentials => {
            return (wants_credentials.into(), Advice::Refused);
        }
        E::PasswordAuthFailure(_) => {
            let words = "it does not accept the user and password in `proxy`";
            return (words.into(), Advice::Refused);
        }
        E::NoAcceptableAuthMethods | E::AuthorizationRequired => {
            "it takes no user and password, nor does it let us in without".to_owned()
        }
        E::ConnectionNotAllowedByRuleset => {
            let words = "its rules forbid this destination (reply 2)";
            return (words.into(), Advice::Refused);
        }
        E::GeneralSocksServerFailure => "general failure (reply 1)".to_owned(),
        E::NetworkUnreachable => "network unreachable (reply 3)".to_owned(),
        E::HostUnreachable => "host unreachable, or its name not found (reply 4)".to_owned(),
        E::ConnectionRefused => "connection refused by the destination (reply 5)".to_owned(),
        E::TtlExpired => "TTL expired (reply 6)".to_owned(),
        E::CommandNotSupported => "it knows no CONNECT (reply 7)".to_owned(),
        E::AddressTypeNotSupported => {
            "it takes no address of this kind (reply 8); try socks5h://, or socks5://".to_owned()
        }
        // tokio-socks has no other name for a reply beyond those above, either.
        E::UnknownAuthMethod => "it gave an answer that SOCKS5 does not have".to_owned(),
        E::InvalidResponseVersion => "the answer is not SOCKS5; is it an HTTP proxy?".to_owned(),
        E::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "it closed in the middle of the negotiation".to_owned()
        }
        E::Io(error) => os::words(error),
        other => other.to_string(),
    };
    (words, Advice::Backoff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secret, SecretSource};

    fn place(url: &str) -> Place {
        Place::parse(url).unwrap()
    }

    #[test]
    fn the_environments_rules_are_those_of_http_for_ws_and_of_https_for_wss() {
        let matcher = Matcher::builder()
            .http("http://plain.example.com:3128")
            .https("socks5h://joe:pw%20d@secure.example.com")
            .no("localhost,.internal.example.com,10.0.0.0/8")
            .build();
        let of = |url| matched(&matcher, &place(url)).unwrap();
        let plain = of("ws://a.example.com/ws").unwrap();
        assert_eq!(plain.shown, "http://plain.example.com:3128");
        let secure = of("wss://a.example.com:8443/ws").unwrap();
        assert_eq!(secure.shown, "socks5h://secure.example.com:1080");
        assert_eq!(secure.credentials.unwrap().password, "pw d");
        for direct in [
            "ws://localhost:9000/",
            "wss://x.internal.example.com/",
            "ws://10.1.2.3/",
        ] {
            assert!(of(direct).is_none(), "{direct}");
        }
        let basic = Matcher::builder()
            .all("http://joe:s3cret@p.example.com")
            .build();
        let proxy = matched(&basic, &place("wss://[::1]/")).unwrap().unwrap();
        assert_eq!((&*proxy.host, proxy.port), ("p.example.com", 80));
        assert_eq!(proxy.credentials.as_ref().unwrap().password, "s3cret");
        assert!(proxy.secrets().contains(&"s3cret".to_owned()));
    }

    #[test]
    fn a_port_that_is_none_is_not_taken_for_the_usual_one() {
        let of = |proxy: &str| {
            matched(
                &Matcher::builder().all(proxy).build(),
                &place("ws://a.example.com/"),
            )
        };
        assert_eq!(of("http://[::1]").unwrap().unwrap().port, 80);
        assert_eq!(of("http://[::1]:8080").unwrap().unwrap().port, 8080);
        let error = of("http://127.0.0.1:99999").err().unwrap();
        assert!(error.contains("a port above 65535"), "{error}");
    }

    #[test]
    fn a_variable_that_is_no_proxy_is_named_and_not_passed_over() {
        let variable = |set: &'static [(&str, &str)]| {
            move |name: &str| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            }
        };
        let bad = variable(&[
            ("HTTP_PROXY", "bogus://joe:s3cret@127.0.0.1:1"),
            ("NO_PROXY", "b.example.com"),
        ]);
        let words = unusable(&bad, &place("ws://a.example.com/")).unwrap();
        assert!(
            words.starts_with("HTTP_PROXY is set and is no proxy"),
            "{words}"
        );
        assert!(!words.contains("s3cret"));
        assert_eq!(unusable(&bad, &place("ws://b.example.com/")), None);
        assert_eq!(unusable(&bad, &place("wss://a.example.com/")), None);
        assert_eq!(
            unusable(&variable(&[]), &place("ws://a.example.com/")),
            None
        );
    }

    #[test]
    fn credentials_that_a_socks_proxy_wants_or_refuses_are_not_tried_again_soon() {
        use tokio_socks::Error as E;
        for (error, has_credentials, words, advice) in [
            (
                E::NoAcceptableAuthMethods,
                false,
                "it wants a user and a password",
                Advice::Refused,
            ),
            (
                E::NoAcceptableAuthMethods,
                true,
                "it takes no user and password",
                Advice::Backoff,
            ),
            (
                E::PasswordAuthFailure(1),
                true,
                "it does not accept the user and password",
                Advice::Refused,
            ),
            (
                E::InvalidResponseVersion,
                false,
                "is it an HTTP proxy?",
                Advice::Backoff,
            ),
        ] {
            let (said, advised) = socks_words(&error, has_credentials);
            assert!(said.contains(words), "{said}");
            assert_eq!(advised, advice, "{said}");
        }
    }

    #[test]
    fn a_password_that_cannot_be_read_is_named_by_its_reference() {
        let server = ProxyServer {
            kind: ProxyKind::Http,
            host: "::1".into(),
            port: 3128,
            credentials: Some((
                Secret::new("joe".into()),
                SecretSource::File("/nowhere/password".into()),
            )),
        };
        let error = Proxy::via(&server).err().unwrap();
        assert!(error.contains("/nowhere/password"), "{error}");
        assert_eq!(server.to_string(), "http://[::1]:3128");
    }
}
