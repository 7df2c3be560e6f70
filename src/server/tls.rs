//! TLS of a listener: a certificate and its key from files that are replaced while it serves, and
//! what is asked of its clients.

mod clients;

use std::env;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use crate::config::tls::CRYPTO;
use crate::config::tls_files::ListenerFiles;
use crate::config::{ClientAuth, ServerTls, TlsVersion};
use clients::Clients;

/// How often the files are looked at, at most: a client that dials in a loop must not make us read
/// in one.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the handshakes of one listener go by.
#[derive(Debug)]
pub(crate) struct TlsFiles {
    files: ServerTls,
    held: Mutex<Held>,
    standing: ListenerFiles,
}

#[derive(Debug)]
struct Held {
    /// The last that was good.
    config: Arc<ServerConfig>,
    /// The files as they were when they were last read, whatever came of it.
    stamps: Vec<Option<Stamp>>,
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
    /// Reads the files. The error is one line that names the file.
    pub(crate) fn load(files: &ServerTls) -> Result<Self, String> {
        let stamps = stamps(files);
        let config = Arc::new(read(files)?);
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
            standing: ListenerFiles::good(),
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
        self.standing.book(read.is_ok());
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
fn stamps(files: &ServerTls) -> Vec<Option<Stamp>> {
    let stamps = files.sources().map(|source| {
        // What is in no file does not change.
        let path = source.path(&|name| env::var_os(name)).ok()?;
        let metadata = std::fs::metadata(path).ok()?;
        Some(Stamp {
            inode: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    });
    stamps.collect()
}

fn read(files: &ServerTls) -> Result<ServerConfig, String> {
    let material = files.read(&|name| env::var_os(name));
    let material = material.map_err(|(_, words)| words)?;
    let failed = |error| format!("TLS cannot be set up: {error}");
    let builder = ServerConfig::builder_with_provider(provider(files))
        .with_protocol_versions(versions(files))
        .map_err(failed)?;
    let builder = match files.client_auth {
        ClientAuth::NoClientCert => builder.with_no_client_auth(),
        _ => {
            let clients = Clients::new(files, material.client_ca)?;
            builder.with_client_cert_verifier(Arc::new(clients))
        }
    };
    let identity = SingleCertAndKey::from(material.identity);
    let mut config = builder.with_cert_resolver(Arc::new(identity));
    config.ignore_client_order = files.prefer_own_suites;
    if files.client_auth != ClientAuth::NoClientCert {
        // The certificate of a session that is resumed is not looked at again: one that ended
        // since, or whose CA is no longer trusted, would be let in.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    // The upgrade is HTTP/1.1's, and operators are not answered by another.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The cryptography, with the cipher suites that are wanted in the order in which they are.
fn provider(files: &ServerTls) -> Arc<CryptoProvider> {
    if files.cipher_suites.is_empty() {
        return CRYPTO.clone();
    }
    let all = || ALL_CIPHER_SUITES.iter().copied();
    let named = files.cipher_suites.iter();
    let mut suites: Vec<SupportedCipherSuite> = named
        .filter_map(|name| all().find(|suite| suite.suite() == *name))
        .collect();
    for version in [&TLS13, &TLS12] {
        // Of a version of which none is named all are spoken.
        if !suites.iter().any(|suite| suite.version() == version) {
            suites.extend(all().filter(|suite| suite.version() == version));
        }
    }
    Arc::new(CryptoProvider {
        cipher_suites: suites,
        ..(**CRYPTO).clone()
    })
}

fn versions(files: &ServerTls) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match (files.min_version, files.max_version) {
        (TlsVersion::V1_3, _) => &BOTH[..1],
        (TlsVersion::V1_2, TlsVersion::V1_2) => &BOTH[1..],
        (TlsVersion::V1_2, TlsVersion::V1_3) => &BOTH,
    }
}

#[cfg(test)]
mod tests;
