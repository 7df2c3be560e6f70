//! `ws-keepalive run`: the daemon.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::{DONE, FAILED, Globals, USAGE, complain};
use crate::app::{self, Failure};
use crate::config::Secret;
use crate::config::judge;
use crate::config::load::{Overrides, Sources};

#[derive(Debug, Args)]
#[command(after_help = "\
Flags beat the environment, which beats the file, and keep winning when the file is read again.
SIGHUP, a change of the file and `ws-keepalive reload` read it again; a bad file changes nothing.
SIGINT and SIGTERM close every connection with 1000 and wait for the replies.

Examples:
  ws-keepalive run
  ws-keepalive run --config config/demo.toml --metrics-server 127.0.0.1:8080
  ws-keepalive run --target ws://localhost:9000/ws --target ws://localhost:9001/ws -i 5s
  ws-keepalive run --set defaults.connect_timeout=3s --set edge-tokyo.ping_interval=1s")]
pub(super) struct RunArgs {
    /// The configuration file [default: /etc/ws-keepalive.toml]; X.toml also reads X.d/*.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Time between pings, for every target
    #[arg(short = 'i', long, value_name = "DURATION", value_parser = judge::interval)]
    ping_interval: Option<Duration>,
    /// How often an unanswered ping is sent again before the connection is given up, for every
    /// target
    #[arg(short = 'r', long, value_name = "N", value_parser = judge::retries,
          allow_negative_numbers = true)]
    max_retry_limit: Option<u32>,
    /// Serve /metrics [default: true]
    #[arg(
        short = 'm',
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = ArgAction::Set,
    )]
    metrics: Option<bool>,
    /// Address of /metrics: HOST:PORT or unix:/path [default: 0.0.0.0:8080]
    #[arg(short = 'a', long, value_name = "ADDRESS")]
    metrics_server: Option<String>,
    /// Set a key of a section, of one target, or a default: dial.concurrency=8, NAME.KEY=VALUE,
    /// defaults.KEY=VALUE. Repeatable
    #[arg(long, value_name = "NAME.KEY=VALUE")]
    set: Vec<String>,
    /// Hold this URL, too. Repeatable
    #[arg(long, value_name = "URL")]
    target: Vec<String>,
}

impl RunArgs {
    pub(super) fn sources(self, globals: Globals) -> Sources {
        let secrets = |list: Vec<String>| list.into_iter().map(Secret::new).collect();
        Sources {
            required: self.config.is_some(),
            file: self.config,
            remedy: None,
            overrides: Overrides {
                ping_interval: self.ping_interval,
                max_retry_limit: self.max_retry_limit,
                metrics: self.metrics,
                metrics_server: self.metrics_server,
                set: secrets(self.set),
                targets: secrets(self.target),
                ..globals.overrides()
            },
        }
    }
}

/// Runs until asked to stop: the exit status.
pub(super) fn run(args: RunArgs, globals: Globals) -> u8 {
    match app::run(args.sources(globals)) {
        Ok(()) => DONE,
        Err(Failure::Config(report)) => {
            complain(&report.to_string());
            USAGE
        }
        Err(Failure::Start) => FAILED,
        Err(Failure::Forced(signal)) => signal.exit_status(),
    }
}
