//! The far side of the daemon: a raw pong server, or without a C compiler our own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::certificate::Certificate;
use crate::floor::Floor;
use crate::process::Guarded;
use crate::scratch;
use crate::stats::{ServerSlot, SharedWords};
use crate::{http, wait};

/// Loopback addresses that targets are spread over: connections of one address to one port share
/// 28,000 local ports (net.ipv4.ip_local_port_range), and TIME_WAIT keeps them for a minute.
const ADDRESSES: usize = 8;

pub(crate) enum Peer {
    Raw {
        child: Guarded,
        port: u16,
        stats: SharedWords,
    },
    /// `ws-keepalive server`, asked over its metrics. Its scrapes are a few lines and cost the daemon
    /// nothing.
    Own {
        child: Guarded,
        port: u16,
        metrics: u16,
        /// What a client must trust; without it ws:// is served.
        ca: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Default)]
pub(crate) struct PeerOptions {
    /// 0: any.
    pub(crate) port: u16,
    /// Against which the lateness of pings is recorded.
    pub(crate) interval: Option<Duration>,
    /// Upgrades are answered this much later.
    pub(crate) upgrade_delay: Option<Duration>,
}

impl Peer {
    pub(crate) fn start(
        floor: Option<&Floor>,
        binary: &Path,
        options: &PeerOptions,
    ) -> Result<Self> {
        match floor {
            Some(floor) => Self::start_raw(&floor.server, options),
            None => Self::start_own(binary, options.port, None),
        }
    }

    /// Our own server, by TLS with the files of `certificate` if there is one.
    pub(crate) fn own(binary: &Path, certificate: Option<&Certificate>) -> Result<Self> {
        Self::start_own(binary, 0, certificate)
    }

    fn start_raw(server: &PathBuf, options: &PeerOptions) -> Result<Self> {
        let stats = SharedWords::at(&scratch::shared()?.join("server"));
        let mut command = Command::new(server);
        command
            .args(["--port", &options.port.to_string()])
            .arg("--stats")
            .arg(stats.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some(interval) = options.interval {
            command.args(["--interval-us", &interval.as_micros().to_string()]);
        }
        if let Some(delay) = options.upgrade_delay {
            command.args(["--upgrade-delay-us", &delay.as_micros().to_string()]);
        }
        let mut child = Guarded::spawn(&mut command)?;
        let stdout = child.stdout().context("the server's output")?;
        let mut line = String::new();
        // Ends with the child at the latest.
        BufReader::new(stdout).read_line(&mut line)?;
        let port = line
            .trim()
            .strip_prefix("listening ")
            .and_then(|port| port.parse().ok())
            .with_context(|| format!("the raw server does not listen: {line:?}"))?;
        Ok(Self::Raw { child, port, stats })
    }

    fn start_own(binary: &Path, port: u16, certificate: Option<&Certificate>) -> Result<Self> {
        let port = match port {
            0 => http::free_port()?,
            port => port,
        };
        let metrics = http::free_port()?;
        let mut command = Command::new(binary);
        command
            .args(["server", "--listen", "127.0.0.1", "--metrics"])
            .args(["--port", &port.to_string()])
            .args(["--metrics-server", &format!("127.0.0.1:{metrics}")])
            .args(["--max-connections", "60000"])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(scratch::kept()?.join("server.log"))?);
        if let Some(Certificate { cert, key }) = certificate {
            command
                .arg("--tls-cert")
                .arg(cert)
                .arg("--tls-key")
                .arg(key);
        }
        let child = Guarded::spawn(&mut command)?;
        let mut peer = Self::Own {
            child,
            port,
            metrics,
            ca: certificate.map(|certificate| certificate.cert.clone()),
        };
        wait::until(Duration::from_secs(10), Duration::from_millis(20), || {
            if let Some(status) = peer.child().ended()? {
                bail!("our server ended at once: {status}");
            }
            Ok(http::get(metrics, "/healthz").is_ok().then_some(()))
        })
        .context("our server")?;
        Ok(peer)
    }

    fn child(&mut self) -> &mut Guarded {
        match self {
            Self::Raw { child, .. } | Self::Own { child, .. } => child,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Raw { port, .. } | Self::Own { port, .. } => *port,
        }
    }

    /// The file with the certificate of a server by TLS.
    pub(crate) fn ca(&self) -> Option<&Path> {
        match self {
            Self::Raw { .. } => None,
            Self::Own { ca, .. } => ca.as_deref(),
        }
    }

    pub(crate) fn addresses(&self) -> usize {
        match self {
            Self::Raw { .. } => ADDRESSES,
            Self::Own { .. } => 1,
        }
    }

    /// Connections that are upgraded and open.
    pub(crate) fn live(&self) -> Result<u64> {
        match self {
            Self::Raw { stats, .. } => stats.server(ServerSlot::Live),
            Self::Own { metrics, .. } => own_metric(*metrics, "ws_keepalive_server_connections{"),
        }
    }

    /// Pings received so far.
    pub(crate) fn pings(&self) -> Result<u64> {
        match self {
            Self::Raw { stats, .. } => stats.server(ServerSlot::Pings),
            Self::Own { metrics, .. } => own_metric(*metrics, "received_ping_total{"),
        }
    }

    /// What only the raw server counts.
    pub(crate) fn raw(&self) -> Option<&SharedWords> {
        match self {
            Self::Raw { stats, .. } => Some(stats),
            Self::Own { .. } => None,
        }
    }

    /// From listening to the last upgrade, by the server's clock.
    pub(crate) fn listening_to_last_upgrade(&self) -> Result<Option<Duration>> {
        let Some(stats) = self.raw() else {
            return Ok(None);
        };
        let from = stats.server(ServerSlot::ListeningAt)?;
        let to = stats.server(ServerSlot::LastUpgradeAt)?;
        Ok(Some(Duration::from_nanos(to.saturating_sub(from))))
    }

    /// SIGKILL: every connection ends with whatever the kernel sends.
    pub(crate) fn kill(mut self) -> Result<Instant> {
        self.child().kill()?;
        Ok(Instant::now())
    }
}

/// The sum of the server's series with this prefix.
fn own_metric(port: u16, prefix: &str) -> Result<u64> {
    let scrape = http::get(port, "/metrics")?;
    let values = scrape
        .body
        .lines()
        .filter(|line| line.starts_with(prefix))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum::<f64>() as u64)
}
