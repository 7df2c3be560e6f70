//! Answers: who gave them, and what those that are not the one wanted say, in words for people.

use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use tokio::time::timeout;

use super::exchange::Answered;
use crate::config::{Secret, mask};
use crate::proto::reconnect::{Advice, LONGEST_RETRY_AFTER};

/// How much of a refusal's body is read, more than is shown so that no secret is cut in two before
/// it is masked, and how long it is waited for.
const BODY_READ: usize = 1024;
const BODY_WAIT: Duration = Duration::from_millis(500);

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A WebSocket.
    Upgrade,
    /// An event stream.
    Stream,
}

impl Wanted {
    /// The status of the one good answer.
    fn status(self) -> &'static str {
        match self {
            Self::Upgrade => "101",
            Self::Stream => "200",
        }
    }

    /// What should have answered.
    fn endpoint(self) -> &'static str {
        match self {
            Self::Upgrade => "a WebSocket endpoint",
            Self::Stream => "an event stream",
        }
    }

    /// The request, as people call it.
    pub(super) fn request(self) -> &'static str {
        match self {
            Self::Upgrade => "the upgrade request",
            Self::Stream => "the request for the event stream",
        }
    }

    /// The schemes, with TLS and without.
    pub(super) fn schemes(self) -> [&'static str; 2] {
        match self {
            Self::Upgrade => ["wss", "ws"],
            Self::Stream => ["https", "http"],
        }
    }

    /// Words of a step that both have in common, which names the schemes of WebSocket.
    pub(super) fn in_its_schemes(self, words: String) -> String {
        match self {
            Self::Upgrade => words,
            Self::Stream => words
                .replace("wss:// instead of ws://", "https:// instead of http://")
                .replace("ws:// instead of wss://", "http:// instead of https://")
                .replace("a plain ws:// server", "a plain http:// server"),
        }
    }
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
    /// There was no answer, or none that can be told by its status.
    pub(super) fn broken(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            status: None,
            advice: Advice::Backoff,
            location: None,
        }
    }

    /// The right status, and yet not what was wanted.
    pub(super) fn unfit(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status: Some(status.as_u16()),
            ..Self::broken(message)
        }
    }
}

/// What an answer of another status than the one wanted says, and what to do about it. `follows` is
/// whether a redirect will be followed: then what it says to people is not waited for.
pub(super) async fn refused(
    answered: &mut Answered,
    wanted: Wanted,
    secrets: &[String],
    follows: bool,
) -> Refusal {
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
    if wanted == Wanted::Stream && status == StatusCode::NO_CONTENT {
        // HTML Living Standard, section 9.2.1.
        let message = "the peer answered 204 No Content: it wants no more connections, and gets \
                       none until the url or another connection option changes";
        return Refusal {
            advice: Advice::Stop,
            ..Refusal::unfit(status, message)
        };
    }
    let advice = match (status.as_u16(), retry_after) {
        (_, Some(wait)) => Advice::After(wait),
        (401 | 403, None) => Advice::Refused,
        _ => Advice::Backoff,
    };
    let mut message = format!("the peer answered {status} instead of {}", wanted.status());
    let hint = match status.as_u16() {
        200..=299 => format!("; is this {}? check the path", wanted.endpoint()),
        300..=399 => match shown_location {
            Some(to) => {
                format!("; it points to {to}: put that address in the url, or set max_redirects")
            }
            None => "; it points elsewhere without saying where".to_owned(),
        },
        400 => match wanted {
            Wanted::Upgrade => {
                "; it did not like the request: check path, headers and subprotocols".to_owned()
            }
            Wanted::Stream => "; it did not like the request: check path and headers".to_owned(),
        },
        401 | 403 => "; check the credentials in headers".to_owned(),
        404 => "; check the path".to_owned(),
        406 if wanted == Wanted::Stream => {
            "; it has no text/event-stream there: check the path".to_owned()
        }
        426 if wanted == Wanted::Upgrade => {
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
        Some(_) | None => said(answered, secrets).await,
    };
    if let Some(body) = body {
        if status == StatusCode::BAD_REQUEST && speaks_of_tls(&body) {
            let ([secure, plain], wanted) = (wanted.schemes(), wanted.status());
            message = format!(
                "the peer answered {status} instead of {wanted}; it wants TLS: {secure}:// \
                 instead of {plain}://?"
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

/// The beginning of what the peer says to people, if it says anything.
pub(super) async fn said(answered: &mut Answered, secrets: &[String]) -> Option<String> {
    let read = timeout(BODY_WAIT, answered.beginning_of_body(BODY_READ));
    let body = read.await.ok().flatten()?;
    Some(mask(&String::from_utf8_lossy(&body), secrets))
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

/// The telling headers of the answer wanted, by lower-case name.
pub(super) fn telling(headers: &HeaderMap, secrets: &[String]) -> Box<[(Box<str>, Box<str>)]> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn words_of_a_step_in_common_name_the_schemes_that_were_wanted() {
        for (words, of_a_stream) in [
            (
                "the peer answered in TLS: wss:// instead of ws://?",
                "the peer answered in TLS: https:// instead of http://?",
            ),
            (
                "the peer answered in plain HTTP: ws:// instead of wss://?",
                "the peer answered in plain HTTP: http:// instead of https://?",
            ),
            (
                "a plain ws:// server does that",
                "a plain http:// server does that",
            ),
        ] {
            let said = |wanted: Wanted| wanted.in_its_schemes(words.to_owned());
            assert_eq!(said(Wanted::Upgrade), words);
            assert_eq!(said(Wanted::Stream), of_a_stream);
        }
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
