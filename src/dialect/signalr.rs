//! SignalR's JSON hub protocol, version 1: "SignalR Hub Protocol" (HubProtocol.md of ASP.NET Core).
//!
//! Records of JSON, each ended by 0x1e; a message holds one or several, whole ones (so Microsoft's
//! own TextMessageFormat.ts). Both sides ping, nobody answers: "A Ping is only sent if the interval
//! has elapsed without a message being sent", so whatever else a server says is as good.

use std::time::Duration;

use serde_json::{Map, Value};

use super::json::{object, text};
use super::{MOST_STEPS, Speak, Stamp, Step, Timing};
use crate::proto::close::{BeatNames, Refusal};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;
use crate::proto::reconnect::Advice;

/// Ends each record.
const END: char = '\u{1e}';
const HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";
const PING: &str = "{\"type\":6}\u{1e}";

/// How often clients ping (`KeepAliveInterval`).
const INTERVAL: Duration = Duration::from_secs(15);
/// After how long clients give a silent server up (`ServerTimeout`): two pings missed.
const SILENCE: Duration = Duration::from_secs(30);

/// One connection's state.
#[derive(Debug)]
pub(crate) struct SignalR {
    shook_hands: bool,
}

impl SignalR {
    /// Greets with the JSON protocol, version 1.
    pub(crate) fn new() -> Self {
        Self { shook_hands: false }
    }

    fn shake_hands(&mut self, response: &Map<String, Value>, steps: &mut Vec<Step>) {
        if let Some(error) = response.get("error").filter(|error| !error.is_null()) {
            let error = error.as_str().unwrap_or("without words");
            let words = format!("handshake error: {}", super::shown(error));
            steps.push(refused(words, Advice::Refused));
        } else if response.contains_key("type") || response.contains_key("protocol") {
            // An echo of ours would hold for ever: the beats look alike, too.
            let words = match response.contains_key("type") {
                true => "a hub message before the handshake's response; is this SignalR?",
                false => "our handshake request came back; is this SignalR?",
            };
            steps.push(malformed(words));
        } else {
            self.shook_hands = true;
        }
    }
}

impl Speak for SignalR {
    fn open(&mut self, _wishes: &Wishes) -> Vec<Message> {
        vec![Message::text(HANDSHAKE)]
    }

    fn awaits(&self) -> Option<String> {
        (!self.shook_hands).then(|| "handshake response".to_owned())
    }

    fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        // Binary messages with this protocol's text in them count too.
        let records = std::str::from_utf8(message.as_bytes());
        let records = records.ok().and_then(|text| text.strip_suffix(END));
        let Some(records) = records else {
            let words = "a message that does not end in 0x1e; is this SignalR's JSON hub protocol?";
            steps.push(malformed(words));
            return;
        };
        for record in records.split(END) {
            if steps.len() >= MOST_STEPS {
                let words = format!("more than {MOST_STEPS} records in a message");
                steps.push(malformed(&words));
                return;
            }
            let record = Message::text(record);
            let Some(said) = object(&record) else {
                let words = "a record that is no JSON object; is this SignalR's JSON hub protocol?";
                steps.push(malformed(words));
                return;
            };
            if !self.shook_hands {
                self.shake_hands(&said, steps);
                if !self.shook_hands {
                    return;
                }
                continue;
            }
            match said.get("type").and_then(Value::as_u64) {
                // Invocation, StreamItem, Completion.
                Some(1..=3) => steps.extend([Step::Life, Step::Message(record)]),
                Some(6) => steps.push(Step::Beat),
                Some(7) => {
                    steps.push(left(&said));
                    return;
                }
                // Of what we never began, and of later versions.
                Some(_) | None => steps.push(Step::Life),
            }
        }
    }

    fn timing(&self, wishes: &Wishes) -> Timing {
        Timing {
            heartbeat: wishes.telling(INTERVAL),
            max_silence: Some(wishes.max_silence.unwrap_or(SILENCE)),
        }
    }

    fn beat(&mut self, _stamp: Stamp) -> Option<Message> {
        Some(Message::text(PING))
    }

    fn names(&self) -> BeatNames {
        BeatNames {
            beat: "ping",
            answer: "ping",
        }
    }
}

/// The server's Close: clients come again only if it allows them to.
fn left(said: &Map<String, Value>) -> Step {
    let mut words = "close".to_owned();
    if let Some(error) = text(said, "error") {
        words.push_str(&format!(": {}", super::shown(error)));
    }
    let advice = match said.get("allowReconnect").and_then(Value::as_bool) {
        Some(true) => {
            words.push_str(", allowReconnect: true");
            Advice::Backoff
        }
        Some(false) | None => Advice::Refused,
    };
    refused(words, advice)
}

fn malformed(words: &str) -> Step {
    Step::Refused(Refusal::malformed(words.to_owned()))
}

fn refused(words: String, advice: Advice) -> Step {
    Step::Refused(Refusal::of_peer(words, advice))
}

#[cfg(test)]
mod tests;
