//! `ws-keepalive ping`: one look at one URL.

mod arrivals;
mod chart;
mod drive;
mod handshake;
mod listen;
mod records;
mod report;
mod statistics;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use tracing::warn;

use super::connection::{WithCurlLetters, host_of, load_one};
use super::values::parse_secret;
use super::{DONE, FAILED, USAGE, complain_of};
use crate::config::duration::is_bare_number;
use crate::config::flags::FlagTarget;
use crate::config::{LogFormat, LogLevel, Secret, Target, judge};
use crate::os;
use crate::proto::probe::ProbePolicy;
use crate::signal::Signals;
use crate::telemetry::logs;
use drive::{Halt, Outcome, ping};
use report::Report;

/// The flags of `ping`.
#[derive(Debug, Args)]
#[command(
    about = "Look at one URL: time every step of connecting, then ping, or listen to an event stream",
    long_about = "Connects to a URL and shows how long every step took: resolving the name, TCP, \
                  the proxy's tunnel, TLS, the upgrade. Then pings as ping(8) does: the first at \
                  once, each once, one line for each, and on the way out a summary with loss and \
                  round trips. An answer that comes after its wait is shown as late, and counts \
                  as an answer.\n\n\
                  An event stream (http, https) is listened to: one line for each event and each \
                  comment with the gap before it, and a summary of the gaps. It ends when not a \
                  byte came for as long as -w says.\n\n\
                  ping sends RFC 6455 pings, whatever the application speaks; `client --heartbeat` \
                  speaks the application's protocol.",
    after_help = "\
Exit status: 0 if any ping was answered, however it ended; 1 if none was, or no connection was
made; 2 wrong usage; 128 + signal after a second SIGINT or SIGTERM. Of an event stream: 0 if
anything came; 1 if nothing did, or if it broke, fell silent, or ended before -c was reached.

Examples:
  ws-keepalive ping wss://edge.example.com/ws
  ws-keepalive ping -c 5 -i 0.2 -w 1 ws://localhost:9000/ws
  ws-keepalive ping -v --cacert ca.pem --resolve edge.example.com:443:10.0.0.7 wss://edge.example.com/ws
  ws-keepalive ping -x http://proxy:3128 -H 'X-Tenant: a' --bearer-file token wss://edge.example.com/ws
  ws-keepalive ping -o json -c 10 wss://edge.example.com/ws | jq 'select(.type == \"summary\")'
  ws-keepalive ping -c 3 -w 20 https://api.example.com/events"
)]
pub(crate) struct PingArgs {
    /// ws:// or wss:// URL, http:// or https:// URL of an event stream, or unix:/path of a socket
    #[arg(value_name = "URL", value_parser = parse_secret, required_unless_present = "schema")]
    url: Option<Secret<String>>,
    /// Stop after this many pings, or events and comments [default: when interrupted]
    #[arg(short, long, value_name = "N", value_parser = judge::count)]
    count: Option<u32>,
    /// Time between pings, at least 10ms, and not of an event stream; bare seconds are understood
    /// [default: 1s]
    #[arg(short, long, value_name = "DURATION", value_parser = interval)]
    interval: Option<Duration>,
    /// How long an answer is waited for, or the next bytes of an event stream; bare seconds are
    /// understood [default: twice the interval, 45s of a stream]
    #[arg(short, long, value_name = "DURATION", value_parser = judge::wait_or_seconds)]
    wait: Option<Duration>,
    /// Show the handshake: its headers, TLS and certificates, secrets masked
    #[arg(short, long)]
    verbose: bool,
    /// No line for each ping, event or comment
    #[arg(short, long)]
    quiet: bool,
    /// Lines for people, or one JSON object per line
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Output,
    /// Print the JSON Schema of the objects that `-o json` writes
    #[arg(long, action = ArgAction::SetTrue, exclusive = true)]
    schema: bool,
    #[command(flatten)]
    connection: WithCurlLetters,
}

/// Time between pings if nothing is said: that of ping(8).
const USUAL_INTERVAL: Duration = Duration::from_secs(1);

/// How it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Time between pings; ping's bare seconds, too.
fn interval(text: &str) -> Result<Duration, String> {
    if is_bare_number(text) {
        judge::interval(&format!("{text}s"))
    } else {
        judge::interval(text)
    }
}

impl PingArgs {
    /// The one target these flags describe, and what is hardly meant about it. An error names the
    /// flag, never a secret.
    fn target(&self) -> Result<(Arc<Target>, Vec<String>), String> {
        let url = self.url.as_ref().map_or("", |url| url.expose().as_str());
        if !url.contains("://") && !url.starts_with("unix:") {
            // What may hold credentials is not repeated.
            let shown = match url.contains(['@', '?']) || url.is_empty() {
                true => "HOST/PATH".to_owned(),
                false => url.escape_debug().to_string(),
            };
            return Err(format!(
                "URL: needs a scheme: ws://{shown}, or wss://{shown} for TLS"
            ));
        }
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        let streams = ["http", "https"];
        let is_stream = streams
            .iter()
            .any(|s| scheme.trim().eq_ignore_ascii_case(s));
        let mut target = FlagTarget::default();
        target.set("URL", &["name"], host_of(url, "ping"));
        target.set("URL", &["url"], url);
        if is_stream {
            self.only_listen()?;
            if let Some(wait) = self.wait {
                target.set_duration("--wait", &["max_silence"], wait);
            }
        }
        let mut warnings = self.connection.args.add_to(&mut target, url)?;
        let (target, more) = load_one(target)?;
        warnings.extend(more);
        Ok((target, warnings))
    }

    /// Whether the flags make sense for an event stream, as far as the configuration does not judge
    /// it.
    fn only_listen(&self) -> Result<(), String> {
        if self.interval.is_some() {
            return Err(
                "--interval: an event stream is not pinged, its server alone sends; leave it out"
                    .into(),
            );
        }
        match self.connection.of_websockets {
            Some(flag) => Err(format!(
                "{flag}: is about WebSocket frames, and an event stream has none; leave it out"
            )),
            None => Ok(()),
        }
    }

    fn policy(&self) -> ProbePolicy {
        let interval = self.interval.unwrap_or(USUAL_INTERVAL);
        ProbePolicy {
            interval,
            wait: self.wait.unwrap_or(interval * 2),
            count: self.count,
        }
    }
}

/// Runs the command: its exit status.
pub(crate) fn run(args: &PingArgs, level: LogLevel, format: LogFormat) -> u8 {
    let mut out = io::stdout().lock();
    if args.schema {
        let written = writeln!(out, "{:#}", records::schema()).and_then(|()| out.flush());
        return written.map_or_else(|error| not_written(&error, DONE), |()| DONE);
    }
    let (target, warnings) = match args.target() {
        Ok(target) => target,
        Err(wrong) => {
            complain_of("ping", &wrong);
            return USAGE;
        }
    };
    let logs = logs::init(level, format);
    for warning in warnings {
        warn!(event = "config_warning", "{warning}");
    }
    let mut report = Report::new(out, args, &target);
    let looked = look(&target, args.policy(), &mut report);
    // Writes what is queued: what comes now is the last line.
    drop(logs);
    exit_status(looked, report.answered(), args.output)
}

/// What the shell learns; what was not told yet is told to the person.
fn exit_status(looked: io::Result<Result<Outcome, Halt>>, answered: bool, output: Output) -> u8 {
    let answered = match answered {
        true => DONE,
        false => FAILED,
    };
    match looked {
        Ok(Ok(Outcome::Over)) => answered,
        Ok(Ok(Outcome::NotConnected(why))) => {
            // In JSON it is in the record.
            if output == Output::Text {
                complain_of("ping", &why);
            }
            FAILED
        }
        Ok(Err(Halt::Forced(signal))) => signal.exit_status(),
        Ok(Err(Halt::Output(error))) => not_written(&error, answered),
        Err(error) => {
            complain_of("ping", &format!("cannot start: {}", os::words(&error)));
            FAILED
        }
    }
}

fn look(
    target: &Target,
    policy: ProbePolicy,
    report: &mut Report<impl Write>,
) -> io::Result<Result<Outcome, Halt>> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::to_stop()?;
        Ok(ping(target, policy, report, &mut signals).await)
    });
    // A lookup that hangs in the resolver must not hold the exit.
    runtime.shutdown_background();
    outcome
}

/// The exit status when the output could not be written. Who closed the pipe has seen enough.
fn not_written(error: &io::Error, enough: u8) -> u8 {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return enough;
    }
    complain_of("ping", &format!("cannot write: {}", os::words(error)));
    FAILED
}

#[cfg(test)]
mod tests;
