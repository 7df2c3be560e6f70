//! JSON-RPC 2.0 ("JSON-RPC 2.0 Specification", jsonrpc.org): a call whose response is the beat's
//! answer. An error is one as well: a server that says no is there.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::json::number;
use super::unanswered::Unanswered;
use super::{Speak, Stamp, Step, Timing};
use crate::proto::close::BeatNames;
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// The usual time from a response to the next call; the protocol names none.
const INTERVAL: Duration = Duration::from_secs(10);
/// The usual wait for a response.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One connection's state.
pub(crate) struct JsonRpc {
    method: Box<str>,
    params: Option<Value>,
    calls: Unanswered,
}

impl JsonRpc {
    /// Calls `method` with `params`, an array or an object.
    pub(crate) fn new(method: &str, params: Option<Value>) -> Self {
        Self {
            method: method.into(),
            params,
            calls: Unanswered::default(),
        }
    }

    /// The step that a response to a call of ours means.
    fn answer(&mut self, said: &Value) -> Option<Step> {
        let said = said.as_object()?;
        if said.contains_key("method") || !(has(said, "result") || has(said, "error")) {
            return None;
        }
        match said.get("id")? {
            // "If there was an error in detecting the id in the Request object, it MUST be Null."
            Value::Null if has(said, "error") => {
                self.calls.settle_any().then_some(Step::Answer(None))
            }
            id => {
                let seq = number(id).filter(|seq| self.calls.settle(*seq))?;
                Some(Step::Answer(Some(seq)))
            }
        }
    }
}

fn has(said: &Map<String, Value>, key: &str) -> bool {
    said.contains_key(key)
}

impl fmt::Debug for JsonRpc {
    /// Without the parameters, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("JsonRpc");
        shown.field("method", &self.method).finish_non_exhaustive()
    }
}

impl Speak for JsonRpc {
    fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        let said: Value = serde_json::from_slice(message.as_bytes()).unwrap_or_default();
        let is_answer = match &said {
            // A batch: several at once.
            Value::Array(batch) => {
                let before = steps.len();
                steps.extend(batch.iter().filter_map(|said| self.answer(said)));
                !batch.is_empty() && steps.len() - before == batch.len()
            }
            said => match self.answer(said) {
                Some(answer) => {
                    steps.push(answer);
                    true
                }
                None => false,
            },
        };
        if !is_answer {
            steps.push(Step::Message(message.clone()));
        }
    }

    fn timing(&self, wishes: &Wishes) -> Timing {
        Timing {
            heartbeat: wishes.asking(INTERVAL, TIMEOUT),
            max_silence: None,
        }
    }

    fn beat(&mut self, stamp: Stamp) -> Option<Message> {
        self.calls.sent(stamp.seq);
        let mut call = json!({ "jsonrpc": "2.0", "method": self.method, "id": stamp.seq });
        if let (Some(params), Value::Object(call)) = (&self.params, &mut call) {
            call.insert("params".to_owned(), params.clone());
        }
        Some(Message::text(call.to_string()))
    }

    fn names(&self) -> BeatNames {
        BeatNames {
            beat: "call",
            answer: "response",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialect::Dialect;
    use crate::dialect::chatter::{chatter, hears};

    const RESULT: &str = r#"{"jsonrpc":"2.0","result":"pong","id":1}"#;
    const ERROR: &str = r#"{"jsonrpc":"2.0","error":{"code":-32601,"message":"x"},"id":1}"#;
    const UNIDENTIFIED: &str =
        r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"x"},"id":null}"#;
    const NOTIFICATION: &str = r#"{"jsonrpc":"2.0","method":"update","params":[1]}"#;
    const REQUEST: &str = r#"{"jsonrpc":"2.0","method":"ask","result":1,"id":1}"#;

    fn called() -> JsonRpc {
        let mut speaker = JsonRpc::new("system.ping", None);
        beat(&mut speaker, 1);
        speaker
    }

    fn beat(speaker: &mut JsonRpc, seq: u32) -> String {
        let unix = Duration::ZERO;
        let beat = speaker.beat(Stamp { seq, unix }).unwrap();
        beat.as_text().unwrap().to_owned()
    }

    fn read(speaker: &mut JsonRpc, text: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        speaker.read(&Message::text(text), &mut steps);
        steps
    }

    fn message(text: &str) -> Step {
        Step::Message(Message::text(text))
    }

    #[test]
    fn a_call_carries_its_number_and_its_parameters() {
        let mut speaker = JsonRpc::new("ping", Some(json!(["s3cret"])));
        assert_eq!(
            beat(&mut speaker, 7),
            r#"{"id":7,"jsonrpc":"2.0","method":"ping","params":["s3cret"]}"#
        );
        assert!(!format!("{speaker:?}").contains("s3cret"));
        let mut speaker = JsonRpc::new("ping", None);
        let call = r#"{"id":1,"jsonrpc":"2.0","method":"ping"}"#;
        assert_eq!(beat(&mut speaker, 1), call);
    }

    #[test]
    fn results_and_errors_answer() {
        for answer in [RESULT, ERROR] {
            let mut speaker = called();
            assert_eq!(read(&mut speaker, answer), [Step::Answer(Some(1))]);
            assert_eq!(read(&mut speaker, answer), [message(answer)], "again");
        }
        let mut speaker = called();
        assert_eq!(read(&mut speaker, UNIDENTIFIED), [Step::Answer(None)]);
        assert_eq!(read(&mut speaker, UNIDENTIFIED), [message(UNIDENTIFIED)]);
    }

    #[test]
    fn what_answers_nothing_is_a_message() {
        for other in [
            NOTIFICATION,
            REQUEST,
            r#"{"jsonrpc":"2.0","result":1,"id":2}"#,
            r#"{"jsonrpc":"2.0","result":1,"id":"1"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            "null",
            "hello",
            "[]",
        ] {
            assert_eq!(read(&mut called(), other), [message(other)], "{other}");
        }
        // Before the first call, as the response to a message sent on open.
        let mut speaker = JsonRpc::new("ping", None);
        assert_eq!(read(&mut speaker, RESULT), [message(RESULT)]);
    }

    #[test]
    fn batches_are_read() {
        let answer = Step::Answer(Some(1));
        let mixed = format!("[{NOTIFICATION},{RESULT}]");
        let expected = [answer.clone(), message(&mixed)];
        assert_eq!(read(&mut called(), &mixed), expected);
        let whole = format!("[{RESULT}]");
        assert_eq!(read(&mut called(), &whole), [answer]);
    }

    #[test]
    fn it_calls_each_10_s_and_waits_20_s() {
        let speaker = called();
        assert_eq!(speaker.awaits(), None);
        let timing = speaker.timing(&Wishes::default());
        assert_eq!(timing.heartbeat.interval, INTERVAL);
        assert_eq!(timing.heartbeat.pong_timeout, TIMEOUT);
        assert_eq!(timing.max_silence, None);
    }

    proptest! {
        #[test]
        fn any_peer_is_heard(
            turns in chatter(&[RESULT, ERROR, UNIDENTIFIED, NOTIFICATION, "[]", "[1,{}]"]),
        ) {
            hears(Dialect::JsonRpc(JsonRpc::new("ping", None)), &turns)?;
        }
    }
}
