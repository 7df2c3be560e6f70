//! The two places where rustls asks us: is this chain good, and who are we.
//!
//! A client configuration is shared by many connections, so what is observed of one is left in a
//! thread-local. rustls asks from within the call that processes records, and the connection takes
//! its observations when that call returns: nothing else runs on the thread in between.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

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

/// A verifier that keeps the chains it refused.
#[derive(Debug)]
pub(super) struct Recording(pub(super) Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for Recording {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let inner = &self.0;
        let verified =
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
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
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
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
