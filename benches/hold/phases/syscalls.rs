//! System calls per ping: a run of its own, since counting costs a little.

use std::time::Duration;

use anyhow::Result;

use super::{Bench, UP_DEADLINE};
use crate::daemon::Counting;
use crate::peer::PeerOptions;
use crate::report::progress;
use crate::scratch;
use crate::stats::{COUNTED, SharedWords};

const GOAL: f64 = 3.3;

impl Bench<'_> {
    pub(super) fn syscalls(&mut self) -> Result<()> {
        let Some(floor) = &self.floor else {
            self.report.note("system calls per ping", "skipped: no cc");
            return Ok(());
        };
        let counts = SharedWords::at(&scratch::shared()?.join("counts"));
        let counting = Counting {
            object: &floor.counter,
            counts: &counts,
        };
        let interval = self.options.interval;
        let peer = self.peer(&PeerOptions::default())?;
        let mut daemon = self.counted_daemon(interval, &peer, &counting)?;
        daemon.all_up(&peer, self.options.targets, UP_DEADLINE)?;
        let established = counts.counts()?;
        self.settle(interval);

        let before = counts.counts()?;
        let window = self.measure(
            &mut daemon,
            &peer,
            self.options.window.min(Duration::from_secs(5)),
        )?;
        let after = counts.counts()?;

        let per_ping: Vec<(&str, f64)> = COUNTED
            .iter()
            .zip(after.iter().zip(&before))
            .map(|(name, (after, before))| (*name, (after - before) as f64 / window.pings as f64))
            .collect();
        let total: f64 = per_ping.iter().map(|(_, value)| value).sum();
        let detail = per_ping
            .iter()
            .filter(|(_, value)| *value >= 0.005)
            .map(|(name, value)| format!("{name} {value:.2}"))
            .collect::<Vec<_>>()
            .join(", ");
        progress!("system calls per ping: {total:.2} ({detail})");
        let dialing: u64 = established.iter().sum();
        self.report.goal(
            "system calls per ping",
            format!("{total:.2}"),
            format!("<= {GOAL}"),
            total <= GOAL,
        );
        self.report.note("  of them", detail);
        self.report.note(
            "system calls to establish, per target",
            format!("{:.1}", dialing as f64 / self.options.targets as f64),
        );
        Ok(())
    }
}
