//! When a connection is cut on purpose. Pure.

use tokio::time::Instant;

use crate::config::faults::{Faults, Timed, What};
use crate::proto::close::CloseFrame;

/// How a connection is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Cut {
    Close(CloseFrame),
    Fin,
    Reset,
    Stall,
}

/// The moments of one connection.
#[derive(Debug)]
pub(in crate::server) struct Schedule<'a> {
    faults: &'a Faults,
    since: Instant,
}

impl<'a> Schedule<'a> {
    /// `since`: when the upgrade was done, or the answer's head written.
    pub(in crate::server) fn new(faults: &'a Faults, since: Instant) -> Self {
        Self { faults, since }
    }

    /// The next cut, when it is, and the switch that asked for it. `active`: when the connection
    /// last did what an idle timer counts.
    pub(in crate::server) fn next(&self, active: Instant) -> Option<(Instant, Cut, &'static str)> {
        let Faults {
            timed,
            lifetime,
            idle_cut,
            ..
        } = self.faults;
        let timed = timed.as_ref().map(|Timed { what, after }| {
            let (cut, name) = match what {
                What::Close(frame) => (Cut::Close(frame.clone()), "close"),
                What::Fin => (Cut::Fin, "fin"),
                What::Reset => (Cut::Reset, "reset"),
                What::Stall => (Cut::Stall, "stall"),
            };
            (self.since + *after, cut, name)
        });
        let lifetime = lifetime.map(|age| (self.since + age, Cut::Fin, "lifetime"));
        let idle = idle_cut.map(|time| (active + time, Cut::Fin, "idle_cut"));
        let cuts = [timed, lifetime, idle].into_iter().flatten();
        cuts.min_by_key(|(at, ..)| *at)
    }
}
