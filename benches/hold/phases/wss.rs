//! What TLS adds to a held connection's memory: the same number of targets by ws:// and by wss://,
//! one after the other, against our own server.

use std::time::Duration;

use anyhow::Result;

use super::{Bench, UP_DEADLINE};
use crate::certificate::Certificate;
use crate::daemon::Daemon;
use crate::peer::Peer;
use crate::report::{grouped, micros, progress};

/// Enough to make one-time costs vanish; the server holds as many descriptors as the daemon.
const MOST_TARGETS: usize = 4_000;
/// Bytes that an established wss target may take, without a session cache.
const MEMORY_GOAL: f64 = 10_500.0;

/// Without the process's own.
struct PerTarget {
    private: f64,
    cpu: Duration,
}

impl Bench<'_> {
    pub(super) fn wss(&mut self) -> Result<()> {
        let targets = self.options.targets.min(MOST_TARGETS);
        let certificate = Certificate::make()?;
        let plain = self.held(targets, None)?;
        let tls = self.held(targets, Some(&certificate))?;
        for (scheme, held) in [("ws", &plain), ("wss", &tls)] {
            progress!(
                "{} {scheme}:// targets: {:.0} B private each, {:.0} us CPU each to establish",
                grouped(targets as u64),
                held.private,
                micros(held.cpu)
            );
        }
        let targets = grouped(targets as u64);
        self.report.goal(
            format!("private memory per wss target ({targets}), before any scrape"),
            format!("{:.0} B", tls.private),
            format!("<= {MEMORY_GOAL:.0} B"),
            tls.private <= MEMORY_GOAL,
        );
        self.report.note(
            format!("the same by ws ({targets})"),
            format!("{:.0} B", plain.private),
        );
        self.report.note(
            "CPU to establish, per wss target, per ws target",
            format!("{:.0} us, {:.0} us", micros(tls.cpu), micros(plain.cpu)),
        );
        Ok(())
    }

    fn held(&self, targets: usize, certificate: Option<&Certificate>) -> Result<PerTarget> {
        let interval = self.options.interval;
        // The same server beside both daemons: it shares its program text with them, which is
        // private to a process only while no second one runs.
        let peer = Peer::own(&self.options.binary, certificate)?;
        let mut idle = Daemon::start(&self.options, interval, 0, None, None)?;
        std::thread::sleep(Duration::from_millis(500));
        idle.still_runs()?;
        let own = idle.process.private_bytes()?;
        drop(idle);

        let mut daemon = Daemon::start(&self.options, interval, targets, Some(&peer), None)?;
        daemon.all_up(&peer, targets, UP_DEADLINE)?;
        let cpu = daemon.process.cpu()?;
        self.settle(interval);
        daemon.still_runs()?;
        let private = daemon.process.private_bytes()?;
        Ok(PerTarget {
            private: (private as f64 - own as f64) / targets as f64,
            cpu: cpu / u32::try_from(targets)?,
        })
    }
}
