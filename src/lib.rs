//! Holds long-lived WebSocket connections, keeps them alive with heartbeats, and says, with
//! evidence, when one breaks.
#![allow(dead_code)] // while the house is being built

pub(crate) mod cli {
    pub(crate) mod check;
}
pub(crate) mod config;
pub(crate) mod proto;
pub(crate) mod reload;
pub(crate) mod stats;
