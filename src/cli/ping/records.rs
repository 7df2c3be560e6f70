//! What `-o json` writes: one object per line, told apart by `type`. Its schema is made of the same
//! types.

use std::collections::BTreeMap;
use std::time::SystemTime;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;

use super::arrivals::Gaps;
use super::handshake::Handshake;
use super::statistics::Figures;
use crate::proto::close::CloseFrame;
use crate::proto::event::{Phase, PhaseTimes, TlsFacts};
use crate::telemetry::certificate_time;
use crate::telemetry::words::escape;

/// One line of `ws-keepalive ping -o json`. Times are RFC 3339 with milliseconds, durations are
/// seconds; what is not known is null.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Record {
    Connect(Box<Connect>),
    Heartbeat(Heartbeat),
    Arrival(Arrival),
    End(Box<End>),
    Summary(Box<Summary>),
}

/// The connection was made, or was not: the first line.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Connect {
    /// When.
    pub(super) time: String,
    /// The URL without userinfo and query.
    pub(super) url: String,
    /// The address and port that answered.
    pub(super) peer: Option<String>,
    /// Our address and port.
    pub(super) local: Option<String>,
    /// How long each step took.
    pub(super) phases: Phases,
    /// The proxy on the way, without credentials.
    pub(super) proxy: Option<String>,
    /// What TLS agreed on.
    pub(super) tls: Option<Tls>,
    /// The subprotocol the peer chose.
    pub(super) subprotocol: Option<String>,
    /// Headers of the 101, or of an event stream's 200, that tell who answered, by lower-case name.
    pub(super) headers: BTreeMap<String, String>,
    /// Where redirects led, in turn; without queries.
    pub(super) redirects: Vec<String>,
    /// With `-v`, what passed while it was made.
    pub(super) handshake: Option<Handshake>,
    /// Why there is no connection.
    pub(super) error: Option<DialFailed>,
}

/// How long each step of connecting took; null for one that was not gone through.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Phases {
    /// Resolving the name.
    dns_seconds: Option<f64>,
    /// Connecting TCP.
    tcp_seconds: Option<f64>,
    /// Opening the proxy's tunnel.
    proxy_seconds: Option<f64>,
    /// The TLS handshake.
    tls_seconds: Option<f64>,
    /// The HTTP upgrade, or the request for an event stream.
    upgrade_seconds: Option<f64>,
    /// The application protocol's greeting.
    hello_seconds: Option<f64>,
    /// All of them together.
    total_seconds: f64,
}

impl From<&PhaseTimes> for Phases {
    fn from(times: &PhaseTimes) -> Self {
        let seconds = |phase: Phase| times[phase as usize].map(|time| time.as_secs_f64());
        Self {
            dns_seconds: seconds(Phase::Dns),
            tcp_seconds: seconds(Phase::Tcp),
            proxy_seconds: seconds(Phase::Proxy),
            tls_seconds: seconds(Phase::Tls),
            upgrade_seconds: seconds(Phase::Upgrade),
            hello_seconds: seconds(Phase::Hello),
            total_seconds: super::chart::total(times).as_secs_f64(),
        }
    }
}

/// What TLS agreed on.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Tls {
    /// `TLSv1.2` or `TLSv1.3`.
    version: String,
    /// The cipher suite's IANA name.
    cipher: String,
    /// When the certificate of the chain that ends earliest does.
    not_after: Option<String>,
}

impl From<&TlsFacts> for Tls {
    fn from(tls: &TlsFacts) -> Self {
        Self {
            version: tls.version.to_owned(),
            cipher: tls.cipher.to_owned(),
            not_after: tls.not_after.map(certificate_time),
        }
    }
}

/// A dial that failed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DialFailed {
    /// The step that failed: dns, tcp, proxy, tls, upgrade or hello.
    pub(super) phase: String,
    /// What failed, on what, and what to do about it.
    pub(super) message: String,
    /// The HTTP status, if the peer answered with one.
    pub(super) status: Option<u16>,
}

/// A ping was answered, or was not in time. In the order of events.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Heartbeat {
    /// When.
    pub(super) time: String,
    /// The ping's number, from 1.
    pub(super) seq: u32,
    pub(super) result: HeartbeatResult,
    /// The round trip, where it is clear which ping was answered.
    pub(super) rtt_seconds: Option<f64>,
    /// How long an answer was waited for in vain.
    pub(super) waited_seconds: Option<f64>,
    /// Whether the pong had a payload of the peer's own.
    pub(super) mismatch: bool,
}

/// What came of a ping.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum HeartbeatResult {
    /// Answered in time.
    Answered,
    /// No answer came in time.
    TimedOut,
    /// Answered after that had been said.
    Late,
    /// Answered once more.
    Repeated,
    /// The connection ended before an answer came.
    CutOff,
}

/// An event or a comment of an event stream came in.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Arrival {
    /// When.
    pub(super) time: String,
    /// Its number, from 1; events and comments are counted together.
    pub(super) seq: u64,
    pub(super) kind: ArrivalKind,
    /// The size of an event's data.
    pub(super) bytes: Option<usize>,
    /// How long after the one before; of the first, after the stream stood.
    pub(super) gap_seconds: f64,
}

/// What came in.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ArrivalKind {
    /// An event.
    Event,
    /// A comment, which many servers send as their heartbeat.
    Comment,
}

/// How the connection ended.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct End {
    /// When.
    pub(super) time: String,
    /// Why, one of the causes of the metrics: `fin`, `closed_normal`, `shutdown`, ..
    pub(super) cause: String,
    /// `peer`, `us` or `path`.
    pub(super) initiator: String,
    /// What happened, in words.
    pub(super) message: String,
    /// The peer's Close frame, if it had come by then.
    pub(super) received: Option<Close>,
    /// Our Close frame.
    pub(super) sent: Option<Close>,
    /// How long the connection had stood.
    pub(super) age_seconds: f64,
}

/// A Close frame. Code 1005 is a Close without a code.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Close {
    code: u16,
    /// Control characters are escaped.
    reason: String,
}

impl From<&CloseFrame> for Close {
    fn from(frame: &CloseFrame) -> Self {
        Self {
            code: frame.code,
            reason: escape(&frame.reason).into_owned(),
        }
    }
}

/// The last line.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Summary {
    /// When.
    pub(super) time: String,
    /// The URL without userinfo and query.
    pub(super) url: String,
    /// Pings sent; an event stream is sent none.
    pub(super) sent: u32,
    /// Of them, those that were answered, late ones included.
    pub(super) received: u32,
    /// The share that was not answered, 0 to 1; null if none was sent.
    pub(super) loss: Option<f64>,
    /// Of those answered, those that were answered too late.
    pub(super) late: u32,
    /// Of those answered, those whose pong had a payload of the peer's own.
    pub(super) mismatched: u32,
    /// Pongs to pings that had been answered before.
    pub(super) repeated: u32,
    /// The peer's own pings, which were answered.
    pub(super) pings_received: u64,
    /// The peer's messages, which were ignored; of an event stream its events.
    pub(super) messages_received: u64,
    /// From the connection to the end of the pinging, or of the stream.
    pub(super) duration_seconds: f64,
    /// Round trips; null if there was none to tell.
    pub(super) rtt: Option<Rtt>,
    /// What an event stream brought; null of a WebSocket.
    pub(super) stream: Option<Stream>,
}

/// What an event stream brought.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Stream {
    /// Events that came.
    pub(super) events: u64,
    /// Comments that came.
    pub(super) comments: u64,
    /// From the connection to the first event or comment; null if none came.
    pub(super) first_arrival_seconds: Option<f64>,
    /// From the connection to the first event; null if none came.
    pub(super) first_event_seconds: Option<f64>,
    /// From one event or comment to the next; null if less than two came.
    pub(super) gap: Option<Gap>,
}

/// From one event or comment to the next.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Gap {
    min_seconds: f64,
    avg_seconds: f64,
    max_seconds: f64,
}

impl From<Gaps> for Gap {
    fn from(gaps: Gaps) -> Self {
        Self {
            min_seconds: gaps.min.as_secs_f64(),
            avg_seconds: gaps.avg.as_secs_f64(),
            max_seconds: gaps.max.as_secs_f64(),
        }
    }
}

/// Round trips.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Rtt {
    min_seconds: f64,
    avg_seconds: f64,
    max_seconds: f64,
    stddev_seconds: f64,
    p50_seconds: f64,
    p90_seconds: f64,
    p99_seconds: f64,
}

impl From<Figures> for Rtt {
    fn from(figures: Figures) -> Self {
        Self {
            min_seconds: figures.min.as_secs_f64(),
            avg_seconds: figures.avg.as_secs_f64(),
            max_seconds: figures.max.as_secs_f64(),
            stddev_seconds: figures.stddev.as_secs_f64(),
            p50_seconds: figures.p50.as_secs_f64(),
            p90_seconds: figures.p90.as_secs_f64(),
            p99_seconds: figures.p99.as_secs_f64(),
        }
    }
}

/// A time as the records have it.
pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// The JSON Schema of one line.
pub(super) fn schema() -> serde_json::Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let schema = settings.into_generator().into_root_schema_for::<Record>();
    let mut schema = schema.to_value();
    schema["title"] = "ws-keepalive ping".into();
    schema
}
