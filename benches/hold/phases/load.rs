//! Floor and engine alternately at one ping per target and interval: CPU per ping-pong, their
//! ratio, time and CPU to establish all, private memory.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Bench, UP_DEADLINE, UP_GOAL, Window};
use crate::daemon::Daemon;
use crate::floor::FloorRun;
use crate::peer::PeerOptions;
use crate::report::{grouped, median, micros, progress};

/// Bytes that a plain established target may take.
const MEMORY_GOAL: f64 = 3_000.0;
const RATIO_GOAL: f64 = 1.4;
/// Closing takes `close_timeout` (10 s) at most.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);

struct Round {
    up: Duration,
    up_cpu: Duration,
    window: Window,
    /// Before anything was scraped.
    private: u64,
    private_after_scrape: u64,
    threads: usize,
    drain: Option<Duration>,
    established_series: usize,
}

/// Private bytes of a daemon without targets.
struct Idle {
    fresh: u64,
    scraped: u64,
}

impl Bench<'_> {
    pub(super) fn load(&mut self) -> Result<()> {
        let idle = self.idle()?;
        progress!(
            "idle daemon: {} B private, {} B after a scrape",
            grouped(idle.fresh),
            grouped(idle.scraped)
        );
        let mut floors = Vec::new();
        let mut rounds = Vec::new();
        for number in 1..=self.options.rounds {
            if let Some(run) = self.floor_round()? {
                progress!(
                    "round {number}: floor {:.2} us a ping ({:.2} user, {:.2} system), {:.2} syscalls, \
                     {:.2} wakeups, RTT p50 {:.0} us, p99 {:.0} us",
                    run.cpu_us_per_ping,
                    run.user_us_per_ping,
                    run.sys_us_per_ping,
                    run.syscalls_per_ping,
                    run.wakeups_per_ping,
                    run.rtt_us.p50,
                    run.rtt_us.p99
                );
                floors.push(run);
            }
            let round = self.engine_round()?;
            progress!(
                "round {number}: engine {:.2} us a ping at {:.0}/s, user share {:.0} %; up in {:.2} s \
                 with {:.2} s CPU; {} B private, {} threads; drained in {}",
                round.window.cpu_us_per_ping(),
                round.window.pings_per_second(),
                round.window.user_share() * 100.0,
                round.up.as_secs_f64(),
                round.up_cpu.as_secs_f64(),
                grouped(round.private),
                round.threads,
                drained(round.drain),
            );
            rounds.push(round);
        }
        self.report_load(&idle, &floors, &rounds);
        Ok(())
    }

    fn idle(&self) -> Result<Idle> {
        // Unused, but there as in every round: our own server would share its program text with the
        // daemon, and shared pages are not private ones.
        let _peer = self.peer(&PeerOptions::default())?;
        let mut daemon = Daemon::start(&self.options, self.options.interval, 0, None, None)?;
        // Half a second is long for a process without work; asking it whether it is ready would
        // make it serve a request, which is the other number.
        std::thread::sleep(Duration::from_millis(500));
        daemon.still_runs()?;
        let fresh = daemon.process.private_bytes()?;
        daemon.ready()?;
        daemon.scrape()?;
        let scraped = daemon.process.private_bytes()?;
        Ok(Idle { fresh, scraped })
    }

    fn floor_round(&self) -> Result<Option<FloorRun>> {
        let Some(floor) = &self.floor else {
            return Ok(None);
        };
        let peer = self.peer(&PeerOptions::default())?;
        floor
            .run(
                self.options.targets,
                self.options.interval,
                self.options.window,
                peer.port(),
                peer.addresses(),
            )
            .map(Some)
    }

    fn engine_round(&self) -> Result<Round> {
        let targets = self.options.targets;
        let peer = self.peer(&PeerOptions::default())?;
        let mut daemon = self.daemon(self.options.interval, &peer)?;
        daemon.all_up(&peer, targets, UP_DEADLINE)?;
        let up = daemon.started.elapsed();
        let up_cpu = daemon.process.cpu()?;

        self.settle(self.options.interval);
        let window = self.measure(&mut daemon, &peer, self.options.window)?;
        let private = daemon.process.private_bytes()?;
        let threads = daemon.process.threads()?;

        let scrape = daemon.scrape()?;
        let established_series = scrape
            .body
            .lines()
            .filter(|line| line.starts_with("established{") && line.ends_with(" 1"))
            .count();
        anyhow::ensure!(
            established_series == targets,
            "{established_series} of {targets} targets are established in /metrics"
        );
        let private_after_scrape = daemon.process.private_bytes()?;

        let begin = std::time::Instant::now();
        let status = daemon
            .process
            .terminate(DRAIN_DEADLINE)
            .context("stopping the daemon")?;
        let drain = status.is_some_and(|s| s.success()).then(|| begin.elapsed());
        Ok(Round {
            up,
            up_cpu,
            window,
            private,
            private_after_scrape,
            threads,
            drain,
            established_series,
        })
    }

    fn report_load(&mut self, idle: &Idle, floors: &[FloorRun], rounds: &[Round]) {
        let targets = self.options.targets as f64;
        let of = |value: fn(&Round) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
        let report = &mut self.report;
        report.note("targets", grouped(self.options.targets as u64));

        let engine = of(|r| r.window.cpu_us_per_ping());
        report.note(
            "pings per second",
            format!("{:.0}", of(|r| r.window.pings_per_second())),
        );
        report.note("CPU per ping-pong, engine", format!("{engine:.2} us"));
        if floors.is_empty() {
            report.note("CPU per ping-pong, floor", "skipped: no cc");
        } else {
            let of_floor =
                |value: fn(&FloorRun) -> f64| median(&floors.iter().map(value).collect::<Vec<_>>());
            let floor = of_floor(|f| f.cpu_us_per_ping);
            let ratio = engine / floor;
            report.note(
                "CPU per ping-pong, floor (1,000 us quantum)",
                format!("{floor:.2} us"),
            );
            report.goal(
                "ratio",
                format!("{ratio:.2}"),
                format!("<= {RATIO_GOAL}"),
                ratio <= RATIO_GOAL,
            );
            if rounds.len() > 1 {
                let by_round: Vec<String> = rounds
                    .iter()
                    .zip(floors)
                    .map(|(r, f)| format!("{:.2}", r.window.cpu_us_per_ping() / f.cpu_us_per_ping))
                    .collect();
                report.note("  by round", by_round.join(", "));
            }
            let connected: u64 = floors[0].connections;
            report.note(
                format!("floor: connecting {} one by one", grouped(connected)),
                format!(
                    "{:.2} s, {:.1} us CPU each",
                    of_floor(|f| f.connect_wall_ms) / 1e3,
                    of_floor(|f| f.connect_cpu_us)
                ),
            );
            report.note(
                "floor: private bytes per connection",
                format!("{:.0} B", of_floor(|f| f.private_bytes_per_connection)),
            );
        }

        let up = rounds.iter().map(|r| r.up).max().unwrap_or_default();
        report.goal(
            "all up after start (slowest round)",
            format!("{:.2} s", up.as_secs_f64()),
            format!("< {} s", UP_GOAL.as_secs()),
            up < UP_GOAL,
        );
        report.note(
            "CPU to establish, per target",
            format!("{:.1} us", of(|r| micros(r.up_cpu)) / targets),
        );
        let private = (of(|r| r.private as f64) - idle.fresh as f64) / targets;
        report.goal(
            "private memory per target, before any scrape",
            format!("{private:.0} B"),
            format!("<= {MEMORY_GOAL:.0} B"),
            private <= MEMORY_GOAL,
        );
        let scraped = (of(|r| r.private_after_scrape as f64) - idle.scraped as f64) / targets;
        report.note(
            "private memory per target, after a scrape",
            format!("{scraped:.0} B"),
        );
        report.note(
            "idle daemon, private",
            format!("{:.1} MiB", idle.fresh as f64 / 1_048_576.0),
        );
        let drain = rounds.iter().map(|r| r.drain).max().unwrap_or_default();
        let all_drained = rounds.iter().all(|r| r.drain.is_some());
        report.note(
            "SIGTERM to exit 0 (slowest round)",
            drained(drain.filter(|_| all_drained)),
        );
        let series = rounds.iter().map(|r| r.established_series).min();
        report.note(
            "established series in /metrics",
            grouped(series.unwrap_or_default() as u64),
        );
    }
}

fn drained(time: Option<Duration>) -> String {
    time.map_or_else(
        || "not, or not cleanly".into(),
        |t| format!("{:.2} s", t.as_secs_f64()),
    )
}
