//! The configuration: one TOML file, its `.d` directory, the environment and the flags, resolved
//! into values that need no further checks.

mod chain;
#[cfg(test)]
mod docs;
pub(crate) mod duration;
pub(crate) mod flags;
mod header;
pub(crate) mod judge;
mod layer;
mod layers;
mod leaf;
pub(crate) mod load;
mod mistake;
mod print;
mod raw;
mod read;
mod resolve;
pub(crate) mod schema;
mod secret;
#[cfg(test)]
mod tests;
pub(crate) mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use leaf::WsUrl;
pub(crate) use secret::{Secret, mask};

use crate::proto::backoff::BackoffPolicy;
use crate::proto::heartbeat::HeartbeatPolicy;
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

/// How log lines look. Default `auto`: text on a terminal, else JSON.
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
        for (_, source) in &self.connection.headers {
            // A value that cannot be read was not sent.
            if let Ok(value) = source.value(&|variable| std::env::var_os(variable)) {
                secrets.header(&String::from_utf8_lossy(value.as_bytes()));
            }
        }
        if let Ok(url) = url::Url::parse(self.url.expose()) {
            secrets.url(&url);
        }
        for text in &self.policy.on_open {
            secrets.message(text.expose());
        }
        secrets.into_vec()
    }

    /// Whether `other` needs another connection than this one.
    pub(crate) fn same_connection(&self, other: &Self) -> bool {
        self.url == other.url && self.connection == other.connection
    }
}

/// What is sent and spoken when the connection is made. Shared by equal targets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct ConnectionOptions {
    /// Headers of the upgrade request, by name.
    pub(crate) headers: Vec<(http::HeaderName, HeaderSource)>,
    /// Offered in this order.
    pub(crate) subprotocols: Vec<Box<str>>,
    pub(crate) heartbeat: HeartbeatKind,
}

/// Where a header's value comes from. Identity is the reference, never the content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum HeaderSource {
    Literal(Secret<Box<str>>),
    /// Read at every dial; one trailing newline is dropped.
    File(PathBuf),
    /// Name of an environment variable.
    Env(Box<str>),
    /// Name of a systemd credential: a file below `$CREDENTIALS_DIRECTORY`.
    Credential(Box<str>),
}

/// What keeps the connection alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum HeartbeatKind {
    /// RFC 6455 pings.
    #[default]
    Ping,
    /// Nothing: hold, never send.
    None,
}

/// How a connection is kept. Shared by equal targets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Policy {
    pub(crate) heartbeat: HeartbeatPolicy,
    pub(crate) reconnect: BackoffPolicy,
    pub(crate) timeouts: Timeouts,
    /// Larger messages end the connection with Close 1009; applied at the next dial. Default 16 MiB.
    pub(crate) max_message_size: usize,
    /// Sent in this order after the upgrade; applied at the next dial.
    pub(crate) on_open: Vec<Secret<Box<str>>>,
    /// Bounds of the RTT histogram.
    pub(crate) rtt_buckets: Buckets,
    /// The idle timer of the path, if the user declared it; only judged by `check`.
    pub(crate) path_idle_timeout: Option<Duration>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            heartbeat: HeartbeatPolicy::default(),
            reconnect: BackoffPolicy::default(),
            timeouts: Timeouts::default(),
            max_message_size: 16 << 20,
            on_open: Vec::new(),
            rtt_buckets: Buckets::default(),
            path_idle_timeout: None,
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
    /// The HTTP upgrade. Default 5 s.
    pub(crate) upgrade: Duration,
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
            upgrade: secs(5),
            write: secs(10),
            close: secs(10),
        }
    }
}
