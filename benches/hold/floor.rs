//! The C programs of benches/floor: built when the benchmark runs, and the client's report.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::process::Guarded;
use crate::report::progress;
use crate::scratch;

/// tokio's timers go by the millisecond; a floor with finer ones would be another program's.
pub(crate) const QUANTUM: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct Floor {
    pub(crate) server: PathBuf,
    client: PathBuf,
    /// For LD_PRELOAD.
    pub(crate) counter: PathBuf,
}

/// What client.c prints.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct FloorRun {
    pub(crate) connections: u64,
    pub(crate) pings: u64,
    pub(crate) pongs: u64,
    pub(crate) cpu_us_per_ping: f64,
    pub(crate) user_us_per_ping: f64,
    pub(crate) sys_us_per_ping: f64,
    pub(crate) syscalls_per_ping: f64,
    pub(crate) wakeups_per_ping: f64,
    pub(crate) private_bytes_per_connection: f64,
    pub(crate) connect_wall_ms: f64,
    pub(crate) connect_cpu_us: f64,
    pub(crate) rtt_us: Spread,
    pub(crate) lateness_us: Spread,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Spread {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Floor {
    /// `None`, and the reason said, on a machine without a C compiler (`$CC`, or `cc`).
    pub(crate) fn build() -> Result<Option<Self>> {
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let works = Command::new(&compiler)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !works.is_ok_and(|status| status.success()) {
            progress!("no C compiler ({compiler}): no floor, no ratio; the peer is our own server");
            return Ok(None);
        }
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/floor");
        let target = scratch::kept()?;
        let compile = |source: &str, output: &str, extra: &[&str]| -> Result<PathBuf> {
            let built = target.join(output);
            let status = Command::new(&compiler)
                .args(["-O2", "-std=gnu11", "-Wall", "-Wextra", "-o"])
                .arg(&built)
                .arg(sources.join(source))
                .args(extra)
                .status()
                .with_context(|| compiler.clone())?;
            ensure!(status.success(), "{compiler} could not build {source}");
            Ok(built)
        };
        Ok(Some(Self {
            server: compile("server.c", "server", &[])?,
            client: compile("client.c", "client", &[])?,
            counter: compile("count.c", "count.so", &["-shared", "-fPIC", "-ldl"])?,
        }))
    }

    /// Runs the client against a server that listens on `port` of `addresses` loopback addresses.
    pub(crate) fn run(
        &self,
        connections: usize,
        interval: Duration,
        window: Duration,
        port: u16,
        addresses: usize,
    ) -> Result<FloorRun> {
        let output = scratch::kept()?.join("floor.json");
        let mut command = Command::new(&self.client);
        command
            .arg(connections.to_string())
            .arg(interval.as_millis().to_string())
            .arg(window.as_secs().max(1).to_string())
            .arg(port.to_string())
            .arg(addresses.to_string())
            .arg(QUANTUM.as_micros().to_string())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&output)?);
        let mut client = Guarded::spawn(&mut command)?;
        let until = Instant::now() + window + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = client.ended()? {
                break status;
            }
            if Instant::now() >= until {
                bail!("the floor's client did not end");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        ensure!(status.success(), "the floor's client failed: {status}");
        let run: FloorRun = serde_json::from_slice(&std::fs::read(&output)?)?;
        ensure!(
            run.pongs > 0,
            "the floor's client got no pong for {} pings",
            run.pings
        );
        Ok(run)
    }
}
