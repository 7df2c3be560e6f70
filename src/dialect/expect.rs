//! The server beats: a message that matches is one.

use super::{Speak, Step, Timing};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Expect {}

impl Expect {
    /// Waits for messages that match `pattern`.
    pub(crate) fn new(pattern: super::pattern::Pattern) -> Self {
        let _ = pattern;
        Self {}
    }
}

impl Speak for Expect {
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
