//! The protocol `graphql-transport-ws`: "GraphQL over WebSocket Protocol", PROTOCOL.md of graphql-ws.
//!
//! Nothing in it confirms a subscription but its first result, which may be long in coming; a
//! refused one is told. So a subscription counts as confirmed with its first `next`, or once the
//! server has answered two pings that were sent after it, one after the other, without an `error`:
//! it has read the subscription before it answers the first, and has had a round trip more to
//! judge it.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::json::{number, object, text};
use super::unanswered::Unanswered;
use super::{Speak, Stamp, Step, Timing};
use crate::proto::close::{BeatNames, Refusal};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;
use crate::proto::reconnect::Advice;

/// The usual time from a pong to the next ping; the protocol names none.
const INTERVAL: Duration = Duration::from_secs(10);
/// The usual wait for a pong.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Of the one subscription.
const ID: &str = "1";

/// How far the hello is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hello {
    Initialising,
    /// Subscribed, and this many pongs are waited for.
    Confirming {
        pongs: u32,
    },
    Done,
}

/// One connection's state.
pub(crate) struct GraphqlTransportWs {
    /// Sent with connection_init, once.
    payload: Option<Value>,
    subscription: Option<Box<str>>,
    hello: Hello,
    beats: Unanswered,
}

impl GraphqlTransportWs {
    /// Sends `payload` with connection_init, and subscribes to the document `subscription`.
    pub(crate) fn new(payload: Option<Value>, subscription: Option<&str>) -> Self {
        Self {
            payload,
            subscription: subscription.map(Into::into),
            hello: Hello::Initialising,
            beats: Unanswered::default(),
        }
    }

    fn acknowledged(&mut self, steps: &mut Vec<Step>) {
        if self.hello != Hello::Initialising {
            return;
        }
        self.hello = Hello::Done;
        if let Some(query) = &self.subscription {
            self.hello = Hello::Confirming { pongs: 2 };
            let payload = json!({ "query": query });
            let subscribe = json!({ "id": ID, "type": "subscribe", "payload": payload });
            steps.extend([send(&subscribe), send(&ping(0))]);
        }
    }

    fn pong(&mut self, said: &Map<String, Value>, steps: &mut Vec<Step>) {
        match self.hello {
            Hello::Initialising => return,
            Hello::Confirming { pongs: 0 | 1 } => {
                self.hello = Hello::Done;
                return;
            }
            Hello::Confirming { pongs } => {
                self.hello = Hello::Confirming { pongs: pongs - 1 };
                steps.push(send(&ping(0)));
                return;
            }
            Hello::Done => {}
        }
        let seq = said.get("payload").and_then(|payload| payload.get("seq"));
        match seq.and_then(number) {
            Some(seq) if self.beats.settle(seq) => steps.push(Step::Answer(Some(seq))),
            // Of the hello, or a second one.
            Some(_) => {}
            // The payload need not come back.
            None if self.beats.settle_any() => steps.push(Step::Answer(None)),
            // "The Pong message may even be sent unsolicited as an unidirectional heartbeat."
            None => steps.push(Step::Beat),
        }
    }

    /// What the end of the subscription says about the next one: a document that was never taken
    /// will not be soon.
    fn advice(&self) -> Advice {
        match self.hello {
            Hello::Done => Advice::Backoff,
            Hello::Initialising | Hello::Confirming { .. } => Advice::Refused,
        }
    }

    /// Whether a message is about our subscription: others are to be ignored.
    fn is_ours(&self, said: &Map<String, Value>) -> bool {
        self.subscription.is_some() && text(said, "id") == Some(ID)
    }
}

impl fmt::Debug for GraphqlTransportWs {
    /// Without the payload, which is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("GraphqlTransportWs");
        shown.field("hello", &self.hello).finish_non_exhaustive()
    }
}

impl Speak for GraphqlTransportWs {
    fn open(&mut self, _wishes: &Wishes) -> Vec<Message> {
        let init = match self.payload.take() {
            Some(payload) => json!({ "type": "connection_init", "payload": payload }),
            None => json!({ "type": "connection_init" }),
        };
        vec![Message::text(init.to_string())]
    }

    fn awaits(&self) -> Option<String> {
        match self.hello {
            Hello::Initialising => Some("connection_ack".to_owned()),
            Hello::Confirming { .. } => Some("next or pong after the subscribe".to_owned()),
            Hello::Done => None,
        }
    }

    fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        // What the protocol does not know ends the connection, both ways.
        let Some(said) = object(message) else {
            let words = "a message that is no JSON object; is this graphql-transport-ws?";
            steps.push(malformed(words));
            return;
        };
        match text(&said, "type") {
            Some("connection_ack") => self.acknowledged(steps),
            Some("ping") => {
                let pong = match said.get("payload") {
                    Some(payload) => json!({ "type": "pong", "payload": payload }),
                    None => json!({ "type": "pong" }),
                };
                steps.extend([Step::Beat, send(&pong)]);
            }
            Some("pong") => self.pong(&said, steps),
            Some("next") => {
                if self.is_ours(&said) && matches!(self.hello, Hello::Confirming { .. }) {
                    self.hello = Hello::Done;
                }
                steps.push(Step::Message(message.clone()));
            }
            Some("error") if self.is_ours(&said) => {
                let words = format!("error: {}", super::shown(reason(&said)));
                steps.push(refused(words, self.advice()));
            }
            Some("complete") if self.is_ours(&said) => {
                let words = "complete: the subscription has ended".to_owned();
                steps.push(refused(words, self.advice()));
            }
            // Of operations that we know nothing of.
            Some("error" | "complete") => {}
            Some(other) => {
                let other = super::shown(other);
                let words = format!("a message of type `{other}`; is this graphql-transport-ws?");
                steps.push(malformed(&words));
            }
            None => {
                let words = "a message without a type; is this graphql-transport-ws?";
                steps.push(malformed(words));
            }
        }
    }

    fn timing(&self, wishes: &Wishes) -> Timing {
        Timing {
            heartbeat: wishes.asking(INTERVAL, TIMEOUT),
            // Servers may ping; few do.
            max_silence: None,
        }
    }

    fn beat(&mut self, stamp: Stamp) -> Option<Message> {
        self.beats.sent(stamp.seq);
        Some(Message::text(ping(stamp.seq).to_string()))
    }

    fn explain(&self, code: u16) -> Option<&'static str> {
        Some(match code {
            4400 => "bad request",
            4401 => "unauthorized",
            4403 => "forbidden",
            4406 => "subprotocol not acceptable",
            4408 => "connection initialisation timeout",
            4409 => "subscriber already exists",
            4429 => "too many initialisation requests",
            // Not of the protocol, but of graphql-ws (its `CloseCode`).
            4500 => "internal server error",
            _ => return None,
        })
    }

    fn names(&self) -> BeatNames {
        BeatNames::PING
    }
}

/// The ping of the beat `seq`; 0 stands for the hello's.
fn ping(seq: u32) -> Value {
    json!({ "type": "ping", "payload": { "seq": seq } })
}

fn send(said: &Value) -> Step {
    Step::Send(Message::text(said.to_string()))
}

/// The first of the GraphQL errors an `error` carries.
fn reason(said: &Map<String, Value>) -> &str {
    let first = said.get("payload").and_then(|errors| errors.get(0));
    let message = first.and_then(|error| error.get("message"));
    message
        .and_then(Value::as_str)
        .unwrap_or("without a message")
}

fn malformed(words: &str) -> Step {
    Step::Refused(Refusal::malformed(words.to_owned()))
}

fn refused(words: String, advice: Advice) -> Step {
    Step::Refused(Refusal::of_peer(words, advice))
}

#[cfg(test)]
mod tests;
