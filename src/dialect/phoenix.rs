//! Phoenix channels, the serializer of version 2.0.0.

use super::{Speak, Step, Timing};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Phoenix {}

impl Phoenix {
    /// Joins `topics`, each with its join payload.
    pub(crate) fn new(topics: Vec<(Box<str>, serde_json::Value)>) -> Self {
        let _ = topics;
        Self {}
    }
}

impl Speak for Phoenix {
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
