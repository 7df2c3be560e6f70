//! JSON-RPC 2.0: a call whose answer is the beat.

use super::{Speak, Step, Timing};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// One connection's state.
#[derive(Debug)]
pub(crate) struct JsonRpc {}

impl JsonRpc {
    /// Calls `method` with `params`, an array or an object.
    pub(crate) fn new(method: &str, params: Option<serde_json::Value>) -> Self {
        let _ = (method, params);
        Self {}
    }
}

impl Speak for JsonRpc {
    fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        steps.push(Step::Message(message.clone()));
    }

    fn timing(&self, wishes: &Wishes) -> Timing {
        Timing {
            heartbeat: wishes.listening(),
            max_silence: wishes.max_silence,
        }
    }
}
