//! The outermost ring: the built binary against real peers, on loopback. `make outer` installs what
//! it needs and runs it; a missing tool fails, nothing is skipped.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod container_works;
mod control;
mod demo;
mod dialects;
mod endpoint;
mod examples;
mod faults;
mod foreign_peers;
mod front_proxies;
mod go_pair;
mod odd_peers;
mod otlp;
mod packages;
mod prometheus;
mod proxies;
mod reload_files;
mod reload_thousand;
mod rules;
mod secrets;
mod shutdown;
mod sse;
mod stall;
mod support_works;
mod systemd;
mod systemd_booted;
mod systemd_journal;
mod systemd_sockets;
mod systemd_units;
mod tls;
mod tls_support_works;
mod upgrade;
