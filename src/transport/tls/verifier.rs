//! The two places where rustls asks us: is this chain good, and who are we.
//!
//! A client configuration is shared by many connections, so what is observed of one is left in a
//! thread-local. rustls asks from within the call that processes records, and the connection takes
//! its observations when that call returns: nothing else runs on the thread in between.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::chain::summaries;
use crate::config::tls::CRYPTO;

/// What one connection's handshake told so far.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// The chain whose verification failed.
    pub(super) refused: Vec<CertificateDer<'static>>,
    pub(super) asked: Asked,
}

/// Whether the peer asked who we are, and what we had to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Asked {
    #[default]
    Not,
    /// It asked, and no certificate is configured.
    Absent,
    /// It asked, and accepts no signature that our key can make.
    Unsuitable,
    /// It asked, and was sent our certificate.
    Given,
}

thread_local! {
    static OBSERVED: RefCell<Observed> = RefCell::default();
}

/// Runs `process`, and adds to `observed` what rustls asked meanwhile.
pub(super) fn observing<T>(observed: &mut Observed, process: impl FnOnce() -> T) -> T {
    // What another connection left behind, had its processing panicked, is not ours.
    OBSERVED.take();
    let result = process();
    let seen = OBSERVED.take();
    if !seen.refused.is_empty() {
        observed.refused = seen.refused;
    }
    if seen.asked != Asked::Not {
        observed.asked = seen.asked;
    }
    result
}

/// A verifier that keeps the chains it refused, and takes a certificate that the user trusts as such.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) inner: Arc<dyn ServerCertVerifier>,
    /// What `tls.ca` holds.
    pub(super) trusted: Vec<CertificateDer<'static>>,
}

impl Recording {
    /// A self-signed certificate may call itself one of a CA, as `openssl req -x509` makes them.
    /// webpki then takes it for nobody's own; but whoever put this very certificate into `tls.ca`
    /// trusts just that. Its name and its time must be right all the same.
    fn verify_trusted_itself(
        &self,
        end_entity: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
        now: UnixTime,
        error: Error,
    ) -> Result<ServerCertVerified, Error> {
        let is_of_a_ca = match &error {
            // The rule is webpki's, and its error has no type we could name.
            Error::InvalidCertificate(CertificateError::Other(other)) => {
                other.to_string() == "CaUsedAsEndEntity"
            }
            _ => false,
        };
        if !is_of_a_ca || !self.trusted.iter().any(|one| one == end_entity) {
            return Err(error);
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        for certificate in summaries(std::slice::from_ref(end_entity)) {
            if certificate.not_before.is_none_or(|from| now < from) {
                return Err(CertificateError::NotValidYet.into());
            }
            if certificate.not_after.is_none_or(|until| now > until) {
                return Err(CertificateError::Expired.into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Recording {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let inner = &self.inner;
        let verified =
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let verified = verified
            .or_else(|error| self.verify_trusted_itself(end_entity, server_name, now, error));
        if verified.is_err() {
            let chain = std::iter::once(end_entity).chain(intermediates);
            let chain = chain.map(|one| one.clone().into_owned()).collect();
            OBSERVED.with_borrow_mut(|observed| observed.refused = chain);
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// `insecure_skip_verify`: any chain will do. The peer must still hold the key of the certificate
/// it shows.
#[derive(Debug)]
pub(super) struct AnyChain;

impl ServerCertVerifier for AnyChain {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &CRYPTO.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &CRYPTO.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &CRYPTO.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Our certificate for those who ask, and the memory of having been asked.
#[derive(Debug)]
pub(super) struct Identity(pub(super) Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identity {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let asked = match &self.0 {
            None => Asked::Absent,
            Some(identity) if identity.key.choose_scheme(sigschemes).is_none() => Asked::Unsuitable,
            Some(_) => Asked::Given,
        };
        OBSERVED.with_borrow_mut(|observed| observed.asked = asked);
        // Who has only one certificate shows it whatever issuers the peer names: it may know more.
        self.0.clone().filter(|_| asked == Asked::Given)
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Order;
    use super::*;

    #[test]
    fn a_key_that_the_peer_takes_no_signature_of_is_told_from_none() {
        let issued = Order::client("us").self_signed();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(issued.key.serialize_der().into());
        let ours = CertifiedKey::from_der(issued.chain, key, &CRYPTO).unwrap();
        let ours = Some(Arc::new(ours));
        let ecdsa = SignatureScheme::ECDSA_NISTP256_SHA256;
        let rsa = SignatureScheme::RSA_PSS_SHA256;
        for (identity, accepted, asked) in [
            (&ours, ecdsa, Asked::Given),
            (&ours, rsa, Asked::Unsuitable),
            (&None, ecdsa, Asked::Absent),
        ] {
            let mut observed = Observed::default();
            let identity = Identity(identity.clone());
            let shown = observing(&mut observed, || identity.resolve(&[], &[accepted]));
            assert_eq!(observed.asked, asked);
            assert_eq!(shown.is_some(), asked == Asked::Given);
        }
    }
}
