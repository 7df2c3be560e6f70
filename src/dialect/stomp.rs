//! STOMP 1.2 and 1.1 over WebSocket.

use super::{Speak, Step, Timing};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// How the CONNECT frame reads.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// The `host` header.
    pub(crate) vhost: Box<str>,
    pub(crate) login: Option<Box<str>>,
    pub(crate) passcode: Option<Box<str>>,
    /// Destinations to subscribe to.
    pub(crate) topics: Vec<Box<str>>,
}

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Stomp {}

impl Stomp {
    /// Connects with `login`.
    pub(crate) fn new(login: Login) -> Self {
        let _ = login;
        Self {}
    }
}

impl Speak for Stomp {
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
