//! Phoenix channels, the serializer of version 2.0.0: `[join_ref, ref, topic, event, payload]`.
//!
//! After the guide "Writing a Channels Client" and Phoenix's own client (assets/js/phoenix). Joins
//! have the references 1, 2, .., beats those that follow.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::unanswered::Unanswered;
use super::{Speak, Stamp, Step, Timing};
use crate::proto::close::{BeatNames, Refusal};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;
use crate::proto::reconnect::Advice;

/// Both of Phoenix's own client (`heartbeatIntervalMs`, `heartbeatTimeoutMs`).
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);

/// A topic to be in. Its place among the others gives its reference.
struct Channel {
    topic: Box<str>,
    /// What it is joined with, until it is.
    payload: Value,
    is_joined: bool,
}

/// One connection's state.
pub(crate) struct Phoenix {
    channels: Vec<Channel>,
    beats: Unanswered,
}

impl Phoenix {
    /// Joins `topics`, each with its join payload. A topic that comes twice is joined once: the
    /// second join would close the first.
    pub(crate) fn new(topics: Vec<(Box<str>, Value)>) -> Self {
        let mut channels: Vec<Channel> = Vec::with_capacity(topics.len());
        for (topic, payload) in topics {
            if channels.iter().all(|channel| channel.topic != topic) {
                channels.push(Channel {
                    topic,
                    payload,
                    is_joined: false,
                });
            }
        }
        Self {
            channels,
            beats: Unanswered::default(),
        }
    }

    /// The channel that was joined with `reference`.
    fn joined_with(&mut self, reference: u32) -> Option<&mut Channel> {
        let place = usize::try_from(reference).ok()?.checked_sub(1)?;
        self.channels.get_mut(place)
    }

    /// What beats' references have more than their numbers.
    fn base(&self) -> u32 {
        u32::try_from(self.channels.len()).unwrap_or(u32::MAX)
    }

    fn replied(&mut self, said: &Said<'_>, steps: &mut Vec<Step>) {
        let Some(reference) = said.reference else {
            return;
        };
        if let Some(channel) = self.joined_with(reference) {
            if channel.is_joined || *channel.topic != *said.topic {
                return;
            }
            let status = said.payload.get("status").and_then(Value::as_str);
            if status == Some("ok") {
                channel.is_joined = true;
                return;
            }
            let status = super::shown(status.unwrap_or("without a status"));
            let topic = super::shown(said.topic);
            let reason = said.payload.get("response").and_then(reason);
            let words = format!("phx_reply {status} to the join of {topic}");
            steps.push(refused(words, reason, Advice::Refused));
        } else if let Some(seq) = reference.checked_sub(self.base())
            && said.topic == "phoenix"
            && self.beats.settle(seq)
        {
            steps.push(Step::Answer(Some(seq)));
        }
    }

    /// The channel crashed (`phx_error`) or was closed (`phx_close`).
    fn ended(&mut self, said: &Said<'_>, steps: &mut Vec<Step>) {
        let place = self.channels.iter().position(|c| *c.topic == *said.topic);
        let Some(place) = place else {
            return;
        };
        // Of an earlier join of the same topic.
        if said
            .join_reference
            .is_some_and(|join| join as usize != place + 1)
        {
            return;
        }
        let words = format!("{}: {}", said.event, super::shown(said.topic));
        let reason = reason(said.payload);
        steps.push(refused(words, reason, Advice::Backoff));
    }
}

impl fmt::Debug for Phoenix {
    /// Without the payloads, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phoenix").finish_non_exhaustive()
    }
}

impl Speak for Phoenix {
    fn open(&mut self, _wishes: &Wishes) -> Vec<Message> {
        let joins = self.channels.iter_mut().zip(1_u32..);
        let joins = joins.map(|(channel, reference)| {
            let reference = reference.to_string();
            let payload = channel.payload.take();
            let join = json!([reference, reference, channel.topic, "phx_join", payload]);
            Message::text(join.to_string())
        });
        joins.collect()
    }

    fn awaits(&self) -> Option<String> {
        let open = self.channels.iter().find(|channel| !channel.is_joined)?;
        let topic = super::shown(&open.topic);
        Some(format!("phx_reply to the join of {topic}"))
    }

    fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        // Binary messages have a form of their own, and are always an application's.
        let Some(text) = message.as_text() else {
            steps.push(Step::Message(message.clone()));
            return;
        };
        let parsed: Option<Value> = serde_json::from_str(text).ok();
        let Some(said) = parsed.as_ref().and_then(Said::read) else {
            steps.push(match self.awaits() {
                Some(_) => {
                    let words = "a message that is no array of five; is this Phoenix, vsn=2.0.0?";
                    malformed(words)
                }
                None => Step::Message(message.clone()),
            });
            return;
        };
        match said.event {
            "phx_reply" => self.replied(&said, steps),
            "phx_error" | "phx_close" => self.ended(&said, steps),
            _ => steps.push(Step::Message(message.clone())),
        }
    }

    fn timing(&self, wishes: &Wishes) -> Timing {
        Timing {
            heartbeat: wishes.asking(INTERVAL, TIMEOUT),
            max_silence: None,
        }
    }

    fn beat(&mut self, stamp: Stamp) -> Option<Message> {
        self.beats.sent(stamp.seq);
        let reference = self.base().saturating_add(stamp.seq).to_string();
        let beat = json!([null, reference, "phoenix", "heartbeat", {}]);
        Some(Message::text(beat.to_string()))
    }

    fn names(&self) -> BeatNames {
        BeatNames {
            beat: "heartbeat",
            answer: "phx_reply",
        }
    }
}

/// A message of the server's.
struct Said<'a> {
    join_reference: Option<u32>,
    /// References are ours; one that is no number of ours is none.
    reference: Option<u32>,
    topic: &'a str,
    event: &'a str,
    payload: &'a Value,
}

impl<'a> Said<'a> {
    fn read(value: &'a Value) -> Option<Self> {
        let [join_reference, reference, topic, event, payload] = &value.as_array()?[..] else {
            return None;
        };
        let number = |value: &Value| value.as_str()?.parse().ok();
        Some(Self {
            join_reference: number(join_reference),
            reference: number(reference),
            topic: topic.as_str()?,
            event: event.as_str()?,
            payload,
        })
    }
}

/// Why, in the server's words: by convention an object's `reason`, else whatever there is.
fn reason(response: &Value) -> Option<String> {
    match response.get("reason").unwrap_or(response) {
        Value::String(reason) => Some(super::shown(reason)),
        Value::Object(object) if object.is_empty() => None,
        Value::Null => None,
        other => Some(super::shown(&other.to_string())),
    }
}

fn malformed(words: &str) -> Step {
    Step::Refused(Refusal::malformed(words.to_owned()))
}

fn refused(mut words: String, reason: Option<String>, advice: Advice) -> Step {
    if let Some(reason) = reason {
        words.push_str(&format!(": {reason}"));
    }
    Step::Refused(Refusal::of_peer(words, advice))
}

#[cfg(test)]
mod tests;
