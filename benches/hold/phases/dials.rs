//! The bound on dials, with a server whose upgrades take their time: a fast server is never seen
//! with many at once, whatever the client does.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Bench, DIAL_BOUND, UP_DEADLINE};
use crate::daemon::Daemon;
use crate::peer::PeerOptions;
use crate::report::progress;
use crate::stats::ServerSlot;

const MOST_TARGETS: usize = 2_000;
const UPGRADE_DELAY: Duration = Duration::from_millis(20);

impl Bench<'_> {
    pub(super) fn dials(&mut self) -> Result<()> {
        let targets = self.options.targets.min(MOST_TARGETS);
        let peer = self.peer(&PeerOptions {
            upgrade_delay: Some(UPGRADE_DELAY),
            ..PeerOptions::default()
        })?;
        let Some(stats) = peer.raw() else {
            self.report.note("dials at once", "skipped: no cc");
            return Ok(());
        };
        let mut daemon = Daemon::start(
            &self.options,
            self.options.interval,
            targets,
            Some(&peer),
            None,
        )?;
        daemon.all_up(&peer, targets, UP_DEADLINE)?;
        let up = daemon.started.elapsed();
        let most = stats.server(ServerSlot::DialingMax)?;
        let upgraded = stats.server(ServerSlot::Upgraded)?;
        let refused = stats.server(ServerSlot::Refused)?;
        progress!(
            "{targets} targets, upgrades {} ms late: {most} dials at once, {upgraded} upgrades, \
             {refused} refused, all up in {:.2} s",
            UPGRADE_DELAY.as_millis(),
            up.as_secs_f64()
        );
        ensure!(most > 0, "the server saw no dial");
        self.report.goal(
            format!(
                "dials at once, upgrades {} ms late",
                UPGRADE_DELAY.as_millis()
            ),
            most.to_string(),
            format!("<= {DIAL_BOUND}"),
            most <= DIAL_BOUND,
        );
        Ok(())
    }
}
