//! What went wrong in TLS, in words: what, with whom, and what to do about it.

use std::io;
use std::time::SystemTime;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::chain::{CertificateSummary, MOST_NAMES, date, escaped};
use super::stream::Broken;
use super::verifier::Asked;
use crate::config::{TlsOptions, TlsVersion};
use crate::os;

/// Names of a certificate that are shown.
const SHOWN_NAMES: usize = 8;

/// Everything a failed handshake is judged by.
pub(super) struct Handshake<'a> {
    /// The name or address the certificate had to be for.
    pub(super) name: &'a str,
    /// Whether the name was sent (SNI): addresses are not.
    pub(super) name_sent: bool,
    pub(super) options: &'a TlsOptions,
    pub(super) chain: &'a [CertificateSummary],
    pub(super) asked: Asked,
    /// The first bytes that came.
    pub(super) opening: &'a [u8],
    /// Bytes that came.
    pub(super) received: usize,
}

impl Handshake<'_> {
    /// Why the handshake failed.
    pub(super) fn verdict(&self, broken: &Broken) -> String {
        if let Some(words) = self.not_tls() {
            return words;
        }
        match broken {
            Broken::Eof => self.closed("closed"),
            Broken::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionAborted => self.closed("reset"),
                io::ErrorKind::UnexpectedEof => self.closed("closed"),
                _ => format!(
                    "the connection failed in the TLS handshake: {}",
                    os::words(error)
                ),
            },
            Broken::Tls(error) => self.of_error(error),
        }
    }

    /// TLS begins with a record: its type, then version 3.x (RFC 8446 section 5.1).
    fn not_tls(&self) -> Option<String> {
        const TYPES: std::ops::RangeInclusive<u8> = 20..=24;
        let tls = match self.opening {
            [] => true,
            [kind] => TYPES.contains(kind),
            [kind, major, ..] => TYPES.contains(kind) && *major == 3,
        };
        if tls {
            return None;
        }
        Some(match self.opening.starts_with(b"HTTP/") {
            true => "the peer answered in plain HTTP: ws:// instead of wss://?".to_owned(),
            false => "the peer does not speak TLS on this port: another port, or ws:// instead of \
                      wss://?"
                .to_owned(),
        })
    }

    fn closed(&self, how: &str) -> String {
        if let Some(words) = of_client_certificate(self.asked) {
            return words;
        }
        let when = match self.received {
            0 => "before it answered",
            _ => "in the middle of it",
        };
        format!(
            "the peer {how} the connection during the TLS handshake, {when}; a plain ws:// server \
             does so too: check the port, and what the peer's log says"
        )
    }

    fn of_error(&self, error: &Error) -> String {
        match error {
            Error::InvalidCertificate(error) => self.of_certificate(error),
            Error::AlertReceived(AlertDescription::ProtocolVersion)
            | Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => self.of_version(),
            Error::AlertReceived(AlertDescription::UnrecognisedName) => match self.name_sent {
                true => format!(
                    "the peer serves nobody named {} (alert unrecognized_name): correct the \
                     url's host, or set tls.server_name",
                    self.name
                ),
                false => "the peer wants a name, and an address has none to send (alert \
                          unrecognized_name): set tls.server_name"
                    .to_owned(),
            },
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                "the peer speaks no HTTP/1.1 here (alert no_application_protocol), which \
                 WebSocket needs: enable it there, beside HTTP/2"
                    .to_owned()
            }
            Error::AlertReceived(AlertDescription::HandshakeFailure)
                if matches!(self.asked, Asked::Not) =>
            {
                let sent = match self.name_sent {
                    true => format!(", or it serves nobody named {}", self.name),
                    false => ", or it wants a name (set tls.server_name)".to_owned(),
                };
                format!(
                    "the peer found no cipher or key exchange in common with us{sent} (alert \
                     handshake_failure): check its TLS settings and its log"
                )
            }
            Error::AlertReceived(alert) => of_alert(*alert, self.asked),
            Error::PeerIncompatible(what) => {
                format!("the peer's TLS does not fit ours ({what:?}): bring its TLS up to date")
            }
            Error::NoCertificatesPresented => {
                "the peer presented no certificate: give it one".to_owned()
            }
            other => format!(
                "the TLS handshake failed ({}): the peer's TLS, or something between, is broken; \
                 check what the peer's log says",
                escaped(&other.to_string())
            ),
        }
    }

    fn of_version(&self) -> String {
        let word = |version| match version {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        };
        let (min, max) = (self.options.min_version, self.options.max_version);
        let todo = match (min, max) {
            (TlsVersion::V1_2, TlsVersion::V1_3) => "older ones are broken: upgrade the peer",
            (TlsVersion::V1_3, _) => "lower tls.min_version, or upgrade the peer",
            (_, TlsVersion::V1_2) => "raise tls.max_version",
        };
        format!(
            "the peer speaks no TLS version between {} and {}: {todo}",
            word(min),
            word(max)
        )
    }

    fn of_certificate(&self, error: &CertificateError) -> String {
        let Some(leaf) = self.chain.first() else {
            // The chain was good, or nobody asked: it is the handshake's own signature.
            if matches!(error, CertificateError::BadSignature) {
                return "the peer does not hold the private key of the certificate it shows: give \
                        it the key that belongs to it; or somebody in between shows another's"
                    .to_owned();
            }
            return format!("the peer's certificate is no good ({error}): give it another");
        };
        let subject = &leaf.subject;
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                self.of_expiry(leaf)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                self.of_early(leaf)
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                self.of_name(leaf)
            }
            CertificateError::UnknownIssuer => self.of_issuer(leaf),
            // The rule is webpki's, and its error has no type we could name.
            CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
                match leaf.self_issued {
                    true => self.of_issuer(leaf),
                    false => format!(
                        "the peer shows the certificate of a CA ({subject}) as its own: give it \
                         one that is not a CA's"
                    ),
                }
            }
            CertificateError::BadSignature => format!(
                "a signature in the peer's certificate chain is wrong ({subject}, issued by {}): \
                 the CA may have a new key under its old name; set tls.ca to its present \
                 certificate",
                leaf.issuer
            ),
            CertificateError::Revoked => format!(
                "the peer's certificate ({subject}) has been revoked: the peer needs a new one"
            ),
            // The platform verifier puts an error of its own in place of rustls'.
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                self.of_purpose(leaf)
            }
            CertificateError::Other(_) if !leaf.for_servers => self.of_purpose(leaf),
            CertificateError::BadEncoding => {
                let unreadable = self
                    .chain
                    .iter()
                    .position(CertificateSummary::is_unreadable);
                match unreadable {
                    Some(n) if n > 0 => format!(
                        "certificate {} of those the peer sent cannot be read: its chain must be \
                         put right",
                        n + 1
                    ),
                    Some(_) | None => format!(
                        "the peer's certificate ({subject}) is damaged: the peer needs a new one"
                    ),
                }
            }
            other => format!(
                "the peer's certificate ({subject}, issued by {}) is refused ({}): the peer needs \
                 another one",
                leaf.issuer,
                escaped(&other.to_string())
            ),
        }
    }

    fn of_purpose(&self, leaf: &CertificateSummary) -> String {
        format!(
            "the peer's certificate ({}) is not for servers (extended key usage): the peer needs \
             one with serverAuth",
            leaf.subject
        )
    }

    fn of_expiry(&self, leaf: &CertificateSummary) -> String {
        let now = SystemTime::now();
        let expired = |one: &&CertificateSummary| one.not_after.is_some_and(|end| end < now);
        let which = self.chain.iter().find(expired).unwrap_or(leaf);
        let since = which.not_after.map_or("an unknown time".to_owned(), date);
        // Without the time by now: the same failure is to read the same at the next dial.
        format!(
            "{} expired at {since}: the peer must renew it, unless this machine's clock is wrong",
            self.which(which, leaf),
        )
    }

    fn of_early(&self, leaf: &CertificateSummary) -> String {
        let now = SystemTime::now();
        let early = |one: &&CertificateSummary| one.not_before.is_some_and(|begin| begin > now);
        let which = self.chain.iter().find(early).unwrap_or(leaf);
        let from = which.not_before.map_or("an unknown time".to_owned(), date);
        format!(
            "{} is not valid before {from}: this machine's clock is wrong, or the issuer's was",
            self.which(which, leaf),
        )
    }

    fn which(&self, which: &CertificateSummary, leaf: &CertificateSummary) -> String {
        match std::ptr::eq(which, leaf) {
            true => format!("the peer's certificate ({})", which.subject),
            false => format!("a CA certificate in the peer's chain ({})", which.subject),
        }
    }

    fn of_name(&self, leaf: &CertificateSummary) -> String {
        let names = match &*leaf.names {
            [] => "it has no names at all (subjectAltName)".to_owned(),
            names => {
                let shown: Vec<&str> = names.iter().take(SHOWN_NAMES).map(String::as_str).collect();
                let more = match names.len().saturating_sub(SHOWN_NAMES) {
                    0 => String::new(),
                    // There may be more than were kept.
                    more if names.len() == MOST_NAMES => format!(" and at least {more} more"),
                    more => format!(" and {more} more"),
                };
                format!("it has {}{more}", shown.join(", "))
            }
        };
        format!(
            "the peer's certificate is not for {}: {names}; correct the url's host, or set \
             tls.server_name to a name it has",
            self.name
        )
    }

    /// Nobody here knows who signed: which end of the chain is loose?
    fn of_issuer(&self, leaf: &CertificateSummary) -> String {
        let alone = match self.options.ca_only {
            true => " (tls.ca_only: only those in tls.ca are)",
            false => "",
        };
        if leaf.self_issued {
            return format!(
                "the peer's certificate is self-signed ({}), and not trusted{alone}: put it into \
                 tls.ca, or give the peer one from a CA",
                leaf.subject
            );
        }
        let mut top = leaf;
        // Each certificate is one step at most: a ring of them has an end too.
        for _ in self.chain {
            let next = self.chain.iter().find(|issuer| top.issued_by(issuer));
            match next {
                Some(issuer) if !std::ptr::eq(issuer, top) => top = issuer,
                Some(_) | None => break,
            }
        }
        if top.self_issued {
            return format!(
                "the peer's certificate chain ends in a root that is not trusted here ({}){alone}: \
                 add it by tls.ca, if it is to be trusted",
                top.subject
            );
        }
        format!(
            "{} is issued by {}, which the peer did not send and nobody here trusts{alone}: the \
             server should send its intermediates, or set tls.ca",
            self.which(top, leaf),
            top.issuer
        )
    }
}

/// Why the stream broke without a word, if it is that we have no certificate the peer wants.
pub(super) fn of_client_certificate(asked: Asked) -> Option<String> {
    match asked {
        Asked::Not | Asked::Given => None,
        Asked::Absent => Some(
            "the peer asks for a client certificate and none is configured: set tls.cert and \
             tls.key"
                .to_owned(),
        ),
        Asked::Unsuitable => Some(
            "the peer asks for a client certificate and accepts no signature of our key's kind: \
             set tls.cert and tls.key to another kind, such as ECDSA P-256 or RSA"
                .to_owned(),
        ),
    }
}

/// An error that came after our handshake and before any application data.
pub(super) fn of_error_after_handshake(error: &Error, asked: Asked) -> String {
    match error {
        Error::AlertReceived(alert) => of_alert(*alert, asked),
        other => format!("{}: check the peer's TLS and its log", of_error(other)),
    }
}

/// An error of a connection that stood, without advice.
pub(crate) fn of_error(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => format!("alert {}", alert_name(*alert)),
        Error::DecryptError => {
            "what came does not decrypt: it was damaged or forged on the way".to_owned()
        }
        other => escaped(&other.to_string()),
    }
}

fn of_alert(alert: AlertDescription, asked: Asked) -> String {
    use AlertDescription as A;
    let name = alert_name(alert);
    // How servers say that a certificate is missing or not liked; some use the general word.
    let why = match alert {
        A::CertificateRequired | A::NoCertificate => Some("it says none was sent"),
        A::BadCertificate => Some("it is damaged, or fails its checks"),
        A::UnsupportedCertificate => Some("it is of the wrong kind, or not for clients"),
        A::CertificateRevoked => Some("it is revoked"),
        A::CertificateExpired => Some("it expired, or is not valid yet"),
        A::CertificateUnknown => Some("its log says why"),
        A::UnknownCA => Some("it does not know the CA that issued it"),
        A::AccessDenied => Some("the certificate is good, but not admitted"),
        A::HandshakeFailure | A::DecryptError | A::IllegalParameter => Some("its log says why"),
        _ => None,
    };
    match (why, of_client_certificate(asked), asked) {
        (Some(_), Some(words), _) => format!("{words} (alert {name})"),
        (Some(why), None, Asked::Given) => format!(
            "the peer refused our client certificate (alert {name}): {why}; check tls.cert and \
             tls.key"
        ),
        (Some(_) | None, _, _) => {
            format!("the peer broke TLS off (alert {name}): check what its log says")
        }
    }
}

/// As RFC 8446 section 6 writes it: `unknown_ca`.
fn alert_name(alert: AlertDescription) -> String {
    // Spelled otherwise there.
    if alert == AlertDescription::UnrecognisedName {
        return "unrecognized_name".to_owned();
    }
    let Some(name) = alert.as_str() else {
        return u8::from(alert).to_string();
    };
    let mut words = String::new();
    let mut before: Option<char> = None;
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        // A capital begins a word, unless it stands within a run of them.
        let after_small = before.is_some_and(|before| before.is_ascii_lowercase());
        let ends_run = before.is_some() && letters.peek().is_some_and(char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && (after_small || ends_run) {
            words.push('_');
        }
        words.push(letter.to_ascii_lowercase());
        before = Some(letter);
    }
    words
}

/// Whether the peer said so itself.
pub(crate) fn is_alert(error: &Error) -> bool {
    matches!(error, Error::AlertReceived(_))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;

    use super::super::chain::summaries;
    use super::super::testing::Order;
    use super::*;

    #[test]
    fn alerts_are_named_as_the_rfc_names_them() {
        for (alert, name) in [
            (AlertDescription::UnknownCA, "unknown_ca"),
            (
                AlertDescription::CertificateRequired,
                "certificate_required",
            ),
            (AlertDescription::UnknownPSKIdentity, "unknown_psk_identity"),
            (AlertDescription::UnrecognisedName, "unrecognized_name"),
            (
                AlertDescription::NoApplicationProtocol,
                "no_application_protocol",
            ),
            (AlertDescription::Unknown(200), "200"),
        ] {
            assert_eq!(alert_name(alert), name);
        }
    }

    fn handshake<'a>(options: &'a TlsOptions, opening: &'a [u8]) -> Handshake<'a> {
        Handshake {
            name: "edge.example.com",
            name_sent: true,
            options,
            chain: &[],
            asked: Asked::Not,
            opening,
            received: opening.len(),
        }
    }

    fn summary(names: usize) -> CertificateSummary {
        let mut summary = summaries(&[CertificateDer::from(vec![1])])[0].clone();
        summary.names = vec!["a.example.com".to_owned(); names].into();
        summary
    }

    #[test]
    fn the_one_that_cannot_be_read_and_names_that_were_not_kept_are_told() {
        let options = TlsOptions::default();
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let chain = summaries(&[key.cert.der().clone(), CertificateDer::from(vec![1])]);
        let said = |chain: &[CertificateSummary], error: CertificateError| {
            let handshake = Handshake {
                chain,
                ..handshake(&options, &[])
            };
            handshake.of_certificate(&error)
        };
        let damaged = said(&chain, CertificateError::BadEncoding);
        assert!(damaged.starts_with("certificate 2 of those"), "{damaged}");
        let damaged = said(&chain[..1], CertificateError::BadEncoding);
        assert!(damaged.contains("is damaged"), "{damaged}");
        for (names, words) in [(20, " and 12 more;"), (100, " and at least 92 more;")] {
            let wrong = said(&[summary(names)], CertificateError::NotValidForName);
            assert!(wrong.contains(words), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_begin_as_tls_is_told_apart() {
        let options = TlsOptions::default();
        for (opening, words) in [
            (&b"HTTP/1.1"[..], Some("plain HTTP")),
            (b"SSH-2.0-", Some("does not speak TLS")),
            (&[22, 9], Some("does not speak TLS")),
            (b"H", Some("does not speak TLS")),
            (&[21, 3, 3, 0, 2], None),
            (&[22], None),
            (&[], None),
        ] {
            let told = handshake(&options, opening).not_tls();
            assert_eq!(told.is_some(), words.is_some(), "{opening:?}");
            assert!(told.unwrap_or_default().contains(words.unwrap_or_default()));
        }
    }

    #[test]
    fn of_a_chain_the_certificate_that_is_wrong_is_named() {
        let certificate = |name: &str, years| {
            let order = Order {
                years,
                ..Order::server(&[name])
            };
            order.self_signed().chain.remove(0)
        };
        let options = TlsOptions::default();
        for (years, error, words) in [
            (
                (2001, 2002),
                CertificateError::Expired,
                "expired at 2002-01-01",
            ),
            (
                (2080, 2090),
                CertificateError::NotValidYet,
                "is not valid before 2080-01-01",
            ),
        ] {
            let good = certificate("leaf.example.com", (2020, 2090));
            let chain = summaries(&[good, certificate("middle.example.com", years)]);
            let handshake = Handshake {
                chain: &chain,
                ..handshake(&options, &[22, 3])
            };
            let said = handshake.verdict(&Broken::Tls(Error::InvalidCertificate(error)));
            let whose = "a CA certificate in the peer's chain (CN=middle.example.com)";
            assert!(said.starts_with(&format!("{whose} {words}")), "{said}");
        }
    }

    #[test]
    fn who_hangs_up_on_an_absent_certificate_is_understood() {
        let options = TlsOptions::default();
        for (broken, asked, words) in [
            (Broken::Eof, Asked::Absent, "set tls.cert and tls.key"),
            (Broken::Eof, Asked::Unsuitable, "to another kind"),
            (Broken::Eof, Asked::Given, "closed the connection"),
            (Broken::Eof, Asked::Not, "closed the connection"),
        ] {
            let handshake = Handshake {
                asked,
                ..handshake(&options, &[22, 3])
            };
            let said = handshake.verdict(&broken);
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn each_alert_says_what_to_do() {
        let options = TlsOptions::default();
        let said = |alert, asked| {
            let handshake = Handshake {
                asked,
                ..handshake(&options, &[21, 3])
            };
            handshake.verdict(&Broken::Tls(Error::AlertReceived(alert)))
        };
        use AlertDescription as A;
        for (alert, asked, words) in [
            (A::ProtocolVersion, Asked::Not, "upgrade the peer"),
            (
                A::UnrecognisedName,
                Asked::Not,
                "nobody named edge.example.com",
            ),
            (A::NoApplicationProtocol, Asked::Not, "HTTP/1.1"),
            (A::HandshakeFailure, Asked::Not, "no cipher"),
            (
                A::HandshakeFailure,
                Asked::Absent,
                "set tls.cert and tls.key",
            ),
            (A::BadCertificate, Asked::Absent, "set tls.cert and tls.key"),
            (
                A::UnknownCA,
                Asked::Given,
                "refused our client certificate (alert unknown_ca)",
            ),
            (A::UnknownCA, Asked::Unsuitable, "to another kind"),
            (
                A::InternalError,
                Asked::Given,
                "broke TLS off (alert internal_error)",
            ),
            (A::Unknown(200), Asked::Not, "alert 200"),
        ] {
            let said = said(alert, asked);
            assert!(said.contains(words), "{alert:?}: {said}");
        }
    }
}
