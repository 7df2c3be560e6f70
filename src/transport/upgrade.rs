//! The opening handshake of RFC 6455 section 4, on hyper's HTTP/1.1.
//!
//! tokio-tungstenite's own handshake refuses peers that exist (`Connection: keep-alive, Upgrade`),
//! cuts error bodies short and keeps a 4 KiB buffer for the life of the connection.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode, Version};
use http_body_util::Empty;
use sha1::{Digest, Sha1};

use super::answer::{Refusal, Wanted, refused, shown, telling};
use super::exchange::{self, Received};
use super::io::Io;
use super::trace::Trace;
use crate::config::mask;

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
        return Err(refused(&mut answered, Wanted::Upgrade, secrets, follows).await);
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
    let subprotocol =
        chosen.map_err(|message| Refusal::unfit(StatusCode::SWITCHING_PROTOCOLS, message))?;
    let headers = telling(response.headers(), secrets);
    let (io, early) = answered.upgraded().await.map_err(Refusal::broken)?;
    Ok(Upgraded {
        io,
        early,
        subprotocol,
        headers,
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
}
