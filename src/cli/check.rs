//! `ws-keepalive check`.
use crate::config::load::Overrides;

#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = "Examples:\n  ws-keepalive check")]
pub(crate) struct CheckArgs {}

pub(crate) fn run(_args: &CheckArgs, _overrides: Overrides) -> u8 {
    0
}
