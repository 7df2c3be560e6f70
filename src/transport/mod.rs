//! The network: reaching a peer step by step, and the link that moves frames once it is reached.
//!
//! [`dial::dial`] goes from a target to a link by steps - addresses, TCP, a proxy's tunnel, TLS, the
//! upgrade -, each in a file of its own; [`io::Io`] is what they hand on.

mod answer;
pub(crate) mod dial;
mod exchange;
pub(crate) mod io;
pub(crate) mod link;
mod proxy;
mod request;
pub(crate) mod resolver;
pub(crate) mod sse;
pub(crate) mod stream;
mod subscribe;
mod tcp;
mod tcp_info;
pub(crate) mod tls;
pub(crate) mod trace;
pub(crate) mod upgrade;
pub(crate) mod ws;

#[cfg(test)]
pub(crate) mod memory;
