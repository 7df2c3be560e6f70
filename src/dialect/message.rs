//! Beats of the user's own making: a message sent, and the answer expected.

use super::{Speak, Step, Timing};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Templates {}

impl Templates {
    /// Sends `send` and expects `expect`, templates both; `nonce` makes this connection's beats its own.
    pub(crate) fn new(send: &str, expect: super::pattern::Pattern, nonce: u32) -> Self {
        let _ = (send, expect, nonce);
        Self {}
    }
}

impl Speak for Templates {
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
