//! The opening handshake of RFC 6455 section 4, on hyper's HTTP/1.1.
//!
//! tokio-tungstenite's own handshake refuses peers that exist (`Connection: keep-alive, Upgrade`),
//! cuts error bodies short and keeps a 4 KiB buffer for the life of the connection.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::io::Io;
use crate::config::mask;
use crate::os;
use crate::proto::reconnect::{Advice, LONGEST_RETRY_AFTER};

/// Largest answer head that is read.
const MAX_HEAD: usize = 64 * 1024;
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
}

/// The peer did not agree.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) status: Option<u16>,
    pub(super) advice: Advice,
}

impl Refusal {
    fn broken(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            status: None,
            advice: Advice::Backoff,
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
    /// What must not be shown if the answer repeats it.
    pub(super) secrets: Vec<String>,
}

/// A stream that counts what came in, so that a peer that said nothing can be told from one that
/// stopped half way.
struct Counted {
    io: Io,
    received: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.received
            .fetch_add(buf.filled().len() - before, Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Asks for the upgrade. The caller bounds the time; `received` then tells it how many bytes of
/// an answer there were.
pub(super) async fn upgrade(
    io: Io,
    request: UpgradeRequest<'_>,
    received: Arc<AtomicUsize>,
) -> Result<Upgraded, Refusal> {
    let key = BASE64.encode(rand::random::<[u8; 16]>());
    let subprotocols = request.subprotocols;
    let secrets = request.secrets.clone();
    let http_request = build(request, &key)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(Counted { io, received }))
        .await
        .map_err(|e| Refusal::broken(format!("the request could not be sent: {e}")))?;
    let mut connection = std::pin::pin!(connection.with_upgrades());
    let mut response = std::pin::pin!(sender.send_request(http_request));
    let mut driven = false;
    // The connection may finish, its upgrade done or its stream broken, before the response is
    // looked at; the response tells which.
    let response = tokio::select! {
        biased;
        response = &mut response => response,
        _ = &mut connection => {
            driven = true;
            response.await
        }
    };
    let response = response.map_err(|error| Refusal::broken(broken_answer(&error)))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let drive = async {
            if !driven {
                // How the stream ends no longer matters: the status is the answer.
                let _ = connection.await;
            }
            std::future::pending::<Infallible>().await
        };
        return Err(tokio::select! {
            biased;
            refusal = refused(response, &secrets) => refusal,
            never = drive => match never {},
        });
    }
    if response.version() < Version::HTTP_11 {
        // RFC 6455 section 4.1: the answer is one of HTTP/1.1 or higher.
        return Err(Refusal::broken(
            "the 101 is one of HTTP/1.0; a proxy that is too old?",
        ));
    }
    let subprotocol = judge(response.headers(), &key, subprotocols).map_err(|message| Refusal {
        message,
        status: Some(101),
        advice: Advice::Backoff,
    })?;
    if !driven {
        let ended = connection.await;
        ended.map_err(|e| Refusal::broken(broken_answer(&e)))?;
    }
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(|e| Refusal::broken(broken_answer(&e)))?;
    let parts = upgraded
        .downcast::<TokioIo<Counted>>()
        .map_err(|_| Refusal::broken("the upgraded stream is of an unexpected kind"))?;
    Ok(Upgraded {
        io: parts.io.into_inner().io,
        early: parts.read_buf,
        subprotocol,
    })
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
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("ws-keepalive/", env!("CARGO_PKG_VERSION"))),
    );
    // The user's headers replace ours of the same name, and may repeat each other.
    for name in request.headers.keys() {
        headers.remove(name);
    }
    for (name, value) in &request.headers {
        headers.append(name, value.clone());
    }
    Ok(built)
}

/// The checks of RFC 6455 section 4.1 on a 101; `Ok` is the subprotocol chosen.
fn judge(headers: &HeaderMap, key: &str, offered: &[Box<str>]) -> Result<Option<Box<str>>, String> {
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
            shown(extensions.as_bytes())
        ));
    }
    match headers.get(header::SEC_WEBSOCKET_PROTOCOL) {
        None => Ok(None),
        Some(chosen) => match offered.iter().find(|o| o.as_bytes() == chosen.as_bytes()) {
            Some(chosen) => Ok(Some(chosen.clone())),
            None => Err(format!(
                "the peer chose a subprotocol that was not offered: {}",
                shown(chosen.as_bytes())
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
async fn refused(response: Response<Incoming>, secrets: &[String]) -> Refusal {
    let status = response.status();
    let headers = response.headers();
    let retry_after = headers.get(header::RETRY_AFTER).and_then(retry_after);
    let location = headers
        .get(header::LOCATION)
        .map(|l| shown(without_secrets(l.as_bytes())));
    let advice = match (status.as_u16(), retry_after) {
        (_, Some(wait)) => Advice::After(wait),
        (401 | 403, None) => Advice::Refused,
        _ => Advice::Backoff,
    };
    let mut message = format!("the peer answered {status} instead of 101");
    let hint = match status.as_u16() {
        200..=299 => "; is this a WebSocket endpoint? check the path".to_owned(),
        300..=399 => match location {
            Some(to) => format!("; it points to {to}: put that address in the url"),
            None => "; it points elsewhere without saying where".to_owned(),
        },
        400 => "; it did not like the request: check path, headers and subprotocols".to_owned(),
        401 | 403 | 407 => "; check the credentials in headers".to_owned(),
        404 => "; check the path".to_owned(),
        426 => "; it wants another protocol version".to_owned(),
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
    if let Ok(Some(body)) = timeout(BODY_WAIT, first_bytes(response.into_body())).await {
        let body = mask(&String::from_utf8_lossy(&body), secrets);
        message.push_str(&format!("; it says: {}", shown(body.as_bytes())));
    }
    Refusal {
        message,
        status: Some(status.as_u16()),
        advice,
    }
}

/// The beginning of a text body.
async fn first_bytes(mut body: Incoming) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < BODY_READ {
        match body.frame().await {
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |d| &d[..])),
            Some(Err(_)) | None => break,
        }
    }
    bytes.truncate(BODY_READ);
    let text = bytes.iter().any(|b| !b.is_ascii_whitespace());
    text.then_some(bytes)
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
fn shown(bytes: &[u8]) -> String {
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

fn broken_answer(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        "the peer closed before its answer was complete".into()
    } else if error.is_parse_too_large() {
        "the answer's head is larger than 64 KiB".into()
    } else if error.is_parse() {
        format!("the answer is not HTTP/1.1 ({error}); is the port right?")
    } else {
        let mut words = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            words = format!("{words}: {inner}");
            source = inner.source();
        }
        format!("the peer broke off: {}", os::words(&words))
    }
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
        assert_eq!(judge(&agreeing("k"), "k", &[]), Ok(None));
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
            let error = judge(&headers, "k", &["v1".into()]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let error = judge(&agreeing("k"), "other", &[]).unwrap_err();
        assert!(error.contains("wrong Sec-WebSocket-Accept"), "{error}");
    }

    #[test]
    fn an_offered_subprotocol_may_be_chosen_or_not() {
        let offered: [Box<str>; 2] = ["v1".into(), "v2".into()];
        assert_eq!(judge(&agreeing("k"), "k", &offered), Ok(None));
        let mut headers = agreeing("k");
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("v2"),
        );
        assert_eq!(judge(&headers, "k", &offered), Ok(Some("v2".into())));
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
