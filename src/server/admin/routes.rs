//! Which path answers what.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue,
    RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use super::auth::Verdict;
use super::connections::{Activity, Connections};
use super::gather::{Gatherer, Made, Refusal, Texts};
use super::query::{Names, takes_gzip, targets};
use super::{Access, Readiness};
use crate::reload::{ReloadRequest, ReloadSender, Trigger};
use crate::stats::Registry;
use crate::telemetry::{metrics, targets_json};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// How long `POST /-/reload` waits for its outcome. The dials of what it adds are not waited for.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);

const INDEX: &str = "\
<!DOCTYPE html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>ws-keepalive</title></head>
<body><h1>ws-keepalive</h1>
<ul>
<li><a href=\"/metrics\">/metrics</a>: for Prometheus</li>
<li><a href=\"/api/v1/targets\">/api/v1/targets</a>: state and last ends of every target</li>
<li><a href=\"/healthz\">/healthz</a>: the process answers</li>
<li><a href=\"/readyz\">/readyz</a>: the configuration is applied and every listener bound</li>
</ul></body></html>
";

/// What the answers are made of.
#[derive(Debug)]
pub(super) struct Routes {
    readiness: Arc<Readiness>,
    metrics: Arc<Gatherer>,
    targets: Arc<Gatherer>,
    /// Where `POST /-/reload` goes, if it is allowed.
    reload: Mutex<Option<ReloadSender>>,
    access: Mutex<Arc<Access>>,
    registry: Arc<Registry>,
}

/// What a request asks for.
struct Asked<'r> {
    method: &'r Method,
    path: &'r str,
    query: Option<&'r str>,
    headers: &'r HeaderMap,
}

impl Routes {
    pub(super) fn new(
        registry: Arc<Registry>,
        readiness: Arc<Readiness>,
        reload: Option<ReloadSender>,
        connections: Arc<Connections>,
    ) -> Self {
        let texts = Texts::new(connections);
        let scrape = |registry: &Arc<Registry>, names: Option<&[Box<str>]>| {
            let scraped = match names {
                None => metrics::scrape(registry),
                Some(names) => metrics::scrape_of(registry, names),
            };
            scraped.map_err(|e| e.to_string())
        };
        let targets = |registry: &Arc<Registry>, names: Option<&[Box<str>]>| {
            let targets = match names {
                None => targets_json::targets(registry),
                Some(names) => targets_json::targets_of(registry, names),
            };
            serde_json::to_string(&targets).map_err(|e| e.to_string())
        };
        Self {
            readiness,
            metrics: Gatherer::new(scrape, registry.clone(), texts.clone()),
            targets: Gatherer::new(targets, registry.clone(), texts),
            reload: Mutex::new(reload),
            access: Mutex::new(Access::open()),
            registry,
        }
    }

    pub(super) fn access(&self) -> Arc<Access> {
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        access.clone()
    }

    /// Returns what held before.
    pub(super) fn set_access(&self, access: Arc<Access>) -> Arc<Access> {
        let mut held = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *held, access)
    }

    pub(super) fn set_reload(&self, reload: Option<ReloadSender>) {
        *self.reload.lock().unwrap_or_else(PoisonError::into_inner) = reload;
    }

    fn reload(&self) -> Option<ReloadSender> {
        let reload = self.reload.lock().unwrap_or_else(PoisonError::into_inner);
        reload.clone()
    }

    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        activity: Arc<Activity>,
        from: Option<IpAddr>,
    ) -> Result<Response<Answer>, Infallible> {
        activity.judging();
        let asked = Asked {
            method: request.method(),
            path: request.uri().path(),
            query: request.uri().query(),
            headers: request.headers(),
        };
        let access = self.access();
        let mut response = match access.admits(asked.path, asked.headers, from).await {
            Verdict::LetIn => {
                activity.answering();
                self.route(asked).await
            }
            Verdict::Refused => unauthorized(),
            Verdict::Busy => busy("too many passwords are waiting to be verified\n"),
        };
        access.add_headers(response.headers_mut());
        activity.writing();
        Ok(response.map(|body| Answer { body, activity }))
    }

    async fn route(&self, asked: Asked<'_>) -> Response<Full<Bytes>> {
        let reload = self.reload();
        let read = matches!(*asked.method, Method::GET | Method::HEAD);
        match (asked.path, reload) {
            ("/" | "/metrics" | "/healthz" | "/readyz" | "/api/v1/targets", _) if !read => {
                not_allowed("GET, HEAD")
            }
            ("/-/reload", Some(_)) if *asked.method != Method::POST => not_allowed("POST"),
            ("/-/reload", Some(reload)) => ask_to_reload(reload).await,
            ("/", _) => answer(StatusCode::OK, "text/html; charset=utf-8", INDEX),
            ("/healthz", _) => answer(StatusCode::OK, TEXT, "ok\n"),
            ("/readyz", _) if self.readiness.is_ready() => answer(StatusCode::OK, TEXT, "ready\n"),
            ("/readyz", _) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n"),
            ("/metrics", _) => {
                let gatherer = &self.metrics;
                self.gathered(asked, metrics::CONTENT_TYPE, gatherer).await
            }
            ("/api/v1/targets", _) => self.gathered(asked, JSON, &self.targets).await,
            _ => answer(StatusCode::NOT_FOUND, TEXT, "not found; see /\n"),
        }
    }

    async fn gathered(
        &self,
        asked: Asked<'_>,
        content_type: &'static str,
        gatherer: &Arc<Gatherer>,
    ) -> Response<Full<Bytes>> {
        let names = match targets(asked.query) {
            Ok(names) => names,
            Err(wrong) => return answer(StatusCode::BAD_REQUEST, TEXT, wrong),
        };
        if let Some(unknown) = names.as_ref().and_then(|names| self.unknown(names)) {
            return answer(StatusCode::NOT_FOUND, TEXT, unknown);
        }
        if *asked.method == Method::HEAD {
            // Its length is not worth making the text (RFC 9110 section 9.3.2).
            return varying(answer(StatusCode::OK, content_type, ""));
        }
        match gatherer.text(names, takes_gzip(asked.headers)).await {
            Ok(Made { bytes, gzip }) => {
                let mut response = answer(StatusCode::OK, content_type, bytes);
                if gzip {
                    let headers = response.headers_mut();
                    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                }
                varying(response)
            }
            Err(Refusal::Busy) => busy("too many clients still read their answers\n"),
            Err(Refusal::Failed(error)) => {
                tracing::error!(%error, "cannot answer a scrape");
                let words = format!("{error}\n");
                answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, words)
            }
        }
    }

    /// Which of `names` no target has, in words.
    fn unknown(&self, names: &Names) -> Option<String> {
        let unknown = names.iter().filter(|name| !self.registry.knows(name));
        let unknown: Vec<String> = unknown
            .map(|name| format!("`{}`", name.escape_debug()))
            .collect();
        let list = unknown.join(", ");
        (!unknown.is_empty()).then(|| format!("no target is named {list}; see /api/v1/targets\n"))
    }
}

/// Says that the answer depends on what the client takes.
fn varying(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from(ACCEPT_ENCODING));
    response
}

fn unauthorized() -> Response<Full<Bytes>> {
    let words = "unauthorized: a user of metrics.basic_auth_users and the password are needed\n";
    let mut response = answer(StatusCode::UNAUTHORIZED, TEXT, words);
    let headers = response.headers_mut();
    // RFC 7617 section 2.1: in which characters user and password come.
    let asked = HeaderValue::from_static("Basic realm=\"ws-keepalive\", charset=\"UTF-8\"");
    headers.insert(WWW_AUTHENTICATE, asked);
    response
}

fn busy(words: &'static str) -> Response<Full<Bytes>> {
    let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, words);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("10"));
    response
}

async fn ask_to_reload(reload: ReloadSender) -> Response<Full<Bytes>> {
    let (reply, outcome) = oneshot::channel();
    let request = ReloadRequest {
        trigger: Trigger::Http,
        reply: Some(reply),
    };
    let asked = async {
        reload.send(request).await.ok()?;
        outcome.await.ok()
    };
    match tokio::time::timeout(RELOAD_PATIENCE, asked).await {
        Ok(Some(Ok(changes))) => match serde_json::to_string(&changes) {
            Ok(json) => answer(StatusCode::OK, JSON, json + "\n"),
            Err(error) => answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                format!("reloaded, but cannot say what changed: {error}\n"),
            ),
        },
        Ok(Some(Err(mut errors))) => {
            if !errors.ends_with('\n') {
                errors.push('\n');
            }
            answer(StatusCode::UNPROCESSABLE_ENTITY, TEXT, errors)
        }
        Ok(None) => answer(
            StatusCode::SERVICE_UNAVAILABLE,
            TEXT,
            "not reloaded: the program is stopping\n",
        ),
        Err(_) => answer(
            StatusCode::GATEWAY_TIMEOUT,
            TEXT,
            "the reload is not done yet; the log will say how it ended\n",
        ),
    }
}

fn not_allowed(allow: &'static str) -> Response<Full<Bytes>> {
    let words = format!("method not allowed; allowed: {allow}\n");
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, words);
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(allow));
    response
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An answer's body; says when hyper has taken all of it.
pub(super) struct Answer {
    body: Full<Bytes>,
    activity: Arc<Activity>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.activity.answer_taken();
    }
}
