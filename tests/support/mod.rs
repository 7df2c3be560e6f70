//! The language the tests of the built binary are written in: processes that end with their guard,
//! output that is waited for, scrapes, peers that misbehave on purpose, peers others wrote.
//!
//! Nothing here sleeps and hopes: everything is awaited with a deadline, and what was there
//! instead is printed when it passes.

mod config;
mod daemon;
mod foreign;
mod frame;
mod http;
mod journal;
mod machine;
mod odd_peer;
mod process;
mod scrape;

pub(crate) use config::ConfigDir;
pub(crate) use daemon::{Daemon, number_after, program};
pub(crate) use foreign::Foreign;
pub(crate) use frame::Frame;
pub(crate) use http::{get, post};
pub(crate) use journal::{Journal, secs, until};
pub(crate) use machine::{BlackHole, alone, free_port, shared, sockets_of, tools};
pub(crate) use odd_peer::{Happened, Manner, OddPeer, OnClose, Pongs, Script, Then};
pub(crate) use process::{Line, Process, Signal, exit_code};
pub(crate) use scrape::Scrape;
