//! The request for an event stream, and the judgement of its answer: HTML Living Standard, section
//! 9.2.3, on hyper's HTTP/1.1.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::Empty;

use super::answer::{Refusal, Wanted, refused, said, shown, telling};
use super::exchange::{self, Received};
use super::io::Io;
use super::sse::{Limits, Resume, Shared, SseLink};
use super::trace::Trace;
use crate::config::mask;

const EVENT_STREAM: &str = "text/event-stream";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The request's changing parts.
pub(super) struct StreamRequest<'a> {
    /// Path and query.
    pub(super) path: &'a str,
    /// Host, with the port where it is not the scheme's own.
    pub(super) host: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) limits: Limits,
    /// Where an earlier stream ended.
    pub(super) resume: Option<&'a Resume>,
    /// Whether a redirect will be followed.
    pub(super) follows: bool,
    /// What must not be shown if the answer repeats it.
    pub(super) secrets: &'a [String],
}

/// The peer agreed: the stream, and headers that tell who answered.
pub(super) struct Subscribed {
    pub(super) link: Box<SseLink>,
    pub(super) headers: Box<[(Box<str>, Box<str>)]>,
}

/// Asks for the stream. The caller bounds the time; `received` then tells it what there was of an
/// answer.
pub(super) async fn subscribe(
    io: Io,
    request: StreamRequest<'_>,
    received: Arc<Received>,
    trace: &mut Trace,
) -> Result<Subscribed, Refusal> {
    let (limits, resume) = (request.limits, request.resume);
    let (follows, secrets) = (request.follows, request.secrets);
    let http_request = build(request)?;
    trace.asking(&http_request);
    let io = Shared::new(io);
    let asked = exchange::ask(io.clone(), http_request, received).await;
    let mut answered =
        asked.map_err(|words| Refusal::broken(Wanted::Stream.in_its_schemes(words)))?;
    trace.answered(&answered.response, secrets);
    if answered.response.status() != StatusCode::OK {
        return Err(refused(&mut answered, Wanted::Stream, secrets, follows).await);
    }
    let headers = answered.response.headers();
    if let Err(mut message) = judge(headers, secrets) {
        if let Some(body) = said(&mut answered, secrets).await {
            message.push_str(&format!("; it says: {}", shown(body.as_bytes())));
        }
        return Err(Refusal::unfit(StatusCode::OK, message));
    }
    let headers = telling(headers, secrets);
    let link = Box::new(SseLink::new(io, answered, limits, resume));
    Ok(Subscribed { link, headers })
}

fn build(request: StreamRequest<'_>) -> Result<Request<Empty<Bytes>>, Refusal> {
    let bad = |error: http::Error| Refusal::broken(format!("the request cannot be made: {error}"));
    let host = HeaderValue::from_str(request.host).map_err(|error| bad(error.into()))?;
    let mut built = Request::get(request.path).body(Empty::new()).map_err(bad)?;
    let headers = built.headers_mut();
    let fixed = HeaderValue::from_static;
    headers.insert(header::HOST, host);
    headers.insert(header::ACCEPT, fixed(EVENT_STREAM));
    headers.insert(header::CACHE_CONTROL, fixed("no-cache"));
    // An event that waits in a compressor is late.
    headers.insert(header::ACCEPT_ENCODING, fixed("identity"));
    // The user's headers replace ours of the same name, and may repeat each other.
    for name in request.headers.keys() {
        headers.remove(name);
    }
    for (name, value) in &request.headers {
        headers.append(name, value.clone());
    }
    // The user's own says where to begin, and no more once the stream has said where it is. One
    // with a control character in it is no header's value, and cannot be told the peer.
    let id = request.resume.map_or("", |resume| &resume.last_event_id);
    if !id.is_empty()
        && let Ok(id) = HeaderValue::from_bytes(id.as_bytes())
    {
        headers.insert(LAST_EVENT_ID, id);
    }
    Ok(built)
}

/// Whether the headers of a 200 are those of an event stream. `secrets` are not shown.
fn judge(headers: &HeaderMap, secrets: &[String]) -> Result<(), String> {
    let said = |value: &HeaderValue| {
        shown(mask(&String::from_utf8_lossy(value.as_bytes()), secrets).as_bytes())
    };
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return Err(format!(
            "the 200 has no Content-Type; an event stream's is {EVENT_STREAM}; check the path"
        ));
    };
    let text = String::from_utf8_lossy(kind.as_bytes());
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    if !essence.eq_ignore_ascii_case(EVENT_STREAM) {
        return Err(format!(
            "the 200 has the Content-Type {} instead of {EVENT_STREAM}; check the path",
            said(kind)
        ));
    }
    let charset = parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.eq_ignore_ascii_case("charset")
            .then(|| value.trim_matches('"'))
    });
    if !charset.is_none_or(|charset| {
        charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
    }) {
        return Err(format!(
            "the 200 has the Content-Type {}; event streams are in UTF-8 and nothing else",
            said(kind)
        ));
    }
    for coding in headers.get_all(header::CONTENT_ENCODING) {
        if !coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"identity")
        {
            return Err(format!(
                "the 200 is compressed (Content-Encoding: {}), though it was not asked to be: \
                 events would wait in the compressor; turn compression off for {EVENT_STREAM}",
                said(coding)
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: HeaderMap, resume: Option<&Resume>) -> Request<Empty<Bytes>> {
        let request = StreamRequest {
            path: "/events?room=7",
            host: "example.com",
            headers,
            limits: Limits { line: 9, event: 9 },
            resume,
            follows: false,
            secrets: &[],
        };
        build(request).unwrap()
    }

    fn at(id: &str) -> Resume {
        Resume {
            last_event_id: id.into(),
            retry: None,
        }
    }

    #[test]
    fn the_users_headers_replace_ours_but_not_the_id_that_the_stream_gave() {
        let mut own = HeaderMap::new();
        own.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        own.insert(LAST_EVENT_ID, HeaderValue::from_static("41"));
        let first = request(own.clone(), None);
        assert_eq!(first.headers()[header::ACCEPT], "*/*");
        assert_eq!(first.headers()[LAST_EVENT_ID], "41");
        let again = request(own.clone(), Some(&at("42")));
        assert_eq!(again.headers()[LAST_EVENT_ID], "42");
        let reset = request(own.clone(), Some(&at("")));
        assert_eq!(reset.headers()[LAST_EVENT_ID], "41");
        own.append(header::ACCEPT, HeaderValue::from_static("text/plain"));
        let twice = request(own, None);
        let values = twice.headers().get_all(header::ACCEPT).iter();
        assert_eq!(values.collect::<Vec<_>>(), ["*/*", "text/plain"]);
    }

    #[test]
    fn an_id_goes_back_as_it_came_unless_no_header_can_hold_it() {
        let id = |id: &str| {
            let request = request(HeaderMap::new(), Some(&at(id)));
            let value = request.headers().get(LAST_EVENT_ID);
            value.map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
        };
        assert_eq!(id("7 of 9"), Some("7 of 9".into()));
        assert_eq!(id("\u{e4}\t\u{20ac}"), Some("\u{e4}\t\u{20ac}".into()));
        assert_eq!(id(""), None);
        assert_eq!(id("a\u{1}b"), None);
    }

    #[test]
    fn a_200_is_judged_by_its_type_and_its_coding() {
        let judged = |pairs: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name, HeaderValue::from_static(value));
            }
            judge(&headers, &["s3cret".to_owned()])
        };
        const TYPE: HeaderName = header::CONTENT_TYPE;
        const CODING: HeaderName = header::CONTENT_ENCODING;
        for good in [
            "text/event-stream",
            "Text/Event-Stream;charset=UTF-8",
            "text/event-stream ; boundary=x; Charset=\"utf-8\"",
            "text/event-stream; charset=utf8",
        ] {
            assert_eq!(judged(&[(TYPE, good)]), Ok(()), "{good}");
        }
        let good = (TYPE, "text/event-stream");
        assert_eq!(judged(&[good.clone(), (CODING, " Identity ")]), Ok(()));
        for (headers, words) in [
            (vec![], "no Content-Type"),
            (
                vec![(TYPE, "text/html; of=s3cret")],
                "the Content-Type text/html; of=*** instead of text/event-stream; check the path",
            ),
            (vec![(TYPE, "text/event-streams")], "instead of"),
            (
                vec![(TYPE, "text/event-stream; charset=iso-8859-1")],
                "in UTF-8 and nothing else",
            ),
            (
                vec![(TYPE, "text/event-stream; CharSet=latin1")],
                "in UTF-8 and nothing else",
            ),
            (
                vec![good.clone(), (CODING, "identity"), (CODING, "br")],
                "(Content-Encoding: br)",
            ),
            (
                vec![good.clone(), (CODING, "gzip")],
                "(Content-Encoding: gzip)",
            ),
            (vec![good, (CODING, "identity, br")], "compressed"),
        ] {
            let error = judged(&headers).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
