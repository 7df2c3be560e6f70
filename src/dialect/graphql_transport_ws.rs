//! The protocol `graphql-transport-ws`.

use super::{Speak, Step, Timing};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// One connection's state.
#[derive(Debug)]
pub(crate) struct GraphqlTransportWs {}

impl GraphqlTransportWs {
    /// Sends `payload` with connection_init, and subscribes to the document `subscription`.
    pub(crate) fn new(payload: Option<serde_json::Value>, subscription: Option<&str>) -> Self {
        let _ = (payload, subscription);
        Self {}
    }
}

impl Speak for GraphqlTransportWs {
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
