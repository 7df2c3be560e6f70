//! `ws-keepalive server`: the peer to ping.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::values::{parse_address, parse_listen};
use super::{USAGE, complain_of};
use crate::app;
use crate::config::faults::switches_in_words;
use crate::config::{
    FaultSwitches, Listen, LogFormat, LogLevel, SecretSource, Server, ServerTls, judge,
};
use crate::os;
use crate::server::listener::Listener;
use crate::server::tls::TlsFiles;
use crate::server::{admin, peer};
use crate::signal::Signals;
use crate::stats::{ListenerStats, Registry};
use crate::systemd::{Listening, Manager, take_passed};
use crate::telemetry::logs;

/// How long the metrics listener may take to finish what it is answering.
const METRICS_DRAIN: Duration = Duration::from_secs(1);

/// What the end may take beside the clients' Close replies.
const BESIDE_CLOSE: Duration = Duration::from_secs(8);

/// The flags of `server`.
#[derive(Debug, Args)]
#[command(
    about = "Serve a peer that answers pings on every path, with /echo, /ticker and /events",
    long_about = "Serves WebSocket on every path: answers pings with their payload, echoes messages \
                  on /echo and ignores them elsewhere, pings a client that was silent for one ping \
                  interval and discards one that stays silent (Close 1008). Runs until it is asked \
                  to stop, then closes every connection with 1000.\n\n\
                  /ticker speaks an application's own heartbeat, in text messages Name:JSON: \
                  TickerRequest:{\"Tickers\":[\"AAPL\"]} brings a TickerChange every 2s, Ping:{..} is \
                  answered by Pong:{..} with the same fields. Nobody is pinged there; a client silent \
                  for 2m is discarded.\n\n\
                  GET /events is a stream of Server-Sent Events: one every interval=5s and a comment \
                  every heartbeat=15s. It begins after Last-Event-ID, ends after events=N, and sends \
                  retry=MS, if these are given: /events?interval=1s&events=10.",
    after_help = "Examples:\n  \
        ws-keepalive server                      port 9000 on every address\n  \
        ws-keepalive server -l 127.0.0.1 -p 0    any free port; the log says which\n  \
        ws-keepalive server -m -a 127.0.0.1:8081 with its own /metrics\n  \
        ws-keepalive server --tls-cert cert.pem --tls-key key.pem    wss:// instead of ws://\n  \
        ws-keepalive server --faults             faults by query: ws://localhost:9000/ws?fin&after=5s\n  \
        ws-keepalive server --faults 'close=1012&after=10s'    the same fault for every client"
)]
pub(crate) struct ServerArgs {
    /// Address to listen on
    #[arg(short, long, value_name = "ADDRESS", default_value = "0.0.0.0", value_parser = parse_address)]
    listen: IpAddr,
    /// Port to listen on; 0 for any free one
    #[arg(short, long, default_value_t = 9000)]
    port: u16,
    /// A client silent this long is pinged, and discarded after twice as long again
    #[arg(short = 'i', long, value_name = "DURATION", default_value = "5s", value_parser = judge::interval)]
    ping_interval: Duration,
    /// How long a pinged client may stay silent; default twice the ping interval
    #[arg(long, value_name = "DURATION", value_parser = judge::wait)]
    pong_timeout: Option<Duration>,
    /// Serve /metrics
    #[arg(short, long, value_name = "BOOL", default_value_t = false, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    metrics: bool,
    /// Address of /metrics: HOST:PORT or unix:/path
    #[arg(short = 'a', long, value_name = "ADDRESS", default_value = "0.0.0.0:8081", value_parser = parse_listen)]
    metrics_server: Listen,
    /// The `listener` label of its metrics
    #[arg(long, default_value = "server", value_parser = judge::name)]
    name: Box<str>,
    /// Connections held at once; more are refused with 503
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = judge::count,
          allow_negative_numbers = true)]
    max_connections: u32,
    /// Larger messages end the connection with Close 1009
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = judge::size)]
    max_message_size: usize,
    /// From accept to the end of the upgrade
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = judge::wait)]
    handshake_timeout: Duration,
    /// How long a client's Close reply is waited for
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = judge::wait)]
    close_timeout: Duration,
    /// Serve wss://: PEM file with the certificate and its intermediates; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the private key of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve faults, to test alerts with: those a client asks for by query (/ws?no_pongs_after=2), or these for all
    #[arg(long, value_name = "SWITCHES", num_args = 0..=1, default_value = "false", hide_default_value = true,
          default_missing_value = "true", value_parser = FaultSwitches::parse, long_help = faults_help())]
    pub(super) faults: FaultSwitches,
}

fn faults_help() -> String {
    format!(
        "Serve faults, for people to test their alerts with. Alone: those that a client asks for by \
         the query of its URL, /ws?no_pongs_after=2 or /events?stall&after=10s. With a value, in the \
         same syntax ('close=4001&after=10s'): these for every client whose query asks for no others. \
         T is a duration.\n\n{}",
        switches_in_words()
    )
}

impl ServerArgs {
    /// clap asks for both files or neither.
    fn tls(&self) -> Option<ServerTls> {
        let (cert, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(ServerTls::new(
            SecretSource::File(cert),
            SecretSource::File(key),
        ))
    }
}

/// Runs the command: its exit status.
pub(crate) fn run(args: &ServerArgs, level: LogLevel, format: LogFormat) -> u8 {
    let tls = match args.tls().as_ref().map(TlsFiles::load).transpose() {
        Ok(tls) => tls.map(Arc::new),
        Err(why) => {
            complain_of("server", &format!("{why} (--tls-cert, --tls-key)"));
            return USAGE;
        }
    };
    let logs = logs::init(level, format);
    app::say_version();
    let served = serve(args, tls);
    // Writes what is queued: what comes now is the last line.
    drop(logs);
    match served {
        Ok(status) => status,
        Err(error) => {
            complain_of("server", &os::words(&format!("{error:#}")));
            1
        }
    }
}

fn serve(args: &ServerArgs, tls: Option<Arc<TlsFiles>>) -> anyhow::Result<u8> {
    let config = Arc::new(Server {
        name: args.name.clone(),
        listen: SocketAddr::new(args.listen, args.port),
        ping_interval: args.ping_interval,
        pong_timeout: args.pong_timeout.unwrap_or(args.ping_interval * 2),
        max_connections: args.max_connections as usize,
        max_message_size: args.max_message_size,
        handshake_timeout: args.handshake_timeout,
        close_timeout: args.close_timeout,
        tls: args.tls(),
        faults: args.faults.clone(),
    });
    // Of a limit that stays too low the first connection that is not accepted tells.
    let _ = crate::app::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let passed = take_passed().map_err(anyhow::Error::msg)?;
    // Registers the sockets with the runtime.
    let _runtime = runtime.enter();
    let socket = match passed.server {
        Some(socket) => socket,
        None => runtime
            .block_on(TcpListener::bind(config.listen))
            .and_then(|listener| Listening::tcp(listener.into_std()?))
            .with_context(|| format!("cannot listen on {} (--listen, --port)", config.listen))?,
    };
    anyhow::ensure!(
        tls.is_none() || matches!(socket, Listening::Tcp(..)),
        "cannot serve TLS (--tls-cert) on {socket}, which the service manager passed; pass a TCP socket"
    );
    let address = socket.to_string();
    let listener = Listener::try_from(socket)?;
    let registry = Registry::new();
    registry.reloaded(true);
    let readiness = admin::Readiness::new();
    let bound = match passed.metrics {
        // Whoever passes a socket for them wants them.
        passed if !passed.is_empty() => passed.into_iter().map(admin::adopt).collect(),
        _ if args.metrics => vec![admin::bind(&args.metrics_server, "--metrics-server")?],
        _ => Vec::new(),
    };
    let metrics = match bound.is_empty() {
        false => {
            let (registry, readiness) = (registry.clone(), readiness.clone());
            let admin = admin::start(bound, registry, readiness, None)?;
            app::say_metrics(&admin);
            Some(admin)
        }
        true => None,
    };
    tracing::info!(event = "listening", listener = %config.name, %address, "listening on {address}");
    let status = runtime.block_on(serve_until_stopped(
        listener, config, tls, &registry, &readiness,
    ));
    if let Some(metrics) = metrics {
        metrics.shutdown(METRICS_DRAIN);
    }
    status
}

async fn serve_until_stopped(
    listener: Listener,
    config: Arc<Server>,
    tls: Option<Arc<TlsFiles>>,
    registry: &Arc<Registry>,
    readiness: &admin::Readiness,
) -> anyhow::Result<u8> {
    let mut signals = Signals::to_stop().context("cannot listen to signals")?;
    // From here on a signal is a request to drain.
    readiness.set_ready(true);
    let shutdown = CancellationToken::new();
    let guard = registry.listener(&config.name);
    let stats = guard.stats().clone();
    let mut manager = Manager::of_environment();
    let longest = config.close_timeout + BESIDE_CLOSE;
    manager.ready(&standing(&stats));
    let mut serving = std::pin::pin!(peer::serve(listener, config, tls, guard, shutdown.clone()));
    loop {
        tokio::select! {
            () = &mut serving => return Ok(0),
            () = manager.due() => if !shutdown.is_cancelled() {
                manager.status(&standing(&stats));
            },
            signal = signals.next() => {
                if shutdown.is_cancelled() {
                    return Ok(signal.exit_status());
                }
                readiness.set_ready(false);
                let open = stats.connections.load(std::sync::atomic::Ordering::Relaxed);
                let (by, plural) = (signal.as_str(), if open == 1 { "" } else { "s" });
                tracing::info!(
                    event = "stopping",
                    signal = by,
                    open,
                    "{by} received: closing {open} connection{plural}"
                );
                manager.stopping(longest, &format!("stopping: {open} connection{plural} to close"));
                shutdown.cancel();
            }
        }
    }
}

/// How things stand, in the one line that `systemctl status` shows.
fn standing(stats: &ListenerStats) -> String {
    match stats.connections.load(std::sync::atomic::Ordering::Relaxed) {
        0 => "no clients connected".to_owned(),
        1 => "1 client connected".to_owned(),
        n => format!("{n} clients connected"),
    }
}
