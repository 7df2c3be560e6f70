//! What passed while a connection was made, for people who ask to see it.

use std::net::SocketAddr;

use http::{Request, Response};

use super::answer::mask_name;
use super::tls::CertificateSummary;
use crate::config::mask;

/// What a dial saw, filled in as it goes: what there is of it when the dial fails tells how far it
/// came. Nothing in it is secret, and what is the peer's is escaped.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Whether anybody wants to see it; nothing is kept otherwise.
    wanted: bool,
    /// Where redirects led, in turn. Kept whether or not it is wanted: there are few.
    pub(crate) redirects: Vec<String>,
    /// Addresses that were dialed.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The chain the peer presented, its own certificate first.
    pub(crate) chain: Box<[CertificateSummary]>,
    /// Its path, without the query.
    pub(crate) request_line: Option<String>,
    /// Headers of the upgrade request.
    pub(crate) request: Vec<(String, String)>,
    /// Status line and headers of the answer.
    pub(crate) status: Option<String>,
    pub(crate) response: Vec<(String, String)>,
}

/// Characters of a header's value that are shown.
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

    pub(super) fn presented(
        &mut self,
        mut chain: Box<[CertificateSummary]>,
        secrets: impl FnOnce() -> Vec<String>,
    ) {
        if self.wanted {
            let secrets = secrets();
            for one in &mut chain {
                one.conceal(&secrets, |_, _| ());
            }
            self.chain = chain;
        }
    }

    /// What is sensitive in the request is the user's.
    pub(super) fn asking<T>(&mut self, request: &Request<T>) {
        if !self.wanted {
            return;
        }
        let query = request.uri().query().map_or("", |_| "?***");
        self.request_line = Some(format!("GET {}{query} HTTP/1.1", request.uri().path()));
        let pairs = request.headers().iter().map(|(name, value)| {
            let value = match value.is_sensitive() {
                true => "***".to_owned(),
                false => escaped(&String::from_utf8_lossy(value.as_bytes())),
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
                _ => escaped(&mask(&String::from_utf8_lossy(value.as_bytes()), secrets)),
            };
            (mask_name(name.as_str(), secrets), value)
        });
        self.response = pairs.collect();
    }
}

fn escaped(value: &str) -> String {
    value.escape_debug().take(LONGEST).collect()
}
