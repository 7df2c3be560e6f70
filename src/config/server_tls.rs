//! `[server] tls`: two files that belong together.

use std::path::{Path, PathBuf};

use figment::value::Tag;

use super::layer::{KeyPath, Step};
use super::layers::Layers;
use super::leaf::FilePath;
use super::mistake::Mistake;
use super::raw;
use super::read::Field;
use super::{SecretSource, ServerTls};

/// A path in a file means the same whoever reads it, wherever they stand.
pub(super) fn beside_file(path: &FilePath, tag: Tag, layers: &Layers<'_>) -> PathBuf {
    let directory = layers.file_of(tag).and_then(Path::parent);
    directory.map_or_else(|| path.0.clone(), |dir| dir.join(&path.0))
}

/// Both files or neither, and both readable; what is in them is judged by who opens the listener.
pub(super) fn server_tls(
    raw: &Field<raw::ServerTls>,
    layers: &Layers<'_>,
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
    let mut file = |name: &str, field: &Field<FilePath>| {
        let Field::Set(path, tag) = field else {
            return None;
        };
        let path = beside_file(path, *tag, layers);
        if let Err(message) = SecretSource::File(path.clone()).bytes(&|_| None) {
            wrong(*tag, Some(name), message);
        }
        Some(path)
    };
    match (file("cert", &tls.cert), file("key", &tls.key)) {
        (Some(cert), Some(key)) => Some(ServerTls { cert, key }),
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
