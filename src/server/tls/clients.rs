//! What a listener asks of the certificates its clients show.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::tls::CRYPTO;
use crate::config::{ClientAuth, ServerTls};

/// Judges clients' certificates.
#[derive(Debug)]
pub(super) struct Clients {
    auth: ClientAuth,
    /// Judges the chain, where it is verified.
    chain: Option<Arc<dyn ClientCertVerifier>>,
    /// One of these names must be in the certificate; empty: any will do.
    allowed: Vec<Box<str>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Clients {
    /// As `wanted` has it, `ca` being what its `client_ca` holds.
    pub(super) fn new(
        wanted: &ServerTls,
        ca: Vec<CertificateDer<'static>>,
    ) -> Result<Self, String> {
        let chain = match wanted.client_auth.verifies() {
            false => None,
            true => {
                let mut roots = RootCertStore::empty();
                // Each was judged as it was read.
                roots.add_parsable_certificates(ca);
                let roots = Arc::new(roots);
                let built =
                    WebPkiClientVerifier::builder_with_provider(roots, CRYPTO.clone()).build();
                Some(built.map_err(|error| format!("the clients' CA cannot be used: {error}"))?)
            }
        };
        Ok(Self {
            auth: wanted.client_auth,
            chain,
            allowed: wanted.client_allowed_sans.clone(),
            algorithms: CRYPTO.signature_verification_algorithms,
        })
    }

    /// Whether the certificate has one of the names that are let in.
    fn is_allowed(&self, certificate: &CertificateDer<'_>) -> Result<bool, Error> {
        if self.allowed.is_empty() {
            return Ok(true);
        }
        let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(bad)?;
        let names = parsed.subject_alternative_name();
        let names = names.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let names = names.map_or(&[][..], |extension| &extension.value.general_names);
        Ok(names.iter().any(|name| {
            let mut allowed = self.allowed.iter();
            match name {
                GeneralName::DNSName(text)
                | GeneralName::RFC822Name(text)
                | GeneralName::URI(text) => allowed.any(|known| **known == **text),
                GeneralName::IPAddress(octets) => {
                    let address = address(octets);
                    address.is_some() && allowed.any(|known| known.parse().ok() == address)
                }
                _ => false,
            }
        }))
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(|octets| Ipv4Addr::from(octets).into());
    let v6 = || <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).into());
    v4.or_else(|_| v6()).ok()
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.auth.requires()
    }

    /// The CA's name, by which a client with many certificates finds the one that is meant.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain
            .as_ref()
            .map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_client_cert(end_entity, intermediates, now)?;
        }
        match self.is_allowed(end_entity)? {
            true => Ok(ClientCertVerified::assertion()),
            false => Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            )),
        }
    }

    // Whoever shows a certificate has its key, verified or not.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
