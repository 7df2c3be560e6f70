//! ActionCable, the protocol `actioncable-v1-json` of Rails: the server welcomes, then pings every
//! 3 s; nobody answers.
//!
//! The messages are those of Rails' own client (actioncable/app/javascript/action_cable): `welcome`,
//! `ping`, `confirm_subscription`, `reject_subscription`, `disconnect`, and what has no `type`,
//! which is the application's.

use std::time::Duration;

use serde_json::Value;

use super::{Speak, Step, Timing, json};
use crate::proto::close::Refusal;
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;
use crate::proto::reconnect::Advice;

/// What Rails' own client calls stale: two pings missed (`ConnectionMonitor.staleThreshold`).
const STALE: Duration = Duration::from_secs(6);

/// One connection's state.
#[derive(Debug)]
pub(crate) struct ActionCable {
    welcomed: bool,
    /// Identifiers to subscribe to, as JSON, that are not confirmed yet.
    unconfirmed: Vec<Box<str>>,
}

impl ActionCable {
    /// Subscribes to `channels`: identifiers in JSON, such as `{"channel":"ChatChannel"}`.
    pub(crate) fn new(channels: Vec<Box<str>>) -> Self {
        Self {
            welcomed: false,
            unconfirmed: channels,
        }
    }

    fn take(&mut self, identifier: Option<&Value>) -> bool {
        let Some(identifier) = identifier.and_then(Value::as_str) else {
            return false;
        };
        let before = self.unconfirmed.len();
        self.unconfirmed.retain(|open| **open != *identifier);
        before > self.unconfirmed.len()
    }
}

impl Speak for ActionCable {
    fn awaits(&self) -> Option<String> {
        if !self.welcomed {
            return Some("welcome".to_owned());
        }
        let open = self.unconfirmed.first()?;
        Some(format!("confirm_subscription for {}", channel(open)))
    }

    fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        let Some(said) = json::object(message) else {
            let words = "a message that is no JSON object; is this ActionCable?";
            steps.push(malformed(words));
            return;
        };
        match json::text(&said, "type") {
            Some("welcome") => {
                self.welcomed = true;
                let subscribe = self.unconfirmed.iter().map(|identifier| {
                    let command =
                        serde_json::json!({ "command": "subscribe", "identifier": identifier });
                    Step::Send(Message::text(command.to_string()))
                });
                steps.extend(subscribe);
            }
            Some("ping") => steps.push(Step::Beat),
            Some("confirm_subscription") => {
                self.take(said.get("identifier"));
            }
            Some("reject_subscription") if self.take(said.get("identifier")) => {
                let identifier = json::text(&said, "identifier");
                let channel = channel(identifier.unwrap_or_default());
                let words = format!("reject_subscription: {channel}");
                steps.push(refused(words, Advice::Refused));
            }
            Some("disconnect") => {
                let reason = json::text(&said, "reason");
                let mut words = format!("disconnect: {}", super::shown(reason.unwrap_or("?")));
                let again = said.get("reconnect").and_then(Value::as_bool);
                let advice = match again {
                    Some(false) => {
                        words.push_str(", reconnect: false");
                        Advice::Refused
                    }
                    Some(true) | None => Advice::Backoff,
                };
                steps.push(refused(words, advice));
            }
            Some(_) => {}
            None if said.get("message").is_some() => steps.push(Step::Message(message.clone())),
            None => {}
        }
    }

    fn timing(&self, wishes: &Wishes) -> Timing {
        Timing {
            heartbeat: wishes.listening(),
            max_silence: Some(wishes.max_silence.unwrap_or(STALE)),
        }
    }
}

fn malformed(words: &str) -> Step {
    Step::Refused(Refusal::malformed(words.to_owned()))
}

fn refused(words: String, advice: Advice) -> Step {
    Step::Refused(Refusal::of_peer(words, advice))
}

/// The channel of an identifier, without its parameters, which may be anybody's.
fn channel(identifier: &str) -> String {
    let parsed = json::object(&Message::text(identifier));
    let name = parsed
        .as_ref()
        .and_then(|object| json::text(object, "channel"));
    super::shown(name.unwrap_or("a subscription"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cable: &mut ActionCable, text: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        cable.read(&Message::text(text), &mut steps);
        steps
    }

    const CHAT: &str = r#"{"channel":"ChatChannel","room":1}"#;

    fn confirmation(kind: &str) -> String {
        serde_json::json!({ "identifier": CHAT, "type": kind }).to_string()
    }

    #[test]
    fn subscriptions_follow_the_welcome_and_are_waited_for() {
        let mut cable = ActionCable::new(vec![CHAT.into()]);
        assert_eq!(cable.awaits().unwrap(), "welcome");
        let steps = read(&mut cable, r#"{"type":"welcome"}"#);
        let expected =
            serde_json::json!({ "command": "subscribe", "identifier": CHAT }).to_string();
        assert_eq!(steps, [Step::Send(Message::text(expected))]);
        assert_eq!(
            cable.awaits().unwrap(),
            "confirm_subscription for ChatChannel"
        );
        let ping = r#"{"type":"ping","message":1763650000}"#;
        assert_eq!(read(&mut cable, ping), [Step::Beat]);
        assert_eq!(read(&mut cable, &confirmation("confirm_subscription")), []);
        assert_eq!(cable.awaits(), None);
    }

    #[test]
    fn without_channels_the_welcome_is_all() {
        let mut cable = ActionCable::new(Vec::new());
        assert_eq!(read(&mut cable, r#"{"type":"welcome"}"#), []);
        assert_eq!(cable.awaits(), None);
    }

    #[test]
    fn a_refusal_is_told_in_the_protocols_words() {
        let mut cable = ActionCable::new(vec![CHAT.into()]);
        read(&mut cable, r#"{"type":"welcome"}"#);
        let steps = read(&mut cable, &confirmation("reject_subscription"));
        let words = "reject_subscription: ChatChannel".to_owned();
        assert_eq!(steps, [refused(words, Advice::Refused)]);
        let gone = r#"{"type":"disconnect","reason":"server_restart","reconnect":true}"#;
        let words = "disconnect: server_restart".to_owned();
        assert_eq!(read(&mut cable, gone), [refused(words, Advice::Backoff)]);
        let gone = r#"{"type":"disconnect","reason":"unauthorized","reconnect":false}"#;
        let words = "disconnect: unauthorized, reconnect: false".to_owned();
        assert_eq!(read(&mut cable, gone), [refused(words, Advice::Refused)]);
    }

    #[test]
    fn only_what_carries_a_message_is_the_applications() {
        let mut cable = ActionCable::new(Vec::new());
        let message = serde_json::json!({ "identifier": CHAT, "message": { "n": 1 } }).to_string();
        let steps = read(&mut cable, &message);
        assert_eq!(steps, [Step::Message(Message::text(message))]);
        assert_eq!(read(&mut cable, r#"{"type":"news"}"#), []);
        assert_eq!(read(&mut cable, "{}"), []);
        for wrong in ["", "[]", "hello", "\u{0}"] {
            let steps = read(&mut cable, wrong);
            assert!(matches!(&steps[..], [Step::Refused(_)]), "{wrong:?}");
        }
    }

    #[test]
    fn it_is_stale_after_six_seconds_unless_the_target_says_otherwise() {
        let cable = ActionCable::new(Vec::new());
        let timing = cable.timing(&Wishes::default());
        assert_eq!(timing.max_silence, Some(Duration::from_secs(6)));
        let wishes = Wishes {
            max_silence: Some(Duration::from_secs(9)),
            ..Wishes::default()
        };
        assert_eq!(
            cable.timing(&wishes).max_silence,
            Some(Duration::from_secs(9))
        );
    }
}
