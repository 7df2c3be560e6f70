//! Holds long-lived WebSocket and Server-Sent-Events connections, keeps them alive with heartbeats, and says, with
//! evidence, when one breaks: who ended it, how, after how long, and for how long it was gone.
//!
//! This is the library behind the `ws-keepalive` program: [`Client`] is a connection that
//! reconnects, and [`Event`] is what happens to it.

mod app;
#[doc(hidden)]
pub mod cli;
mod client;
mod config;
mod control;
mod dialect;
mod error;
mod memory;
mod os;
mod otlp;
mod proto;
mod reload;
mod server;
mod session;
mod signal;
mod stats;
mod supervisor;
mod systemd;
mod telemetry;
mod transport;

pub use client::{Builder, Client, Events};
pub use error::Error;
pub use proto::backoff::BackoffPolicy;
pub use proto::close::{Cause, CloseFrame, Initiator};
pub use proto::event::{
    DialFailure, End, Established, Event, Facts, Message, Phase, PhaseTimes, Recovered, TcpInfo,
    TlsFacts,
};
pub use proto::heartbeat::{HeartbeatPolicy, PingMode};
