//! What passed while a connection was made, for people who ask to see it.

use std::net::SocketAddr;

use http::{HeaderMap, Response};

use super::tls::CertificateSummary;
use crate::config::mask;

/// What a dial saw, filled in as it goes: what there is of it when the dial fails tells how far it
/// came. Nothing in it is secret, and what is the peer's is escaped.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Whether anybody wants to see it; nothing is kept otherwise.
    wanted: bool,
    /// Addresses that were dialed.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The chain the peer presented, its own certificate first.
    pub(crate) chain: Box<[CertificateSummary]>,
    /// Headers of the upgrade request.
    pub(crate) request: Vec<(String, String)>,
    /// Status line and headers of the answer.
    pub(crate) status: Option<String>,
    pub(crate) response: Vec<(String, String)>,
}

/// What of a header's value is shown.
const LONGEST: usize = 1024;

impl Trace {
    /// One that somebody wants to see.
    pub(crate) fn wanted() -> Self {
        Self {
            wanted: true,
            ..Self::default()
        }
    }

    pub(super) fn dialing(&mut self, addresses: &[SocketAddr]) {
        if self.wanted {
            self.addresses = addresses.to_vec();
        }
    }

    pub(super) fn presented(&mut self, chain: Box<[CertificateSummary]>) {
        if self.wanted {
            self.chain = chain;
        }
    }

    /// `secret` says whether the value of a header is the user's.
    pub(super) fn asking(&mut self, headers: &HeaderMap, secret: impl Fn(&str) -> bool) {
        if !self.wanted {
            return;
        }
        let pairs = headers.iter().map(|(name, value)| {
            let value = match value.is_sensitive() || secret(name.as_str()) {
                true => "***".to_owned(),
                false => escaped(value.as_bytes()),
            };
            (name.to_string(), value)
        });
        self.request = pairs.collect();
    }

    pub(super) fn answered<T>(&mut self, response: &Response<T>, secrets: &[String]) {
        if !self.wanted {
            return;
        }
        self.status = Some(format!("{:?} {}", response.version(), response.status()));
        let pairs = response.headers().iter().map(|(name, value)| {
            let value = match name.as_str() {
                "set-cookie" => "***".to_owned(),
                _ => escaped(mask(&String::from_utf8_lossy(value.as_bytes()), secrets).as_bytes()),
            };
            (name.to_string(), value)
        });
        self.response = pairs.collect();
    }
}

fn escaped(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(LONGEST)]);
    text.escape_debug().to_string()
}
