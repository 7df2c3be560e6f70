//! Which path answers what.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use super::Readiness;
use super::connections::{Activity, Connections};
use super::gather::{Gatherer, Refusal, Texts};
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
}

impl Routes {
    pub(super) fn new(
        registry: Arc<Registry>,
        readiness: Arc<Readiness>,
        reload: Option<ReloadSender>,
        connections: Arc<Connections>,
    ) -> Self {
        let texts = Texts::new(connections);
        let scrape =
            |registry: &Arc<Registry>| metrics::scrape(registry).map_err(|e| e.to_string());
        let targets = |registry: &Arc<Registry>| {
            let targets = targets_json::targets(registry);
            serde_json::to_string(&targets).map_err(|e| e.to_string())
        };
        Self {
            readiness,
            metrics: Gatherer::new(scrape, registry.clone(), texts.clone()),
            targets: Gatherer::new(targets, registry, texts),
            reload: Mutex::new(reload),
        }
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
    ) -> Result<Response<Answer>, Infallible> {
        activity.answering();
        let response = self.route(request.method(), request.uri().path()).await;
        activity.writing();
        Ok(response.map(|body| Answer { body, activity }))
    }

    async fn route(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let reload = self.reload();
        let read = matches!(*method, Method::GET | Method::HEAD);
        match (path, reload) {
            ("/" | "/metrics" | "/healthz" | "/readyz" | "/api/v1/targets", _) if !read => {
                not_allowed("GET, HEAD")
            }
            ("/-/reload", Some(_)) if *method != Method::POST => not_allowed("POST"),
            ("/-/reload", Some(reload)) => ask_to_reload(reload).await,
            ("/", _) => answer(StatusCode::OK, "text/html; charset=utf-8", INDEX),
            ("/healthz", _) => answer(StatusCode::OK, TEXT, "ok\n"),
            ("/readyz", _) if self.readiness.is_ready() => answer(StatusCode::OK, TEXT, "ready\n"),
            ("/readyz", _) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n"),
            ("/metrics", _) => gathered(method, metrics::CONTENT_TYPE, &self.metrics).await,
            ("/api/v1/targets", _) => gathered(method, JSON, &self.targets).await,
            _ => answer(StatusCode::NOT_FOUND, TEXT, "not found; see /\n"),
        }
    }
}

async fn gathered(
    method: &Method,
    content_type: &'static str,
    gatherer: &Arc<Gatherer>,
) -> Response<Full<Bytes>> {
    if *method == Method::HEAD {
        // Its length is not worth making the text (RFC 9110 section 9.3.2).
        return answer(StatusCode::OK, content_type, "");
    }
    match gatherer.text().await {
        Ok(text) => answer(StatusCode::OK, content_type, text),
        Err(Refusal::Busy) => {
            let words = "too many clients still read their answers\n";
            let mut busy = answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, words);
            let headers = busy.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from_static("10"));
            busy
        }
        Err(Refusal::Failed(error)) => {
            tracing::error!(%error, "cannot answer a scrape");
            let words = format!("{error}\n");
            answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, words)
        }
    }
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
