//! Answers to a client's heartbeats that are not as they should be: too few, too late, or wrong.
//! Pure.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::faults::Faults;
use crate::proto::event::Message;

/// What may wait to be sent; beyond it the client is not read.
const MOST_BYTES: usize = 64 * 1024;
/// The same, for answers that have none.
const MOST_ANSWERS: usize = 1024;
/// What a pong carries instead of its ping's payload. There is a server in the field that does so.
const WRONG_PAYLOAD: &[u8] = b"from server";

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Answer {
    Pong(Bytes),
    Message(Message),
}

/// The answers of one connection.
#[derive(Debug)]
pub(in crate::server) struct Answers {
    left: Option<u64>,
    wrong: bool,
    delay: Duration,
    owed: VecDeque<(Instant, Answer)>,
    owed_bytes: usize,
}

impl Answers {
    pub(in crate::server) fn new(faults: &Faults) -> Self {
        Self {
            left: faults.no_pongs_after,
            wrong: faults.wrong_payload,
            delay: faults.pong_delay.unwrap_or_default(),
            owed: VecDeque::new(),
            owed_bytes: 0,
        }
    }

    /// An answer is due; `wrong` would be a wrong one. Returns the switch that changes it, if one does.
    pub(in crate::server) fn owe(
        &mut self,
        answer: Answer,
        wrong: Answer,
        now: Instant,
    ) -> Option<&'static str> {
        match &mut self.left {
            Some(0) => return Some("no_pongs_after"),
            Some(left) => *left -= 1,
            None => {}
        }
        let answer = if self.wrong { wrong } else { answer };
        self.owed_bytes += answer.len();
        self.owed.push_back((now + self.delay, answer));
        match (self.wrong, self.delay) {
            (true, _) => Some("wrong_payload"),
            (false, Duration::ZERO) => None,
            (false, _) => Some("pong_delay"),
        }
    }

    /// When [`Self::due`] has something to give.
    pub(in crate::server) fn next(&self) -> Option<Instant> {
        self.owed.front().map(|(at, _)| *at)
    }

    /// An answer whose time has come.
    pub(in crate::server) fn due(&mut self, now: Instant) -> Option<Answer> {
        self.next().filter(|at| *at <= now)?;
        let (_, answer) = self.owed.pop_front()?;
        self.owed_bytes -= answer.len();
        Some(answer)
    }

    /// Whether so many are owed that no more is to be asked for.
    pub(in crate::server) fn is_full(&self) -> bool {
        self.owed_bytes >= MOST_BYTES || self.owed.len() >= MOST_ANSWERS
    }
}

impl Answer {
    /// A pong that is none of the client's ping.
    pub(in crate::server) fn wrong_pong() -> Self {
        Self::Pong(Bytes::from_static(WRONG_PAYLOAD))
    }

    fn len(&self) -> usize {
        match self {
            Self::Pong(payload) => payload.len(),
            Self::Message(message) => message.as_bytes().len(),
        }
    }
}
