//! What application protocols say: which message is a heartbeat, what greets, what refuses.
//!
//! One small module per protocol, all pure: messages in, [`Step`]s out, no clock and no dice of
//! their own. The link moves messages, the dialect says what they mean, and the heartbeat owns
//! time. A dialect is made with its connection and dies with it.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub(crate) mod actioncable;
#[cfg(test)]
mod chatter;
pub(crate) mod engineio;
pub(crate) mod expect;
pub(crate) mod graphql_transport_ws;
mod json;
pub(crate) mod json_rpc;
pub(crate) mod listener;
pub(crate) mod message;
pub(crate) mod mqtt;
pub(crate) mod pattern;
pub(crate) mod phoenix;
pub(crate) mod signalr;
pub(crate) mod sse;
pub(crate) mod stomp;
mod unanswered;

use std::time::Duration;

use crate::proto::close::{BeatNames, Refusal};
use crate::proto::event::Message;
use crate::proto::heartbeat::{HeartbeatPolicy, Wishes};

/// What a message of the peer's means. One message may mean several things, or nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// It carries a message of the application's.
    Message(Message),
    /// It is a beat that the peer began.
    Beat,
    /// It is as good as a beat, of a protocol whose peers beat only while they have nothing else
    /// to say: STOMP, SignalR.
    Life,
    /// It answers a beat of ours: the one of this number, if it tells.
    Answer(Option<u32>),
    /// This has to be sent: the next word of the hello, or the answer to a beat.
    Send(Message),
    /// The peer refuses us, or takes its leave.
    Refused(Refusal),
}

/// How many things one message may mean. The smallest packets have two bytes, and what each means
/// takes many times as much memory; servers put a few into one message.
const MOST_STEPS: usize = 16 << 10;

/// A larger message is an application's, and not taken apart: no protocol has this much to say of
/// its own, and JSON takes up to thirty times as much memory as its text.
const LARGEST_JSON: usize = 1 << 20;

/// When a beat is made, for what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    /// Number of the beat on this connection, from 1.
    pub(crate) seq: u32,
    /// Since 1970.
    pub(crate) unix: Duration,
}

/// How the life of a connection is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    /// How our own beats go.
    pub(crate) heartbeat: HeartbeatPolicy,
    /// The longest time without a beat of the peer's; `None` of a protocol whose peers begin none.
    pub(crate) max_silence: Option<Duration>,
}

/// One application protocol on one connection.
///
/// In a dialect only its own beats and answers are life, and what the protocol says takes the place
/// of a beat.
trait Speak {
    /// What is sent first of all, after the upgrade.
    fn open(&mut self, wishes: &Wishes) -> Vec<Message> {
        let _ = wishes;
        Vec::new()
    }

    /// What the hello still waits for, in words that follow "no": `welcome`. `None` once the hello
    /// is done and every subscription asked for is confirmed.
    fn awaits(&self) -> Option<String> {
        None
    }

    /// Reads a message of the peer's. Never panics, whatever it is.
    fn read(&mut self, message: &Message, steps: &mut Vec<Step>);

    /// How life is watched once the hello is done: what the target wishes, else what the peer and
    /// the protocol say.
    fn timing(&self, wishes: &Wishes) -> Timing;

    /// A beat of ours. Only asked for if [`Timing::heartbeat`] sends any.
    fn beat(&mut self, stamp: Stamp) -> Option<Message> {
        let _ = stamp;
        None
    }

    /// What is sent before we leave in order.
    fn leave(&mut self) -> Option<Message> {
        None
    }

    /// What the protocol calls a Close code of its own.
    fn explain(&self, code: u16) -> Option<&'static str> {
        let _ = code;
        None
    }

    /// What may explain that no beat, or no answer, came.
    fn remark(&self) -> Option<String> {
        None
    }

    /// What the protocol calls its beat and the answer.
    fn names(&self) -> BeatNames {
        BeatNames {
            beat: "heartbeat",
            answer: "answer",
        }
    }
}

/// The protocols that are spoken: a closed set.
#[derive(Debug)]
pub(crate) enum Dialect {
    Sse(listener::Listener),
    Expect(expect::Expect),
    Message(message::Templates),
    ActionCable(actioncable::ActionCable),
    EngineIo(engineio::EngineIo),
    GraphqlTransportWs(graphql_transport_ws::GraphqlTransportWs),
    Phoenix(phoenix::Phoenix),
    Stomp(stomp::Stomp),
    Mqtt(mqtt::Mqtt),
    SignalR(signalr::SignalR),
    JsonRpc(json_rpc::JsonRpc),
}

impl Dialect {
    fn speaker(&self) -> &dyn Speak {
        match self {
            Self::Sse(speaker) => speaker,
            Self::Expect(speaker) => speaker,
            Self::Message(speaker) => speaker,
            Self::ActionCable(speaker) => speaker,
            Self::EngineIo(speaker) => speaker,
            Self::GraphqlTransportWs(speaker) => speaker,
            Self::Phoenix(speaker) => speaker,
            Self::Stomp(speaker) => speaker,
            Self::Mqtt(speaker) => speaker,
            Self::SignalR(speaker) => speaker,
            Self::JsonRpc(speaker) => speaker,
        }
    }

    fn speaker_mut(&mut self) -> &mut dyn Speak {
        match self {
            Self::Sse(speaker) => speaker,
            Self::Expect(speaker) => speaker,
            Self::Message(speaker) => speaker,
            Self::ActionCable(speaker) => speaker,
            Self::EngineIo(speaker) => speaker,
            Self::GraphqlTransportWs(speaker) => speaker,
            Self::Phoenix(speaker) => speaker,
            Self::Stomp(speaker) => speaker,
            Self::Mqtt(speaker) => speaker,
            Self::SignalR(speaker) => speaker,
            Self::JsonRpc(speaker) => speaker,
        }
    }

    /// What is sent first of all, after the upgrade.
    pub(crate) fn open(&mut self, wishes: &Wishes) -> Vec<Message> {
        self.speaker_mut().open(wishes)
    }

    /// What the hello still waits for, in words that follow "no"; `None` once it is done.
    pub(crate) fn awaits(&self) -> Option<String> {
        self.speaker().awaits()
    }

    /// Reads a message of the peer's.
    pub(crate) fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        if message.as_bytes().len() > LARGEST_JSON && self.is_json() {
            // As good as a beat where anything the peer says is: nowhere else does it count.
            if let Self::SignalR(_) = self {
                steps.push(Step::Life);
            }
            steps.push(Step::Message(message.clone()));
            return;
        }
        self.speaker_mut().read(message, steps);
    }

    /// Whether its messages are taken apart as JSON, whatever their size.
    fn is_json(&self) -> bool {
        match self {
            Self::ActionCable(_)
            | Self::EngineIo(_)
            | Self::GraphqlTransportWs(_)
            | Self::Phoenix(_)
            | Self::SignalR(_)
            | Self::JsonRpc(_) => true,
            // These have a limit of their own, or read none.
            Self::Sse(_) | Self::Expect(_) | Self::Message(_) | Self::Stomp(_) | Self::Mqtt(_) => {
                false
            }
        }
    }

    /// How life is watched once the hello is done.
    pub(crate) fn timing(&self, wishes: &Wishes) -> Timing {
        self.speaker().timing(wishes)
    }

    /// A beat of ours.
    pub(crate) fn beat(&mut self, stamp: Stamp) -> Option<Message> {
        self.speaker_mut().beat(stamp)
    }

    /// What is sent before we leave in order.
    pub(crate) fn leave(&mut self) -> Option<Message> {
        self.speaker_mut().leave()
    }

    /// What the protocol calls a Close code of its own.
    pub(crate) fn explain(&self, code: u16) -> Option<&'static str> {
        self.speaker().explain(code)
    }

    /// What may explain that no beat, or no answer, came.
    pub(crate) fn remark(&self) -> Option<String> {
        self.speaker().remark()
    }

    /// What the protocol calls its beat and the answer.
    pub(crate) fn names(&self) -> BeatNames {
        self.speaker().names()
    }

    /// Whether any arrival is life, and not only the protocol's beats: of an event stream.
    pub(crate) fn lives_by_bytes(&self) -> bool {
        matches!(self, Self::Sse(_))
    }
}

/// What to say when `messages` came of which none was waited for.
fn none_matched(messages: u64) -> Option<String> {
    match messages {
        0 => None,
        1 => Some("1 message came meanwhile, and did not match `expect`".to_owned()),
        n => Some(format!(
            "{n} messages came meanwhile, none matched `expect`"
        )),
    }
}

/// Text of the peer's on one line, control characters escaped, at most 128 characters.
fn shown(text: &str) -> String {
    const LONGEST: usize = 128;
    let escaped = on_one_line(text);
    match escaped.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &escaped[..end]),
        None => escaped,
    }
}

/// Text of the peer's on one line, control characters escaped.
pub(crate) fn on_one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // An apostrophe needs no escape.
    let parts = line.split('\'').map(|part| part.escape_debug().to_string());
    parts.collect::<Vec<_>>().join("'")
}

#[cfg(test)]
mod tests;
