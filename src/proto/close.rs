//! How a connection ended, and whose doing it was.

use std::fmt;
use std::time::Duration;

use super::reconnect::Advice;

/// Why a connection ended: a closed set, the values of the `cause` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// Close 1000.
    ClosedNormal,
    /// Close 1001, 1012 or 1013: going away, restart, try again later.
    ClosedGoingAway,
    /// Close 1008, 3000-3999 or 4000-4999: policy, or the application's own refusal.
    ClosedRefused,
    /// A Close with any other code, or with none.
    ClosedOther,
    /// The stream ended without a Close frame.
    Fin,
    /// TCP was reset.
    Reset,
    /// Pings stayed unanswered.
    PongTimeout,
    /// The heartbeat the peer begins did not come.
    Silence,
    /// The peer took no bytes for `write_timeout`.
    WriteTimeout,
    /// The peer broke RFC 6455, or the application's protocol.
    ProtocolError,
    /// A message larger than `max_message_size`.
    TooBig,
    /// The TLS session broke.
    TlsError,
    /// The application protocol's own refusal.
    Dialect,
    /// This machine's network failed.
    LocalNetwork,
    /// A reload changed what the connection is.
    Replaced,
    /// A reload removed the target.
    Removed,
    /// The program was asked to stop.
    Shutdown,
}

impl Cause {
    /// Every cause, in the order of their declaration.
    pub const ALL: [Self; 17] = [
        Self::ClosedNormal,
        Self::ClosedGoingAway,
        Self::ClosedRefused,
        Self::ClosedOther,
        Self::Fin,
        Self::Reset,
        Self::PongTimeout,
        Self::Silence,
        Self::WriteTimeout,
        Self::ProtocolError,
        Self::TooBig,
        Self::TlsError,
        Self::Dialect,
        Self::LocalNetwork,
        Self::Replaced,
        Self::Removed,
        Self::Shutdown,
    ];

    /// The label value, such as `pong_timeout`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClosedNormal => "closed_normal",
            Self::ClosedGoingAway => "closed_going_away",
            Self::ClosedRefused => "closed_refused",
            Self::ClosedOther => "closed_other",
            Self::Fin => "fin",
            Self::Reset => "reset",
            Self::PongTimeout => "pong_timeout",
            Self::Silence => "silence",
            Self::WriteTimeout => "write_timeout",
            Self::ProtocolError => "protocol_error",
            Self::TooBig => "too_big",
            Self::TlsError => "tls_error",
            Self::Dialect => "dialect",
            Self::LocalNetwork => "local_network",
            Self::Replaced => "replaced",
            Self::Removed => "removed",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who ended the connection on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// The peer, or a middlebox in its name.
    Peer,
    /// This program.
    Us,
    /// Neither: the network between, or this machine's own.
    Path,
}

impl Initiator {
    /// `peer`, `us` or `path`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Us => "us",
            Self::Path => "path",
        }
    }
}

impl fmt::Display for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A Close frame's content. Code 1005 stands for a Close without a code (RFC 6455 section 7.1.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    /// The status code, RFC 6455 section 7.4.
    pub code: u16,
    /// The reason as the peer wrote it; escape it before showing it.
    pub reason: Box<str>,
}

impl CloseFrame {
    /// A Close frame of `code` and `reason`.
    pub fn new(code: u16, reason: &str) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for CloseFrame {
    /// `1000` or `1001 "restarting"`, control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, &*self.reason) {
            (1005, "") => f.write_str("without a code"),
            (code, "") => write!(f, "{code}"),
            (code, reason) => write!(f, "{code} \"{}\"", reason.escape_debug()),
        }
    }
}

/// What the driver saw end a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A Close frame came in before we sent one.
    PeerClosed(CloseFrame),
    /// The stream ended without a Close frame.
    Fin,
    /// TCP reset, or a write to a socket the peer had reset.
    Reset,
    /// The kernel gave the connection up: retransmissions or keepalives unanswered.
    TimedOut,
    /// This machine's network failed, in the kernel's words.
    LocalNetwork(String),
    /// Our beats stayed unanswered.
    PongTimeout { sent: u32, names: BeatNames },
    /// The beat that the peer begins did not come within this time.
    Silence(Duration),
    /// An event stream came to its end: the response is complete.
    StreamEnded,
    /// An event stream ended before its end, or without one that can be told.
    StreamCut(Cut),
    /// The application protocol's own refusal, in its words.
    Dialect(Refusal),
    /// The peer took no bytes in time.
    WriteTimeout,
    /// The peer broke the protocol: the code to close with, and how in words.
    Protocol { code: u16, error: String },
    /// A message or frame larger than allowed, in words.
    TooBig(String),
    /// The TLS session broke, in words: the peer said so by an alert, or what came was no good.
    Tls { by_peer: bool, error: String },
    /// We were asked to end it.
    Asked(Asked),
}

/// How an event stream was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// TCP, or TLS, ended within the response.
    Fin,
    /// TCP was reset.
    Reset,
    /// TCP, or TLS, ended, and so did a response that has neither a length nor chunks: by its end
    /// alone nobody can tell whether it was meant (RFC 9112 section 8).
    Endless,
}

/// What a protocol calls our beat and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BeatNames {
    pub(crate) beat: &'static str,
    pub(crate) answer: &'static str,
}

impl BeatNames {
    /// Those of RFC 6455.
    pub(crate) const PING: Self = Self {
        beat: "ping",
        answer: "pong",
    };
}

/// The end of an application protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What the peer said, in the protocol's own words, on one line: `disconnect: unauthorized`.
    /// Or what it said that is none of the protocol.
    pub(crate) words: String,
    pub(crate) advice: Advice,
    /// Whether the peer refuses. Else we do, what it said.
    pub(crate) by_peer: bool,
}

impl Refusal {
    /// The peer refuses us, or takes its leave.
    pub(crate) fn of_peer(words: String, advice: Advice) -> Self {
        Self {
            words,
            advice,
            by_peer: true,
        }
    }

    /// What the peer said is none of the protocol.
    pub(crate) fn malformed(words: String) -> Self {
        Self {
            words,
            advice: Advice::Backoff,
            by_peer: false,
        }
    }
}

/// Who asked us to end a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A reload changed what the connection is.
    Replaced,
    /// A reload removed the target.
    Removed,
    /// The program stops.
    Shutdown,
}

/// An ending judged: the one place that decides cause, initiator and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) cause: Cause,
    pub(crate) initiator: Initiator,
    pub(crate) advice: Advice,
    /// What happened, in words that follow "lost: ".
    pub(crate) message: String,
    /// The Close frame to send, where one is still owed: RFC 6455 section 7.1.7 for the peer's
    /// faults, a courtesy to a silent one.
    pub(crate) close: Option<CloseFrame>,
}

impl Ending {
    /// Cause, initiator, advice and words for this ending.
    pub(crate) fn classify(&self) -> Verdict {
        use {Advice::Backoff, Initiator::*};
        let verdict =
            |cause, initiator, advice, message: String, close: Option<CloseFrame>| Verdict {
                cause,
                initiator,
                advice,
                message,
                close,
            };
        match self {
            Self::PeerClosed(frame) => {
                let (cause, advice) = match frame.code {
                    1000 => (Cause::ClosedNormal, Backoff),
                    1001 | 1012 | 1013 => (Cause::ClosedGoingAway, Backoff),
                    1008 | 3000..=4999 => (Cause::ClosedRefused, Advice::Refused),
                    _ => (Cause::ClosedOther, Backoff),
                };
                let words = match frame.code {
                    1000 => "peer closed normally",
                    1001 | 1012 | 1013 => "peer is going away",
                    1008 | 3000..=4999 => "peer refused us",
                    _ => "peer closed",
                };
                verdict(
                    cause,
                    Peer,
                    advice,
                    format!("{words} (Close {frame})"),
                    None,
                )
            }
            Self::Fin => {
                let message = "peer vanished (FIN, no Close)".to_owned();
                verdict(Cause::Fin, Peer, Backoff, message, None)
            }
            Self::Reset => {
                let message = "peer reset the connection (RST, no Close)".to_owned();
                verdict(Cause::Reset, Peer, Backoff, message, None)
            }
            Self::TimedOut => {
                let message = "the kernel gave up: no acknowledgement from the peer".to_owned();
                verdict(Cause::WriteTimeout, Path, Backoff, message, None)
            }
            Self::LocalNetwork(error) => {
                let message = format!("this machine's network failed ({error})");
                verdict(Cause::LocalNetwork, Path, Backoff, message, None)
            }
            Self::PongTimeout { sent, names } => {
                let BeatNames { beat, answer } = names;
                let message = match sent {
                    1 => format!("no {answer} to a {beat}"),
                    n => format!("no {answer} to {n} {beat}s"),
                };
                let close = CloseFrame::new(1011, &format!("no {answer}"));
                verdict(Cause::PongTimeout, Us, Backoff, message, Some(close))
            }
            Self::Silence(limit) => {
                let message = format!("no heartbeat from the peer for {limit:?} (max_silence)");
                let close = CloseFrame::new(1011, "no heartbeat");
                verdict(Cause::Silence, Us, Backoff, message, Some(close))
            }
            Self::StreamEnded => {
                let message = "peer ended the event stream (the response is complete)".to_owned();
                verdict(Cause::ClosedNormal, Peer, Backoff, message, None)
            }
            Self::StreamCut(cut) => {
                let (cause, message) = match cut {
                    Cut::Fin => (
                        Cause::Fin,
                        "peer vanished (FIN in the middle of the response)",
                    ),
                    Cut::Reset => (Cause::Reset, "peer reset the connection (RST)"),
                    Cut::Endless => (
                        Cause::Fin,
                        "peer vanished (FIN; the response has no length and no chunks that would \
                         tell whether it was complete)",
                    ),
                };
                verdict(cause, Peer, Backoff, message.to_owned(), None)
            }
            Self::Dialect(Refusal { words, by_peer, .. }) if !by_peer => {
                let message = format!("the peer broke its protocol ({words})");
                let close = CloseFrame::new(1002, "protocol error");
                verdict(Cause::ProtocolError, Us, Backoff, message, Some(close))
            }
            Self::Dialect(Refusal { words, advice, .. }) => {
                let message = format!("the peer ended it in its protocol's words ({words})");
                let close = CloseFrame::new(1000, "");
                verdict(Cause::Dialect, Peer, *advice, message, Some(close))
            }
            Self::WriteTimeout => {
                let message = "the peer took no bytes within write_timeout".to_owned();
                verdict(Cause::WriteTimeout, Us, Backoff, message, None)
            }
            Self::Protocol { code, error } => {
                let message = format!("the peer broke the protocol ({error})");
                let close = CloseFrame::new(*code, "protocol error");
                verdict(Cause::ProtocolError, Us, Backoff, message, Some(close))
            }
            Self::TooBig(error) => {
                let message = format!("a message too big ({error})");
                let close = CloseFrame::new(1009, "message too big");
                verdict(Cause::TooBig, Us, Backoff, message, Some(close))
            }
            Self::Tls { by_peer, error } => {
                let (initiator, words) = match by_peer {
                    true => (Peer, "the peer broke TLS off"),
                    false => (Us, "TLS broke"),
                };
                let message = format!("{words} ({error})");
                verdict(Cause::TlsError, initiator, Backoff, message, None)
            }
            Self::Asked(asked) => {
                let (cause, message) = match asked {
                    Asked::Replaced => (Cause::Replaced, "replaced by a reload"),
                    Asked::Removed => (Cause::Removed, "removed by a reload"),
                    Asked::Shutdown => (Cause::Shutdown, "asked to stop"),
                };
                let close = CloseFrame::new(1000, "");
                verdict(cause, Us, Backoff, message.to_owned(), Some(close))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_fall_into_four_causes() {
        for (code, cause, advice) in [
            (1000, Cause::ClosedNormal, Advice::Backoff),
            (1001, Cause::ClosedGoingAway, Advice::Backoff),
            (1012, Cause::ClosedGoingAway, Advice::Backoff),
            (1013, Cause::ClosedGoingAway, Advice::Backoff),
            (1008, Cause::ClosedRefused, Advice::Refused),
            (3000, Cause::ClosedRefused, Advice::Refused),
            (4999, Cause::ClosedRefused, Advice::Refused),
            (1002, Cause::ClosedOther, Advice::Backoff),
            (1005, Cause::ClosedOther, Advice::Backoff),
            (1011, Cause::ClosedOther, Advice::Backoff),
            (2999, Cause::ClosedOther, Advice::Backoff),
            (5000, Cause::ClosedOther, Advice::Backoff),
        ] {
            let verdict = Ending::PeerClosed(CloseFrame::new(code, "")).classify();
            assert_eq!((verdict.cause, verdict.advice), (cause, advice), "{code}");
            assert_eq!(verdict.initiator, Initiator::Peer);
        }
    }

    #[test]
    fn what_is_no_close_frame_is_judged_by_who_did_what() {
        let refusal =
            |advice| Ending::Dialect(Refusal::of_peer("disconnect: unauthorized".into(), advice));
        let pong = |sent| Ending::PongTimeout {
            sent,
            names: BeatNames::PING,
        };
        use {Advice::*, Initiator::*};
        for (ending, cause, initiator, advice, words, code) in [
            (
                Ending::StreamEnded,
                Cause::ClosedNormal,
                Peer,
                Backoff,
                "peer ended the event stream (the response is complete)",
                None,
            ),
            (
                Ending::StreamCut(Cut::Fin),
                Cause::Fin,
                Peer,
                Backoff,
                "peer vanished (FIN in the middle of the response)",
                None,
            ),
            (
                Ending::StreamCut(Cut::Reset),
                Cause::Reset,
                Peer,
                Backoff,
                "peer reset the connection (RST)",
                None,
            ),
            (
                Ending::StreamCut(Cut::Endless),
                Cause::Fin,
                Peer,
                Backoff,
                "peer vanished (FIN; the response has no length",
                None,
            ),
            (
                Ending::Dialect(Refusal::malformed("a second CONNACK".into())),
                Cause::ProtocolError,
                Us,
                Backoff,
                "the peer broke its protocol (a second CONNACK)",
                Some(1002),
            ),
            (
                Ending::Silence(Duration::from_secs(6)),
                Cause::Silence,
                Us,
                Backoff,
                "no heartbeat from the peer for 6s (max_silence)",
                Some(1011),
            ),
            (
                pong(1),
                Cause::PongTimeout,
                Us,
                Backoff,
                "no pong to a ping",
                Some(1011),
            ),
            (
                pong(4),
                Cause::PongTimeout,
                Us,
                Backoff,
                "no pong to 4 pings",
                Some(1011),
            ),
            (
                refusal(Refused),
                Cause::Dialect,
                Peer,
                Refused,
                "the peer ended it in its protocol's words (disconnect: unauthorized)",
                Some(1000),
            ),
            (
                refusal(Backoff),
                Cause::Dialect,
                Peer,
                Backoff,
                "the peer ended it in its protocol's words",
                Some(1000),
            ),
            (
                Ending::TimedOut,
                Cause::WriteTimeout,
                Path,
                Backoff,
                "the kernel gave up",
                None,
            ),
            (
                Ending::TooBig("x".into()),
                Cause::TooBig,
                Us,
                Backoff,
                "a message too big (x)",
                Some(1009),
            ),
        ] {
            let verdict = ending.classify();
            assert!(verdict.message.starts_with(words), "{}", verdict.message);
            let judged = (verdict.cause, verdict.initiator, verdict.advice);
            assert_eq!(judged, (cause, initiator, advice), "{words}");
            assert_eq!(verdict.close.map(|frame| frame.code), code, "{words}");
        }
    }

    #[test]
    fn a_reason_is_shown_with_control_characters_escaped() {
        let frame = CloseFrame::new(4001, "bye\u{1b}[2J\n");
        assert_eq!(frame.to_string(), r#"4001 "bye\u{1b}[2J\n""#);
        assert_eq!(CloseFrame::new(1000, "").to_string(), "1000");
        assert_eq!(CloseFrame::new(1005, "").to_string(), "without a code");
    }

    #[test]
    fn tls_is_broken_by_who_says_so() {
        let judge = |by_peer| {
            let error = "alert internal_error".to_owned();
            Ending::Tls { by_peer, error }.classify()
        };
        let (theirs, ours) = (judge(true), judge(false));
        assert_eq!(
            (theirs.cause, theirs.initiator),
            (Cause::TlsError, Initiator::Peer)
        );
        assert_eq!(
            (ours.cause, ours.initiator),
            (Cause::TlsError, Initiator::Us)
        );
        // Nothing can be sent through what is broken.
        assert_eq!((theirs.close, ours.close), (None, None));
        assert_eq!(
            theirs.message,
            "the peer broke TLS off (alert internal_error)"
        );
    }

    #[test]
    fn labels_are_the_documented_closed_set() {
        let labels: Vec<&str> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        let documented = "closed_normal closed_going_away closed_refused closed_other fin reset \
                          pong_timeout silence write_timeout protocol_error too_big tls_error \
                          dialect local_network replaced removed shutdown";
        assert_eq!(labels, documented.split_whitespace().collect::<Vec<_>>());
        for (index, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, index);
        }
    }
}
