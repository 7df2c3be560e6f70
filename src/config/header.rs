//! Header values that are kept elsewhere: in files, variables, systemd credentials.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::HeaderSource;
use crate::os;

impl HeaderSource {
    /// The value as it is now; called for every dial, and once at load to find what is missing.
    /// `variable` looks up an environment variable. The error names the reference, not the value.
    pub(crate) fn value(
        &self,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<http::HeaderValue, String> {
        let (what, bytes) = match self {
            Self::Literal(text) => ("the header".to_owned(), text.expose().as_bytes().to_vec()),
            Self::File(path) => (path.display().to_string(), read(path)?),
            Self::Env(name) => match variable(name) {
                Some(value) => (format!("${name}"), value.into_vec()),
                None => return Err(format!("the environment variable {name} is not set")),
            },
            Self::Credential(name) => {
                let Some(directory) = variable("CREDENTIALS_DIRECTORY") else {
                    return Err(format!(
                        "the credential {name} needs $CREDENTIALS_DIRECTORY, which systemd sets; \
                         add LoadCredential={name}:.. to the unit"
                    ));
                };
                let path = PathBuf::from(directory).join(&**name);
                (path.display().to_string(), read(&path)?)
            }
        };
        let value = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let value = value.strip_suffix(b"\r").unwrap_or(value);
        if value.is_empty() && !matches!(self, Self::Literal(_)) {
            return Err(format!("{what} is empty"));
        }
        let mut value = http::HeaderValue::from_bytes(value)
            .map_err(|_| format!("{what} holds a character that no header may"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| {
        let why = os::words(&error);
        format!("cannot read {}: {why}", path.display())
    })
}
