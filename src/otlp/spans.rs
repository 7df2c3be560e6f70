//! What happens to a target, as spans: `connect` for each dial, its steps below it, and `outage`
//! from loss to recovery.
//!
//! They are made of the same events as the numbers and the log lines, after the fact and with the
//! times these tell: a span that is opened and closed around the work would need a place in every
//! target's task. What is kept meanwhile is boxed, and there only during a dial or an outage.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message;

use super::queue::Queue;
use super::wire::{Attribute, attribute};
use crate::config::Target;
use crate::config::otlp::Sampled;
use crate::proto::close::Cause;
use crate::proto::event::{DialFailure, End, Established, Event, Facts, Passed, Phase};
use crate::stats::{Identity, TargetStats};
use crate::telemetry::evidence::Fields;
use crate::telemetry::words::{escape, outage_id};

/// Links of an outage: to the dials that tried to end it, the last ones.
const LINKS: usize = 32;

/// The flags of a span whose parent, if any, is ours (trace.proto, `SpanFlags`), and sampled.
const FLAGS: u32 = 0x100 | 1;

/// Where spans go.
#[derive(Debug)]
pub(crate) struct Traces {
    pub(super) queue: Queue,
    /// A [`Sampled`].
    sampled: AtomicU64,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            queue: Queue::default(),
            sampled: AtomicU64::new(Sampled::ALL.0),
        }
    }
}

impl Traces {
    pub(super) fn sample(&self, sampled: Sampled) {
        self.sampled.store(sampled.0, Relaxed);
    }

    /// Whether the trace of this id is sampled.
    pub(super) fn takes(&self, trace: [u8; 16]) -> bool {
        Sampled(self.sampled.load(Relaxed)).takes(trace)
    }

    fn new_ids(&self) -> Ids {
        let trace = rand::random::<[u8; 16]>();
        Ids {
            trace,
            span: rand::random(),
            sampled: self.takes(trace),
        }
    }

    pub(super) fn emit(&self, span: &Span) {
        self.queue.push(span.encode_to_vec());
    }
}

/// What names a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    pub(super) sampled: bool,
}

impl Ids {
    /// W3C Trace Context, section 3.2.
    fn traceparent(&self) -> Box<str> {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let (trace, span) = (hex(&self.trace), hex(&self.span));
        format!("00-{trace}-{span}-0{}", u8::from(self.sampled)).into()
    }
}

/// The spans of one target that are not done.
#[derive(Debug)]
pub(crate) struct Spans {
    traces: Arc<Traces>,
    open: Option<Box<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    connect: Option<Connect>,
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Connect {
    ids: Ids,
    passed: Option<Box<Passed>>,
}

#[derive(Debug)]
struct Outage {
    ids: Ids,
    began: SystemTime,
    message: String,
    /// A span of only these attributes, encoded: as values they would take a multiple, for as long
    /// as it lasts.
    evidence: Vec<u8>,
    attempts: u32,
    /// The last dials that tried to end it.
    tried: VecDeque<Ids>,
}

impl Spans {
    pub(crate) fn new(traces: Arc<Traces>) -> Self {
        Self { traces, open: None }
    }

    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// A dial begins: where to write down how it passes.
    pub(crate) fn dialing(&mut self, target: &Target) -> Option<Box<Passed>> {
        if !self.traces.queue.is_on() {
            return None;
        }
        let ids = self.traces.new_ids();
        let connect = Connect { ids, passed: None };
        self.open.get_or_insert_default().connect = Some(connect);
        Some(Box::new(Passed {
            traceparent: target.policy.traceparent.then(|| ids.traceparent()),
            began: None,
            steps: Vec::new(),
        }))
    }

    /// How the dial passed; its outcome follows as an event, unless it was given up.
    pub(crate) fn passed(&mut self, passed: Box<Passed>) {
        let connect = self.open.as_mut().and_then(|open| open.connect.as_mut());
        if let Some(connect) = connect {
            connect.passed = Some(passed);
        }
    }

    /// Takes an event in: the span that it belongs to, if there is one.
    pub(crate) fn event(&mut self, stats: &TargetStats, event: &Event) -> Option<Ids> {
        match event {
            Event::Connecting | Event::Stopped => {
                if self.open.is_some() {
                    self.given_up(&stats.identity());
                }
                if matches!(event, Event::Stopped) {
                    self.unfinished();
                }
                None
            }
            Event::DialFailed(failure) => self.dial_failed(&stats.identity(), failure),
            Event::Established(up) => self.established(&stats.identity(), up),
            Event::Ended(end) => self.ended(&stats.identity(), end),
            Event::PingSent { .. }
            | Event::Pong { .. }
            | Event::PingReceived
            | Event::HeartbeatReceived
            | Event::Arrived { .. }
            | Event::FirstEvent { .. }
            | Event::Stale { .. }
            | Event::Fresh { .. }
            | Event::Message(_)
            | Event::MessageSent { .. }
            | Event::Stalled { .. }
            | Event::Waiting { .. }
            | Event::Missed { .. } => None,
        }
    }

    fn dial_failed(&mut self, identity: &Identity, failure: &DialFailure) -> Option<Ids> {
        let open = self.open.as_mut()?;
        let connect = open.connect.take()?;
        let ids = connect.ids;
        if let Some(outage) = &mut open.outage {
            outage.tried_by(ids);
        }
        let mut attributes = of_dial(identity, failure.attempts, failure.peer);
        attributes.push(attribute("error.type", failure.phase.as_str()));
        attributes.push(attribute("ws_keepalive.phase", failure.phase.as_str()));
        add(
            &mut attributes,
            "http.response.status_code",
            failure.status.map(u64::from),
        );
        let words = escape(&failure.message).into_owned();
        let failed = Some((failure.phase, words));
        self.connect_done(&connect, failure.at, attributes, failed);
        self.tidy();
        Some(ids)
    }

    fn established(&mut self, identity: &Identity, up: &Established) -> Option<Ids> {
        let mut open = self.open.take()?;
        let connect = open.connect.take();
        let ids = connect.as_ref().map(|connect| connect.ids);
        if let Some(connect) = connect {
            let mut attributes = of_dial(identity, up.attempts, up.peer);
            add_address(&mut attributes, "network.local", up.local);
            add_facts(&mut attributes, up.facts.as_deref());
            self.connect_done(&connect, up.at, attributes, None);
        }
        if let Some(mut outage) = open.outage.take() {
            if let Some(ids) = ids {
                outage.tried_by(ids);
            }
            self.outage_done(outage, up.at, false);
        }
        ids
    }

    fn ended(&mut self, identity: &Identity, end: &End) -> Option<Ids> {
        if !self.traces.queue.is_on() {
            return None;
        }
        // Nobody waits for these to come back.
        if matches!(end.cause, Cause::Removed | Cause::Shutdown) {
            return None;
        }
        let ids = self.traces.new_ids();
        self.open.get_or_insert_default().outage = Some(Outage {
            ids,
            began: end.at,
            message: escape(&end.message).into_owned(),
            evidence: match ids.sampled {
                true => Span {
                    attributes: evidence(identity, end),
                    ..Span::default()
                }
                .encode_to_vec(),
                false => Vec::new(),
            },
            attempts: 0,
            tried: VecDeque::new(),
        });
        Some(ids)
    }

    /// A dial that had begun was broken off: something else is wanted.
    fn given_up(&mut self, identity: &Identity) {
        let connect = self.open.as_mut().and_then(|open| open.connect.take());
        let Some(connect) = connect else { return };
        let began = connect.passed.as_ref().and_then(|passed| passed.began);
        if began.is_some() {
            let mut attributes = of_target(identity);
            attributes.push(attribute("ws_keepalive.unfinished", true));
            self.connect_done(&connect, SystemTime::now(), attributes, None);
        }
        self.tidy();
    }

    /// Nobody dials any more: an outage stays without an end.
    fn unfinished(&mut self) {
        let outage = self.open.as_mut().and_then(|open| open.outage.take());
        if let Some(outage) = outage {
            self.outage_done(outage, SystemTime::now(), true);
        }
        self.tidy();
    }

    /// What is empty takes no memory.
    fn tidy(&mut self) {
        let is_empty = |open: &mut Box<Open>| open.connect.is_none() && open.outage.is_none();
        self.open.take_if(is_empty);
    }

    fn connect_done(
        &self,
        connect: &Connect,
        at: SystemTime,
        attributes: Vec<KeyValue>,
        failed: Option<(Phase, String)>,
    ) {
        let ids = connect.ids;
        let passed = connect.passed.as_deref();
        let (Some(passed), true) = (passed, ids.sampled) else {
            return;
        };
        let began = passed.began.unwrap_or(at);
        let last = passed.steps.len().saturating_sub(1);
        for (n, step) in passed.steps.iter().enumerate() {
            let from = began + step.after;
            let failed = failed
                .as_ref()
                .filter(|(phase, _)| *phase == step.phase && n == last);
            self.traces.emit(&Span {
                parent_span_id: ids.span.into(),
                kind: SpanKind::Internal as i32,
                status: failed.map(|(_, words)| error(words)),
                ..span(
                    ids.trace,
                    rand::random(),
                    step.phase.as_str(),
                    from,
                    from + step.took,
                )
            });
        }
        self.traces.emit(&Span {
            kind: SpanKind::Client as i32,
            attributes,
            status: failed.as_ref().map(|(_, words)| error(words)),
            // A clock that was set meanwhile must not give it a negative length.
            ..span(ids.trace, ids.span, "connect", began, at.max(began))
        });
    }

    fn outage_done(&self, outage: Outage, at: SystemTime, unfinished: bool) {
        let Outage {
            ids,
            began,
            message,
            evidence,
            attempts,
            tried,
        } = outage;
        if !ids.sampled {
            return;
        }
        let mut attributes = vec![attribute("ws_keepalive.attempts", u64::from(attempts))];
        if unfinished {
            attributes.push(attribute("ws_keepalive.unfinished", true));
        }
        let dropped = usize::try_from(attempts).unwrap_or(usize::MAX) - tried.len();
        let links = tried.into_iter().map(|ids| Link {
            trace_id: ids.trace.into(),
            span_id: ids.span.into(),
            flags: if ids.sampled { FLAGS } else { FLAGS & !1 },
            ..Link::default()
        });
        let rest = Span {
            kind: SpanKind::Internal as i32,
            attributes,
            links: links.collect(),
            dropped_links_count: u32::try_from(dropped).unwrap_or(u32::MAX),
            status: Some(error(&message)),
            ..span(ids.trace, ids.span, "outage", began, at.max(began))
        };
        // Encoded messages one after the other are one, with the attributes of both.
        let mut whole = evidence;
        whole.extend_from_slice(&rest.encode_to_vec());
        self.traces.queue.push(whole);
    }
}

impl Drop for Spans {
    /// The task ended, be it by a panic.
    fn drop(&mut self) {
        self.unfinished();
    }
}

impl Outage {
    fn tried_by(&mut self, ids: Ids) {
        self.attempts = self.attempts.saturating_add(1);
        if self.tried.len() == LINKS {
            self.tried.pop_front();
        }
        self.tried.push_back(ids);
    }
}

fn span(trace: [u8; 16], id: [u8; 8], name: &str, from: SystemTime, to: SystemTime) -> Span {
    Span {
        trace_id: trace.into(),
        span_id: id.into(),
        flags: FLAGS,
        name: name.to_owned(),
        start_time_unix_nano: nanos(from),
        end_time_unix_nano: nanos(to),
        ..Span::default()
    }
}

fn error(words: &str) -> Status {
    Status {
        message: words.to_owned(),
        code: StatusCode::Error as i32,
    }
}

pub(super) fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Whom a span is about; what identifies it comes last, so that no label takes its place.
fn of_target(identity: &Identity) -> Vec<KeyValue> {
    let labels = identity.labels.iter();
    let labels = labels.map(|(name, value)| attribute(&**name, &**value));
    let mut attributes: Vec<KeyValue> = labels.collect();
    attributes.push(attribute("ws_keepalive.target", &**identity.target()));
    if let Some(index) = identity.address_index() {
        attributes.push(attribute("ws_keepalive.address_index", u64::from(index)));
    }
    attributes.push(attribute("url.full", &*identity.url));
    attributes.push(attribute(
        "ws_keepalive.protocol",
        identity.protocol.as_str(),
    ));
    attributes
}

fn of_dial(identity: &Identity, attempt: u32, peer: Option<SocketAddr>) -> Vec<KeyValue> {
    let mut attributes = of_target(identity);
    attributes.push(attribute("ws_keepalive.attempt", u64::from(attempt)));
    add_address(&mut attributes, "network.peer", peer);
    attributes
}

fn add(attributes: &mut Vec<KeyValue>, key: &str, value: Option<impl Into<Attribute>>) {
    attributes.extend(value.map(|value| attribute(key, value)));
}

fn add_address(attributes: &mut Vec<KeyValue>, of: &str, address: Option<SocketAddr>) {
    if let Some(address) = address {
        attributes.push(attribute(format!("{of}.address"), address.ip().to_string()));
        attributes.push(attribute(format!("{of}.port"), u64::from(address.port())));
    }
}

fn add_facts(attributes: &mut Vec<KeyValue>, facts: Option<&Facts>) {
    let known = Fields::of(facts);
    add(attributes, "ws_keepalive.proxy", known.proxy);
    add(attributes, "ws_keepalive.tls_version", known.tls_version);
    add(attributes, "ws_keepalive.tls_cipher", known.tls_cipher);
    add(
        attributes,
        "ws_keepalive.certificate_not_after",
        known.certificate_not_after,
    );
    add(
        attributes,
        "ws_keepalive.subprotocol",
        known.subprotocol.as_deref(),
    );
    add(attributes, "ws_keepalive.server", known.server);
    add(attributes, "ws_keepalive.via", known.via);
    add(attributes, "ws_keepalive.headers", known.headers);
}

/// What the `lost` line says, by the names of its fields.
fn evidence(identity: &Identity, end: &End) -> Vec<KeyValue> {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let mut attributes = of_target(identity);
    let all = &mut attributes;
    add(
        all,
        "ws_keepalive.outage_id",
        Some(outage_id(end.outage_id)),
    );
    add(all, "ws_keepalive.cause", Some(end.cause.as_str()));
    add(all, "ws_keepalive.initiator", Some(end.initiator.as_str()));
    add(all, "ws_keepalive.age_seconds", seconds(Some(end.age)));
    let (last_in, last_out) = (end.since_last_frame_in, end.since_last_frame_out);
    add(
        all,
        "ws_keepalive.since_last_frame_in_seconds",
        seconds(last_in),
    );
    add(
        all,
        "ws_keepalive.since_last_frame_out_seconds",
        seconds(last_out),
    );
    add(
        all,
        "ws_keepalive.outstanding_pings",
        Some(u64::from(end.outstanding_pings)),
    );
    add(all, "ws_keepalive.retries", Some(u64::from(end.retries)));
    if let Some(received) = &end.received {
        add(
            all,
            "ws_keepalive.received_code",
            Some(u64::from(received.code)),
        );
        add(
            all,
            "ws_keepalive.received_reason",
            Some(&*escape(&received.reason)),
        );
    }
    let sent = end.sent.as_ref().map(|sent| u64::from(sent.code));
    add(all, "ws_keepalive.sent_code", sent);
    add_address(all, "network.local", end.local);
    add_address(all, "network.peer", end.peer);
    add_facts(all, end.facts.as_deref());
    if let Some(tcp) = end.tcp_info {
        add(all, "ws_keepalive.tcp_state", Some(tcp.state));
        add(all, "ws_keepalive.tcp_rtt_seconds", seconds(Some(tcp.rtt)));
        add(
            all,
            "ws_keepalive.tcp_rtt_variation_seconds",
            seconds(Some(tcp.rtt_variation)),
        );
        add(
            all,
            "ws_keepalive.tcp_retransmits",
            Some(u64::from(tcp.retransmits)),
        );
        add(
            all,
            "ws_keepalive.tcp_unacked",
            Some(u64::from(tcp.unacked)),
        );
    }
    attributes
}
