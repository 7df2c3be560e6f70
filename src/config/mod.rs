//! The configuration: one TOML file, its `.d` directory, the environment and the flags, resolved
//! into values that need no further checks.

mod chain;
#[cfg(test)]
mod docs;
pub(crate) mod duration;
pub(crate) mod faults;
pub(crate) mod flags;
pub(crate) mod heartbeat;
pub(crate) mod judge;
mod layer;
mod layers;
mod leaf;
pub(crate) mod load;
pub(crate) mod manual;
mod mistake;
pub(crate) mod otlp;
mod overlay;
mod place;
mod print;
mod raw;
mod read;
mod resolve;
pub(crate) mod schema;
mod secret;
mod secret_source;
pub(crate) mod server_tls;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
pub(crate) mod tls_files;
pub(crate) mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use faults::FaultSwitches;
pub(crate) use heartbeat::Heartbeat;
pub(crate) use leaf::WsUrl;
pub(crate) use otlp::Otlp;
pub(crate) use place::Place;
pub(crate) use secret::{Secret, mask};

use crate::dialect::sse;
use crate::proto::backoff::BackoffPolicy;
use crate::proto::heartbeat::{HeartbeatPolicy, Wishes};
use crate::stats::{Buckets, Identity};

/// A configuration that holds together: every default filled in, every value checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) log: Log,
    pub(crate) metrics: Metrics,
    /// Path of the control socket; `None` without one.
    pub(crate) control: Option<PathBuf>,
    /// The embedded listener.
    pub(crate) server: Option<Server>,
    pub(crate) dial: DialLimits,
    /// What is pushed to a collector.
    pub(crate) otlp: Option<Arc<Otlp>>,
    /// In the order of the files; names are unique.
    pub(crate) targets: Vec<Arc<Target>>,
}

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) level: LogLevel,
    pub(crate) format: LogFormat,
}

/// How much is logged. Default `info`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Deserialize,
    schemars::JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

impl LogLevel {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// How log lines look. Default `auto`: text on a terminal, entries in systemd's
/// journal, else JSON.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Deserialize,
    schemars::JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Auto,
    Text,
    Json,
}

impl LogFormat {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metrics {
    pub(crate) enabled: bool,
    /// Default `0.0.0.0:8080`.
    pub(crate) listen: Vec<Listen>,
    /// Whether `POST /-/reload` is answered. Default false.
    pub(crate) reload: bool,
    /// Mode of the files of unix sockets; `None`: what the umask leaves.
    pub(crate) socket_mode: Option<u32>,
    pub(crate) access: Access,
}

/// Who may ask the metrics listener, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Access {
    /// Without it HTTP is served, with it HTTPS.
    pub(crate) tls: Option<ServerTls>,
    /// Added to every answer.
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// By name the bcrypt hash of the password; empty: nobody is asked for one.
    pub(crate) users: Vec<(Box<str>, Secret<Box<str>>)>,
    /// Whether `/healthz` and `/readyz` are answered without a password. Default false.
    pub(crate) probes_without_auth: bool,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// `[server]`: the embedded listener, and the `server` command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// The `listener` label. Default `server`.
    pub(crate) name: Box<str>,
    /// Default `0.0.0.0:9000`.
    pub(crate) listen: SocketAddr,
    /// A client silent this long is pinged. Default 5 s.
    pub(crate) ping_interval: Duration,
    /// A client silent this much longer is discarded. Default twice the interval.
    pub(crate) pong_timeout: Duration,
    /// Connections held at once; more are refused with 503. Default 10,000.
    pub(crate) max_connections: usize,
    /// Larger messages end the connection with Close 1009. Default 16 MiB.
    pub(crate) max_message_size: usize,
    /// From accept to the end of the upgrade. Default 10 s.
    pub(crate) handshake_timeout: Duration,
    /// How long a drain waits for Close replies. Default 10 s.
    pub(crate) close_timeout: Duration,
    /// Without it ws:// is served, with it wss://.
    pub(crate) tls: Option<ServerTls>,
    /// What goes wrong on purpose. Default: nothing.
    pub(crate) faults: FaultSwitches,
}

/// TLS of a listener. Identity is the references; the files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerTls {
    /// PEM: our certificate, followed by its intermediates.
    pub(crate) cert: SecretSource,
    /// PEM: its private key.
    pub(crate) key: SecretSource,
    pub(crate) client_auth: ClientAuth,
    /// PEM: whose clients' certificates are taken; there is one if they are verified.
    pub(crate) client_ca: Option<SecretSource>,
    /// A client's certificate must have one of these names; empty: any.
    pub(crate) client_allowed_sans: Vec<Box<str>>,
    /// Default 1.2; never above `max_version`.
    pub(crate) min_version: TlsVersion,
    /// Default 1.3.
    pub(crate) max_version: TlsVersion,
    /// Those that are spoken, of each version of which one is named; empty: all.
    pub(crate) cipher_suites: Vec<rustls::CipherSuite>,
    /// Whether our order counts and not the client's. Default false.
    pub(crate) prefer_own_suites: bool,
}

impl ServerTls {
    /// With a certificate and its key, and everything else as it usually is.
    pub(crate) fn new(cert: SecretSource, key: SecretSource) -> Self {
        Self {
            cert,
            key,
            client_auth: ClientAuth::default(),
            client_ca: None,
            client_allowed_sans: Vec::new(),
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            cipher_suites: Vec::new(),
            prefer_own_suites: false,
        }
    }
}

/// What a TLS client has to show. The names are those of Go's crypto/tls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ClientAuth {
    /// It is not asked.
    #[default]
    NoClientCert,
    /// It is asked; anything will do, and nothing too.
    RequestClientCert,
    /// Any certificate.
    RequireAnyClientCert,
    /// Nothing, or a certificate of our CA.
    VerifyClientCertIfGiven,
    /// A certificate of our CA.
    RequireAndVerifyClientCert,
}

impl ClientAuth {
    pub(crate) const ALL: [Self; 5] = [
        Self::NoClientCert,
        Self::RequestClientCert,
        Self::RequireAnyClientCert,
        Self::VerifyClientCertIfGiven,
        Self::RequireAndVerifyClientCert,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoClientCert => "NoClientCert",
            Self::RequestClientCert => "RequestClientCert",
            Self::RequireAnyClientCert => "RequireAnyClientCert",
            Self::VerifyClientCertIfGiven => "VerifyClientCertIfGiven",
            Self::RequireAndVerifyClientCert => "RequireAndVerifyClientCert",
        }
    }

    /// Whether a client without a certificate is turned away.
    pub(crate) fn requires(self) -> bool {
        matches!(
            self,
            Self::RequireAnyClientCert | Self::RequireAndVerifyClientCert
        )
    }

    /// Whether a certificate has to be of our CA.
    pub(crate) fn verifies(self) -> bool {
        matches!(
            self,
            Self::VerifyClientCertIfGiven | Self::RequireAndVerifyClientCert
        )
    }
}

/// `[dial]`: how hard the network is hit when many targets dial at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DialLimits {
    /// Dials under way at once. Default 64.
    pub(crate) concurrency: usize,
    /// Dials begun per second. Default 2,000.
    pub(crate) per_second: u32,
}

/// One connection to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) identity: Arc<Identity>,
    /// The whole URL, secrets included; never shown.
    pub(crate) url: Secret<Box<str>>,
    /// With the URL, what the connection *is*: a change replaces it.
    pub(crate) connection: Arc<ConnectionOptions>,
    /// How it is kept: a change is applied to the standing connection.
    pub(crate) policy: Arc<Policy>,
}

impl Target {
    /// What must not be shown when the peer repeats it; header values are read as they are now.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut secrets = secret::Secrets::new();
        let variable = |name: &str| std::env::var_os(name);
        for (_, source) in &self.connection.headers {
            // A value that cannot be read was not sent. One that is not UTF-8 was: it is looked for
            // as what a peer repeats is read.
            if let Ok(value) = source.value(&variable) {
                secrets.header(&String::from_utf8_lossy(value.as_bytes()));
            }
        }
        let connection = &*self.connection;
        for (_, source) in &connection.cookies {
            if let Ok(value) = source.text() {
                secrets.header(value.expose());
            }
        }
        let basic = match &connection.auth {
            Some(Auth::Basic { username, password }) => Some((username, password)),
            Some(Auth::Bearer(token)) => {
                if let Ok(token) = token.text() {
                    secrets.header(token.expose());
                }
                None
            }
            None => None,
        };
        let proxy = match &connection.proxy {
            ProxyChoice::Via(proxy) => proxy.credentials.as_ref(),
            ProxyChoice::Direct | ProxyChoice::Environment => None,
        };
        let proxy = proxy.map(|(username, password)| (username, password));
        for (username, password) in basic.into_iter().chain(proxy) {
            match password.text() {
                Ok(password) => secrets.basic(username.expose(), password.expose()),
                Err(_) => secrets.header(username.expose()),
            }
        }
        if let Ok(split) = place::Split::parse(self.url.expose()) {
            secrets.url(&split.url);
        }
        connection.heartbeat.add_secrets(&mut secrets);
        for text in &self.policy.on_open {
            secrets.message(text.expose());
        }
        secrets.into_vec()
    }

    /// The host that the url names.
    pub(crate) fn host(&self) -> String {
        // Resolving the configuration has parsed it before.
        Place::parse(self.url.expose()).map_or_else(|_| String::new(), |place| place.host)
    }

    /// Whether `other` needs another connection than this one.
    pub(crate) fn same_connection(&self, other: &Self) -> bool {
        self.url == other.url && self.connection == other.connection
    }
}

/// How the peer is reached, and what is sent and spoken when the connection is made. Shared by
/// equal targets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct ConnectionOptions {
    /// Headers of the upgrade request, by name. They replace those the other options make.
    pub(crate) headers: Vec<(http::HeaderName, SecretSource)>,
    /// `Host`; default the URL's.
    pub(crate) host_header: Option<Box<str>>,
    /// `User-Agent`; default `ws-keepalive/VERSION`.
    pub(crate) user_agent: Option<Box<str>>,
    pub(crate) origin: Option<Box<str>>,
    /// One `Cookie` header is made of them.
    pub(crate) cookies: Vec<(Box<str>, SecretSource)>,
    /// `Authorization`; wins over the URL's userinfo.
    pub(crate) auth: Option<Auth>,
    /// Offered in this order.
    pub(crate) subprotocols: Vec<Box<str>>,
    /// Whether it is an error if the peer chooses none of them. Default false.
    pub(crate) require_subprotocol: bool,
    /// Redirects followed. Default 0.
    pub(crate) max_redirects: u32,
    pub(crate) address: AddressOptions,
    /// For `wss`.
    pub(crate) tls: Arc<TlsOptions>,
    pub(crate) proxy: ProxyChoice,
    /// For a proxy that is itself reached by TLS.
    pub(crate) proxy_tls: Arc<TlsOptions>,
    pub(crate) heartbeat: Heartbeat,
}

/// Credentials of the `Authorization` header.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Auth {
    /// RFC 7617.
    Basic {
        username: Secret<Box<str>>,
        password: SecretSource,
    },
    /// RFC 6750.
    Bearer(SecretSource),
}

/// Which addresses are dialed, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct AddressOptions {
    pub(crate) family: IpFamily,
    /// Dialed instead of what DNS says, in this order; Host and SNI stay the URL's.
    pub(crate) resolve: Vec<ResolveTo>,
    pub(crate) bind: Option<Bind>,
    /// TCP keepalive; the system's choice without.
    pub(crate) keepalive: Option<Keepalive>,
    /// TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged; the system's choice without.
    pub(crate) user_timeout: Option<Duration>,
}

/// Which addresses of a name are used. Default any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum IpFamily {
    #[default]
    Any,
    V4,
    V6,
}

/// Where a host is, whatever DNS says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ResolveTo {
    /// An address; without a port that of the URL. `zone` is the interface of a link-local one.
    Ip {
        ip: std::net::IpAddr,
        zone: Option<Box<str>>,
        port: Option<u16>,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// What a socket is bound to before it connects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Bind {
    Address(std::net::IpAddr),
    /// By SO_BINDTODEVICE.
    Interface(Box<str>),
}

/// TCP keepalive; what is `None` is the system's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Keepalive {
    /// Silence before the first probe.
    pub(crate) idle: Option<Duration>,
    /// From one probe to the next.
    pub(crate) interval: Option<Duration>,
    /// Unanswered probes until the kernel gives the connection up.
    pub(crate) count: Option<u32>,
}

/// TLS as the user wants it. Identity is the references, never the files' content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TlsOptions {
    /// PEM: certificates that are trusted, beside the system's.
    pub(crate) ca: Option<SecretSource>,
    /// Whether `ca` is all that is trusted. Default false.
    pub(crate) ca_only: bool,
    /// PEM: our certificate and its chain; there is a `key` if there is one, and the reverse.
    pub(crate) cert: Option<SecretSource>,
    /// PEM: its private key.
    pub(crate) key: Option<SecretSource>,
    /// For SNI and verification, instead of the URL's host.
    pub(crate) server_name: Option<Box<str>>,
    /// Default 1.2; never above `max_version`.
    pub(crate) min_version: TlsVersion,
    /// Default 1.3.
    pub(crate) max_version: TlsVersion,
    /// Default false.
    pub(crate) insecure_skip_verify: bool,
    /// Whether sessions are resumed by tickets. Default true.
    pub(crate) session_tickets: bool,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            ca: None,
            ca_only: false,
            cert: None,
            key: None,
            server_name: None,
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            insecure_skip_verify: false,
            session_tickets: true,
        }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum TlsVersion {
    V1_2,
    V1_3,
}

/// By which way a target is reached. Default direct.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) enum ProxyChoice {
    #[default]
    Direct,
    /// HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY decide.
    Environment,
    Via(Arc<ProxyServer>),
}

/// A proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ProxyServer {
    pub(crate) kind: ProxyKind,
    /// A name or an address; an IPv6 literal without its brackets.
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
    /// User and password.
    pub(crate) credentials: Option<(Secret<Box<str>>, SecretSource)>,
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProxyKind {
    /// CONNECT (RFC 9110 section 9.3.6).
    Http,
    /// CONNECT inside TLS.
    Https,
    /// RFC 1928, the target's name resolved here.
    Socks5,
    /// RFC 1928, the target's name resolved by the proxy.
    Socks5h,
}

impl ProxyKind {
    /// The scheme of its URL.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
            Self::Socks5h => "socks5h",
        }
    }
}

/// Without credentials: `http://proxy.example.com:3128`.
impl std::fmt::Display for ProxyServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, host, port) = (self.kind.as_str(), &self.host, self.port);
        match host.contains(':') {
            true => write!(f, "{kind}://[{host}]:{port}"),
            false => write!(f, "{kind}://{host}:{port}"),
        }
    }
}

/// Where a secret is kept. Identity is the reference, never the content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum SecretSource {
    Literal(Secret<Box<str>>),
    /// Read at every dial; one trailing newline is dropped.
    File(PathBuf),
    /// Name of an environment variable.
    Env(Box<str>),
    /// Name of a systemd credential: a file below `$CREDENTIALS_DIRECTORY`.
    Credential(Box<str>),
}

/// How a connection is kept. Shared by equal targets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Policy {
    /// For RFC 6455's pings.
    pub(crate) heartbeat: HeartbeatPolicy,
    /// For every other heartbeat: what was set and means something to it, and nothing else; of a
    /// protocol with times of its own what was set for the very target.
    pub(crate) wishes: Wishes,
    /// After how long without an application message a connection is stale. Default never.
    pub(crate) staleness: Option<Duration>,
    pub(crate) reconnect: BackoffPolicy,
    pub(crate) timeouts: Timeouts,
    /// Larger messages end the connection with Close 1009; applied at the next dial. Default 16 MiB.
    pub(crate) max_message_size: usize,
    /// A longer line of an event stream ends its connection; applied at the next dial. Default
    /// 1 MiB.
    pub(crate) max_line: usize,
    /// A larger event ends its connection; applied at the next dial. Default 4 MiB.
    pub(crate) max_event: usize,
    /// Sent in this order after the upgrade; applied at the next dial.
    pub(crate) on_open: Vec<Secret<Box<str>>>,
    /// Bounds of the RTT histogram.
    pub(crate) rtt_buckets: Buckets,
    /// The idle timer of the path, if the user declared it; only judged by `check`.
    pub(crate) path_idle_timeout: Option<Duration>,
    /// One connection to every address of the name, which is looked up again this often.
    pub(crate) fan_out: Option<Duration>,
    /// Whether the request carries `traceparent` when traces are on; applied at the next dial.
    /// Default false.
    pub(crate) traceparent: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            heartbeat: HeartbeatPolicy::default(),
            wishes: Wishes::default(),
            staleness: None,
            reconnect: BackoffPolicy::default(),
            timeouts: Timeouts::default(),
            max_message_size: 16 << 20,
            max_line: sse::MAX_LINE,
            max_event: sse::MAX_EVENT,
            on_open: Vec::new(),
            rtt_buckets: Buckets::default(),
            path_idle_timeout: None,
            fan_out: None,
            traceparent: false,
        }
    }
}

/// Deadlines of everything that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Timeouts {
    /// The whole dial. Default 15 s.
    pub(crate) connect: Duration,
    /// Resolving the name. Default 5 s.
    pub(crate) dns: Duration,
    /// Connecting TCP. Default 5 s.
    pub(crate) tcp: Duration,
    /// Opening the proxy's tunnel. Default 5 s.
    pub(crate) proxy: Duration,
    /// The TLS handshake. Default 5 s.
    pub(crate) tls: Duration,
    /// The HTTP upgrade. Default 5 s.
    pub(crate) upgrade: Duration,
    /// The hello of a dialect, subscriptions included. Default 5 s.
    pub(crate) hello: Duration,
    /// One write. Default 10 s.
    pub(crate) write: Duration,
    /// Waiting for the peer's Close reply. Default 10 s.
    pub(crate) close: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            connect: secs(15),
            dns: secs(5),
            tcp: secs(5),
            proxy: secs(5),
            tls: secs(5),
            upgrade: secs(5),
            hello: secs(5),
            write: secs(10),
            close: secs(10),
        }
    }
}
