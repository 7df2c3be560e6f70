//! The network: reaching a peer step by step, and the link that moves frames once it is reached.
//!
//! TLS and proxies take their place between TCP and the upgrade: [`io::Io`] has a variant each,
//! [`dial::dial`] a step each, and nothing above this module notices.

pub(crate) mod dial;
pub(crate) mod io;
mod tcp;
pub(crate) mod tls;
pub(crate) mod upgrade;
pub(crate) mod ws;

#[cfg(test)]
pub(crate) mod memory;
