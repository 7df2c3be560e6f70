//! What happens to a connection, as types. Statistics, log lines and the library's event stream
//! are all made from these, so none of them can tell another story.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::close::{Cause, CloseFrame, Initiator};
use super::reconnect::Advice;

/// A step of the dial: the values of the `phase` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// Resolving the name.
    Dns,
    /// Connecting TCP.
    Tcp,
    /// Opening the proxy's tunnel.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// The HTTP upgrade (RFC 6455 section 4).
    Upgrade,
    /// The application protocol's greeting.
    Hello,
}

impl Phase {
    /// Every phase, in the order they are gone through.
    pub const ALL: [Self; 6] = [
        Self::Dns,
        Self::Tcp,
        Self::Proxy,
        Self::Tls,
        Self::Upgrade,
        Self::Hello,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Upgrade => "upgrade",
            Self::Hello => "hello",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How long each phase of a dial took; `None` for a phase it did not have.
pub type PhaseTimes = [Option<Duration>; Phase::ALL.len()];

/// How a dial passed, step by step, for who wants more than [`PhaseTimes`]: after a redirect a
/// phase is gone through again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Passed {
    /// The header of that name (W3C Trace Context), if the request is to carry one.
    pub(crate) traceparent: Option<Box<str>>,
    /// When the dial had its place at the gate; `None` if it never had.
    pub(crate) began: Option<SystemTime>,
    pub(crate) steps: Vec<PassedStep>,
}

/// A step that was gone through, to its end or its failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PassedStep {
    pub(crate) phase: Phase,
    /// Since the dial began.
    pub(crate) after: Duration,
    pub(crate) took: Duration,
}

/// A WebSocket data message, or an event's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Bytes,
    is_text: bool,
}

impl Message {
    /// A text message.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            bytes: text.into().into(),
            is_text: true,
        }
    }

    /// A binary message.
    pub fn binary(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into().into(),
            is_text: false,
        }
    }

    /// A message whose `bytes` are known to be UTF-8 if it is text.
    pub(crate) fn from_parts(bytes: Bytes, is_text: bool) -> Self {
        Self { bytes, is_text }
    }

    /// The text, if this is a text message.
    pub fn as_text(&self) -> Option<&str> {
        let text = self.is_text.then(|| std::str::from_utf8(&self.bytes));
        text.and_then(Result::ok)
    }

    /// The payload.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether this is a text message.
    pub fn is_text(&self) -> bool {
        self.is_text
    }

    pub(crate) fn into_parts(self) -> (Bytes, bool) {
        (self.bytes, self.is_text)
    }
}

/// A dial that did not lead to a connection.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DialFailure {
    /// When it failed.
    pub at: SystemTime,
    /// The step that failed.
    pub phase: Phase,
    /// What failed, on what, and what to do about it; on one line, no secrets.
    pub message: Box<str>,
    /// The HTTP status, if the peer answered with one.
    pub status: Option<u16>,
    /// The steps that were gone through, and how long each took.
    pub times: PhaseTimes,
    /// Failed dials in a row, this one included.
    pub attempts: u32,
    /// When the certificate of the presented chain that ends earliest does, if the peer presented one.
    pub certificate_not_after: Option<SystemTime>,
    /// The address that was connected to, if one was.
    pub peer: Option<SocketAddr>,
    pub(crate) advice: Advice,
}

/// A connection that came up.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Established {
    /// When it came up.
    pub at: SystemTime,
    /// How long each step of the dial took.
    pub times: PhaseTimes,
    /// Our address and port.
    pub local: Option<SocketAddr>,
    /// The address that answered.
    pub peer: Option<SocketAddr>,
    /// What else was learned on the way; `None` if there was nothing to tell.
    pub facts: Option<Arc<Facts>>,
    /// The outage this connection ends.
    pub recovered: Option<Recovered>,
    /// Dials since the last connection, this one included.
    pub attempts: u32,
}

/// What was learned of a connection while it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Facts {
    /// The subprotocol the peer chose.
    pub subprotocol: Option<Box<str>>,
    /// The proxy it goes through, as a URL without credentials.
    pub proxy: Option<Box<str>>,
    /// What TLS agreed on.
    pub tls: Option<TlsFacts>,
    /// Headers of the 101 that tell who answered (`Server`, `Via`, ...), by lower-case name; values
    /// are cut at 128 bytes.
    pub headers: Box<[(Box<str>, Box<str>)]>,
}

/// What TLS agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite by its IANA name, as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// When the certificate of the presented chain that ends earliest does; whole seconds.
    pub not_after: Option<SystemTime>,
}

/// What the kernel knows of a TCP connection (Linux's TCP_INFO).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// `ESTAB`, `CLOSE-WAIT`, ... as ss(8) says it; `UNCONN` once the connection was reset.
    pub state: &'static str,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Its mean deviation.
    pub rtt_variation: Duration,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
}

/// An outage that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// The id the `lost` line carried.
    pub outage_id: u64,
    /// From detection to the new connection.
    pub after: Duration,
}

/// How a connection ended, with the evidence.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct End {
    /// When it was noticed.
    pub at: SystemTime,
    /// Names the outage in logs and JSON; `lost` and `back` carry the same.
    pub outage_id: u64,
    /// Why, from the closed set.
    pub cause: Cause,
    /// Who ended it on the wire.
    pub initiator: Initiator,
    /// What happened, in words.
    pub message: Box<str>,
    /// The peer's Close frame.
    pub received: Option<CloseFrame>,
    /// Our Close frame.
    pub sent: Option<CloseFrame>,
    /// How long the connection had stood.
    pub age: Duration,
    /// Since the last frame came in; `None` if none did.
    pub since_last_frame_in: Option<Duration>,
    /// Since the last frame went out; `None` if none did.
    pub since_last_frame_out: Option<Duration>,
    /// Pings that waited for an answer.
    pub outstanding_pings: u32,
    /// How often the ping that waited had been sent again.
    pub retries: u32,
    /// Our address and port.
    pub local: Option<SocketAddr>,
    /// The peer's address and port.
    pub peer: Option<SocketAddr>,
    /// What was learned when the connection was made.
    pub facts: Option<Arc<Facts>>,
    /// What the kernel knew of the connection at its end; `None` where it does not tell.
    pub tcp_info: Option<TcpInfo>,
}

/// What happens to a connection that is held.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A dial begins.
    Connecting,
    /// A dial failed.
    DialFailed(Box<DialFailure>),
    /// The connection is up.
    Established(Box<Established>),
    /// A ping left.
    PingSent {
        /// Its number on this connection, from 1.
        seq: u32,
        /// Whether it repeats one that stayed unanswered.
        retry: bool,
    },
    /// A pong came in.
    Pong {
        /// The round trip, when it is clear which ping was answered.
        rtt: Option<Duration>,
        /// Whether it answered with a payload of the peer's own.
        mismatch: bool,
    },
    /// The peer pinged us; the pong is on its way.
    PingReceived,
    /// A heartbeat that the peer begins came in: a comment of an event stream, a ping of the
    /// application's protocol.
    HeartbeatReceived,
    /// Something came in on a connection whose peer begins the heartbeats: an event stream's
    /// bytes, a beat.
    Arrived {
        /// Since the last arrival, or since the connection came up.
        gap: Duration,
    },
    /// The first event of an event stream came in.
    FirstEvent {
        /// Since the connection came up.
        delay: Duration,
    },
    /// No application message came in for `staleness`; the connection stands.
    Stale {
        /// Since the last one, or since the connection came up.
        quiet: Duration,
    },
    /// An application message came in on a connection that was stale.
    Fresh {
        /// How long there was none.
        quiet: Duration,
    },
    /// A data message came in; of an event stream, an event's data.
    Message(Message),
    /// A data message of this many payload bytes went out.
    MessageSent {
        /// Payload bytes.
        bytes: usize,
    },
    /// Our own clock was late by this much; the wait was started again.
    Stalled {
        /// How late the wake-up was.
        late: Duration,
    },
    /// The connection ended.
    Ended(Box<End>),
    /// The next dial begins after `wait`.
    Waiting {
        /// The wait before the next dial.
        wait: Duration,
    },
    /// The reader of the events fell behind; this many were left out here.
    Missed {
        /// Events left out.
        count: u64,
    },
    /// No further dial: asked to stop, out of attempts, or an event stream was answered 204.
    Stopped,
}
