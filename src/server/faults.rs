//! Faults that are served because somebody asked for them, to test their alerts with.

mod answers;
mod schedule;

pub(super) use answers::{Answer, Answers};
pub(super) use schedule::{Cut, Schedule};

use super::listener::Origin;
use crate::config::FaultSwitches;
use crate::config::faults::{Endpoint, Faults, Others, switches_in_words};

/// The keys that clients of the known protocols put into the query by themselves: Engine.IO's
/// version, transport and session, and Phoenix's serializer. They are the application's wherever
/// they stand.
const DIALECTS_KEYS: [&str; 4] = ["EIO", "transport", "sid", "vsn"];

/// The faults of a request for `endpoint` with `query`, in which the keys of `own` are the
/// endpoint's. The error is what to answer.
pub(super) fn asked(
    switches: &FaultSwitches,
    endpoint: Endpoint,
    query: &str,
    own: &[&str],
) -> Result<Faults, String> {
    let (others, always) = match switches {
        FaultSwitches::Off => return Ok(Faults::default()),
        FaultSwitches::ByQuery => (Others::Mistakes, None),
        FaultSwitches::Always(faults) => (Others::Ignored, Some(faults)),
    };
    let own = [own, &DIALECTS_KEYS].concat();
    let asked = Faults::parse(query, &own, others);
    let asked = asked.and_then(|faults| match faults.misplaced(endpoint) {
        None => Ok(faults),
        Some(name) => Err(format!(
            "{name} means nothing {}",
            match endpoint {
                Endpoint::WebSocket => "to a WebSocket",
                Endpoint::Events => "on /events",
            }
        )),
    });
    match (asked, always) {
        (Ok(faults), Some(always)) if faults.is_none() => Ok((**always).clone().only(endpoint)),
        (Ok(faults), _) => Ok(faults),
        (Err(why), _) => Err(format!(
            "{why}\nthis server takes fault switches in the query; T is a duration such as 10s:\n{}",
            switches_in_words()
        )),
    }
}

/// Tells the log what is served, each switch once per connection.
pub(super) struct Served<'a> {
    pub(super) listener: &'a str,
    pub(super) from: Origin,
    pub(super) faults: &'a Faults,
    told: Vec<&'static str>,
}

impl<'a> Served<'a> {
    pub(super) fn new(listener: &'a str, from: Origin, faults: &'a Faults) -> Self {
        let told = Vec::new();
        Self {
            listener,
            from,
            faults,
            told,
        }
    }

    pub(super) fn tell(&mut self, switch: &'static str) {
        if self.told.contains(&switch) {
            return;
        }
        self.told.push(switch);
        let Self {
            listener,
            from,
            faults,
            ..
        } = self;
        tracing::debug!(event = "fault", %listener, %from, %faults, "fault served: {switch}");
    }
}

#[cfg(test)]
mod tests;
