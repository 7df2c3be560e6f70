//! The network: reaching a peer step by step, and the link that moves frames once it is reached.
//!
//! TLS and proxies take their place between TCP and the upgrade: [`io::Io`] gains a variant each,
//! [`dial::dial`] a step each, and nothing above this module notices.

pub(crate) mod dial;
pub(crate) mod io;
pub(crate) mod resolver;
mod tcp;
pub(crate) mod upgrade;
pub(crate) mod ws;

#[cfg(test)]
pub(crate) mod memory;
