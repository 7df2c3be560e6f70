//! TLS files: read, parsed, and judged by what only their content can tell.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{SecretSource, TlsOptions};

/// All of TLS's cryptography, made once: every connection shares it.
pub(crate) static CRYPTO: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

/// The digest's key: random, so that nobody can make two files that look the same.
static DIGEST: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What the files of [`TlsOptions`] hold.
#[derive(Debug, Clone)]
pub(crate) struct TlsMaterial {
    /// Trusted beside the system's, or alone.
    pub(crate) ca: Vec<CertificateDer<'static>>,
    /// Our certificate, its chain and its key, which belong together.
    pub(crate) identity: Option<Arc<CertifiedKey>>,
    /// Of all that was read; only this process can compare it.
    pub(crate) digest: u64,
}

/// Why material is no good: the key of the table, and the words.
pub(crate) type BadMaterial = (&'static str, String);

impl TlsOptions {
    /// Reads the files and judges what is in them. `variable` looks up an environment variable.
    pub(crate) fn read(
        &self,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<TlsMaterial, BadMaterial> {
        let mut digest = DIGEST.build_hasher();
        let mut read = |key: &'static str, source: &Option<SecretSource>| {
            let Some(source) = source else {
                return Ok(None);
            };
            let bytes = source.bytes(variable).map_err(|error| (key, error))?;
            digest.write_usize(bytes.len());
            digest.write(&bytes);
            Ok(Some((source.reference(), bytes)))
        };
        let (ca, cert, key) = (
            read("ca", &self.ca)?,
            read("cert", &self.cert)?,
            read("key", &self.key)?,
        );
        let ca = match ca {
            Some((name, bytes)) => trusted(&name, &bytes).map_err(|error| ("ca", error))?,
            None if self.ca_only => {
                let error = "ca_only trusts nothing but ca, and there is none; set ca";
                return Err(("ca", error.to_owned()));
            }
            None => Vec::new(),
        };
        let identity = match (cert, key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some(Arc::new(identity(cert, key)?)),
            (Some(_), None) => return Err(("key", "cert needs a key; set key".to_owned())),
            (None, Some(_)) => return Err(("cert", "key needs a cert; set cert".to_owned())),
        };
        Ok(TlsMaterial {
            ca,
            identity,
            digest: digest.finish(),
        })
    }

    /// The files among `ca`, `cert` and `key`: what can change while the process runs.
    pub(crate) fn files(&self, variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
        let sources = [&self.ca, &self.cert, &self.key];
        // A credential whose directory is unknown has no file to watch: reading it says so.
        let paths = sources.into_iter().flatten().filter_map(|source| {
            let in_file = matches!(source, SecretSource::File(_) | SecretSource::Credential(_));
            in_file.then(|| source.path(variable).ok()).flatten()
        });
        paths.collect()
    }
}

/// The certificates of a CA file, each fit to be trusted.
pub(super) fn trusted(name: &str, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = certificates(name, bytes)?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        if roots.add(certificate.clone()).is_err() {
            let number = index + 1;
            return Err(format!(
                "certificate {number} in {name} is damaged; write the file anew"
            ));
        }
    }
    Ok(certificates)
}

/// Every certificate of a PEM file, one at least.
fn certificates(name: &str, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| pem_words(name, &error))?;
    if found.is_empty() {
        let what = match bytes.trim_ascii() {
            [] => "is empty".to_owned(),
            _ => "holds no certificate; PEM is wanted (-----BEGIN CERTIFICATE-----)".to_owned(),
        };
        return Err(format!("{name} {what}"));
    }
    Ok(found)
}

/// A certificate and its key, each by the name of its file.
pub(super) fn identity(
    (cert_name, cert): (String, Vec<u8>),
    (key_name, key): (String, Vec<u8>),
) -> Result<CertifiedKey, BadMaterial> {
    let chain = certificates(&cert_name, &cert).map_err(|error| ("cert", error))?;
    let key = private_key(&key_name, &key).map_err(|error| ("key", error))?;
    CertifiedKey::from_der(chain, key, &CRYPTO).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => (
            "key",
            format!(
                "the key in {key_name} does not belong to the first certificate in {cert_name}; \
                 set the key that certificate was issued for"
            ),
        ),
        rustls::Error::InvalidCertificate(_) => (
            "cert",
            format!("the first certificate in {cert_name} is damaged; write the file anew"),
        ),
        _ => (
            "key",
            format!("the key in {key_name} is of no kind TLS can use; RSA, ECDSA or Ed25519 is"),
        ),
    })
}

fn private_key(name: &str, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(PemError::NoItemsFound) => Err(match bytes.trim_ascii() {
            [] => format!("{name} is empty"),
            text if contains(text, b"BEGIN ENCRYPTED PRIVATE KEY") => {
                format!("the key in {name} is encrypted; decrypt it (openssl pkey -in .. -out ..)")
            }
            _ => {
                format!("{name} holds no private key; PEM is wanted (-----BEGIN PRIVATE KEY-----)")
            }
        }),
        Err(error) => Err(pem_words(name, &error)),
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Never the content: it may be a key.
fn pem_words(name: &str, error: &PemError) -> String {
    let what = match error {
        PemError::MissingSectionEnd { .. } => "is cut short: a BEGIN line has no END line",
        PemError::IllegalSectionStart { .. } => "has a broken BEGIN line",
        PemError::Base64Decode(_) => "has a section that is not base64",
        _ => "is no PEM file",
    };
    format!("{name} {what}; write the file anew")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn literal(text: &str) -> Option<SecretSource> {
        Some(SecretSource::Literal(Secret::new(text.into())))
    }

    fn issued() -> (String, String) {
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (issued.cert.pem(), issued.signing_key.serialize_pem())
    }

    fn fails(options: &TlsOptions) -> (&'static str, String) {
        options.read(&|_| None).unwrap_err()
    }

    #[test]
    fn a_certificate_and_its_key_are_read_and_another_key_is_not() {
        let ((cert, key), (_, other)) = (issued(), issued());
        let with = |key: &str| TlsOptions {
            ca: literal(&cert),
            cert: literal(&cert),
            key: literal(key),
            ..TlsOptions::default()
        };
        let material = with(&key).read(&|_| None).unwrap();
        assert_eq!((material.ca.len(), material.identity.is_some()), (1, true));
        let (at, words) = fails(&with(&other));
        assert_eq!(at, "key");
        assert!(words.contains("does not belong to"), "{words}");
        let again = with(&key).read(&|_| None).unwrap();
        assert_eq!(material.digest, again.digest);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_key() {
        let (cert, key) = issued();
        let half = &cert[..cert.len() / 2];
        let broken = cert.replace("MII", "!!!");
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n\
                         -----END ENCRYPTED PRIVATE KEY-----\n";
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (ca, expected) in [
            ("", "the value is empty"),
            (half, "is cut short"),
            (&broken, "not base64"),
            (&key, "holds no certificate"),
            (damaged, "certificate 1 in the value is damaged"),
        ] {
            let options = TlsOptions {
                ca: literal(ca),
                ..TlsOptions::default()
            };
            let (at, words) = fails(&options);
            assert_eq!(at, "ca");
            assert!(words.contains(expected), "{words}");
        }
        for (text, expected) in [
            ("", "the value is empty"),
            (&cert, "holds no private key"),
            (encrypted, "is encrypted"),
        ] {
            let options = TlsOptions {
                cert: literal(&cert),
                key: literal(text),
                ..TlsOptions::default()
            };
            let (at, words) = fails(&options);
            assert_eq!(at, "key");
            assert!(words.contains(expected), "{words}");
        }
    }

    #[test]
    fn ca_only_without_a_ca_trusts_nobody_and_is_a_mistake() {
        let options = TlsOptions {
            ca_only: true,
            ..TlsOptions::default()
        };
        assert_eq!(fails(&options).0, "ca");
    }
}
