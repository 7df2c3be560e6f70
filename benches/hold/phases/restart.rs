//! The server is killed, stays away, and comes back on its port.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Bench, DIAL_BOUND, UP_DEADLINE, UP_GOAL};
use crate::peer::PeerOptions;
use crate::report::progress;
use crate::stats::ServerSlot;

const CPU_GOAL: f64 = 0.10;
const STEP: Duration = Duration::from_millis(100);

impl Bench<'_> {
    pub(super) fn restart(&mut self) -> Result<()> {
        let targets = self.options.targets;
        let peer = self.peer(&PeerOptions::default())?;
        let port = peer.port();
        let mut daemon = self.daemon(self.options.interval, &peer)?;
        daemon.all_up(&peer, targets, UP_DEADLINE)?;
        self.settle(self.options.interval);
        let bound_at_start = dialing_max(&peer)?;

        let outage = self.options.outage;
        let cpu_before = daemon.process.cpu()?;
        let killed = peer.kill()?;
        let mut curve = vec![(Duration::ZERO, cpu_before)];
        while killed.elapsed() < outage {
            std::thread::sleep(STEP.min(outage.saturating_sub(killed.elapsed())));
            curve.push((killed.elapsed(), daemon.process.cpu()?));
        }
        daemon.still_runs()?;

        let peer = self
            .peer(&PeerOptions {
                port,
                ..PeerOptions::default()
            })
            .context("the server could not come back on its port")?;
        let back = Instant::now();
        let cpu_back = daemon.process.cpu()?;
        daemon.all_up(&peer, targets, UP_DEADLINE)?;
        let up = peer
            .listening_to_last_upgrade()?
            .unwrap_or_else(|| back.elapsed());
        let up_cpu = daemon.process.cpu()? - cpu_back;
        // And they stay: a peer that came back is pinged as before.
        self.settle(self.options.interval);
        self.measure(&mut daemon, &peer, self.options.interval.max(STEP))?;
        let bound_at_return = dialing_max(&peer)?;

        let steps: Vec<String> = curve
            .windows(2)
            .map(|pair| {
                let share =
                    (pair[1].1 - pair[0].1).as_secs_f64() / (pair[1].0 - pair[0].0).as_secs_f64();
                format!("{:.0}", share * 100.0)
            })
            .collect();
        progress!("% of a core while down, each 100 ms: {}", steps.join(" "));
        progress!(
            "all back {:.2} s after the restart, with {:.2} s CPU",
            up.as_secs_f64(),
            up_cpu.as_secs_f64()
        );
        let whole = share(&curve, Duration::ZERO);
        // The first second holds the losses themselves: reading the end, the record, the log line.
        let booked = outage.min(Duration::from_secs(1));
        let report = &mut self.report;
        report.goal(
            format!("CPU while the server is down, all {} s", outage.as_secs()),
            format!("{:.1} % of a core", whole * 100.0),
            "< 10 %",
            whole < CPU_GOAL,
        );
        if booked < outage {
            let rest = share(&curve, booked);
            report.note(
                "  of it after the first second",
                format!("{:.1} % of a core", rest * 100.0),
            );
        }
        report.goal(
            "all up after the restart",
            format!("{:.2} s", up.as_secs_f64()),
            format!("< {} s", UP_GOAL.as_secs()),
            up < UP_GOAL,
        );
        report.note(
            "CPU to establish again, per target",
            format!("{:.1} us", up_cpu.as_secs_f64() * 1e6 / targets as f64),
        );
        if let (Some(start), Some(return_)) = (bound_at_start, bound_at_return) {
            report.goal(
                "dials at once seen by the server: start, restart",
                format!("{start}, {return_}"),
                format!("<= {DIAL_BOUND}"),
                start.max(return_) <= DIAL_BOUND,
            );
        }
        Ok(())
    }
}

fn dialing_max(peer: &crate::peer::Peer) -> Result<Option<u64>> {
    peer.raw()
        .map(|stats| stats.server(ServerSlot::DialingMax))
        .transpose()
}

/// The share of a core from the first sample at or after `from` to the last.
fn share(curve: &[(Duration, Duration)], from: Duration) -> f64 {
    let begin = curve.iter().find(|(at, _)| *at >= from);
    match (begin, curve.last()) {
        (Some(begin), Some(end)) if end.0 > begin.0 => {
            (end.1.saturating_sub(begin.1)).as_secs_f64() / (end.0 - begin.0).as_secs_f64()
        }
        _ => 0.0,
    }
}
