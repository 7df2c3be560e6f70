//! What keeps the connection alive, and what is asked of it.

use std::time::Duration;

use clap::Args;

use crate::cli::values::parse_secret;
use crate::config::flags::FlagTarget;
use crate::config::{Secret, judge};

/// Heartbeat.
#[derive(Debug, Args)]
#[command(next_help_heading = "Heartbeat")]
pub(super) struct HeartbeatArgs {
    /// What keeps the connection alive: ping, message, expect, none, actioncable, engineio,
    /// graphql-transport-ws, phoenix, stomp, mqtt, signalr, json-rpc; or a table as in the
    /// configuration file: { kind = "message", send = "ping", expect = "pong" }
    /// [default: ping; of an http or https url sse]
    #[arg(long, value_name = "KIND|TABLE", value_parser = parse_secret, conflicts_with = "no_ping")]
    heartbeat: Option<Secret<String>>,
    /// Longest time without a beat that the server begins [default: the heartbeat's own]
    #[arg(long, value_name = "DURATION", value_parser = judge::wait)]
    max_silence: Option<Duration>,
    /// Call a connection stale that brings no application message for this long [default: never]
    #[arg(long, value_name = "DURATION", value_parser = judge::wait)]
    staleness: Option<Duration>,
    /// Limit of the hello of the heartbeat's protocol, subscriptions included [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = judge::wait)]
    hello_timeout: Option<Duration>,
    /// A longer line of an event stream ends the connection [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = judge::size)]
    max_line: Option<usize>,
    /// A larger event of an event stream ends the connection [default: 4MiB]
    #[arg(long, value_name = "SIZE", value_parser = judge::size)]
    max_event: Option<usize>,
}

impl HeartbeatArgs {
    /// Gives `target` the keys these flags stand for. The error shows nothing of what may be secret.
    pub(super) fn add_to(&self, target: &mut FlagTarget) -> Result<(), String> {
        const FLAG: &str = "--heartbeat";
        if let Some(text) = &self.heartbeat {
            let text = text.expose().trim();
            match text.starts_with('{') {
                true => {
                    let table = target.set_table(FLAG, &["heartbeat"], text);
                    table.map_err(|wrong| format!("{FLAG}: {wrong}"))?;
                }
                false => target.set(FLAG, &["heartbeat", "kind"], text),
            }
        }
        let durations = [
            ("--max-silence", "max_silence", self.max_silence),
            ("--staleness", "staleness", self.staleness),
            ("--hello-timeout", "hello_timeout", self.hello_timeout),
        ];
        for (flag, key, duration) in durations {
            if let Some(duration) = duration {
                target.set_duration(flag, &[key], duration);
            }
        }
        let sizes = [
            ("--max-line", "max_line", self.max_line),
            ("--max-event", "max_event", self.max_event),
        ];
        for (flag, key, size) in sizes {
            if let Some(size) = size {
                target.set(flag, &[key], size);
            }
        }
        Ok(())
    }
}
