//! What passed while the connection was made, for `-v`: secrets are masked, and what is the peer's
//! is escaped, before it comes here.

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use crate::telemetry::certificate_time;
use crate::telemetry::words::escape;
use crate::transport::tls::CertificateSummary;
use crate::transport::trace::Trace;

/// Headers as they passed, and the certificates.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Handshake {
    /// Addresses that were dialed.
    addresses: Vec<String>,
    /// The chain the peer presented, its own certificate first.
    certificates: Vec<Certificate>,
    /// Headers of the request, as name and value; values of the user's are `***`.
    request_headers: Vec<(String, String)>,
    /// Status line of the answer.
    status: Option<String>,
    /// Headers of the answer, as name and value; those of cookies are `***`.
    response_headers: Vec<(String, String)>,
}

/// A presented certificate.
#[derive(Debug, Serialize, JsonSchema)]
struct Certificate {
    /// Whom it is for.
    subject: String,
    /// Who signed it.
    issuer: String,
    /// The DNS names and addresses it is for.
    names: Vec<String>,
    /// From when it is valid.
    not_before: Option<String>,
    /// Until when it is valid.
    not_after: Option<String>,
}

impl From<&Trace> for Handshake {
    fn from(trace: &Trace) -> Self {
        Self {
            addresses: trace.addresses.iter().map(ToString::to_string).collect(),
            certificates: trace.chain.iter().map(Into::into).collect(),
            request_headers: trace.request.clone(),
            status: trace.status.clone(),
            response_headers: trace.response.clone(),
        }
    }
}

impl From<&CertificateSummary> for Certificate {
    fn from(certificate: &CertificateSummary) -> Self {
        let time = |at: Option<SystemTime>| at.map(certificate_time);
        Self {
            subject: certificate.subject.clone(),
            issuer: certificate.issuer.clone(),
            names: certificate.names.to_vec(),
            not_before: time(certificate.not_before),
            not_after: time(certificate.not_after),
        }
    }
}

/// The same for people: what we said behind `>`, what the peer said behind `<`, as curl has it.
pub(super) fn lines(trace: &Trace) -> Vec<String> {
    let handshake = Handshake::from(trace);
    let mut lines = Vec::new();
    if !handshake.addresses.is_empty() {
        lines.push(format!("  * dialed {}", handshake.addresses.join(", ")));
    }
    for (n, certificate) in handshake.certificates.iter().enumerate() {
        let unknown = || "unknown".to_owned();
        let names = match certificate.names.as_slice() {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        lines.push(format!("  * certificate {n}: {}", certificate.subject));
        lines.push(format!("      issuer {}", certificate.issuer));
        lines.push(format!("      names {names}"));
        lines.push(format!(
            "      valid {} to {}",
            certificate.not_before.clone().unwrap_or_else(unknown),
            certificate.not_after.clone().unwrap_or_else(unknown),
        ));
    }
    lines.extend(
        trace
            .request_line
            .iter()
            .map(|line| format!("  > {}", escape(line))),
    );
    let header = |mark: &str, (name, value): &(String, String)| format!("  {mark} {name}: {value}");
    lines.extend(trace.request.iter().map(|pair| header(">", pair)));
    lines.extend(trace.status.iter().map(|status| format!("  < {status}")));
    lines.extend(trace.response.iter().map(|pair| header("<", pair)));
    lines
}
