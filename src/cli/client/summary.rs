//! What `client` tells: the connection as it comes up, and one line on the way out.

use std::io::Write;
use std::time::Duration;

use tracing::subscriber::{NoSubscriber, with_default};

use crate::cli::connection::in_flags;
use crate::cli::{DONE, FAILED, complain_of};
use crate::client::hold::Observer;
use crate::proto::close::Cause;
use crate::proto::event::{End, Event, Phase};
use crate::stats::{Protocol, TargetStats};
use crate::telemetry::observe::observe;
use crate::telemetry::words::{counted, rounded};

/// Tells the terminal what happens, and keeps what the last line needs.
pub(super) struct Teller<'a> {
    pub(super) stats: &'a TargetStats,
    pub(super) summary: &'a mut Summary,
    pub(super) reconnect: bool,
    /// Whoever reads the log reads the last line, too.
    pub(super) one_reader: bool,
}

/// What the last line is made of.
#[derive(Debug, Default)]
pub(super) struct Summary {
    held: Duration,
    round_trips: u64,
    rtt_sum: Duration,
    rtt_min: Option<Duration>,
    rtt_max: Duration,
    /// Between arrivals, or from the last to the end, of a peer that begins the heartbeats.
    longest_gap: Option<Duration>,
    last: Option<Last>,
    /// Whether a signal asked for the end.
    pub(super) stopping: bool,
}

#[derive(Debug)]
enum Last {
    Ended(Box<End>),
    NotConnected { phase: Phase, message: Box<str> },
}

impl Observer for Teller<'_> {
    fn observe(&mut self, event: Event) {
        // A dial that failed for good is the last line.
        let repeated = self.one_reader && !self.reconnect;
        if repeated && matches!(event, Event::DialFailed(_)) {
            with_default(NoSubscriber::default(), || observe(self.stats, &event));
        } else {
            observe(self.stats, &event);
        }
        match event {
            Event::Established(up) => {
                let peer = up.peer.map(|peer| format!(" ({peer})")).unwrap_or_default();
                let url = &self.stats.identity().url;
                say(&format!("established {url}{peer}"));
            }
            Event::Pong { rtt: Some(rtt), .. } => {
                let summary = &mut *self.summary;
                summary.round_trips += 1;
                summary.rtt_sum += rtt;
                summary.rtt_max = summary.rtt_max.max(rtt);
                summary.rtt_min = Some(summary.rtt_min.map_or(rtt, |min| min.min(rtt)));
            }
            Event::Stale { quiet } => {
                let quiet = rounded(quiet);
                say(&format!("stale: no application message for {quiet}"));
            }
            Event::Fresh { quiet } => say(&format!("fresh again after {}", rounded(quiet))),
            Event::Arrived { gap } => {
                let longest = &mut self.summary.longest_gap;
                *longest = (*longest).max(Some(gap));
            }
            Event::Ended(end) => {
                let summary = &mut *self.summary;
                summary.held += end.age;
                // The one that ran until now ends here, and is the newest of the numbers' window.
                // They know, too, what of it our own machine stood still.
                if self.stats.identity().server_beats {
                    summary.longest_gap = summary.longest_gap.max(self.stats.arrival_gap());
                }
                self.summary.last = Some(Last::Ended(end));
            }
            Event::DialFailed(failure) => {
                self.summary.last = Some(Last::NotConnected {
                    phase: failure.phase,
                    message: in_flags(&failure.message).into(),
                });
            }
            _ => {}
        }
    }

    fn dial_again(&mut self) -> bool {
        self.reconnect
    }

    fn stays_stopped(&self) -> bool {
        false
    }
}

impl Summary {
    /// How it ended, in words, and whose exit status that is.
    fn ending(&self) -> String {
        match (&self.last, self.stopping) {
            (None, _) => "asked to stop before it was connected".to_owned(),
            (Some(Last::NotConnected { phase, message }), true) => {
                format!("asked to stop while not connected ({phase}: {message})")
            }
            (Some(Last::NotConnected { phase, message }), false) => {
                format!("not connected: {phase}: {message}")
            }
            (Some(Last::Ended(end)), stopping) => {
                let how = format!(
                    "{} ({}, ended by {})",
                    end.message, end.cause, end.initiator
                );
                match stopping && end.cause != Cause::Shutdown {
                    true => format!("asked to stop while not connected, after {how}"),
                    false => how,
                }
            }
        }
    }

    /// The exit status: 0 if the end was asked for, by us or by a peer that closed with 1000.
    pub(super) fn exit_status(&self) -> u8 {
        match &self.last {
            _ if self.stopping => DONE,
            Some(Last::Ended(end)) if end.cause == Cause::ClosedNormal => DONE,
            _ => FAILED,
        }
    }

    /// One line: how long it held, what came and went, and who ended it how.
    pub(super) fn print(&self, stats: &TargetStats) {
        let how = self.ending();
        if stats.connects.get() == 0 && !self.stopping {
            // Nothing was ever held: an error, and the last line on stderr.
            return complain_of("client", &how);
        }
        let (held, counts) = (self.held.as_secs_f64(), self.counts(stats));
        say(&format!("held {held:.1} s: {counts}; {how}"));
    }

    /// Pings, pongs, retries and round trips; of a peer that begins the heartbeats those, and the
    /// longest gap. Of an event stream, that takes no pings, its events instead.
    fn counts(&self, stats: &TargetStats) -> String {
        let identity = stats.identity();
        let mut counts = if identity.protocol == Protocol::Sse {
            counted(stats.messages_received.get(), "event")
        } else {
            let retries = match stats.ping_retries.get() {
                1 => "1 retry".to_owned(),
                n => format!("{n} retries"),
            };
            format!(
                "{}, {}, {retries}, {}",
                counted(stats.pings_sent.get(), "ping"),
                counted(stats.pongs_received.get(), "pong"),
                self.round_trips()
            )
        };
        let heartbeats = stats.heartbeats_received();
        if identity.server_beats || heartbeats > 0 {
            let heartbeats = counted(heartbeats, "heartbeat");
            counts.push_str(&format!(", {heartbeats} received"));
        }
        if let Some(gap) = self.longest_gap {
            counts.push_str(&format!(", longest gap {:.3} s", gap.as_secs_f64()));
        }
        counts
    }

    fn round_trips(&self) -> String {
        let ms = |rtt: Duration| format!("{:.3}", rtt.as_secs_f64() * 1e3);
        let Some(min) = self.rtt_min else {
            return "no rtt".to_owned();
        };
        let count = u32::try_from(self.round_trips).unwrap_or(u32::MAX);
        let avg = self.rtt_sum / count.max(1);
        let (min, avg, max) = (ms(min), ms(avg), ms(self.rtt_max));
        format!("rtt min/avg/max {min}/{avg}/{max} ms")
    }
}

/// A line on stdout. A reader that went away has no use for it, and is no reason to stop.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::proto::close::Initiator;
    use crate::proto::event::{Established, Message};
    use crate::stats::{Buckets, Identity};

    fn ended(cause: Cause, message: &str) -> Last {
        Last::Ended(Box::new(End {
            at: SystemTime::UNIX_EPOCH,
            outage_id: 0,
            cause,
            initiator: Initiator::Peer,
            message: message.into(),
            received: None,
            sent: None,
            age: Duration::ZERO,
            since_last_frame_in: None,
            since_last_frame_out: None,
            outstanding_pings: 0,
            retries: 0,
            local: None,
            peer: None,
            facts: None,
            tcp_info: None,
        }))
    }

    fn refused() -> Last {
        Last::NotConnected {
            phase: Phase::Tcp,
            message: "Connection refused".into(),
        }
    }

    fn stats(protocol: Protocol, server_beats: bool) -> TargetStats {
        let identity = Identity {
            name: "edge".into(),
            url: "https://edge.example.com/events".into(),
            protocol,
            server_beats,
            watches_staleness: false,
            labels: [].into(),
            fan_out: None,
        };
        TargetStats::new(Arc::new(identity), &Buckets::default(), Instant::now())
    }

    #[test]
    fn what_came_and_went_is_counted_as_the_protocol_has_it() {
        let gap = |secs| Event::Arrived {
            gap: Duration::from_secs(secs),
        };
        let pong = Event::Pong {
            rtt: Some(Duration::from_micros(1_500)),
            mismatch: false,
        };
        let ping = Event::PingSent {
            seq: 1,
            retry: false,
        };
        let beats = || vec![Event::HeartbeatReceived, gap(3), gap(12), gap(1)];
        for (protocol, server_beats, events, words) in [
            (
                Protocol::WebSocket,
                false,
                vec![
                    ping.clone(),
                    Event::PingSent {
                        seq: 1,
                        retry: true,
                    },
                    pong.clone(),
                ],
                "2 pings, 1 pong, 1 retry, rtt min/avg/max 1.500/1.500/1.500 ms",
            ),
            (
                Protocol::EngineIo,
                true,
                beats(),
                "0 pings, 0 pongs, 0 retries, no rtt, 1 heartbeat received, longest gap 12.000 s",
            ),
            (
                Protocol::Sse,
                true,
                [beats(), vec![Event::Message(Message::text("tick"))]].concat(),
                "1 event, 1 heartbeat received, longest gap 12.000 s",
            ),
            (
                Protocol::Sse,
                true,
                vec![],
                "0 events, 0 heartbeats received",
            ),
            (
                // Whose server may, but need not, ping.
                Protocol::GraphqlTransportWs,
                false,
                vec![ping, pong, Event::HeartbeatReceived],
                "1 ping, 1 pong, 0 retries, rtt min/avg/max 1.500/1.500/1.500 ms, \
                 1 heartbeat received",
            ),
        ] {
            let stats = stats(protocol, server_beats);
            let mut summary = Summary::default();
            let mut teller = Teller {
                stats: &stats,
                summary: &mut summary,
                reconnect: false,
                one_reader: true,
            };
            for event in events {
                teller.observe(event);
            }
            assert_eq!(summary.counts(&stats), words, "{protocol:?}");
        }
    }

    #[test]
    fn the_gap_that_ran_when_it_ended_is_one() {
        let least = Duration::from_millis(20);
        let up = Event::Established(Box::new(Established {
            at: SystemTime::UNIX_EPOCH,
            times: Default::default(),
            local: None,
            peer: None,
            facts: None,
            recovered: None,
            attempts: 1,
        }));
        for (server_beats, is_told) in [(true, true), (false, false)] {
            let stats = stats(Protocol::Sse, server_beats);
            let mut summary = Summary::default();
            let mut teller = Teller {
                stats: &stats,
                summary: &mut summary,
                reconnect: false,
                one_reader: true,
            };
            teller.observe(up.clone());
            let start = Instant::now();
            while start.elapsed() < least {
                std::thread::yield_now();
            }
            let Last::Ended(end) = ended(Cause::Fin, "peer vanished") else {
                unreachable!("ended() is Ended");
            };
            teller.observe(Event::Ended(end));
            let told = summary.longest_gap;
            assert_eq!(told.is_some_and(|gap| gap >= least), is_told, "{told:?}");
            let counts = summary.counts(&stats);
            assert_eq!(counts.contains(", longest gap 0."), is_told, "{counts}");
        }
    }

    #[test]
    fn the_last_line_says_who_ended_it() {
        let vanished = || ended(Cause::Fin, "peer vanished");
        let closed = ended(Cause::ClosedNormal, "closed");
        for (last, stopping, words, status) in [
            (None, true, "asked to stop before it was connected", 0),
            (
                Some(refused()),
                false,
                "not connected: tcp: Connection refused",
                1,
            ),
            (
                Some(refused()),
                true,
                "asked to stop while not connected (tcp: Connection refused)",
                0,
            ),
            (
                Some(vanished()),
                false,
                "peer vanished (fin, ended by peer)",
                1,
            ),
            (
                Some(vanished()),
                true,
                "asked to stop while not connected, after peer vanished (fin, ended by peer)",
                0,
            ),
            (
                Some(closed),
                false,
                "closed (closed_normal, ended by peer)",
                0,
            ),
        ] {
            let summary = Summary {
                last,
                stopping,
                ..Summary::default()
            };
            assert_eq!(summary.ending(), words);
            assert_eq!(summary.exit_status(), status, "{words}");
        }
    }
}
