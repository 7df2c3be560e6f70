//! The certificate of a server by TLS, made for the run.

use std::path::PathBuf;

use anyhow::Result;
use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::scratch;

/// A certificate that is its own authority, and its key, as PEM files.
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// For 127.0.0.1.
    pub(crate) fn make() -> Result<Self> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let directory = scratch::kept()?;
        let files = Self {
            cert: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        };
        std::fs::write(&files.cert, cert.pem())?;
        std::fs::write(&files.key, signing_key.serialize_pem())?;
        Ok(files)
    }
}
