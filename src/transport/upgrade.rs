//! The opening handshake of RFC 6455 section 4, on hyper's HTTP/1.1.
//!
//! tokio-tungstenite's own handshake refuses peers that exist (`Connection: keep-alive, Upgrade`),
//! cuts error bodies short and keeps a 4 KiB buffer for the life of the connection.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode, Version};
use http_body_util::Empty;
use sha1::{Digest, Sha1};
use tokio::time::timeout;

use super::exchange::{self, Answered, Received};
use super::io::Io;
use super::trace::Trace;
use crate::config::{Secret, mask};
use crate::proto::reconnect::{Advice, LONGEST_RETRY_AFTER};

/// How much of a refusal's body is read, more than is shown so that no secret is cut in two before
/// it is masked, and how long it is waited for.
const BODY_READ: usize = 1024;
const BODY_WAIT: Duration = Duration::from_millis(500);
/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The peer agreed: the stream, the bytes that came with the 101, and what was agreed.
pub(super) struct Upgraded {
    pub(super) io: Io,
    /// Bytes of the first frames that came along with the 101.
    pub(super) early: Bytes,
    pub(super) subprotocol: Option<Box<str>>,
    /// Headers of the 101 that tell who answered.
    pub(super) headers: Box<[(Box<str>, Box<str>)]>,
}

/// The peer did not agree.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) status: Option<u16>,
    pub(super) advice: Advice,
    /// Where a redirect points to, as it was sent.
    pub(super) location: Option<Secret<Box<str>>>,
}

impl Refusal {
    fn broken(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            status: None,
            advice: Advice::Backoff,
            location: None,
        }
    }
}

/// The request's changing parts.
pub(super) struct UpgradeRequest<'a> {
    /// Path and query.
    pub(super) path: &'a str,
    /// Host, with the port where it is not the scheme's own.
    pub(super) host: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) subprotocols: &'a [Box<str>],
    /// Whether one of them must be chosen.
    pub(super) require_subprotocol: bool,
    /// Whether a redirect will be followed: then what it says to people is not waited for.
    pub(super) follows: bool,
    /// What must not be shown if the answer repeats it.
    pub(super) secrets: &'a [String],
}

/// Asks for the upgrade. The caller bounds the time; `received` then tells it what there was of an
/// answer.
pub(super) async fn upgrade(
    io: Io,
    request: UpgradeRequest<'_>,
    received: Arc<Received>,
    trace: &mut Trace,
) -> Result<Upgraded, Refusal> {
    let key = BASE64.encode(rand::random::<[u8; 16]>());
    let (subprotocols, secrets) = (request.subprotocols, request.secrets);
    let (require, follows) = (request.require_subprotocol, request.follows);
    let http_request = build(request, &key)?;
    trace.asking(&http_request);
    let asked = exchange::ask(io, http_request, received).await;
    let mut answered = asked.map_err(Refusal::broken)?;
    let response = &answered.response;
    trace.answered(response, secrets);
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(&mut answered, secrets, follows).await);
    }
    if response.version() < Version::HTTP_11 {
        // RFC 6455 section 4.1: the answer is one of HTTP/1.1 or higher.
        return Err(Refusal::broken(
            "the 101 is one of HTTP/1.0; a proxy that is too old?",
        ));
    }
    let judged = judge(response.headers(), &key, subprotocols, secrets);
    let chosen = judged.and_then(|chosen| match chosen {
        None if require => Err(format!(
            "the peer chose none of the subprotocols offered ({}), and require_subprotocol is set",
            subprotocols.join(", ")
        )),
        chosen => Ok(chosen),
    });
    let subprotocol = chosen.map_err(|message| Refusal {
        status: Some(101),
        ..Refusal::broken(message)
    })?;
    let headers = telling(response.headers(), secrets);
    let (io, early) = answered.upgraded().await.map_err(Refusal::broken)?;
    Ok(Upgraded {
        io,
        early,
        subprotocol,
        headers,
    })
}

/// Headers that tell who answered: the server, and what stands before it.
const TELLING: [&str; 10] = [
    "server",
    "via",
    "x-served-by",
    "x-cache",
    "cf-ray",
    "x-amz-cf-id",
    "x-amz-cf-pop",
    "x-request-id",
    "x-correlation-id",
    "x-envoy-upstream-service-time",
];
const TELLING_PREFIX: &str = "x-amzn-";
/// Bounds of what is kept of them per connection.
const MOST_TELLING: usize = 12;
const LONGEST_VALUE: usize = 128;
/// Of a name, which the peer chooses behind [`TELLING_PREFIX`]; the longest AWS sends is
/// `x-amzn-remapped-authorization`.
const LONGEST_NAME: usize = 64;

/// The telling headers of a 101, by lower-case name.
fn telling(headers: &HeaderMap, secrets: &[String]) -> Box<[(Box<str>, Box<str>)]> {
    let telling = headers.iter().filter(|(name, _)| {
        let name = name.as_str();
        TELLING.contains(&name) || (name.starts_with(TELLING_PREFIX) && name.len() <= LONGEST_NAME)
    });
    let pairs = telling.take(MOST_TELLING).map(|(name, value)| {
        let value = mask(&String::from_utf8_lossy(value.as_bytes()), secrets);
        let name = mask_name(name.as_str(), secrets);
        (name.into(), cut(&value, LONGEST_VALUE).into())
    });
    pairs.collect()
}

/// A header's name, which the peer may make of what it was sent: names are in lower case.
pub(super) fn mask_name(name: &str, secrets: &[String]) -> String {
    let secrets: Vec<String> = secrets.iter().map(|s| s.to_ascii_lowercase()).collect();
    mask(name, &secrets)
}

/// The first `bytes` of `text`, or a few less.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn build(request: UpgradeRequest<'_>, key: &str) -> Result<Request<Empty<Bytes>>, Refusal> {
    let bad = |error: http::Error| Refusal::broken(format!("the request cannot be made: {error}"));
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| bad(error.into()));
    let mut built = Request::get(request.path).body(Empty::new()).map_err(bad)?;
    let headers = built.headers_mut();
    headers.insert(header::HOST, value(request.host)?);
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_KEY, value(key)?);
    headers.insert(
        header::SEC_WEBSOCKET_VERSION,
        HeaderValue::from_static("13"),
    );
    if !request.subprotocols.is_empty() {
        let offered = value(&request.subprotocols.join(", "))?;
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offered);
    }
    // The user's headers replace ours of the same name, and may repeat each other.
    for name in request.headers.keys() {
        headers.remove(name);
    }
    for (name, value) in &request.headers {
        headers.append(name, value.clone());
    }
    Ok(built)
}

/// The checks of RFC 6455 section 4.1 on a 101; `Ok` is the subprotocol chosen. `secrets` are not
/// shown.
fn judge(
    headers: &HeaderMap,
    key: &str,
    offered: &[Box<str>],
    secrets: &[String],
) -> Result<Option<Box<str>>, String> {
    let said = |bytes: &[u8]| shown(mask(&String::from_utf8_lossy(bytes), secrets).as_bytes());
    if !has_token(headers, &header::UPGRADE, "websocket") {
        return Err("the 101 lacks \"Upgrade: websocket\"; something in between answers".into());
    }
    if !has_token(headers, &header::CONNECTION, "upgrade") {
        return Err("the 101 lacks \"Connection: Upgrade\"; something in between drops it".into());
    }
    let expected = accept_key(key.as_bytes());
    match headers.get(header::SEC_WEBSOCKET_ACCEPT) {
        None => return Err("the 101 lacks Sec-WebSocket-Accept".into()),
        Some(value) if value.as_bytes() != expected.as_bytes() => {
            return Err(
                "wrong Sec-WebSocket-Accept: the answer is not to this request; a cache?".into(),
            );
        }
        Some(_) => {}
    }
    if let Some(extensions) = headers.get(header::SEC_WEBSOCKET_EXTENSIONS) {
        return Err(format!(
            "the peer chose an extension that was not offered: {}",
            said(extensions.as_bytes())
        ));
    }
    match headers.get(header::SEC_WEBSOCKET_PROTOCOL) {
        None => Ok(None),
        Some(chosen) => match offered.iter().find(|o| o.as_bytes() == chosen.as_bytes()) {
            Some(chosen) => Ok(Some(chosen.clone())),
            None => Err(format!(
                "the peer chose a subprotocol that was not offered: {}",
                said(chosen.as_bytes())
            )),
        },
    }
}

/// Whether the comma-separated lists under `name` hold `token`, in any case: proxies send
/// `Connection: keep-alive, Upgrade`.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lists = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// The accept value for `key`, RFC 6455 section 4.2.2.
pub(crate) fn accept_key(key: &[u8]) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    BASE64.encode(digest)
}

/// What an answer other than 101 says, and what to do about it.
async fn refused(answered: &mut Answered, secrets: &[String], follows: bool) -> Refusal {
    let response = &answered.response;
    let status = response.status();
    let headers = response.headers();
    let retry_after = headers.get(header::RETRY_AFTER).and_then(retry_after);
    let location = headers.get(header::LOCATION);
    let shown_location = location.map(|l| {
        let l = String::from_utf8_lossy(without_secrets(l.as_bytes()));
        shown(mask(&l, secrets).as_bytes())
    });
    let redirects = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = location.and_then(|l| l.to_str().ok()).filter(|_| redirects);
    let location = location.map(|location| Secret::new(location.into()));
    let advice = match (status.as_u16(), retry_after) {
        (_, Some(wait)) => Advice::After(wait),
        (401 | 403, None) => Advice::Refused,
        _ => Advice::Backoff,
    };
    let mut message = format!("the peer answered {status} instead of 101");
    let hint = match status.as_u16() {
        200..=299 => "; is this a WebSocket endpoint? check the path".to_owned(),
        300..=399 => match shown_location {
            Some(to) => {
                format!("; it points to {to}: put that address in the url, or set max_redirects")
            }
            None => "; it points elsewhere without saying where".to_owned(),
        },
        400 => "; it did not like the request: check path, headers and subprotocols".to_owned(),
        401 | 403 => "; check the credentials in headers".to_owned(),
        404 => "; check the path".to_owned(),
        426 => {
            "; something in between drops the Upgrade header, or it wants another protocol version"
                .to_owned()
        }
        429 | 503 => match retry_after {
            Some(wait) => {
                let obeyed = wait.min(LONGEST_RETRY_AFTER);
                format!("; try again after {} s", obeyed.as_secs())
            }
            None => String::new(),
        },
        500..=599 => "; the server, or a proxy before it, failed".to_owned(),
        _ => String::new(),
    };
    message.push_str(&hint);
    let body = match location {
        Some(_) if follows => None,
        Some(_) | None => {
            let read = timeout(BODY_WAIT, answered.beginning_of_body(BODY_READ));
            read.await.ok().flatten()
        }
    };
    if let Some(body) = body {
        let body = mask(&String::from_utf8_lossy(&body), secrets);
        if status == StatusCode::BAD_REQUEST && speaks_of_tls(&body) {
            message = format!(
                "the peer answered {status} instead of 101; it wants TLS: wss:// instead of ws://?"
            );
        }
        message.push_str(&format!("; it says: {}", shown(body.as_bytes())));
    }
    Refusal {
        message,
        status: Some(status.as_u16()),
        advice,
        location,
    }
}

/// Servers that got plain HTTP on their TLS port say so with a 400, each in its own words.
fn speaks_of_tls(body: &str) -> bool {
    let body = body.to_ascii_lowercase();
    body.contains("https") || body.contains("ssl") || body.contains("tls")
}

/// `Retry-After`: seconds or a date (RFC 9110 section 10.2.3).
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More seconds than fit are as good as for ever.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(
        date.duration_since(std::time::SystemTime::now())
            .unwrap_or_default(),
    )
}

/// Text of the peer's on one line, control characters escaped, at most 128 characters.
pub(super) fn shown(bytes: &[u8]) -> String {
    const LONGEST: usize = 128;
    let text = String::from_utf8_lossy(bytes);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut escaped: String = line.escape_debug().take(LONGEST).collect();
    if line.chars().count() > LONGEST {
        escaped.push('…');
    }
    escaped
}

/// A URL up to its query, without userinfo.
fn without_secrets(url: &[u8]) -> &[u8] {
    let end = url.iter().position(|b| matches!(b, b'?' | b'#'));
    let url = &url[..end.unwrap_or(url.len())];
    if url.contains(&b'@') { b"***" } else { url }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreeing(key: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(
            header::CONNECTION,
            HeaderValue::from_static("keep-alive, Upgrade"),
        );
        let accept = HeaderValue::from_str(&accept_key(key.as_bytes())).unwrap();
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        headers
    }

    #[test]
    fn the_accept_value_is_the_one_of_the_rfc() {
        assert_eq!(
            accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn connection_is_read_as_a_token_list() {
        assert_eq!(judge(&agreeing("k"), "k", &[], &[]), Ok(None));
    }

    #[test]
    fn each_wrong_answer_has_its_own_message() {
        type Change = fn(&mut HeaderMap);
        let cases: [(Change, &str); 5] = [
            (
                |h| drop(h.remove(header::UPGRADE)),
                "lacks \"Upgrade: websocket\"",
            ),
            (
                |h| drop(h.insert(header::CONNECTION, HeaderValue::from_static("close"))),
                "lacks \"Connection: Upgrade\"",
            ),
            (
                |h| drop(h.remove(header::SEC_WEBSOCKET_ACCEPT)),
                "lacks Sec-WebSocket-Accept",
            ),
            (
                |h| {
                    drop(h.insert(
                        header::SEC_WEBSOCKET_EXTENSIONS,
                        HeaderValue::from_static("permessage-deflate"),
                    ))
                },
                "an extension that was not offered: permessage-deflate",
            ),
            (
                |h| {
                    drop(h.insert(
                        header::SEC_WEBSOCKET_PROTOCOL,
                        HeaderValue::from_static("v9"),
                    ))
                },
                "a subprotocol that was not offered: v9",
            ),
        ];
        for (change, words) in cases {
            let mut headers = agreeing("k");
            change(&mut headers);
            let error = judge(&headers, "k", &["v1".into()], &[]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let error = judge(&agreeing("k"), "other", &[], &[]).unwrap_err();
        assert!(error.contains("wrong Sec-WebSocket-Accept"), "{error}");
    }

    #[test]
    fn an_offered_subprotocol_may_be_chosen_or_not() {
        let offered: [Box<str>; 2] = ["v1".into(), "v2".into()];
        assert_eq!(judge(&agreeing("k"), "k", &offered, &[]), Ok(None));
        let mut headers = agreeing("k");
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("v2"),
        );
        assert_eq!(judge(&headers, "k", &offered, &[]), Ok(Some("v2".into())));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let value = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap());
        assert_eq!(value("7"), Some(Duration::from_secs(7)));
        assert_eq!(value("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(value("soon"), None);
        assert_eq!(value("-7"), None);
        assert_eq!(
            value("99999999999999999999"),
            Some(Duration::from_secs(u64::MAX))
        );
    }

    #[test]
    fn a_location_shows_no_secret() {
        assert_eq!(
            without_secrets(b"https://example.com/a?token=s3cret"),
            b"https://example.com/a"
        );
        assert_eq!(without_secrets(b"https://u:p@example.com/a"), b"***");
        assert_eq!(shown(b"a\x1b[2Jb\r\nc"), "a\\u{1b}[2Jb c");
    }
}
