//! A collector that fails when it is told to: OTLP by gRPC or HTTP, in the clear or by TLS.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use socket2::{Domain, Protocol, Socket, Type};
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};

/// What it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Grpc,
    Http,
}

/// What it does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Takes {
    All,
    /// Never answers.
    Hangs,
    /// By HTTP the status, by gRPC the code, and its words.
    Refuses(u16, String),
    /// Takes it, but says that it refused one item.
    Partly(String),
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Exported {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Metrics(ExportMetricsServiceRequest),
    Traces(ExportTraceServiceRequest),
    Logs(ExportLogsServiceRequest),
}

#[derive(Debug)]
struct State {
    takes: Mutex<Takes>,
    /// Those that were taken.
    taken: Mutex<Vec<Exported>>,
    /// Those that came, taken or not.
    came: Mutex<usize>,
}

/// PEM: a certificate and its key.
pub(crate) type Pem = (String, String);

/// Ends with its guard; can be stopped before, and started again on the same port.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    /// Bound to it and never listening: no outgoing connection takes the port while it is stopped.
    _reserved: Socket,
    speaks: Speaks,
    tls: Option<Pem>,
    state: Arc<State>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Collector {
    pub(crate) fn start(speaks: Speaks) -> Self {
        Self::start_with(speaks, None)
    }

    pub(crate) fn start_with(speaks: Speaks, tls: Option<Pem>) -> Self {
        let reserved = bound((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let mut collector = Self {
            address: reserved.local_addr().unwrap().as_socket().unwrap(),
            _reserved: reserved,
            speaks,
            tls,
            state: Arc::new(State {
                takes: Mutex::new(Takes::All),
                taken: Mutex::default(),
                came: Mutex::default(),
            }),
            runtime: None,
        };
        collector.restart();
        collector
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        // The name its certificate is for.
        format!("{scheme}://localhost:{}", self.address.port())
    }

    pub(crate) fn takes(&self, takes: Takes) {
        *self.state.takes.lock().unwrap() = takes;
    }

    /// Its connections break, and its port refuses.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Ends its tasks at their next step, and closes what they hold.
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Listens, on the same port each time.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let deadline = Instant::now() + Duration::from_secs(15);
        let socket = loop {
            match bound(self.address) {
                Ok(socket) => break socket,
                // A child between fork and exec may hold the listener of before.
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        socket.listen(64).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener: TcpListener = socket.into();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (state, tls) = (self.state.clone(), self.tls.clone());
        match self.speaks {
            Speaks::Grpc => drop(runtime.spawn(serve_grpc(listener, tls, state))),
            Speaks::Http => drop(runtime.spawn(serve_http(listener, tls, state))),
        }
        self.runtime = Some(runtime);
    }

    /// How many requests came, taken or not.
    pub(crate) fn came(&self) -> usize {
        *self.state.came.lock().unwrap()
    }

    /// Everything that was taken so far.
    pub(crate) fn taken(&self) -> Vec<Exported> {
        self.state.taken.lock().unwrap().clone()
    }

    pub(crate) fn forget(&self) {
        self.state.taken.lock().unwrap().clear();
    }

    /// Every span that was taken so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let taken = self.taken().into_iter();
        let of = |one: Exported| match one.what {
            What::Traces(request) => {
                let scopes = request
                    .resource_spans
                    .into_iter()
                    .flat_map(|r| r.scope_spans);
                scopes.flat_map(|scope| scope.spans).collect()
            }
            What::Metrics(_) | What::Logs(_) => Vec::new(),
        };
        taken.flat_map(of).collect()
    }

    pub(crate) fn records(&self) -> Vec<LogRecord> {
        let taken = self.taken().into_iter();
        let of = |one: Exported| match one.what {
            What::Logs(request) => {
                let scopes = request.resource_logs.into_iter().flat_map(|r| r.scope_logs);
                scopes.flat_map(|scope| scope.log_records).collect()
            }
            What::Metrics(_) | What::Traces(_) => Vec::new(),
        };
        taken.flat_map(of).collect()
    }

    /// Every metric that was taken so far, the oldest first.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let taken = self.taken().into_iter();
        let of = |one: Exported| match one.what {
            What::Metrics(request) => {
                let scopes = request.resource_metrics.into_iter();
                let scopes = scopes.flat_map(|r| r.scope_metrics);
                scopes.flat_map(|scope| scope.metrics).collect()
            }
            What::Traces(_) | What::Logs(_) => Vec::new(),
        };
        taken.flat_map(of).collect()
    }

    /// The newest value of each series of number `name`: by its attributes, as `a=b,c=d`.
    pub(crate) fn numbers(&self, name: &str) -> BTreeMap<String, f64> {
        let mut values = BTreeMap::new();
        for metric in self
            .metrics()
            .into_iter()
            .filter(|metric| metric.name == name)
        {
            let points = match metric.data {
                Some(metric::Data::Gauge(gauge)) => gauge.data_points,
                Some(metric::Data::Sum(sum)) => sum.data_points,
                other => panic!("{name} is no number: {other:?}"),
            };
            for point in points {
                let value = match point.value {
                    Some(number_data_point::Value::AsInt(n)) => n as f64,
                    Some(number_data_point::Value::AsDouble(n)) => n,
                    None => continue,
                };
                values.insert(series(&point.attributes), value);
            }
        }
        values
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A socket that minds neither another that is bound only, nor connections of before in TIME_WAIT.
fn bound(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// `a=b,c=d`, sorted by name.
pub(crate) fn series(attributes: &[KeyValue]) -> String {
    let pairs = attributes
        .iter()
        .map(|kv| format!("{}={}", kv.key, text(kv)));
    let mut pairs: Vec<String> = pairs.collect();
    pairs.sort();
    pairs.join(",")
}

/// The value of attribute `name`, as text; empty if there is none.
pub(crate) fn attribute(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|kv| kv.key == name);
    found.map_or_else(String::new, text)
}

fn text(kv: &KeyValue) -> String {
    match kv.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(n)) => n.to_string(),
        Some(Value::DoubleValue(n)) => n.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        other => panic!("{}: {other:?}", kv.key),
    }
}

/// What is to be done with a request that came.
enum Fate {
    Take(Option<String>),
    Refuse(u16, String),
}

impl State {
    async fn fate(&self) -> Fate {
        *self.came.lock().unwrap() += 1;
        let takes = self.takes.lock().unwrap().clone();
        match takes {
            Takes::All => Fate::Take(None),
            Takes::Partly(words) => Fate::Take(Some(words)),
            Takes::Refuses(code, words) => Fate::Refuse(code, words),
            Takes::Hangs => std::future::pending().await,
        }
    }

    fn take(&self, path: &str, headers: BTreeMap<String, String>, what: What) {
        self.taken.lock().unwrap().push(Exported {
            path: path.to_owned(),
            headers,
            what,
        });
    }
}

fn partial(words: Option<String>) -> Option<ExportTracePartialSuccess> {
    words.map(|error_message| ExportTracePartialSuccess {
        rejected_spans: 1,
        error_message,
    })
}

struct Grpc(Arc<State>);

impl Grpc {
    async fn export<T>(
        &self,
        request: tonic::Request<T>,
        what: fn(T) -> What,
    ) -> Result<Option<String>, tonic::Status> {
        let (metadata, _, message) = request.into_parts();
        let headers = metadata.into_headers();
        match self.0.fate().await {
            Fate::Take(words) => {
                self.0.take("", plain(&headers), what(message));
                Ok(words)
            }
            Fate::Refuse(code, words) => Err(tonic::Status::new(
                tonic::Code::from(i32::from(code)),
                words,
            )),
        }
    }
}

fn plain(headers: &http::HeaderMap) -> BTreeMap<String, String> {
    let pairs = headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.to_string(), value)
    });
    pairs.collect()
}

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let words = self.export(request, What::Traces).await?;
        Ok(tonic::Response::new(ExportTraceServiceResponse {
            partial_success: partial(words),
        }))
    }
}

#[tonic::async_trait]
impl MetricsService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.export(request, What::Metrics).await?;
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        self.export(request, What::Logs).await?;
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

async fn serve_grpc(listener: TcpListener, tls: Option<Pem>, state: Arc<State>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let mut server = Server::builder();
    if let Some((cert, key)) = tls {
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(cert, key));
        server = server.tls_config(tls).unwrap();
    }
    let gzip = CompressionEncoding::Gzip;
    server
        .add_service(TraceServiceServer::new(Grpc(state.clone())).accept_compressed(gzip))
        .add_service(MetricsServiceServer::new(Grpc(state.clone())).accept_compressed(gzip))
        .add_service(LogsServiceServer::new(Grpc(state)).accept_compressed(gzip))
        .serve_with_incoming(TcpIncoming::from(listener))
        .await
        .unwrap();
}

async fn serve_http(listener: TcpListener, tls: Option<Pem>, state: Arc<State>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let acceptor =
        tls.map(|(cert, key)| tokio_rustls::TlsAcceptor::from(rustls_config(&cert, &key)));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (state, acceptor) = (state.clone(), acceptor.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, state.clone()));
            let server = hyper::server::conn::http1::Builder::new();
            // A client that breaks off is what the tests are about.
            match acceptor {
                None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                Some(acceptor) => {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    drop(server.serve_connection(TokioIo::new(stream), service).await);
                }
            }
        });
    }
}

fn rustls_config(cert: &str, key: &str) -> Arc<rustls::ServerConfig> {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_slice_iter(cert.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key);
    Arc::new(config.unwrap())
}

async fn answer(
    request: http::Request<Incoming>,
    state: Arc<State>,
) -> Result<http::Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.to_string();
    let headers = plain(&head.headers);
    let body = match headers.get("content-encoding").map(String::as_str) {
        Some("gzip") => {
            let mut plain = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(&*body);
            decoder.read_to_end(&mut plain).unwrap();
            Bytes::from(plain)
        }
        _ => body,
    };
    let what = match head.uri.path().rsplit('/').next() {
        Some("metrics") => What::Metrics(Message::decode(body).unwrap()),
        Some("traces") => What::Traces(Message::decode(body).unwrap()),
        Some("logs") => What::Logs(Message::decode(body).unwrap()),
        other => panic!("{other:?}"),
    };
    let response = http::Response::builder();
    let response = match state.fate().await {
        Fate::Take(words) => {
            state.take(&path, headers, what);
            let answer = ExportTraceServiceResponse {
                partial_success: partial(words),
            };
            response
                .header("content-type", "application/x-protobuf")
                .body(Full::new(answer.encode_to_vec().into()))
        }
        Fate::Refuse(status, words) => response
            .status(status)
            .header("content-type", "text/plain")
            .body(Full::new(words.into())),
    };
    Ok(response.unwrap())
}
