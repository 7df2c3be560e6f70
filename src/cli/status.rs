//! `ws-keepalive status`: the targets of the running daemon.

use std::io::{self, Write};

use clap::{Args, ValueEnum};

use super::{DONE, FAILED, SocketArgs, ask, complain};
use crate::control::{Answer, Command};
use crate::telemetry::targets_json::{self, TargetsJson};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ws-keepalive status
  ws-keepalive status -o json --socket /run/ws-keepalive/control.sock")]
pub(super) struct StatusArgs {
    /// A table for people, or the JSON of /api/v1/targets
    #[arg(
        short,
        long,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    output: Output,
    #[command(flatten)]
    socket: SocketArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Prints the targets: the exit status.
pub(super) fn run(args: &StatusArgs) -> u8 {
    match ask(&args.socket, Command::Status) {
        Ok(Answer::Status(targets)) => match print(&targets, args.output) {
            Ok(()) => DONE,
            // Who closed the pipe has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
            Err(error) => {
                complain(&format!("cannot write: {}", crate::os::words(&error)));
                FAILED
            }
        },
        Ok(Answer::Error(words)) => {
            complain(&words);
            FAILED
        }
        Ok(Answer::Changes(_) | Answer::Refused(_)) => {
            complain("the daemon answered another question");
            FAILED
        }
        Err(status) => status,
    }
}

fn print(targets: &TargetsJson, output: Output) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match output {
        Output::Table => write!(out, "{}", targets_json::table(targets))?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, targets)?;
            writeln!(out)?;
        }
    }
    out.flush()
}
