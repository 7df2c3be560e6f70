//! Secrets that are kept elsewhere: in files, variables, systemd credentials.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Secret, SecretSource};
use crate::os;

/// More is no secret: a chain of certificates takes a few KiB.
const LARGEST: u64 = 1 << 20;

impl SecretSource {
    /// As a header's value, as it is now; called for every dial, and once at load to find what is
    /// missing. `variable` looks up an environment variable. The error names the reference, not
    /// the value.
    pub(crate) fn value(
        &self,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<http::HeaderValue, String> {
        let value = self.line(variable)?;
        let mut value = http::HeaderValue::from_bytes(&value)
            .map_err(|_| format!("{} holds a character that no header may", self.reference()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// As text, as it is now, in this process's environment.
    pub(crate) fn text(&self) -> Result<Secret<String>, String> {
        let value = self.line(&|variable| std::env::var_os(variable))?;
        match String::from_utf8(value) {
            Ok(text) => Ok(Secret::new(text)),
            Err(_) => Err(format!("{} is not UTF-8", self.reference())),
        }
    }

    /// One line, its end dropped.
    pub(super) fn line(
        &self,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Vec<u8>, String> {
        let bytes = self.bytes(variable)?;
        let value = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let value = value.strip_suffix(b"\r").unwrap_or(value);
        if value.is_empty() && !matches!(self, Self::Literal(_)) {
            return Err(format!("{} is empty", self.reference()));
        }
        Ok(value.to_vec())
    }

    /// Whole, as it is now.
    pub(crate) fn bytes(
        &self,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Vec<u8>, String> {
        match self {
            Self::Literal(text) => Ok(text.expose().as_bytes().to_vec()),
            Self::File(path) => read(path),
            Self::Env(name) => match variable(name) {
                Some(value) => Ok(value.into_vec()),
                None => Err(format!("the environment variable {name} is not set")),
            },
            Self::Credential(name) => {
                let path = self.path(variable)?;
                // systemd made the directory: it knows of others, and not of this one.
                if path.try_exists().is_ok_and(|exists| !exists) {
                    return Err(format!(
                        "the credential {name} was not loaded: there is no {}; add \
                         LoadCredential={name}:.. to the unit",
                        path.display()
                    ));
                }
                read(&path)
            }
        }
    }

    /// The file it is in.
    pub(crate) fn path(
        &self,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<PathBuf, String> {
        match self {
            Self::File(path) => Ok(path.clone()),
            Self::Credential(name) => match variable("CREDENTIALS_DIRECTORY") {
                Some(directory) => Ok(PathBuf::from(directory).join(&**name)),
                None => Err(format!(
                    "the credential {name} needs $CREDENTIALS_DIRECTORY, which systemd sets; \
                     add LoadCredential={name}:.. to the unit"
                )),
            },
            Self::Literal(_) | Self::Env(_) => Err(format!("{} is in no file", self.reference())),
        }
    }

    /// What to call it without showing it.
    pub(crate) fn reference(&self) -> String {
        match self {
            Self::Literal(_) => "the value".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Env(name) => format!("${name}"),
            Self::Credential(name) => format!("the credential {name}"),
        }
    }
}

/// Only what is a file: a pipe gives its content once, and is read at every dial; and one that
/// nobody writes to would hold the thread that reads it for ever, SIGTERM or not.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let opened = std::fs::OpenOptions::new()
        .read(true)
        // Opening a pipe would wait for its writer.
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let read = opened.and_then(|file| match file.metadata()?.file_type() {
        kind if kind.is_file() || kind.is_dir() => file.take(LARGEST + 1).read_to_end(&mut bytes),
        _ => Err(std::io::Error::other(
            "it is a pipe, a socket or a device; expected a file, for it is read more than once",
        )),
    });
    match read {
        Ok(_) if bytes.len() as u64 > LARGEST => Err(format!(
            "{} is larger than 1 MiB: no secret",
            path.display()
        )),
        Ok(_) => Ok(bytes),
        Err(error) => {
            let why = os::words(&error);
            Err(format!("cannot read {}: {why}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_line_that_is_neither_empty_nor_endless() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            SecretSource::File(path.clone()).line(&|_| None)
        };
        for content in ["t0ken", "t0ken\n", "t0ken\r\n"] {
            assert_eq!(read(content.as_bytes()).unwrap(), b"t0ken");
        }
        assert_eq!(read(b" t0ken \n\n").unwrap(), b" t0ken \n");
        for empty in ["", "\n", "\r\n"] {
            let error = read(empty.as_bytes()).unwrap_err();
            assert!(error.ends_with("token is empty"), "{error}");
        }
        let most = usize::try_from(LARGEST).unwrap();
        assert_eq!(read(&vec![b'x'; most]).unwrap().len(), most);
        let error = read(&vec![b'x'; most + 1]).unwrap_err();
        assert!(error.ends_with("larger than 1 MiB: no secret"), "{error}");
    }

    #[test]
    fn a_credential_is_read_from_systemd_s_directory_and_one_that_is_not_there_says_how_to_get_it()
    {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("edge.token"), "t0ken\n").unwrap();
        let line = |name: &str, given: bool| {
            let source = SecretSource::Credential(name.into());
            let path = given.then(|| directory.path().as_os_str().to_owned());
            source
                .line(&move |variable| path.clone().filter(|_| variable == "CREDENTIALS_DIRECTORY"))
        };
        assert_eq!(line("edge.token", true).unwrap(), b"t0ken");
        let missing = line("other", true).unwrap_err();
        assert!(missing.starts_with("the credential other was not loaded: there is no /"));
        assert!(missing.ends_with("/other; add LoadCredential=other:.. to the unit"));
        let nowhere = line("edge.token", false).unwrap_err();
        assert!(nowhere.starts_with("the credential edge.token needs $CREDENTIALS_DIRECTORY"));
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("token");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (done, read) = std::sync::mpsc::channel();
        let source = SecretSource::File(pipe);
        std::thread::spawn(move || done.send(source.text().unwrap_err()));
        let error = read.recv_timeout(std::time::Duration::from_secs(10));
        let error = error.expect("it waits for somebody to write");
        assert!(error.contains("it is a pipe"), "{error}");
    }
}
