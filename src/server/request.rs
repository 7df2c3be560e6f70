//! What a request is answered with: the server's half of the opening handshake (RFC 6455 section
//! 4.2), the stream of events, refusals.

use std::time::SystemTime;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};

use super::events::{self, Stream};
use super::faults;
use super::talk::Application;
use super::ticker::Ticker;
use crate::config::FaultSwitches;
use crate::config::faults::{Endpoint, Faults, Refusal};
use crate::transport::upgrade::{accept_key, has_token};

/// What is to be done.
pub(super) enum Verdict {
    /// The answer ends the connection.
    Answer(Box<Response<String>>),
    /// The same, because it was asked for.
    Refuse(Box<Response<String>>, Faults),
    /// The connection is no longer HTTP's.
    Take(Take),
}

/// What is to be done with a connection that was taken out of HTTP's hands.
pub(super) enum Take {
    /// It is closed without an answer, for these.
    HangUp(Faults),
    /// It is served, after `head`.
    Serve {
        head: Vec<u8>,
        role: Role,
        faults: Faults,
    },
}

/// What a connection is for.
pub(super) enum Role {
    WebSocket(Application),
    Events {
        stream: Stream,
        /// HTTP/1.1.
        chunked: bool,
    },
    /// It was the answer.
    HeadOnly,
}

/// Judges a request.
pub(super) fn judge<B>(request: &Request<B>, switches: &FaultSwitches) -> Verdict {
    let (path, query) = (request.uri().path(), request.uri().query());
    let query = query.unwrap_or_default();
    let wants_upgrade = has_token(request.headers(), &header::UPGRADE, "websocket")
        && has_token(request.headers(), &header::CONNECTION, "upgrade");
    // A WebSocket is served on every path, on this one too.
    let (endpoint, own) = match path {
        "/events" if !wants_upgrade => (Endpoint::Events, &events::KEYS[..]),
        _ => (Endpoint::WebSocket, &[][..]),
    };
    let faults = match faults::asked(switches, endpoint, query, own) {
        Ok(faults) => faults,
        Err(why) => return Verdict::Answer(plain(StatusCode::BAD_REQUEST, &why)),
    };
    if faults.accept_and_close {
        return Verdict::Take(Take::HangUp(faults));
    }
    if let Some(refusal) = faults.status {
        return Verdict::Refuse(refused(refusal), faults);
    }
    let agreed = match endpoint {
        Endpoint::Events => stream(request, query),
        Endpoint::WebSocket if wants_upgrade => {
            let application = match path {
                "/echo" => Application::Echo,
                "/ticker" => Application::Ticker(Ticker::default()),
                _ => Application::Ignore,
            };
            upgrade(request).map(|head| (head, Role::WebSocket(application)))
        }
        Endpoint::WebSocket => {
            let why = "this is a WebSocket endpoint; events are on /events\n";
            let mut refusal = plain(StatusCode::UPGRADE_REQUIRED, why);
            let upgrade = HeaderValue::from_static("websocket");
            refusal.headers_mut().insert(header::UPGRADE, upgrade);
            Err(refusal)
        }
    };
    match agreed {
        Ok((head, role)) => Verdict::Take(Take::Serve {
            head: written(&head),
            role,
            faults,
        }),
        Err(refusal) => Verdict::Answer(refusal),
    }
}

fn stream<B>(
    request: &Request<B>,
    query: &str,
) -> Result<(Response<()>, Role), Box<Response<String>>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        let allow = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(header::ALLOW, allow);
        return Err(refusal);
    }
    let stream = Stream::parse(query, request.headers())
        .map_err(|why| plain(StatusCode::BAD_REQUEST, &format!("{why}\n")))?;
    let chunked = request.version() >= Version::HTTP_11;
    let mut head = Response::new(());
    let fields = head.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONNECTION, "close"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    // No X-Accel-Buffering: a proxy that buffers is to show itself.
    if chunked {
        let chunked = HeaderValue::from_static("chunked");
        fields.insert(header::TRANSFER_ENCODING, chunked);
    }
    match *request.method() {
        Method::HEAD => Ok((head, Role::HeadOnly)),
        _ => Ok((head, Role::Events { stream, chunked })),
    }
}

fn upgrade<B>(request: &Request<B>) -> Result<Response<()>, Box<Response<String>>> {
    let headers = request.headers();
    if request.method() != Method::GET || request.version() < Version::HTTP_11 {
        let why = "an upgrade is a GET of HTTP/1.1\n";
        return Err(plain(StatusCode::BAD_REQUEST, why));
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
        return Err(refusal);
    }
    let Some(key) = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == 24)
    else {
        let why = "Sec-WebSocket-Key is not 16 bytes in base64\n";
        return Err(plain(StatusCode::BAD_REQUEST, why));
    };
    let mut agreed = Response::new(());
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
    Ok(agreed)
}

fn first_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    HeaderValue::from_str(offered.split(',').next()?.trim()).ok()
}

/// The bytes of a head that the HTTP library does not send, for what follows is not its affair.
fn written(head: &Response<()>) -> Vec<u8> {
    let reason = head.status().canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", head.status().as_str()).into_bytes();
    for (name, value) in head.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let date = httpdate::fmt_http_date(SystemTime::now());
    bytes.extend_from_slice(format!("date: {date}\r\n\r\n").as_bytes());
    bytes
}

fn refused(refusal: Refusal) -> Box<Response<String>> {
    // Held to 200 to 599 when it was read.
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let text = match status {
        // These have no body (RFC 9110 section 6.4.1).
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => "",
        _ => "this status was asked for\n",
    };
    let mut response = plain(status, text);
    if let Some(seconds) = refusal.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn plain(status: StatusCode, text: &str) -> Box<Response<String>> {
    let mut response = Response::new(text.to_owned());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    // Said here, and not by `keep_alive(false)`, which hyper would add to other heads as well.
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    Box::new(response)
}

#[cfg(test)]
mod tests;
