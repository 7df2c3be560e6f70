//! One event, told twice: to the statistics and to the log.
//!
//! Every connection's story goes through [`observe`], so that numbers and log lines cannot tell
//! two. It runs on the I/O thread, for each ping and pong: a line that nobody wants costs one load
//! and one comparison.
//!
//! Lines carry a field `event`, which says that the message is a whole sentence and the other
//! fields repeat it for machines: the text format leaves them out, `outage_id` apart.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{Level, debug, info, warn};

use super::evidence::{Fields, agreed, certificate_time, trouble, way, who};
use super::targets_json::asked_for;
use super::words::{age, escape, exact, from_fn, outage_id, rounded};
use crate::proto::event::{DialFailure, End, Established, Event, Phase};
use crate::stats::{Protocol, TargetStats};

/// The log target of every line about a connection.
const LOG: &str = "ws_keepalive";

/// A machine that stalled says so once in this many seconds, not once per target.
const STALL_SILENCE: u64 = 10;

/// Takes `event` into the numbers of its target and writes its log line.
pub(crate) fn observe(stats: &TargetStats, event: &Event) {
    match event {
        // Asked before the failure becomes the last one.
        Event::DialFailed(failure) => {
            let again = failed_so_before(stats, failure);
            stats.apply(event);
            dial_failed(stats, failure, again);
        }
        Event::Established(up) => {
            stats.apply(event);
            established(stats, up);
        }
        Event::Ended(end) => {
            stats.apply(event);
            ended(stats, end);
        }
        Event::Stalled { late } => {
            stats.apply(event);
            stalled(stats, *late, &LAST_STALL);
        }
        Event::Stale { quiet } => {
            stats.apply(event);
            stale(stats, *quiet);
        }
        Event::Fresh { quiet } => {
            stats.apply(event);
            fresh(stats, *quiet);
        }
        Event::Connecting
        | Event::PingSent { .. }
        | Event::Pong { .. }
        | Event::PingReceived
        | Event::HeartbeatReceived
        | Event::Arrived { .. }
        | Event::FirstEvent { .. }
        | Event::Message(_)
        | Event::MessageSent { .. }
        | Event::Waiting { .. }
        | Event::Missed { .. }
        | Event::Stopped => {
            stats.apply(event);
            if tracing::enabled!(target: LOG, Level::DEBUG) {
                detail(stats, event);
            }
        }
    }
}

fn established(stats: &TargetStats, up: &Established) {
    let identity = stats.identity();
    let target = &*identity.name;
    let protocol = identity.protocol.as_str();
    let peer = up.peer.map(tracing::field::display);
    let took: Duration = up.times.iter().flatten().sum();
    let facts = up.facts.as_deref();
    let known = Fields::of(facts);
    match up.recovered {
        Some(recovered) => info!(
            target: LOG,
            event = "back",
            target,
            outage_id = outage_id(recovered.outage_id),
            after_seconds = recovered.after.as_secs_f64(),
            attempt = up.attempts,
            peer,
            protocol,
            proxy = known.proxy,
            tls_version = known.tls_version,
            tls_cipher = known.tls_cipher,
            certificate_not_after = known.certificate_not_after,
            subprotocol = known.subprotocol.as_deref(),
            server = known.server,
            via = known.via,
            headers = known.headers,
            "{target} back after {}, attempt {}",
            exact(recovered.after),
            up.attempts,
        ),
        None => info!(
            target: LOG,
            event = "established",
            target,
            attempt = up.attempts,
            dial_seconds = took.as_secs_f64(),
            peer,
            protocol,
            proxy = known.proxy,
            tls_version = known.tls_version,
            tls_cipher = known.tls_cipher,
            certificate_not_after = known.certificate_not_after,
            subprotocol = known.subprotocol.as_deref(),
            server = known.server,
            via = known.via,
            headers = known.headers,
            "{target} established in {}{}{}{}{}",
            phases(up),
            way(" ", up.peer, facts),
            agreed(facts),
            spoken(identity.protocol),
            attempt(up.attempts),
        ),
    }
}

fn ended(stats: &TargetStats, end: &End) {
    let target = &*stats.identity().name;
    let reason = end.received.as_ref().map(|frame| escape(&frame.reason));
    let known = Fields::of(end.facts.as_deref());
    let tcp = end.tcp_info;
    macro_rules! line {
        ($level:ident, $event:literal) => {
            $level!(
                target: LOG,
                event = $event,
                target,
                outage_id = outage_id(end.outage_id),
                cause = end.cause.as_str(),
                initiator = end.initiator.as_str(),
                age_seconds = end.age.as_secs_f64(),
                since_last_frame_in_seconds = end.since_last_frame_in.map(|t| t.as_secs_f64()),
                since_last_frame_out_seconds = end.since_last_frame_out.map(|t| t.as_secs_f64()),
                outstanding_pings = end.outstanding_pings,
                retries = end.retries,
                received_code = end.received.as_ref().map(|frame| frame.code),
                received_reason = reason.as_deref(),
                sent_code = end.sent.as_ref().map(|frame| frame.code),
                local = end.local.map(tracing::field::display),
                peer = end.peer.map(tracing::field::display),
                proxy = known.proxy,
                tls_version = known.tls_version,
                tls_cipher = known.tls_cipher,
                certificate_not_after = known.certificate_not_after,
                subprotocol = known.subprotocol.as_deref(),
                server = known.server,
                via = known.via,
                headers = known.headers,
                tcp_state = tcp.map(|tcp| tcp.state),
                tcp_rtt_seconds = tcp.map(|tcp| tcp.rtt.as_secs_f64()),
                tcp_rtt_variation_seconds = tcp.map(|tcp| tcp.rtt_variation.as_secs_f64()),
                tcp_retransmits = tcp.map(|tcp| tcp.retransmits),
                tcp_unacked = tcp.map(|tcp| tcp.unacked),
                "{target} {}: {}",
                $event,
                sentence(end),
            )
        };
    }
    if asked_for(end.cause) {
        line!(info, "ended");
    } else {
        line!(warn, "lost");
    }
}

/// The record in one sentence.
fn sentence(end: &End) -> impl fmt::Display {
    from_fn(|f| {
        write!(f, "{} after {}", escape(&end.message), age(end.age))?;
        match end.since_last_frame_in {
            Some(since) => write!(f, "; last frame in {} ago", exact(since))?,
            None => f.write_str("; no frame in")?,
        }
        match end.since_last_frame_out {
            Some(since) => write!(f, ", out {} ago", exact(since))?,
            None => f.write_str(", none out")?,
        }
        match end.outstanding_pings {
            0 => {}
            1 => f.write_str("; 1 ping unanswered")?,
            n => write!(f, "; {n} pings unanswered")?,
        }
        let facts = end.facts.as_deref();
        write!(
            f,
            "{}{}{}",
            trouble(end),
            way("; ", end.peer, facts),
            who(facts)
        )
    })
}

fn failed_so_before(stats: &TargetStats, failure: &DialFailure) -> bool {
    failure.attempts > 1
        && stats.with_history(|history| {
            let last = history.and_then(|history| history.last_failure.as_ref());
            last.is_some_and(|l| l.phase == failure.phase && l.message == failure.message)
        })
}

fn dial_failed(stats: &TargetStats, failure: &DialFailure, again: bool) {
    macro_rules! line {
        ($level:ident) => {{
            let target = &*stats.identity().name;
            let not_after = failure.certificate_not_after.map(certificate_time);
            $level!(
                target: LOG,
                event = "dial_failed",
                target,
                phase = failure.phase.as_str(),
                status = failure.status,
                attempts = failure.attempts,
                certificate_not_after = not_after,
                peer = failure.peer.map(tracing::field::display),
                "{target} cannot connect ({}): {}{}{}",
                failure.phase,
                escape(&failure.message),
                via(failure.peer),
                attempt(failure.attempts),
            );
        }};
    }
    if !again {
        line!(warn);
    } else if tracing::enabled!(target: LOG, Level::DEBUG) {
        line!(debug);
    }
}

/// Which address it was that refused: a name may have several.
fn via(peer: Option<SocketAddr>) -> impl fmt::Display {
    from_fn(move |f| peer.map_or(Ok(()), |peer| write!(f, "; via {peer}")))
}

/// Unix seconds of the last line about a stall.
static LAST_STALL: AtomicU64 = AtomicU64::new(0);

fn stalled(stats: &TargetStats, late: Duration, last: &AtomicU64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let before = last.load(Relaxed);
    let first = now.saturating_sub(before) >= STALL_SILENCE
        && last.compare_exchange(before, now, Relaxed, Relaxed).is_ok();
    let late_seconds = late.as_secs_f64();
    if first {
        warn!(
            target: LOG,
            event = "stalled",
            late_seconds,
            "this machine stalled: a timer fired {} late; no target is blamed, their waits start \
             again",
            exact(late),
        );
    }
    if tracing::enabled!(target: LOG, Level::DEBUG) {
        let target = &*stats.identity().name;
        debug!(
            target: LOG,
            event = "stalled",
            target,
            late_seconds,
            "{target} waits again: its timer fired {} late",
            exact(late),
        );
    }
}

fn stale(stats: &TargetStats, quiet: Duration) {
    let target = &*stats.identity().name;
    warn!(
        target: LOG,
        event = "stale",
        target,
        quiet_seconds = quiet.as_secs_f64(),
        "{target} stale: no application message for {}; the connection stands",
        rounded(quiet),
    );
}

fn fresh(stats: &TargetStats, quiet: Duration) {
    let target = &*stats.identity().name;
    info!(
        target: LOG,
        event = "fresh",
        target,
        quiet_seconds = quiet.as_secs_f64(),
        "{target} fresh again after {}",
        rounded(quiet),
    );
}

/// What is only written at debug; the caller has asked whether it is.
#[cold]
fn detail(stats: &TargetStats, event: &Event) {
    let target = &*stats.identity().name;
    match event {
        Event::Connecting => debug!(target: LOG, event = "connecting", target, "{target} dials"),
        Event::PingSent { seq, retry } => {
            let again = if *retry { " again" } else { "" };
            debug!(target: LOG, event = "ping", target, seq, retry, "{target} ping {seq} sent{again}");
        }
        Event::Pong { rtt, mismatch } => {
            let rtt_seconds = rtt.map(|rtt| rtt.as_secs_f64());
            let words = from_fn(|f| {
                rtt.map_or(Ok(()), |rtt| write!(f, " after {}", exact(rtt)))?;
                f.write_str(if *mismatch { ", another payload" } else { "" })
            });
            debug!(target: LOG, event = "pong", target, rtt_seconds, mismatch, "{target} pong{words}");
        }
        Event::PingReceived => {
            debug!(target: LOG, event = "ping_received", target, "{target} pinged us");
        }
        Event::HeartbeatReceived => {
            debug!(target: LOG, event = "heartbeat_received", target, "{target} heartbeat came in");
        }
        Event::Arrived { gap } => {
            let gap_seconds = gap.as_secs_f64();
            debug!(
                target: LOG,
                event = "arrived",
                target,
                gap_seconds,
                "{target} is heard of after {}",
                exact(*gap),
            );
        }
        Event::FirstEvent { delay } => {
            let delay_seconds = delay.as_secs_f64();
            debug!(
                target: LOG,
                event = "first_event",
                target,
                delay_seconds,
                "{target} first event after {}",
                exact(*delay),
            );
        }
        Event::Message(message) => {
            let bytes = message.as_bytes().len();
            debug!(target: LOG, event = "message", target, bytes, "{target} sent {bytes} bytes");
        }
        Event::MessageSent { bytes } => {
            debug!(target: LOG, event = "message_sent", target, bytes, "{target} took {bytes} bytes");
        }
        Event::Waiting { wait } => {
            let wait_seconds = wait.as_secs_f64();
            debug!(
                target: LOG,
                event = "waiting",
                target,
                wait_seconds,
                "{target} dials again in {}",
                exact(*wait),
            );
        }
        Event::Stopped => debug!(target: LOG, event = "stopped", target, "{target} stopped"),
        // Told by `observe` itself.
        Event::DialFailed(_)
        | Event::Established(_)
        | Event::Ended(_)
        | Event::Stalled { .. }
        | Event::Stale { .. }
        | Event::Fresh { .. }
        | Event::Missed { .. } => {}
    }
}

/// `12.3 ms (dns 1.0 ms, tcp 3.0 ms)`.
fn phases(up: &Established) -> impl fmt::Display {
    from_fn(|f| {
        write!(f, "{}", exact(up.times.iter().flatten().sum()))?;
        let known = std::iter::zip(Phase::ALL, up.times);
        let known = known.filter_map(|(phase, time)| Some((phase, time?)));
        for (n, (phase, time)) in known.clone().enumerate() {
            let before = if n == 0 { " (" } else { ", " };
            write!(f, "{before}{phase} {}", exact(time))?;
        }
        f.write_str(if known.count() == 0 { "" } else { ")" })
    })
}

/// `, protocol actioncable`, where it is not plain WebSocket.
fn spoken(protocol: Protocol) -> impl fmt::Display {
    from_fn(move |f| match protocol {
        Protocol::WebSocket => Ok(()),
        spoken => write!(f, ", protocol {}", spoken.as_str()),
    })
}

fn attempt(attempts: u32) -> impl fmt::Display {
    from_fn(move |f| match attempts {
        0 | 1 => Ok(()),
        n => write!(f, ", attempt {n}"),
    })
}

#[cfg(test)]
mod tests;
