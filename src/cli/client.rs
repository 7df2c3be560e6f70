//! `ws-keepalive client`: one connection, held until it is lost.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::values::{parse_listen, parse_positive, parse_secret};
use crate::client::gate::DialGate;
use crate::client::hold::{Desired, FirstPing, Observer, hold};
use crate::config::duration::{parse_duration_or_seconds, parse_size};
use crate::config::{
    ConnectionOptions, DialLimits, HeaderSource, HeartbeatKind, Listen, LogFormat, LogLevel,
    Policy, Secret, Target, Timeouts, WsUrl,
};
use crate::proto::backoff::BackoffPolicy;
use crate::proto::close::{Asked, Cause};
use crate::proto::event::{End, Event, Phase};
use crate::proto::heartbeat::{HeartbeatPolicy, PingMode};
use crate::server::admin;
use crate::signal::Signals;
use crate::stats::{Identity, Registry, TargetStats};
use crate::telemetry::{logs, observe::observe};

/// How long the metrics listener may take to finish what it is answering.
const METRICS_DRAIN: Duration = Duration::from_secs(1);

/// The flags of `client`.
#[derive(Debug, Args)]
#[command(
    about = "Hold one connection until it is lost",
    long_about = "Holds one WebSocket connection and pings it. Prints `established`, and on the way \
                  out one line: how long it held, pings, pongs, retries, round trips, and who ended \
                  it how. Exits 0 if the peer closed with 1000 or you asked it to stop, 1 if the \
                  connection was lost or never made, 2 if the flags are wrong.",
    after_help = "Examples:\n  \
        ws-keepalive client                                  ws://localhost:9000/ws, a ping every 10 s\n  \
        ws-keepalive client -H edge.example.com -p 80 -i 5s  another peer, a ping every 5 s\n  \
        ws-keepalive client --url ws://[::1]:9000/echo --reconnect -m=false",
    disable_help_flag = true
)]
pub(crate) struct ClientArgs {
    /// Host to connect to; IPv6 literals work
    #[arg(short = 'H', long, default_value = "localhost", conflicts_with = "url")]
    host: String,
    /// Port to connect to
    #[arg(short, long, default_value_t = 9000, conflicts_with = "url")]
    port: u16,
    /// Time between pings
    #[arg(short = 'i', long, value_name = "DURATION", default_value = "10s", value_parser = parse_positive)]
    ping_interval: Duration,
    /// How often an unanswered ping is sent again before the connection is given up
    #[arg(short = 'r', long, value_name = "N", default_value_t = 3)]
    max_retry_limit: u32,
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
    #[arg(long, value_name = "DURATION", value_parser = parse_positive)]
    pong_timeout: Option<Duration>,
    /// Send no pings: hold the connection and watch
    #[arg(long)]
    no_ping: bool,
    /// Request header; its value is never shown. Repeatable
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_secret)]
    headers: Vec<Secret<String>>,
    /// Request header whose value is read from a file at each dial. Repeatable
    #[arg(long = "header-file", value_name = "NAME: PATH")]
    header_files: Vec<String>,
    /// Subprotocol to offer. Repeatable, the preferred first
    #[arg(long = "subprotocol", value_name = "NAME")]
    subprotocols: Vec<String>,
    /// Text message to send after the upgrade; never shown. Repeatable
    #[arg(long = "on-open", value_name = "TEXT", value_parser = parse_secret)]
    on_open: Vec<Secret<String>>,
    /// Limit of the whole dial; bare seconds as curl's are understood
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration_or_seconds)]
    connect_timeout: Duration,
    /// Limit of resolving the name
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_positive)]
    dns_timeout: Duration,
    /// Limit of connecting TCP
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_positive)]
    tcp_timeout: Duration,
    /// Limit of the HTTP upgrade
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_positive)]
    upgrade_timeout: Duration,
    /// Limit of one write
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_positive)]
    write_timeout: Duration,
    /// How long the peer's Close reply is waited for
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_positive)]
    close_timeout: Duration,
    /// Larger messages end the connection with Close 1009
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = parse_size)]
    max_message_size: usize,
    /// With --reconnect: the wait after the first failure
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_positive)]
    reconnect_initial: Duration,
    /// With --reconnect: the longest wait
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_positive)]
    reconnect_max: Duration,
    /// Print help
    #[arg(short = 'h', long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

impl ClientArgs {
    /// The one target these flags describe; an error names the flag, never a secret.
    fn target(&self) -> Result<Target, String> {
        let url = match &self.url {
            Some(url) => url.expose().clone(),
            None => format!("ws://{}:{}{}", bracketed(&self.host), self.port, self.path),
        };
        let flag = match self.url {
            Some(_) => "--url",
            None => "--host, --port, --path",
        };
        let url = WsUrl::parse(&url).map_err(|error| format!("{flag}: {error}"))?;
        let name = self.name.clone().unwrap_or_else(|| url.host.to_string());
        let mut headers = Vec::new();
        for header in &self.headers {
            let (name, value) = split_header(header.expose(), "--header")?;
            headers.push((name, HeaderSource::Literal(Secret::new(value.into()))));
        }
        for header in &self.header_files {
            let (name, path) = split_header(header, "--header-file")?;
            headers.push((name, HeaderSource::File(PathBuf::from(path))));
        }
        for (name, source) in &headers {
            source
                .value(&|variable| std::env::var_os(variable))
                .map_err(|error| format!("header {name}: {error}"))?;
        }
        Ok(Target {
            identity: Arc::new(Identity {
                name: name.into(),
                url: url.shown,
                protocol: "websocket",
                labels: Arc::from([]),
            }),
            url: url.url,
            connection: Arc::new(ConnectionOptions {
                headers,
                subprotocols: self
                    .subprotocols
                    .iter()
                    .map(|s| s.as_str().into())
                    .collect(),
                heartbeat: match self.no_ping {
                    true => HeartbeatKind::None,
                    false => HeartbeatKind::Ping,
                },
            }),
            policy: Arc::new(self.policy()),
        })
    }

    fn policy(&self) -> Policy {
        let on_open = self
            .on_open
            .iter()
            .map(|text| Secret::new(text.expose().as_str().into()));
        Policy {
            heartbeat: HeartbeatPolicy {
                interval: self.ping_interval,
                pong_timeout: self.pong_timeout.unwrap_or(self.ping_interval * 2),
                max_retries: self.max_retry_limit,
                mode: PingMode::Always,
            },
            reconnect: BackoffPolicy {
                initial: self.reconnect_initial,
                max: self.reconnect_max.max(self.reconnect_initial),
                ..BackoffPolicy::default()
            },
            timeouts: Timeouts {
                connect: self.connect_timeout,
                dns: self.dns_timeout,
                tcp: self.tcp_timeout,
                upgrade: self.upgrade_timeout,
                write: self.write_timeout,
                close: self.close_timeout,
            },
            max_message_size: self.max_message_size,
            on_open: on_open.collect(),
            ..Policy::default()
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

/// `Name: value`; the error shows neither, since either may be the secret.
fn split_header<'a>(text: &'a str, flag: &str) -> Result<(http::HeaderName, &'a str), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("{flag}: write it as \"Name: value\""))?;
    let name = http::HeaderName::try_from(name.trim())
        .map_err(|_| format!("{flag}: what stands before the colon is not a header name"))?;
    Ok((name, value.trim()))
}

/// Runs the command: its exit status.
pub(crate) fn run(args: &ClientArgs, level: LogLevel, format: LogFormat) -> u8 {
    let target = match args.target() {
        Ok(target) => Arc::new(target),
        Err(error) => {
            eprintln!("ws-keepalive client: {error}");
            return 2;
        }
    };
    let _logs = logs::init(level, format);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ws-keepalive client: cannot start: {error}");
            return 1;
        }
    };
    let registry = Registry::new();
    registry.reloaded(true);
    let entry = registry.target(target.identity.clone(), &target.policy.rtt_buckets);
    let readiness = admin::Readiness::new();
    let metrics = match args.metrics {
        true => match serve_metrics(&args.metrics_server, &registry, &readiness) {
            Ok(metrics) => Some(metrics),
            Err(error) => {
                eprintln!("ws-keepalive client: {error}");
                return 1;
            }
        },
        false => None,
    };
    readiness.set_ready(true);
    let status = runtime.block_on(hold_until_lost(args, target, entry.stats().clone()));
    readiness.set_ready(false);
    if let Some(metrics) = metrics {
        metrics.shutdown(METRICS_DRAIN);
    }
    status
}

fn serve_metrics(
    listen: &Listen,
    registry: &Arc<Registry>,
    readiness: &Arc<admin::Readiness>,
) -> anyhow::Result<admin::Admin> {
    let bound = admin::bind(listen, "--metrics-server; -m=false turns it off")?;
    let started = admin::start(vec![bound], registry.clone(), readiness.clone(), None)?;
    Ok(started)
}

async fn hold_until_lost(args: &ClientArgs, target: Arc<Target>, stats: Arc<TargetStats>) -> u8 {
    let mut signals = match Signals::to_stop() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("ws-keepalive client: cannot listen to signals: {error}");
            return 1;
        }
    };
    let limits = DialLimits {
        concurrency: 1,
        per_second: 1_000,
    };
    let desired = Desired::new(target);
    let mut summary = Summary::default();
    let teller = Teller {
        stats: &stats,
        summary: &mut summary,
        reconnect: args.reconnect,
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
                        return signal.exit_status();
                    }
                    stopping = true;
                    desired.stop(Asked::Shutdown);
                }
            }
        }
    }
    summary.print(&stats);
    match (stopping, &summary.last) {
        (true, _) => 0,
        (false, Some(Last::Ended(end))) if end.cause == Cause::ClosedNormal => 0,
        (false, _) => 1,
    }
}

/// Tells the terminal what happens, and keeps what the last line needs.
struct Teller<'a> {
    stats: &'a TargetStats,
    summary: &'a mut Summary,
    reconnect: bool,
}

/// What the last line is made of.
#[derive(Debug, Default)]
struct Summary {
    held: Duration,
    round_trips: u64,
    rtt_sum: Duration,
    rtt_min: Option<Duration>,
    rtt_max: Duration,
    last: Option<Last>,
}

#[derive(Debug)]
enum Last {
    Ended(Box<End>),
    NotConnected { phase: Phase, message: Box<str> },
}

impl Observer for Teller<'_> {
    fn observe(&mut self, event: Event) {
        observe(self.stats, &event);
        match event {
            Event::Established(up) => {
                let peer = up.peer.map(|peer| format!(" ({peer})")).unwrap_or_default();
                let url = &self.stats.identity().url;
                say(&format!("established {url}{peer}"));
            }
            Event::Pong { rtt: Some(rtt), .. } => {
                let summary = &mut *self.summary;
                summary.round_trips += 1;
                summary.rtt_sum += rtt;
                summary.rtt_max = summary.rtt_max.max(rtt);
                summary.rtt_min = Some(summary.rtt_min.map_or(rtt, |min| min.min(rtt)));
            }
            Event::Ended(end) => {
                self.summary.held += end.age;
                self.summary.last = Some(Last::Ended(end));
            }
            Event::DialFailed(failure) => {
                self.summary.last = Some(Last::NotConnected {
                    phase: failure.phase,
                    message: failure.message,
                });
            }
            _ => {}
        }
    }

    fn dial_again(&mut self) -> bool {
        self.reconnect
    }
}

impl Summary {
    /// One line: how long it held, pings, pongs, retries, round trips, and who ended it how.
    fn print(&self, stats: &TargetStats) {
        let how = match &self.last {
            Some(Last::NotConnected { phase, message }) if stats.connects.get() == 0 => {
                // Nothing was ever held: an error, and the last line on stderr.
                eprintln!("ws-keepalive client: not connected: {phase}: {message}");
                return;
            }
            Some(Last::NotConnected { phase, message }) => format!("{phase}: {message}"),
            Some(Last::Ended(end)) => {
                format!(
                    "{} ({}, ended by {})",
                    end.message, end.cause, end.initiator
                )
            }
            None => "asked to stop before it was connected".to_owned(),
        };
        let ms = |rtt: Duration| format!("{:.3}", rtt.as_secs_f64() * 1e3);
        let rtt = match self.rtt_min {
            Some(min) => {
                let count = u32::try_from(self.round_trips).unwrap_or(u32::MAX);
                let avg = self.rtt_sum / count.max(1);
                format!(
                    "rtt min/avg/max {}/{}/{} ms",
                    ms(min),
                    ms(avg),
                    ms(self.rtt_max)
                )
            }
            None => "no rtt".to_owned(),
        };
        say(&format!(
            "held {:.1} s: {} pings, {} pongs, {} retries, {rtt}; {how}",
            self.held.as_secs_f64(),
            stats.pings_sent.get(),
            stats.pongs_received.get(),
            stats.ping_retries.get(),
        ));
    }
}

/// A line on stdout. A reader that went away has no use for it, and is no reason to stop.
fn say(line: &str) {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
