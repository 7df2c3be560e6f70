//! How a connection speaks, and what is watched of what its peer says.

use std::time::Instant;

use super::{Host, SessionPolicy};
use crate::dialect::{Dialect, Step};
use crate::proto::close::Ending;
use crate::proto::event::{Event, Message};
use crate::proto::heartbeat::HeartbeatPolicy;
use crate::proto::silence::{Silence, Silent, Staleness};

/// How a connection speaks, once its hello is done.
#[derive(Default)]
pub(crate) struct Speech {
    /// `None` where RFC 6455's pings are the heartbeat, or there is none.
    pub(crate) dialect: Option<Box<Dialect>>,
    /// What came in during the hello that was not part of it.
    pub(crate) early: Vec<Step>,
    /// Sent first of all.
    pub(crate) on_open: Vec<Message>,
}

/// What only connections with a dialect, a staleness or something to send first have.
pub(super) struct More {
    pub(super) speech: Speech,
    pub(super) silence: Option<Silence>,
    pub(super) staleness: Option<Staleness>,
    pub(super) has_events: bool,
}

impl More {
    pub(super) fn new(speech: Speech, policy: &SessionPolicy, now: Instant) -> Option<Box<Self>> {
        let Speech {
            dialect, on_open, ..
        } = &speech;
        if dialect.is_none() && on_open.is_empty() && policy.staleness.is_none() {
            return None;
        }
        let timing = dialect.as_ref().map(|d| d.timing(&policy.wishes));
        let max_silence = timing.and_then(|timing| timing.max_silence);
        Some(Box::new(Self {
            speech,
            silence: max_silence.map(|limit| Silence::new(limit, now)),
            staleness: policy.staleness.map(|limit| Staleness::new(limit, now)),
            has_events: false,
        }))
    }

    /// Whether nothing is left that it is for.
    pub(super) fn is_over(&self) -> bool {
        self.speech.dialect.is_none() && self.staleness.is_none()
    }

    /// When [`Self::poll`] has something to say.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let silence = self.silence.as_ref().map(Silence::deadline);
        let staleness = self.staleness.as_ref().and_then(Staleness::deadline);
        silence.into_iter().chain(staleness).min()
    }

    /// What is due at `now`: `Err` ends the connection.
    pub(super) fn poll(&mut self, now: Instant, host: &mut impl Host) -> Result<(), Ending> {
        if let Some(quiet) = self.staleness.as_mut().and_then(|s| s.poll(now)) {
            host.observe(Event::Stale { quiet });
        }
        match self.silence.as_mut().and_then(|silence| silence.poll(now)) {
            Some(Silent::GiveUp(limit)) => return Err(Ending::Silence(limit)),
            Some(Silent::Stalled { late }) => host.observe(Event::Stalled { late }),
            None => {}
        }
        Ok(())
    }

    /// Something came in that is life where the peer begins the beats.
    pub(super) fn heard(&mut self, now: Instant, host: &mut impl Host) {
        if let Some(silence) = &mut self.silence {
            let gap = silence.heard(now);
            host.observe(Event::Arrived { gap });
        }
    }

    /// A message of the application's came in.
    pub(super) fn message(&mut self, now: Instant, host: &mut impl Host) {
        if let Some(quiet) = self.staleness.as_mut().and_then(|s| s.heard(now)) {
            host.observe(Event::Fresh { quiet });
        }
    }

    pub(super) fn retune(&mut self, policy: &SessionPolicy, now: Instant, host: &mut impl Host) {
        let timing = self.speech.dialect.as_ref();
        let timing = timing.map(|dialect| dialect.timing(&policy.wishes));
        match (
            timing.and_then(|timing| timing.max_silence),
            &mut self.silence,
        ) {
            (Some(limit), Some(silence)) => silence.retune(limit, now),
            // STOMP's peers may promise no beats, and the target ask for some all the same.
            (Some(limit), none) => *none = Some(Silence::new(limit, now)),
            (None, some) => *some = None,
        }
        match (policy.staleness, &mut self.staleness) {
            (Some(limit), Some(staleness)) => {
                if let Some(quiet) = staleness.retune(limit, now) {
                    host.observe(Event::Fresh { quiet });
                }
            }
            (Some(limit), none) => *none = Some(Staleness::new(limit, now)),
            (None, some) => {
                if let Some(quiet) = some.take().and_then(|mut s| s.heard(now)) {
                    host.observe(Event::Fresh { quiet });
                }
            }
        }
    }
}

/// The heartbeat of a connection: the dialect's, where there is one.
pub(super) fn heartbeat_policy(policy: &SessionPolicy, more: Option<&More>) -> HeartbeatPolicy {
    let dialect = more.and_then(|more| more.speech.dialect.as_deref());
    match dialect {
        Some(dialect) => dialect.timing(&policy.wishes).heartbeat,
        None => policy.heartbeat,
    }
}
