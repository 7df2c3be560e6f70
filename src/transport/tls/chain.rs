//! What is in the certificates a peer presented, for people. Nothing here decides trust.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::config::mask;

/// Characters of a name that are shown; a peer may write what it likes.
const LONGEST_TEXT: usize = 200;

/// Names of one certificate that are kept.
pub(super) const MOST_NAMES: usize = 100;

/// A presented certificate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CertificateSummary {
    /// Its distinguished name, as `CN=edge.example.com`, control characters escaped.
    pub(crate) subject: String,
    /// Of who signed it.
    pub(crate) issuer: String,
    /// The DNS names and addresses it is for (subjectAltName); the first hundred.
    pub(crate) names: Box<[String]>,
    pub(crate) not_before: Option<SystemTime>,
    pub(crate) not_after: Option<SystemTime>,
    /// Whether it names itself as its issuer.
    pub(super) self_issued: bool,
    /// Whether its extended key usage, if it has one, lets it be a server's.
    pub(super) for_servers: bool,
    /// The names as they are encoded: what links a chain.
    raw_subject: Box<[u8]>,
    raw_issuer: Box<[u8]>,
}

impl CertificateSummary {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return Self {
                subject: "a certificate that cannot be read".to_owned(),
                issuer: "unknown".to_owned(),
                names: Box::default(),
                not_before: None,
                not_after: None,
                self_issued: false,
                for_servers: true,
                raw_subject: Box::default(),
                raw_issuer: Box::default(),
            };
        };
        let alternative = parsed.subject_alternative_name().ok().flatten();
        let names = alternative.into_iter().flat_map(|san| {
            let names = san.value.general_names.iter();
            names.filter_map(name)
        });
        let usage = parsed.extended_key_usage().ok().flatten();
        let validity = parsed.validity();
        Self {
            subject: distinguished(parsed.subject()),
            issuer: distinguished(parsed.issuer()),
            names: names.take(MOST_NAMES).collect(),
            not_before: time(validity.not_before),
            not_after: time(validity.not_after),
            self_issued: parsed.subject().as_raw() == parsed.issuer().as_raw(),
            for_servers: usage.is_none_or(|usage| usage.value.any || usage.value.server_auth),
            raw_subject: parsed.subject().as_raw().into(),
            raw_issuer: parsed.issuer().as_raw().into(),
        }
    }

    /// The texts in it, which are the peer's.
    fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let own = [&mut self.subject, &mut self.issuer];
        own.into_iter().chain(&mut self.names)
    }

    /// Hides what of the user's secrets the peer wrote into it; `told` is told of each change.
    pub(in crate::transport) fn conceal(
        &mut self,
        secrets: &[String],
        mut told: impl FnMut(&str, &str),
    ) {
        for text in self.texts() {
            let masked = mask(text, secrets);
            if masked != *text {
                told(text, &masked);
                *text = masked;
            }
        }
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.raw_issuer.is_empty()
    }

    /// Whether `self` is signed in the name of `issuer`; of an unreadable one nothing is known.
    pub(super) fn issued_by(&self, issuer: &Self) -> bool {
        !self.raw_issuer.is_empty() && self.raw_issuer == issuer.raw_subject
    }
}

/// A chain as it was presented, the peer's own certificate first.
pub(super) fn summaries(chain: &[CertificateDer<'_>]) -> Box<[CertificateSummary]> {
    chain.iter().map(CertificateSummary::of).collect()
}

/// When the first certificate of a chain ends.
pub(super) fn earliest_end(chain: &[CertificateSummary]) -> Option<SystemTime> {
    chain.iter().filter_map(|one| one.not_after).min()
}

fn distinguished(name: &x509_parser::x509::X509Name<'_>) -> String {
    match escaped(&name.to_string()) {
        nameless if nameless.is_empty() => "(no name)".to_owned(),
        text => text,
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(escaped(name)),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
            let v6 = <[u8; 16]>::try_from(*bytes).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
            v4.or(v6).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

/// A peer's text on one line: control and other unprintable characters escaped, cut.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(LONGEST_TEXT));
    for (index, character) in text.chars().enumerate() {
        if index == LONGEST_TEXT {
            shown.push_str("..");
            break;
        }
        match character {
            '\'' | '"' => shown.push(character),
            // Writing to a String does not fail.
            other => write!(shown, "{}", other.escape_debug()).unwrap_or_default(),
        }
    }
    shown
}

fn time(time: ASN1Time) -> Option<SystemTime> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    match seconds {
        0.. => UNIX_EPOCH.checked_add(distance),
        _ => UNIX_EPOCH.checked_sub(distance),
    }
}

/// `2026-11-20T15:37:13Z`, for every time a certificate may hold.
pub(super) fn date(time: SystemTime) -> String {
    /// The year 10000, which RFC 3339 cannot write.
    const END: u64 = 253_402_300_800;
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) if since.as_secs() < END => humantime::format_rfc3339_seconds(time).to_string(),
        Ok(_) => "after the year 9999".to_owned(),
        Err(_) => "before 1970".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Order;
    use super::*;

    #[test]
    fn a_peers_text_stays_on_its_line_and_has_an_end() {
        assert_eq!(
            escaped("O'Neil \"x\"\n\u{1b}[2J"),
            "O'Neil \"x\"\\n\\u{1b}[2J"
        );
        let long = escaped(&"x".repeat(10_000));
        assert_eq!(long.len(), LONGEST_TEXT + 2);
    }

    #[test]
    fn a_chain_ends_with_its_first_certificate_and_its_names_are_escaped_and_counted() {
        let issued = |names: Vec<String>, years| {
            let order = Order {
                years,
                names,
                ..Order::server(&[])
            };
            order.self_signed().chain.remove(0)
        };
        let odd = issued(vec!["a\nb.example.com".to_owned()], (2020, 2080));
        let many = (0..150).map(|n| format!("{n}.example.com")).collect();
        let many = issued(many, (2020, 2070));
        for chain in [[odd.clone(), many.clone()], [many, odd]] {
            let chain = summaries(&chain);
            let years = 365 * 86_400;
            let end = earliest_end(&chain).unwrap().duration_since(UNIX_EPOCH);
            assert_eq!(end.unwrap().as_secs() / years, 100, "2070");
            let odd = chain.iter().find(|one| one.names.len() == 1).unwrap();
            assert_eq!(*odd.names, ["a\\nb.example.com"]);
            assert!(chain.iter().any(|one| one.names.len() == MOST_NAMES));
        }
        assert_eq!(earliest_end(&[]), None);
    }

    #[test]
    fn every_time_of_a_certificate_can_be_written() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(253_402_300_799), "9999-12-31T23:59:59Z");
        assert_eq!(at(253_402_300_800), "after the year 9999");
        assert_eq!(date(UNIX_EPOCH - Duration::from_secs(1)), "before 1970");
    }

    #[test]
    fn a_secret_in_a_certificate_is_shown_neither_there_nor_in_the_message() {
        let name = "t0k3n-abc.example.com".to_owned();
        let issued = rcgen::generate_simple_self_signed([name]).unwrap();
        let failure = super::super::TlsFailure {
            message: "it has t0k3n-abc.example.com".to_owned(),
            not_after: None,
            chain: summaries(&[issued.cert.der().clone()]),
        };
        let failure = failure.concealed(&["t0k3n-abc".to_owned()]);
        assert_eq!(failure.message, "it has ***.example.com");
        assert_eq!(&*failure.chain[0].names, ["***.example.com"]);
    }

    #[test]
    fn what_is_no_certificate_is_summed_up_as_unreadable() {
        let summaries = summaries(&[CertificateDer::from(vec![1, 2, 3])]);
        assert_eq!(summaries[0].not_after, None);
        assert!(!summaries[0].issued_by(&summaries[0]));
        assert_eq!(earliest_end(&summaries), None);
    }
}
