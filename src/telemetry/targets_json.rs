//! The JSON of `/api/v1/targets`, and the table `ws-keepalive status` makes of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{evidence, words};
use crate::proto::close::{Cause, CloseFrame};
use crate::proto::event::{DialFailure, End, Facts, TcpInfo, TlsFacts};
use crate::stats::{History, PastEnd, Protocol, Registry, State, TargetStats};

/// Columns of the line that says why a target is down, in characters: two lines of a narrow
/// terminal. The log and the JSON have the whole message.
const WHY_COLUMNS: usize = 160;

/// Every target, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TargetsJson {
    pub(crate) targets: Vec<TargetJson>,
}

/// One target. Times are RFC 3339, our own with milliseconds; what is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TargetJson {
    pub(crate) name: String,
    /// Which of the target's addresses, if it fans out.
    pub(crate) address_index: Option<u32>,
    /// That address.
    pub(crate) address: Option<String>,
    /// Without userinfo and query.
    pub(crate) url: String,
    pub(crate) protocol: Cow<'static, str>,
    /// `connecting`, `established`, `waiting` or `stopped`.
    pub(crate) state: Cow<'static, str>,
    pub(crate) since: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) last_rtt_seconds: Option<f64>,
    /// Whether it is established, but without application messages for too long; null where that
    /// is not watched.
    pub(crate) stale: Option<bool>,
    /// Those that the peer began.
    pub(crate) heartbeats_received: u64,
    /// The longest within the last 5 minutes; null where the peer begins no heartbeats.
    pub(crate) arrival_gap_seconds: Option<f64>,
    /// Of the present event stream.
    pub(crate) first_event_delay_seconds: Option<f64>,
    /// Of the last handshake that succeeded; null without TLS.
    pub(crate) tls: Option<TlsJson>,
    /// What the peer of the present connection chose, or of the last.
    pub(crate) subprotocol: Option<String>,
    pub(crate) last_error: Option<ErrorJson>,
    /// Newest first, at most 20.
    pub(crate) ends: Vec<EndJson>,
}

/// The newest thing that went wrong: a failed dial has a phase, an end has a cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ErrorJson {
    pub(crate) at: String,
    pub(crate) phase: Option<Cow<'static, str>>,
    pub(crate) cause: Option<Cow<'static, str>>,
    pub(crate) message: String,
    /// Failed dials in a row; null for an end.
    pub(crate) attempts: Option<u32>,
}

/// How a connection ended, with the evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EndJson {
    pub(crate) at: String,
    /// 16 hexadecimal digits, as in the log.
    pub(crate) outage_id: String,
    pub(crate) cause: Cow<'static, str>,
    /// `peer`, `us` or `path`.
    pub(crate) initiator: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) received: Option<CloseJson>,
    pub(crate) sent: Option<CloseJson>,
    pub(crate) age_seconds: f64,
    pub(crate) since_last_frame_in_seconds: Option<f64>,
    pub(crate) since_last_frame_out_seconds: Option<f64>,
    pub(crate) outstanding_pings: u32,
    pub(crate) retries: u32,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) peer: Option<SocketAddr>,
    /// A URL without credentials.
    pub(crate) proxy: Option<String>,
    pub(crate) tls: Option<TlsJson>,
    /// Of the 101, by lower-case name; values that came under one name are joined by `, `.
    pub(crate) headers: Option<BTreeMap<String, String>>,
    pub(crate) tcp_info: Option<TcpInfoJson>,
    /// From detection to the next connection; null while it is not back.
    pub(crate) recovered_after_seconds: Option<f64>,
}

/// What TLS agreed on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TlsJson {
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) version: Cow<'static, str>,
    /// The cipher suite's IANA name.
    pub(crate) cipher: Cow<'static, str>,
    /// When the presented chain ends; whole seconds.
    pub(crate) not_after: Option<String>,
}

/// What the kernel knew of a TCP connection when it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TcpInfoJson {
    /// As ss(8) says it.
    pub(crate) state: Cow<'static, str>,
    pub(crate) rtt_seconds: f64,
    pub(crate) rtt_variation_seconds: f64,
    /// Segments sent again in the connection's life.
    pub(crate) retransmits: u32,
    /// Segments sent and not acknowledged.
    pub(crate) unacked: u32,
}

/// A Close frame. Code 1005 is a Close without a code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CloseJson {
    pub(crate) code: u16,
    /// Control characters are escaped.
    pub(crate) reason: String,
}

/// What the registry knows of every target.
pub(crate) fn targets(registry: &Registry) -> TargetsJson {
    of(&registry.targets())
}

/// The same of the targets that are named so.
pub(crate) fn targets_of(registry: &Registry, names: &[Box<str>]) -> TargetsJson {
    of(&registry.targets_named(names))
}

fn of(targets: &[Arc<TargetStats>]) -> TargetsJson {
    TargetsJson {
        targets: targets.iter().map(|stats| target(stats)).collect(),
    }
}

fn target(stats: &TargetStats) -> TargetJson {
    let identity = stats.identity();
    let labels = identity.labels.iter();
    let facts = stats.facts();
    let facts = facts.as_deref();
    let (last_error, ends) = stats.with_history(|history| match history {
        None => (None, Vec::new()),
        Some(history) => (
            last_error(history),
            history.ends.iter().map(end).collect::<Vec<_>>(),
        ),
    });
    TargetJson {
        name: identity.target().as_ref().to_owned(),
        address_index: identity.address_index(),
        address: identity.address().map(|address| address.to_string()),
        url: identity.url.as_ref().to_owned(),
        protocol: identity.protocol.as_str().into(),
        state: stats.state().as_str().into(),
        since: rfc3339(stats.state_since()),
        labels: labels
            .map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned()))
            .collect(),
        last_rtt_seconds: seconds(stats.last_rtt()),
        stale: identity.watches_staleness.then(|| stats.is_stale()),
        heartbeats_received: stats.heartbeats_received(),
        arrival_gap_seconds: seconds(stats.arrival_gap().filter(|_| identity.server_beats)),
        first_event_delay_seconds: seconds(
            stats
                .first_event_delay()
                .filter(|_| identity.protocol == Protocol::Sse),
        ),
        tls: facts.and_then(|facts| facts.tls).map(tls),
        subprotocol: facts.and_then(|facts| facts.subprotocol.as_deref().map(escaped)),
        last_error,
        ends,
    }
}

/// What we ended ourselves on request is no error.
fn last_error(history: &History) -> Option<ErrorJson> {
    let wrong = |past: &&PastEnd| !asked_for(past.end.cause);
    let end = history.ends.iter().find(wrong).map(|past| &past.end);
    let dial = history.last_failure.as_ref();
    match (dial, end) {
        (Some(dial), Some(end)) if dial.at < end.at => Some(ended(end)),
        (Some(dial), _) => Some(failed(dial)),
        (None, end) => end.map(ended),
    }
}

/// Whether an end is somebody's wish and nobody's fault.
pub(crate) fn asked_for(cause: Cause) -> bool {
    matches!(cause, Cause::Replaced | Cause::Removed | Cause::Shutdown)
}

fn failed(dial: &DialFailure) -> ErrorJson {
    ErrorJson {
        at: rfc3339(dial.at),
        phase: Some(dial.phase.as_str().into()),
        cause: None,
        message: dial.message.as_ref().to_owned(),
        attempts: Some(dial.attempts),
    }
}

fn ended(end: &End) -> ErrorJson {
    ErrorJson {
        at: rfc3339(end.at),
        phase: None,
        cause: Some(end.cause.as_str().into()),
        message: end.message.as_ref().to_owned(),
        attempts: None,
    }
}

fn end(past: &PastEnd) -> EndJson {
    let PastEnd {
        end,
        recovered_after,
    } = past;
    let facts = end.facts.as_deref();
    EndJson {
        at: rfc3339(end.at),
        outage_id: words::outage_id(end.outage_id),
        cause: end.cause.as_str().into(),
        initiator: end.initiator.as_str().into(),
        message: end.message.as_ref().to_owned(),
        received: end.received.as_ref().map(close),
        sent: end.sent.as_ref().map(close),
        age_seconds: end.age.as_secs_f64(),
        since_last_frame_in_seconds: seconds(end.since_last_frame_in),
        since_last_frame_out_seconds: seconds(end.since_last_frame_out),
        outstanding_pings: end.outstanding_pings,
        retries: end.retries,
        local: end.local,
        peer: end.peer,
        proxy: facts.and_then(|facts| facts.proxy.as_deref().map(escaped)),
        tls: facts.and_then(|facts| facts.tls).map(tls),
        headers: facts.and_then(headers),
        tcp_info: end.tcp_info.map(tcp_info),
        recovered_after_seconds: seconds(*recovered_after),
    }
}

fn close(frame: &CloseFrame) -> CloseJson {
    CloseJson {
        code: frame.code,
        reason: escaped(&frame.reason),
    }
}

fn tls(facts: TlsFacts) -> TlsJson {
    TlsJson {
        version: facts.version.into(),
        cipher: facts.cipher.into(),
        not_after: facts.not_after.map(evidence::certificate_time),
    }
}

fn headers(facts: &Facts) -> Option<BTreeMap<String, String>> {
    Some(evidence::headers(facts)).filter(|headers| !headers.is_empty())
}

fn tcp_info(info: TcpInfo) -> TcpInfoJson {
    TcpInfoJson {
        state: info.state.into(),
        rtt_seconds: info.rtt.as_secs_f64(),
        rtt_variation_seconds: info.rtt_variation.as_secs_f64(),
        retransmits: info.retransmits,
        unacked: info.unacked,
    }
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

fn escaped(text: &str) -> String {
    words::escape(text).into_owned()
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// The targets as a table for people: TARGET STATE SINCE RTT DROPS URL. Below one that is down
/// stands why.
pub(crate) fn table(json: &TargetsJson) -> String {
    table_at(json, SystemTime::now())
}

fn table_at(json: &TargetsJson, now: SystemTime) -> String {
    let header = ["TARGET", "STATE", "SINCE", "RTT", "DROPS", "URL"].map(str::to_owned);
    let rows = json.targets.iter().map(|target| row(target, now));
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(rows).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    // The header is no target's.
    let whys = std::iter::once(None).chain(json.targets.iter().map(why_down));
    for (row, why) in rows.iter().zip(whys) {
        let cells = row.iter().zip(widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
        if let Some(why) = why {
            text.push_str(&why);
            text.push('\n');
        }
    }
    text
}

/// The line below a target that is not established: what went wrong last. `None` where nothing
/// did, or where the connection ended on request after it.
fn why_down(target: &TargetJson) -> Option<String> {
    if target.state == State::Established.as_str() {
        return None;
    }
    let error = target.last_error.as_ref()?;
    // Both are of one form and in UTC: the later one is the greater text.
    if target.ends.first().is_some_and(|end| end.at > error.at) {
        return None;
    }
    let what = error.phase.as_deref().unwrap_or("lost");
    let attempts = error.attempts.map_or_else(String::new, |attempts| {
        format!("; {}", words::counted(attempts, "attempt"))
    });
    let before = format!("  {what}: ");
    let room = WHY_COLUMNS.saturating_sub(before.chars().count() + attempts.chars().count());
    Some(format!("{before}{}{attempts}", cut(&error.message, room)))
}

/// `message`, harmless, and no longer than `room` characters.
fn cut(message: &str, room: usize) -> String {
    let message = words::escape(message);
    match message.char_indices().nth(room) {
        None => message.into_owned(),
        Some(_) => {
            let kept: String = message.chars().take(room.saturating_sub(2)).collect();
            format!("{}..", kept.trim_end())
        }
    }
}

fn row(target: &TargetJson, now: SystemTime) -> [String; 6] {
    let since = humantime::parse_rfc3339(&target.since).ok();
    let ago = since.and_then(|since| now.duration_since(since).ok());
    // The history holds no more than this many; there may have been others.
    let drops = match target.ends.len() {
        20.. => "20+".to_owned(),
        n => n.to_string(),
    };
    let last = target.ends.first();
    let rtt = target.last_rtt_seconds;
    let name = words::escape(&target.name);
    [
        match target.address_index {
            Some(index) => format!("{name}[{index}]"),
            None => name.into_owned(),
        },
        match target.stale {
            Some(true) => format!("{}, stale", target.state),
            Some(false) | None => target.state.clone().into_owned(),
        },
        ago.map_or("-".to_owned(), |ago| format!("{} ago", words::coarse(ago))),
        rtt.map_or("-".to_owned(), |rtt| format!("{:.1} ms", rtt * 1e3)),
        last.map_or(drops.clone(), |end| format!("{drops} ({})", end.cause)),
        escaped(&target.url),
    ]
}

#[cfg(test)]
mod tests;
