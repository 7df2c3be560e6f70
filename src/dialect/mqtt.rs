//! MQTT 3.1.1 and 5 over WebSocket.

use super::{Speak, Step, Timing};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// Which MQTT is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Version {
    #[default]
    V311,
    V5,
}

/// How the CONNECT packet reads.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) version: Version,
    pub(crate) client_id: Box<str>,
    pub(crate) username: Option<Box<str>>,
    pub(crate) password: Option<Box<[u8]>>,
    /// Filters to subscribe to.
    pub(crate) topics: Vec<Box<str>>,
}

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Mqtt {}

impl Mqtt {
    /// Connects with `login`.
    pub(crate) fn new(login: Login) -> Self {
        let _ = login;
        Self {}
    }
}

impl Speak for Mqtt {
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
