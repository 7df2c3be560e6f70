//! SignalR's JSON hub protocol.

use super::{Speak, Step, Timing};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// One connection's state.
#[derive(Debug)]
pub(crate) struct SignalR {}

impl SignalR {
    /// Greets with the JSON protocol, version 1.
    pub(crate) fn new() -> Self {
        Self {}
    }
}

impl Speak for SignalR {
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
