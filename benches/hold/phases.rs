//! The phases of the benchmark. Each starts its own server and daemon, and leaves nothing running.

mod dials;
mod load;
mod restart;
mod spread;
mod syscalls;
mod wss;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::daemon::{Counting, Daemon};
use crate::floor::Floor;
use crate::options::Options;
use crate::peer::{Peer, PeerOptions};
use crate::report::Report;

/// The promised bound on dials at once.
const DIAL_BOUND: u64 = 64;
/// Within which all targets must be up. The goal is 10 s; longer than this is not slow but broken.
const UP_DEADLINE: Duration = Duration::from_secs(90);
const UP_GOAL: Duration = Duration::from_secs(10);

pub(crate) struct Bench<'a> {
    pub(crate) options: Options,
    pub(crate) floor: Option<Floor>,
    pub(crate) report: &'a mut Report,
}

/// CPU and pings of one stretch of time.
struct Window {
    wall: Duration,
    cpu: Duration,
    user: Duration,
    system: Duration,
    pings: u64,
}

impl Window {
    fn cpu_us_per_ping(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.pings.max(1) as f64
    }

    /// The share of user time, by the kernel's ticks.
    fn user_share(&self) -> f64 {
        let both = self.user + self.system;
        if both.is_zero() {
            return 0.0;
        }
        self.user.as_secs_f64() / both.as_secs_f64()
    }

    fn pings_per_second(&self) -> f64 {
        self.pings as f64 / self.wall.as_secs_f64()
    }
}

impl Bench<'_> {
    pub(crate) fn run(&mut self) -> Result<()> {
        if self.options.wants("load") {
            self.load()?;
        }
        if self.options.wants("syscalls") {
            self.syscalls()?;
        }
        if self.options.wants("spread") {
            self.spread()?;
        }
        if self.options.wants("restart") {
            self.restart()?;
        }
        if self.options.wants("dials") {
            self.dials()?;
        }
        if self.options.wants("wss") {
            self.wss()?;
        }
        Ok(())
    }

    fn peer(&self, options: &PeerOptions) -> Result<Peer> {
        Peer::start(self.floor.as_ref(), &self.options.binary, options)
    }

    fn daemon(&self, interval: Duration, peer: &Peer) -> Result<Daemon> {
        Daemon::start(
            &self.options,
            interval,
            self.options.targets,
            Some(peer),
            None,
        )
    }

    fn counted_daemon(
        &self,
        interval: Duration,
        peer: &Peer,
        counting: &Counting<'_>,
    ) -> Result<Daemon> {
        Daemon::start(
            &self.options,
            interval,
            self.options.targets,
            Some(peer),
            Some(counting),
        )
    }

    /// Until every target has sent its first ping, which comes anywhere within one interval.
    fn settle(&self, interval: Duration) {
        std::thread::sleep(interval + Duration::from_secs(1));
    }

    fn measure(&self, daemon: &mut Daemon, peer: &Peer, length: Duration) -> Result<Window> {
        let pings = peer.pings()?;
        let cpu = daemon.process.cpu()?;
        let (user, system) = daemon.process.user_and_system()?;
        let start = Instant::now();
        std::thread::sleep(length);
        let cpu = daemon.process.cpu()? - cpu;
        let wall = start.elapsed();
        let (user_after, system_after) = daemon.process.user_and_system()?;
        let pings = peer.pings()? - pings;
        daemon.still_runs()?;
        ensure!(pings > 0, "the daemon sent no ping in {wall:?}");
        let live = peer.live()?;
        ensure!(
            live == self.options.targets as u64,
            "{live} of {} connections at the end of the window",
            self.options.targets
        );
        Ok(Window {
            wall,
            cpu,
            user: user_after.saturating_sub(user),
            system: system_after.saturating_sub(system),
            pings,
        })
    }
}
