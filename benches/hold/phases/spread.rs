//! Few pings per second, spread over a long interval: how late are they, and does a scrape make
//! them later?

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Bench, UP_DEADLINE};
use crate::peer::PeerOptions;
use crate::report::{grouped, median, millis, progress};
use crate::stats::{Lateness, ServerSlot};

const LATENESS_GOAL: Duration = Duration::from_millis(5);
const SCRAPES: usize = 5;
const QUICK_SCRAPES: usize = 2;
/// Pings that a scrape held up arrive within this after it.
const AFTER_SCRAPE: Duration = Duration::from_millis(20);

impl Bench<'_> {
    pub(super) fn spread(&mut self) -> Result<()> {
        let interval = self.options.spread_interval;
        let targets = self.options.targets;
        self.floor_lateness(interval)?;

        let peer = self.peer(&PeerOptions {
            interval: Some(interval),
            ..PeerOptions::default()
        })?;
        let mut daemon = self.daemon(interval, &peer)?;
        daemon.all_up(&peer, targets, UP_DEADLINE)?;
        self.settle(interval);

        let before = peer.raw().map(|stats| stats.lateness()).transpose()?;
        let window = self.measure(&mut daemon, &peer, self.options.window.max(interval))?;
        let rate = window.pings_per_second();
        let cpu = window.cpu.as_secs_f64() / window.wall.as_secs_f64();
        progress!(
            "spread: {rate:.0} pings/s, {:.2} us CPU a ping, {:.1} % of a core",
            window.cpu_us_per_ping(),
            cpu * 100.0
        );
        self.report.note(
            format!("CPU at {rate:.0} pings/s"),
            format!("{:.2} us a ping", window.cpu_us_per_ping()),
        );
        match (&before, peer.raw()) {
            (Some(before), Some(stats)) => {
                let lateness = stats.lateness()?.since(before);
                ensure!(lateness.samples() > 0, "no ping followed another");
                let p99 = lateness.percentile(0.99).unwrap_or_default();
                self.report.note(
                    format!("ping lateness at {rate:.0}/s, p50"),
                    shown(&lateness, 0.5),
                );
                self.report.goal(
                    format!("ping lateness at {rate:.0}/s, p99"),
                    shown(&lateness, 0.99),
                    format!("<= {} ms", LATENESS_GOAL.as_millis()),
                    p99 <= LATENESS_GOAL,
                );
                let unstamped = stats.server(ServerSlot::Unstamped)?;
                if unstamped > 0 {
                    progress!("{unstamped} pings came without the kernel's stamp");
                }
            }
            _ => self.report.note("ping lateness", "skipped: no cc"),
        }

        let scrapes = if self.options.quick {
            QUICK_SCRAPES
        } else {
            SCRAPES
        };
        let mut walls = Vec::new();
        let mut cpus = Vec::new();
        let mut size = 0;
        let mut during: Option<Lateness> = None;
        for _ in 0..scrapes {
            // Apart, so that each meets a daemon at rest and pings of another second.
            std::thread::sleep(Duration::from_secs(1));
            let before = peer.raw().map(|stats| stats.lateness()).transpose()?;
            let cpu_before = daemon.process.cpu()?;
            let start = Instant::now();
            let scrape = daemon.scrape()?;
            let pings_share = start.elapsed().as_secs_f64() * cpu;
            let used = (daemon.process.cpu()? - cpu_before).as_secs_f64() - pings_share;
            walls.push(millis(scrape.wall));
            cpus.push(used * 1e3);
            size = scrape.body.len();
            std::thread::sleep(AFTER_SCRAPE);
            if let (Some(before), Some(stats)) = (before, peer.raw()) {
                let these = stats.lateness()?.since(&before);
                during = Some(match during {
                    Some(earlier) => earlier.plus(&these),
                    None => these,
                });
            }
        }
        daemon.still_runs()?;
        self.report.note(
            format!("one scrape, median of {scrapes}: wall, CPU, size"),
            format!(
                "{:.0} ms, {:.0} ms, {:.1} MiB",
                median(&walls),
                median(&cpus),
                size as f64 / 1_048_576.0
            ),
        );
        if let Some(during) = during {
            self.report.note(
                format!(
                    "ping lateness during scrapes ({} pings), p50, p99",
                    grouped(during.samples())
                ),
                format!("{}, {}", shown(&during, 0.5), shown(&during, 0.99)),
            );
        }
        Ok(())
    }

    /// By the client's own clock: from the planned time to the send.
    fn floor_lateness(&mut self, interval: Duration) -> Result<()> {
        let Some(floor) = &self.floor else {
            return Ok(());
        };
        let peer = self.peer(&PeerOptions::default())?;
        let run = floor.run(
            self.options.targets,
            interval,
            self.options.window.min(Duration::from_secs(5)),
            peer.port(),
            peer.addresses(),
        )?;
        progress!(
            "floor, spread: {:.2} us CPU a ping, lateness p50 {:.2} ms, p99 {:.2} ms",
            run.cpu_us_per_ping,
            run.lateness_us.p50 / 1e3,
            run.lateness_us.p99 / 1e3
        );
        self.report.note(
            "floor there: CPU a ping, lateness p50, p99",
            format!(
                "{:.2} us, {:.2} ms, {:.2} ms",
                run.cpu_us_per_ping,
                run.lateness_us.p50 / 1e3,
                run.lateness_us.p99 / 1e3
            ),
        );
        Ok(())
    }
}

fn shown(lateness: &Lateness, fraction: f64) -> String {
    lateness.percentile(fraction).map_or_else(
        || "no pings".into(),
        |value| format!("{:.2} ms", millis(value)),
    )
}
