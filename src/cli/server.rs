//! `ws-keepalive server`.
use super::Globals;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ws-keepalive server")]
pub(crate) struct ServerArgs {}

pub(crate) fn run(_args: ServerArgs, _globals: Globals) -> u8 {
    0
}
