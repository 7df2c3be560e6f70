//! The language the tests of the built binary are written in: processes that end with their guard,
//! output that is waited for, scrapes, peers that misbehave on purpose, peers others wrote.
//!
//! Nothing here sleeps and hopes: everything is awaited with a deadline, and what was there
//! instead is printed when it passes.

mod collector;
mod config;
mod container;
mod daemon;
mod eventful;
mod fake_proxy;
mod foreign;
mod frame;
mod front;
mod http;
mod journal;
pub(crate) mod links;
mod machine;
mod manager;
mod namespace;
mod odd_peer;
mod packages;
mod pki;
mod process;
mod prometheus;
mod proxies;
mod rotel;
mod scrape;
mod speakers;
mod stream_peer;
mod tls_front;

pub(crate) use collector::{Collector, Speaks, Takes, attribute};
pub(crate) use config::ConfigDir;
pub(crate) use container::{Container, Suite};
pub(crate) use daemon::{Daemon, number_after, program};
pub(crate) use eventful::Eventful;
pub(crate) use fake_proxy::{Answer, FakeProxy};
pub(crate) use foreign::Foreign;
pub(crate) use frame::Frame;
pub(crate) use front::{Front, Kind, watching};
pub(crate) use http::{Endpoint, Keys, get, post};
pub(crate) use journal::{Journal, secs, until};
pub(crate) use machine::{BlackHole, ServerEnd, alone, free_port, shared, sockets_of, tools};
pub(crate) use manager::{Manager, Told};
pub(crate) use namespace::{DEAD_ADDRESS, Names, Namespace};
pub(crate) use odd_peer::{Happened, Manner, OddPeer, OnClose, Pongs, Script, Then};
pub(crate) use packages::{NEXT, make_packages, packages};
pub(crate) use pki::{EXPIRED_AT, Leaf, NOT_AFTER, Pair, Pki};
pub(crate) use process::{Line, Process, Signal, exit_code, output_of};
pub(crate) use prometheus::{Alertmanager, Notice, Prometheus, Webhook, amtool, ours, promtool};
pub(crate) use proxies::{Proxy, Squid};
pub(crate) use rotel::Rotel;
pub(crate) use scrape::Scrape;
pub(crate) use speakers::{PASSWORD, Speaker};
pub(crate) use stream_peer::{StreamPeer, Tale};
pub(crate) use tls_front::{Seen, Terms, TlsFront, TlsVersion};
