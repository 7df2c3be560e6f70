//! TLS of a listener: a certificate and its key from files that are replaced while it serves.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::config::tls::CRYPTO;
use crate::config::{SecretSource, ServerTls, tls_files};

/// How often the files are looked at, at most: a client that dials in a loop must not make us read
/// in one.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the handshakes of one listener go by.
#[derive(Debug)]
pub(crate) struct TlsFiles {
    files: ServerTls,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    /// The last that was good.
    config: Arc<ServerConfig>,
    /// The files as they were when they were last read, whatever came of it.
    stamps: [Option<Stamp>; 2],
    looked: Instant,
    looking: bool,
}

/// What tells one state of a file from another without reading it. `None`: there is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    len: u64,
    modified: (i64, i64),
}

/// What a look at the files found.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Same,
    Replaced,
    /// Told once for each state of the files: the next look finds them the same.
    Bad(String),
}

impl TlsFiles {
    /// Reads both files. The error is one line that names the file.
    pub(crate) fn load(files: &ServerTls) -> Result<Self, String> {
        let stamps = stamps(files);
        let config = Arc::new(read(files)?);
        tls_files::book_server(true);
        // A thread gathers its first random bytes for tens of milliseconds: not while the first
        // client waits.
        if CRYPTO.secure_random.fill(&mut [0; 1]).is_err() {
            return Err("this machine has no random numbers to give".to_owned());
        }
        Ok(Self {
            files: files.clone(),
            held: Mutex::new(Held {
                config,
                stamps,
                looked: Instant::now(),
                looking: false,
            }),
        })
    }

    /// For the next handshake: what the files hold now, or the last good of it. `listener` is named
    /// in the log.
    pub(crate) async fn current(self: &Arc<Self>, listener: &str) -> Arc<ServerConfig> {
        {
            let mut held = self.held();
            if held.looking || held.looked.elapsed() < LOOK_EVERY {
                return held.config.clone();
            }
            held.looked = Instant::now();
            held.looking = true;
        }
        let this = self.clone();
        // Off the thread that pings: a file system may hang.
        match tokio::task::spawn_blocking(move || this.look()).await {
            Ok(Look::Same) => {}
            Ok(Look::Replaced) => {
                let event = "server_certificate";
                tracing::info!(event, listener, "new certificate files are in use");
            }
            Ok(Look::Bad(why)) => {
                let event = "server_certificate_bad";
                tracing::warn!(
                    event,
                    listener,
                    "{why}; the last good certificate stays in use"
                );
            }
            // It panicked, or the runtime is going away.
            Err(_) => self.held().looking = false,
        }
        self.held().config.clone()
    }

    /// Reads the files if they are not as they were at the last look.
    fn look(&self) -> Look {
        let stamps = stamps(&self.files);
        if self.held().stamps == stamps {
            self.held().looking = false;
            return Look::Same;
        }
        let read = read(&self.files);
        tls_files::book_server(read.is_ok());
        let mut held = self.held();
        held.stamps = stamps;
        held.looking = false;
        match read {
            Ok(config) => {
                held.config = Arc::new(config);
                Look::Replaced
            }
            Err(why) => Look::Bad(why),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Taken before the files are read: what changes meanwhile is seen at the next look.
fn stamps(files: &ServerTls) -> [Option<Stamp>; 2] {
    [&files.cert, &files.key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Stamp {
            inode: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    })
}

fn read(files: &ServerTls) -> Result<ServerConfig, String> {
    let (cert, key) = (files.cert.display(), files.key.display());
    let chain = CertificateDer::pem_slice_iter(&bytes(&files.cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| format!("{cert} holds a certificate that is not PEM: {why}"))?;
    if chain.is_empty() {
        return Err(format!(
            "{cert} holds no certificate: expected PEM, -----BEGIN CERTIFICATE-----"
        ));
    }
    let pem = bytes(&files.key)?;
    // Why is left out: of this file no text is shown.
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let hint = match has(&pem, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            true => "it is encrypted; decrypt it with `openssl pkey`",
            false => "expected PEM, -----BEGIN PRIVATE KEY-----",
        };
        format!("{key} holds no private key that can be read: {hint}")
    })?;
    let provider = CRYPTO.clone();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("the key in {key} is not that of the certificate in {cert}")
            }
            error => format!("{cert} and {key} cannot be used: {error}"),
        })?;
    // The upgrade is HTTP/1.1's.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    // As all that is secret is read: no pipe, and nothing without end.
    SecretSource::File(path.to_owned()).bytes(&|_| None)
}

fn has(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}

#[cfg(test)]
mod tests;
