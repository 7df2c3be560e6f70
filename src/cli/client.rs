//! `ws-keepalive client`: one connection, held until it is lost.

mod heartbeat;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tracing::warn;

use super::connection::{ConnectionArgs, host_of, load_one};
use super::values::{parse_listen, parse_secret};
use super::{FAILED, USAGE, complain_of};
use crate::app;
use crate::client::gate::DialGate;
use crate::client::hold::{Desired, FirstPing, hold};
use crate::config::duration::format_duration;
use crate::config::flags::FlagTarget;
use crate::config::{DialLimits, Listen, LogFormat, LogLevel, Secret, Target, judge};
use crate::os;
use crate::proto::close::Asked;
use crate::server::admin;
use crate::signal::Signals;
use crate::stats::{Registry, TargetStats};
use crate::telemetry::logs;
use heartbeat::HeartbeatArgs;
use summary::{Summary, Teller};

/// How long the metrics listener may take to finish what it is answering.
const METRICS_DRAIN: Duration = Duration::from_secs(1);

/// The flags of `client`.
#[derive(Debug, Args)]
#[command(
    about = "Hold one connection until it is lost",
    long_about = "Holds one WebSocket connection and pings it, or keeps it alive as --heartbeat says; or \
                  holds an event stream, if the URL is http:// or https://. Prints `established`, and on the way \
                  out one line: how long it held, pings, pongs, retries, round trips, heartbeats of \
                  the peer's, and who ended it how. Exits 0 if the peer closed with 1000 or you asked it to stop, 1 if the \
                  connection was lost or never made, 2 if the flags are wrong.",
    after_help = "Examples:\n  \
        ws-keepalive client                                  ws://localhost:9000/ws, a ping every 10 s\n  \
        ws-keepalive client -H edge.example.com -p 80 -i 5s  another peer, a ping every 5 s\n  \
        ws-keepalive client --url ws://[::1]:9000/echo --reconnect -m=false\n  \
        ws-keepalive client --url https://example.com/events --max-silence 1m\n  \
        ws-keepalive client --url ws://localhost/cable --heartbeat '{ kind = \"actioncable\", channels = [\"ChatChannel\"] }'",
    disable_help_flag = true
)]
pub(crate) struct ClientArgs {
    /// Host to connect to; IPv6 literals work
    #[arg(short = 'H', long, default_value = "localhost", conflicts_with = "url")]
    host: String,
    /// Port to connect to
    #[arg(short, long, default_value_t = 9000, conflicts_with = "url",
          value_parser = clap::value_parser!(u16).range(1..), allow_negative_numbers = true)]
    port: u16,
    /// Time between pings [default: 10s; of another heartbeat its own]
    #[arg(short = 'i', long, value_name = "DURATION", value_parser = judge::interval)]
    ping_interval: Option<Duration>,
    /// How often an unanswered ping is sent again before the connection is given up [default: 3; of
    /// another heartbeat 0]
    #[arg(short = 'r', long, value_name = "N", value_parser = judge::retries,
          allow_negative_numbers = true)]
    max_retry_limit: Option<u32>,
    /// Serve /metrics
    #[arg(short, long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    metrics: bool,
    /// Address of /metrics: HOST:PORT or unix:/path
    #[arg(short = 'a', long, value_name = "ADDRESS", default_value = "0.0.0.0:8080", value_parser = parse_listen)]
    metrics_server: Listen,
    /// URL to connect to, instead of host, port and path
    #[arg(long, conflicts_with = "path", value_parser = parse_secret)]
    url: Option<Secret<String>>,
    /// Path of the request
    #[arg(long, default_value = "/ws")]
    path: String,
    /// The `target` label; default the host
    #[arg(long)]
    name: Option<String>,
    /// Dial again when the connection is lost, until asked to stop
    #[arg(long, value_name = "BOOL", default_value_t = false, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    reconnect: bool,
    /// How long a pong is waited for; default twice the ping interval
    #[arg(long, value_name = "DURATION", value_parser = judge::wait)]
    pong_timeout: Option<Duration>,
    /// Send no pings: hold the connection and watch
    #[arg(long)]
    no_ping: bool,
    /// Label of the connection's metrics. Repeatable
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// With --reconnect: the wait after the first failure
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = judge::wait)]
    reconnect_initial: Duration,
    /// With --reconnect: the longest wait
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = judge::wait)]
    reconnect_max: Duration,
    /// With --reconnect: growth of the wait from one failure to the next
    #[arg(long, value_name = "FACTOR", default_value = "2", value_parser = judge::factor,
          allow_negative_numbers = true)]
    reconnect_factor: f64,
    /// With --reconnect: the share of the wait that is random, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0.5", value_parser = judge::share,
          allow_negative_numbers = true)]
    reconnect_jitter: f64,
    /// With --reconnect: a connection that stood this long was no failure
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = judge::wait)]
    reconnect_reset_after: Duration,
    /// Bounds of the round-trip histogram, ascending: 1ms,5ms,25ms [default: 0.5 ms to 10 s]
    #[arg(long, value_name = "DURATION,..", value_delimiter = ',', value_parser = judge::wait)]
    rtt_buckets: Option<Vec<Duration>>,
    /// The shortest idle timer on the way, if known: pings that come too late for it are warned about
    #[arg(long, value_name = "DURATION", value_parser = judge::wait)]
    path_idle_timeout: Option<Duration>,
    /// Print help
    #[arg(short = 'h', long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    heartbeat: HeartbeatArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

impl ClientArgs {
    /// The one target these flags describe, and what is hardly meant about it. An error names the
    /// flag, never a secret.
    fn target(&self) -> Result<(Arc<Target>, Vec<String>), String> {
        let mut target = FlagTarget::default();
        let (flag, url) = self.url()?;
        let name = self.name.clone();
        let name = name.unwrap_or_else(|| host_of(&url, "client"));
        target.set("--name", &["name"], name);
        let mut warnings = self.connection.add_to(&mut target, &url)?;
        target.set(flag, &["url"], url);
        self.add_labels(&mut target)?;
        self.heartbeat.add_to(&mut target)?;
        self.add_policy(&mut target);
        let (target, more) = load_one(target)?;
        warnings.extend(more);
        Ok((target, warnings))
    }

    /// The URL, and the flag to blame for what is wrong with it.
    fn url(&self) -> Result<(&'static str, String), String> {
        if let Some(url) = &self.url {
            return Ok(("--url", url.expose().clone()));
        }
        if self.host.is_empty() {
            return Err("--host: must not be empty".into());
        }
        let host = bracketed(&self.host);
        if url::Host::parse(&host).is_err() {
            return Err(
                "--host: expected a name or an address alone, such as localhost or ::1; a port \
                 goes to --port, a whole URL to --url"
                    .into(),
            );
        }
        if !self.path.starts_with('/') {
            return Err("--path: must begin with /".into());
        }
        Ok(("--path", format!("ws://{host}:{}{}", self.port, self.path)))
    }

    fn add_labels(&self, target: &mut FlagTarget) -> Result<(), String> {
        for label in &self.labels {
            let pair = label.split_once('=');
            let (name, value) = pair.ok_or("--label: write it as NAME=VALUE")?;
            target.set("--label", &["labels", name.trim()], value.trim());
        }
        Ok(())
    }

    /// How the connection is kept.
    fn add_policy(&self, target: &mut FlagTarget) {
        if self.no_ping {
            target.set("--no-ping", &["heartbeat", "kind"], "none");
        }
        let durations: [(&'static str, &[&str], Duration); 3] = [
            (
                "--reconnect-initial",
                &["reconnect", "initial"],
                self.reconnect_initial,
            ),
            ("--reconnect-max", &["reconnect", "max"], self.reconnect_max),
            (
                "--reconnect-reset-after",
                &["reconnect", "reset_after"],
                self.reconnect_reset_after,
            ),
        ];
        for (flag, path, duration) in durations {
            target.set_duration(flag, path, duration);
        }
        // Unsaid they are those of the heartbeat.
        if let Some(interval) = self.ping_interval {
            target.set_duration("--ping-interval", &["ping_interval"], interval);
        }
        if let Some(retries) = self.max_retry_limit {
            target.set("--max-retry-limit", &["max_retry_limit"], retries);
        }
        if let Some(timeout) = self.pong_timeout {
            target.set_duration("--pong-timeout", &["pong_timeout"], timeout);
        }
        if let Some(timeout) = self.path_idle_timeout {
            target.set_duration("--path-idle-timeout", &["path_idle_timeout"], timeout);
        }
        let (factor, jitter) = (self.reconnect_factor, self.reconnect_jitter);
        target.set("--reconnect-factor", &["reconnect", "factor"], factor);
        target.set("--reconnect-jitter", &["reconnect", "jitter"], jitter);
        if let Some(bounds) = &self.rtt_buckets {
            let bounds = bounds.iter().map(|bound| format_duration(*bound));
            let bounds: Vec<String> = bounds.collect();
            target.set("--rtt-buckets", &["rtt_buckets"], bounds);
        }
    }
}

/// An IPv6 literal goes into a URL in brackets.
fn bracketed(host: &str) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

/// Runs the command: its exit status.
pub(crate) fn run(args: &ClientArgs, level: LogLevel, format: LogFormat) -> u8 {
    let (target, warnings) = match args.target() {
        Ok(target) => target,
        Err(wrong) => {
            complain_of("client", &wrong);
            return USAGE;
        }
    };
    let logs = logs::init(level, format);
    app::say_version();
    for warning in warnings {
        warn!(event = "config_warning", "{warning}");
    }
    let outcome = hold_one(args, target, logs::is_text(format));
    // Writes what is queued: what comes now is the last line.
    drop(logs);
    match outcome {
        Ok(Outcome::Over(summary, stats)) => {
            summary.print(&stats);
            summary.exit_status()
        }
        Ok(Outcome::Forced(status)) => status,
        Err(error) => {
            complain_of("client", &os::words(&format!("{error:#}")));
            FAILED
        }
    }
}

/// How it went.
enum Outcome {
    Over(Box<Summary>, Arc<TargetStats>),
    /// A second signal cut the closing short: the exit status.
    Forced(u8),
}

fn hold_one(args: &ClientArgs, target: Arc<Target>, text_log: bool) -> anyhow::Result<Outcome> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().context("cannot start")?;
    let registry = Registry::new();
    registry.reloaded(true);
    let entry = registry.target(target.identity.clone(), &target.policy.rtt_buckets);
    let readiness = admin::Readiness::new();
    let metrics = match args.metrics {
        true => Some(serve_metrics(&args.metrics_server, &registry, &readiness)?),
        false => None,
    };
    readiness.set_ready(true);
    let held = hold_until_lost(args, target, entry.stats().clone(), text_log);
    let outcome = runtime.block_on(held);
    readiness.set_ready(false);
    // A lookup that hangs in the resolver must not hold the exit.
    runtime.shutdown_background();
    if let Some(metrics) = metrics {
        metrics.shutdown(METRICS_DRAIN);
    }
    outcome
}

fn serve_metrics(
    listen: &Listen,
    registry: &Arc<Registry>,
    readiness: &Arc<admin::Readiness>,
) -> anyhow::Result<admin::Admin> {
    let bound = admin::bind(listen, "--metrics-server; -m=false turns it off")?;
    let started = admin::start(vec![bound], registry.clone(), readiness.clone(), None)?;
    app::say_metrics(&started);
    Ok(started)
}

async fn hold_until_lost(
    args: &ClientArgs,
    target: Arc<Target>,
    stats: Arc<TargetStats>,
    text_log: bool,
) -> anyhow::Result<Outcome> {
    let mut signals = Signals::to_stop().context("cannot listen to signals")?;
    let limits = DialLimits {
        concurrency: 1,
        per_second: 1_000,
    };
    let desired = Desired::new(target);
    let mut summary = Box::<Summary>::default();
    let teller = Teller {
        stats: &stats,
        summary: &mut summary,
        reconnect: args.reconnect,
        one_reader: text_log,
    };
    let mut stopping = false;
    {
        let mut held = std::pin::pin!(hold(
            desired.clone(),
            DialGate::new(limits),
            FirstPing::AfterInterval,
            teller,
        ));
        loop {
            tokio::select! {
                () = &mut held => break,
                signal = signals.next() => {
                    if stopping {
                        return Ok(Outcome::Forced(signal.exit_status()));
                    }
                    stopping = true;
                    desired.stop(Asked::Shutdown);
                }
            }
        }
    }
    summary.stopping = stopping;
    Ok(Outcome::Over(summary, stats))
}

#[cfg(test)]
mod tests;
