//! `ws-keepalive reload`: have the running daemon read its configuration again.

use clap::Args;

use super::{DONE, FAILED, SocketArgs, ask, complain};
use crate::control::{Answer, Command};

#[derive(Debug, Args)]
#[command(after_help = "\
Prints what changed and exits 0; or prints every mistake of the new configuration and exits 1,
and what ran before runs on.

Examples:
  ws-keepalive reload
  ws-keepalive reload --config config/demo.toml
  ws-keepalive reload --socket /run/ws-keepalive/control.sock")]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

/// Waits for the outcome: the exit status.
pub(super) fn run(args: &ReloadArgs) -> u8 {
    match ask(&args.socket, Command::Reload) {
        Ok(Answer::Changes(changes)) => {
            println!("{changes}");
            DONE
        }
        Ok(Answer::Refused(mistakes)) => {
            complain(&mistakes);
            complain("reload refused; what ran before runs on");
            FAILED
        }
        Ok(Answer::Error(words)) => {
            complain(&words);
            FAILED
        }
        Ok(Answer::Status(_)) => {
            complain("the daemon answered another question");
            FAILED
        }
        Err(status) => status,
    }
}
