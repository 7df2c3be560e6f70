//! Server-Sent Events as a dialect: everything that comes in is life, and nothing is sent.

use super::{Speak, Step, Timing};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;
use std::time::Duration;

/// Comments come every 15 s from careful servers (HTML Living Standard, section 9.2.8); three of
/// them missed.
const USUAL_SILENCE: Duration = Duration::from_secs(45);

/// An event stream is only listened to.
#[derive(Debug)]
pub(crate) struct Listener;

impl Speak for Listener {
    fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        steps.push(Step::Message(message.clone()));
    }

    fn timing(&self, wishes: &Wishes) -> Timing {
        Timing {
            heartbeat: wishes.listening(),
            max_silence: Some(wishes.max_silence.unwrap_or(USUAL_SILENCE)),
        }
    }
}
