//! One request to a collector and its answer, by HTTP/1.1 or gRPC.
//!
//! A unary gRPC call is an HTTP/2 request whose body is the message after five bytes, and whose
//! outcome stands in the trailers (gRPC over HTTP2, "Requests", "Responses"): hyper does the rest.

use std::io::Write as _;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::wire;
use crate::config::otlp::{Collector, OtlpProtocol};
use crate::config::{SecretSource, mask};
use crate::os;
use crate::telemetry::words::escape;
use crate::transport::stream;

/// Of an answer no more is read.
const LARGEST_ANSWER: usize = 64 * 1024;

/// Characters of a collector's own words that are shown.
const SHOWN: usize = 200;

/// The longest wait that a collector is obeyed in.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("ws-keepalive/", env!("CARGO_PKG_VERSION")));

/// Why an export failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExportError {
    /// What failed and what to do; one line, no secrets.
    pub(super) message: String,
    /// Whether the same may be taken later.
    pub(super) may_retry: bool,
    /// How long the collector wants to be left alone.
    pub(super) wait: Option<Duration>,
}

impl ExportError {
    fn later(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            may_retry: true,
            wait: None,
        }
    }

    fn never(message: impl Into<String>) -> Self {
        Self {
            may_retry: false,
            ..Self::later(message)
        }
    }
}

/// What the collector refused of a request that it took.
pub(super) type Taken = Option<(u64, String)>;

/// The way to one signal's collector. It keeps its connection as long as that works.
#[derive(Debug)]
pub(super) struct Client<'a> {
    collector: &'a Collector,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    sender: Sender,
    /// What moves the bytes.
    driver: JoinHandle<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl<'a> Client<'a> {
    pub(super) fn new(collector: &'a Collector) -> Self {
        Self {
            collector,
            connection: None,
        }
    }

    /// Sends `message`, an export request, within the collector's `timeout`. Cancel safe: what was
    /// under way is broken off.
    pub(super) async fn export(&mut self, message: Vec<u8>) -> Result<Taken, ExportError> {
        // Taken out: whatever goes wrong on a connection, and be it only time, is its end.
        let connection = self.connection.take();
        let limit = self.collector.timeout;
        match timeout(limit, self.exchange(connection, message)).await {
            Ok(Ok((taken, connection))) => {
                self.connection = connection;
                Ok(taken)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ExportError::later(format!(
                "no answer within {limit:?} (otlp.timeout)"
            ))),
        }
    }

    async fn exchange(
        &self,
        connection: Option<Connection>,
        message: Vec<u8>,
    ) -> Result<(Taken, Option<Connection>), ExportError> {
        let request = self.request(message)?;
        let kept = connection.filter(|connection| !connection.driver.is_finished());
        let was_kept = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let again = was_kept.then(|| request.clone());
        let mut sent = connection.send(request).await;
        if let (Err(_), Some(request)) = (&sent, again) {
            // The collector may have closed what stood idle: that says nothing of it now.
            connection = self.connect().await?;
            sent = connection.send(request).await;
        }
        let response = sent.map_err(|error| {
            ExportError::later(format!(
                "the request was broken off: {}",
                os::with_causes(&error)
            ))
        })?;
        let taken = self.judge(response).await?;
        let stays = !connection.driver.is_finished();
        Ok((taken, stays.then_some(connection)))
    }

    async fn connect(&self) -> Result<Connection, ExportError> {
        let collector = self.collector;
        let alpn: &[u8] = match collector.protocol {
            OtlpProtocol::Grpc => b"h2",
            OtlpProtocol::HttpProtobuf => b"http/1.1",
        };
        let io = stream::open(&collector.place, &collector.tls, alpn).await;
        let io = TokioIo::new(io.map_err(ExportError::later)?);
        let failed = |error: hyper::Error| {
            ExportError::later(format!("no connection: {}", os::with_causes(&error)))
        };
        let (sender, driver) = match collector.protocol {
            OtlpProtocol::Grpc => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                let shaken = builder.max_header_list_size(16 * 1024).handshake(io).await;
                let (sender, connection) = shaken.map_err(failed)?;
                // How it ends shows at the request.
                let driver = tokio::spawn(async { drop(connection.await) });
                (Sender::Http2(sender), driver)
            }
            OtlpProtocol::HttpProtobuf => {
                let mut builder = http1::Builder::new();
                let shaken = builder.max_buf_size(64 * 1024).handshake(io).await;
                let (sender, connection) = shaken.map_err(failed)?;
                let driver = tokio::spawn(async { drop(connection.await) });
                (Sender::Http1(sender), driver)
            }
        };
        Ok(Connection { sender, driver })
    }

    fn request(&self, message: Vec<u8>) -> Result<Request<Full<Bytes>>, ExportError> {
        let collector = self.collector;
        let (place, gzip) = (&collector.place, collector.gzip);
        let message = match gzip {
            true => zipped(&message).map_err(|error| {
                ExportError::never(format!("the request could not be compressed: {error}"))
            })?,
            false => message,
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, USER_AGENT);
        if let Some((user, password)) = &place.credentials {
            let basic = format!("Basic {}", BASE64.encode(format!("{user}:{password}")));
            if let Ok(mut basic) = HeaderValue::from_str(&basic) {
                basic.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, basic);
            }
        }
        for (name, source) in &collector.headers {
            headers.insert(name, value(name, source)?);
        }
        let mut request = Request::builder().method(Method::POST);
        let body = match collector.protocol {
            OtlpProtocol::HttpProtobuf => {
                request = request.uri(&place.path);
                let host = HeaderValue::from_str(&place.authority);
                let host = host.map_err(|error| ExportError::never(error.to_string()))?;
                headers.insert(header::HOST, host);
                headers.insert(header::CONTENT_TYPE, PROTOBUF);
                if gzip {
                    headers.insert(header::CONTENT_ENCODING, GZIP);
                }
                message
            }
            OtlpProtocol::Grpc => {
                let scheme = if place.secure { "https" } else { "http" };
                let uri = format!("{scheme}://{}{}", place.authority, place.path);
                request = request.version(Version::HTTP_2).uri(uri);
                headers.insert(header::CONTENT_TYPE, GRPC);
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
                let millis = collector.timeout.as_millis().min(99_999_999);
                if let Ok(limit) = HeaderValue::from_str(&format!("{millis}m")) {
                    headers.insert(HeaderName::from_static("grpc-timeout"), limit);
                }
                if gzip {
                    headers.insert(HeaderName::from_static("grpc-encoding"), GZIP);
                }
                let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
                let mut framed = Vec::with_capacity(message.len() + 5);
                framed.push(gzip.into());
                framed.extend_from_slice(&len.to_be_bytes());
                framed.extend_from_slice(&message);
                framed
            }
        };
        let request = request.body(Full::new(Bytes::from(body)));
        let mut request = request.map_err(|error| ExportError::never(error.to_string()))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn judge(&self, response: Response<Incoming>) -> Result<Taken, ExportError> {
        let (head, body) = response.into_parts();
        let (body, trailers) = read(body).await?;
        match self.collector.protocol {
            OtlpProtocol::HttpProtobuf => self.judge_http(head.status, &head.headers, &body),
            OtlpProtocol::Grpc => self.judge_grpc(head.status, &head.headers, &trailers, &body),
        }
        .map(|taken| taken.map(|(count, words)| (count, self.shown(&words))))
    }

    fn judge_http(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Taken, ExportError> {
        let is_text = |value: &HeaderValue| value.as_bytes().starts_with(b"text/");
        let is_text = headers.get(header::CONTENT_TYPE).is_some_and(is_text);
        match (status.is_success(), is_text) {
            (true, false) => return Ok(wire::partly_refused(body)),
            // A web server's page: nobody there took anything.
            (true, true) => {
                return Err(ExportError::never(format!(
                    "it answers {status} with a page and no protobuf; is otlp.endpoint a \
                     collector's?"
                )));
            }
            (false, _) => {}
        }
        let words = match is_text {
            true => self.shown(&String::from_utf8_lossy(body)),
            // google.rpc.Status: its `message` has the tag of our partial success's words.
            false => self.shown(&status_message(body)),
        };
        let colon = if words.is_empty() { "" } else { ": " };
        Err(ExportError {
            message: format!("it answers {status}{colon}{words}{}", remedy(status)),
            // OTLP/HTTP, "Retryable Response Codes".
            may_retry: matches!(status.as_u16(), 429 | 502 | 503 | 504),
            wait: retry_after(headers),
        })
    }

    fn judge_grpc(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        trailers: &HeaderMap,
        body: &[u8],
    ) -> Result<Taken, ExportError> {
        let of = |name: &str| trailers.get(name).or_else(|| headers.get(name));
        let Some(code) = of("grpc-status").and_then(|v| v.to_str().ok()?.parse::<u32>().ok())
        else {
            // Something that speaks HTTP and no gRPC stands there.
            let words = match status.is_success() {
                true => "it speaks no gRPC; is otlp.protocol = \"http/protobuf\" meant?".to_owned(),
                false => format!("it answers {status} and no gRPC{}", remedy(status)),
            };
            return Err(ExportError {
                message: words,
                may_retry: matches!(status.as_u16(), 429 | 502 | 503 | 504),
                wait: None,
            });
        };
        if code == 0 {
            let message = body.get(5..).unwrap_or_default();
            return Ok(wire::partly_refused(message));
        }
        let words = of("grpc-message").map_or_else(String::new, |value| {
            let text = percent_encoding::percent_decode(value.as_bytes());
            self.shown(&text.decode_utf8_lossy())
        });
        let colon = if words.is_empty() { "" } else { ": " };
        let name = CODES.get(code as usize).copied().unwrap_or("unknown code");
        let remedy = match code {
            7 | 16 => "; check otlp.headers",
            12 => "; it takes no such signal: turn it off in [otlp]",
            _ => "",
        };
        Err(ExportError {
            message: format!("it answers {name}{colon}{words}{remedy}"),
            // OTLP/gRPC, "Failures": cancelled, deadline exceeded, resource exhausted, aborted, out
            // of range, unavailable, data loss.
            may_retry: matches!(code, 1 | 4 | 8 | 10 | 11 | 14 | 15),
            wait: None,
        })
    }

    /// A collector's own words, which may repeat what it was sent.
    fn shown(&self, words: &str) -> String {
        let secrets = self.collector.secrets();
        let words = escape(words.trim()).into_owned();
        let masked = mask(&words, &secrets);
        match masked.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &masked[..end]),
            None => masked,
        }
    }
}

impl Connection {
    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

/// gRPC's status codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A header's value, as it is now.
fn value(name: &HeaderName, source: &SecretSource) -> Result<HeaderValue, ExportError> {
    let value = source.value(&|variable| std::env::var_os(variable));
    // It may be there again at the next export.
    value.map_err(|wrong| ExportError::later(format!("otlp.headers.{name}: {wrong}")))
}

fn zipped(message: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(message)?;
    encoder.finish()
}

/// The body, and the trailers after it.
async fn read(mut body: Incoming) -> Result<(Vec<u8>, HeaderMap), ExportError> {
    let mut bytes = Vec::new();
    let mut trailers = HeaderMap::new();
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else {
            break;
        };
        let frame = frame.map_err(|error| {
            ExportError::later(format!(
                "the answer was broken off: {}",
                os::with_causes(&error)
            ))
        })?;
        match frame.into_data() {
            Ok(data) if bytes.len() + data.len() > LARGEST_ANSWER => {
                return Err(ExportError::never("its answer is larger than 64 KiB"));
            }
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((bytes, trailers))
}

/// Seconds or a date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?;
            at.duration_since(std::time::SystemTime::now()).ok()?
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// `message = 2` of a google.rpc.Status, which is `error_message = 2` of a partial success.
fn status_message(body: &[u8]) -> String {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
    let status: Result<ExportTracePartialSuccess, _> = prost::Message::decode(body);
    status
        .map(|status| status.error_message)
        .unwrap_or_default()
}

fn remedy(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "; check otlp.headers",
        404 | 405 => "; is otlp.endpoint its base URL, and otlp.protocol its protocol?",
        413 => "; let it take larger requests",
        415 => "; is otlp.protocol its protocol?",
        _ => "",
    }
}
