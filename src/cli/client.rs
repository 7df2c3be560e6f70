//! `ws-keepalive client`.
use super::Globals;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ws-keepalive client")]
pub(crate) struct ClientArgs {}

pub(crate) fn run(_args: ClientArgs, _globals: Globals) -> u8 {
    0
}
