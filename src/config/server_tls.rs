//! TLS of a listener: files that belong together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::value::Tag;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::layer::{KeyPath, Step};
use super::layers::Layers;
use super::leaf::{FilePath, Pem, Sourced};
use super::mistake::Mistake;
use super::raw;
use super::read::Field;
use super::tls::{BadMaterial, identity, trusted};
use super::{SecretSource, ServerTls};

/// A path in a file means the same whoever reads it, wherever they stand.
pub(super) fn beside_file(path: &FilePath, tag: Tag, layers: &Layers<'_>) -> PathBuf {
    let directory = layers.file_of(tag).and_then(Path::parent);
    directory.map_or_else(|| path.0.clone(), |dir| dir.join(&path.0))
}

/// The same of a value that may be kept in a file.
pub(super) fn placed(sourced: &Sourced, layers: &Layers<'_>) -> SecretSource {
    let directory = layers.file_of(sourced.tag).and_then(Path::parent);
    match (&sourced.source, directory) {
        (SecretSource::File(path), Some(directory)) => SecretSource::File(directory.join(path)),
        (source, _) => source.clone(),
    }
}

/// What the files of a listener's TLS hold.
#[derive(Debug)]
pub(crate) struct ServerMaterial {
    /// Our certificate, its chain and its key, which belong together.
    pub(crate) identity: Arc<CertifiedKey>,
    /// Whose clients' certificates are taken.
    pub(crate) client_ca: Vec<CertificateDer<'static>>,
}

impl ServerTls {
    /// Reads the files and judges what is in them. `variable` looks up an environment variable. The
    /// key of what is bad is `cert`, `key` or `ca`.
    pub(crate) fn read(
        &self,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<ServerMaterial, BadMaterial> {
        let read = |key: &'static str, source: &SecretSource| {
            let bytes = source.bytes(variable).map_err(|words| (key, words))?;
            Ok::<_, BadMaterial>((source.reference(), bytes))
        };
        let identity = identity(read("cert", &self.cert)?, read("key", &self.key)?)?;
        let client_ca = match &self.client_ca {
            None => Vec::new(),
            Some(source) => {
                let (name, bytes) = read("ca", source)?;
                trusted(&name, &bytes).map_err(|words| ("ca", words))?
            }
        };
        Ok(ServerMaterial {
            identity: Arc::new(identity),
            client_ca,
        })
    }

    /// Where what it reads is kept.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &SecretSource> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca)
    }
}

/// Both files or neither, and both readable; what is in them is judged by who opens the listener.
pub(super) fn server_tls(
    raw: &Field<raw::ServerTls>,
    layers: &Layers<'_>,
    variable: &dyn Fn(&str) -> Option<OsString>,
    mistakes: &mut Vec<Mistake>,
) -> Option<ServerTls> {
    let Field::Set(tls, tag) = raw else {
        return None;
    };
    let mut wrong = |tag: Tag, key: Option<&str>, message: String| {
        let mut path = vec![Step::from("server"), "tls".into()];
        path.extend(key.map(Step::from));
        mistakes.push(Mistake {
            place: layers.place_of(tag, &path),
            key: KeyPath(&path).to_string(),
            message,
        });
    };
    let mut file = |name: &str, field: &Field<Pem>| {
        let Field::Set(pem, tag) = field else {
            return None;
        };
        let source = placed(&pem.0, layers);
        if let Err(message) = source.bytes(variable) {
            wrong(*tag, Some(name), message);
        }
        Some(source)
    };
    match (file("cert", &tls.cert), file("key", &tls.key)) {
        (Some(cert), Some(key)) => Some(ServerTls::new(cert, key)),
        (None, None) if matches!((&tls.cert, &tls.key), (Field::Absent, Field::Absent)) => {
            let message = "needs `cert` and `key`, paths of PEM files; without TLS leave it out";
            wrong(*tag, None, message.to_owned());
            None
        }
        (cert, key) => {
            // One that could not be read was reported.
            if cert.is_none() && matches!(tls.cert, Field::Absent) {
                let message = "needs `cert` too: the PEM file of the certificate of this key";
                wrong(*tag, None, message.to_owned());
            }
            if key.is_none() && matches!(tls.key, Field::Absent) {
                let message = "needs `key` too: the PEM file of the private key of `cert`";
                wrong(*tag, None, message.to_owned());
            }
            None
        }
    }
}
