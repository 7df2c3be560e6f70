//! One rustls configuration per distinct [`TlsOptions`], made anew when its files change.
//!
//! At every dial the files' metadata is compared with what they were when they were read. What
//! changed is read again, away from the thread that pings, and once for all dials that wait for
//! it. Connections that stand keep the configuration they were made with.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_platform_verifier::Verifier;
use tokio::task::spawn_blocking;

use super::verifier::{AnyChain, Identity, Recording};
use crate::config::tls::{CRYPTO, TlsMaterial};
use crate::config::{TlsOptions, TlsVersion, tls_files};

/// Options that are kept ready, used or not.
const KEPT: usize = 16;

/// How long options beyond those are kept after the last dial.
const UNUSED_FOR: Duration = Duration::from_secs(3600);

/// A file this young may change again and show the same times: file systems count in ticks, of up
/// to 2 s (FAT). Its content is compared until it has settled.
const SETTLED: Duration = Duration::from_secs(2);

/// How often files that change while they are read are read again at once. Later dials go on.
const READS: usize = 3;

/// Tickets kept per server: what rustls keeps for one name.
const TICKETS_PER_TARGET: usize = 8;

/// rustls' own choice, for 32 names.
const DEFAULT_TICKETS: usize = 256;

static TICKETS: AtomicUsize = AtomicUsize::new(DEFAULT_TICKETS);

/// How many targets there will be over TLS. Sizes the memory for session tickets of contexts made
/// from now on.
pub(crate) fn expect_targets(wss_targets: usize) {
    let tickets = wss_targets.saturating_mul(TICKETS_PER_TARGET);
    TICKETS.store(tickets.max(DEFAULT_TICKETS), Relaxed);
}

/// Every options' place. The keys are copies: whether options are in use shows by their `Arc`
/// (see [`tls_files`]).
static SLOTS: LazyLock<Mutex<HashMap<TlsOptions, Arc<Slot>>>> = LazyLock::new(Mutex::default);

type Outcome = Result<Arc<ClientConfig>, Arc<str>>;

/// A check of the files under way, which all dials of that moment wait for.
type Check = Shared<BoxFuture<'static, Outcome>>;

#[derive(Default)]
struct Slot(Mutex<State>);

#[derive(Default)]
struct State {
    used: Option<Instant>,
    /// The last good one.
    current: Option<Current>,
    /// What the last reading saw.
    read: Option<Reading>,
    check: Option<Check>,
}

#[derive(Clone)]
struct Current {
    config: Arc<ClientConfig>,
    digest: u64,
}

struct Reading {
    files: Fingerprint,
    /// Why it was no good.
    error: Option<Arc<str>>,
}

/// Panics leave nothing half done here: every change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The configuration of `options`, by their files as they are now or, where those are bad, as
/// they last were good.
pub(super) async fn of(options: &Arc<TlsOptions>) -> Outcome {
    let slot = slot(options);
    let check = {
        let mut state = lock(&slot.0);
        state.used = Some(Instant::now());
        if let Some(current) = &state.current
            && options.files(&variable).is_empty()
        {
            return Ok(current.config.clone());
        }
        let begin = || check(slot.clone(), options.clone());
        state.check.get_or_insert_with(begin).clone()
    };
    check.await
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

fn slot(options: &Arc<TlsOptions>) -> Arc<Slot> {
    let mut slots = lock(&SLOTS);
    if let Some(slot) = slots.get(&**options) {
        return slot.clone();
    }
    if slots.len() >= KEPT {
        slots.retain(|_, slot| {
            let used = lock(&slot.0).used;
            used.is_none_or(|used| used.elapsed() < UNUSED_FOR)
        });
    }
    let options = TlsOptions::clone(options);
    slots.entry(options).or_default().clone()
}

/// Starts a check on a blocking thread. It goes on when nobody waits any more, so that dials that
/// give up on a file system that hangs leave one thread waiting there, not one each.
fn check(slot: Arc<Slot>, options: Arc<TlsOptions>) -> Check {
    let work = spawn_blocking(move || {
        let _over = Over(&slot);
        slot.check(&options)
    });
    let outcome = work.map(|joined| match joined {
        Ok(outcome) => outcome,
        Err(_) => Err("reading the TLS files was broken off: the program is stopping".into()),
    });
    outcome.boxed().shared()
}

/// Ends a check, however it ends: the next dial begins another.
struct Over<'a>(&'a Slot);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).check = None;
    }
}

impl Slot {
    /// Reads the files if they are not as they last were.
    fn check(&self, options: &Arc<TlsOptions>) -> Outcome {
        let files = options.files(&variable);
        let mut fingerprint = Fingerprint::of(&files);
        if let Some(known) = self.known(&fingerprint) {
            return known;
        }
        let mut material = options.read(&variable);
        for _ in 1..READS {
            let after = Fingerprint::of(&files);
            if after.files == fingerprint.files {
                break;
            }
            // Somebody writes them just now.
            fingerprint = after;
            material = options.read(&variable);
        }
        tls_files::book(options, material.is_ok());
        let current = lock(&self.0).current.clone();
        let made = match (material, &current) {
            // Written anew with the same content.
            (Ok(material), Some(current)) if material.digest == current.digest => {
                Ok(current.clone())
            }
            (Ok(material), _) => make(options, &material).map(|config| Current {
                config: Arc::new(config),
                digest: material.digest,
            }),
            (Err((key, error)), _) => Err(format!("tls.{key}: {error}")),
        };
        self.conclude(fingerprint, made)
    }

    /// What the last reading said, if the files are certainly still the same.
    fn known(&self, fingerprint: &Fingerprint) -> Option<Outcome> {
        let state = lock(&self.0);
        let read = state.read.as_ref()?;
        let same = read.files.settled && read.files.files == fingerprint.files;
        same.then(|| state.outcome())
    }

    fn conclude(&self, files: Fingerprint, made: Result<Current, String>) -> Outcome {
        let mut state = lock(&self.0);
        let before = state.read.take();
        let error = match made {
            Ok(made) => {
                match (&state.current, before.and_then(|before| before.error)) {
                    (Some(current), _) if current.digest != made.digest => tracing::info!(
                        "the TLS files changed; connections made from now on use what they hold"
                    ),
                    (_, Some(_)) => tracing::info!("the TLS files are good again"),
                    (_, None) => {}
                }
                state.current = Some(made);
                None
            }
            Err(error) => {
                let error = Arc::<str>::from(error);
                let told = before.is_some_and(|before| {
                    before.files.files == files.files && before.error.as_ref() == Some(&error)
                });
                // With nothing to fall back on the dial fails, and says it.
                if state.current.is_some() && !told {
                    tracing::warn!("{error}; what the TLS files held before stays in use");
                }
                Some(error)
            }
        };
        state.read = Some(Reading { files, error });
        state.outcome()
    }
}

impl State {
    fn outcome(&self) -> Outcome {
        let error = self.read.as_ref().and_then(|read| read.error.clone());
        match (&self.current, error) {
            (Some(current), _) => Ok(current.config.clone()),
            (None, Some(error)) => Err(error),
            // A reading leaves the one or the other.
            (None, None) => Err("the TLS files were not read".into()),
        }
    }
}

/// What the files look like from outside.
#[derive(Debug)]
struct Fingerprint {
    files: Vec<Option<Looks>>,
    /// Whether a change from now on must show.
    settled: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Looks {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Of the inode: nobody can set it back.
    changed: (i64, i64),
}

impl Fingerprint {
    fn of(paths: &[PathBuf]) -> Self {
        let files: Vec<_> = paths.iter().map(|path| Looks::of(path)).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let settled_before = now.unwrap_or_default().saturating_sub(SETTLED).as_secs();
        let settled_before = i64::try_from(settled_before).unwrap_or(i64::MAX);
        let settled = files.iter().flatten().all(|looks| {
            let youngest = looks.modified.0.max(looks.changed.0);
            youngest < settled_before
        });
        Self { files, settled }
    }
}

impl Looks {
    /// `None` of a file that cannot be looked at; reading it tells why.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn make(options: &TlsOptions, material: &TlsMaterial) -> Result<ClientConfig, String> {
    let verifier = Arc::new(Recording {
        inner: verifier(options, material)?,
        trusted: material.ca.clone(),
    });
    let versions = versions(options);
    let builder = ClientConfig::builder_with_provider(CRYPTO.clone())
        .with_protocol_versions(&versions)
        .map_err(|error| format!("tls.min_version and tls.max_version do not work: {error}"))?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(Identity(material.identity.clone())));
    // WebSocket's upgrade is HTTP/1.1's (RFC 6455 section 4.1).
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = match options.session_tickets {
        true => Resumption::in_memory_sessions(TICKETS.load(Relaxed)),
        false => Resumption::disabled(),
    };
    Ok(config)
}

fn versions(options: &TlsOptions) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::V1_2, &TLS12), (TlsVersion::V1_3, &TLS13)];
    let allowed = options.min_version..=options.max_version;
    let versions = all.iter().filter(|(version, _)| allowed.contains(version));
    versions.map(|(_, rustls)| *rustls).collect()
}

fn verifier(
    options: &TlsOptions,
    material: &TlsMaterial,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if options.insecure_skip_verify {
        // The configuration warns of it, loudly.
        return Ok(Arc::new(AnyChain));
    }
    // What cannot be trusted was refused when the file was read.
    let broken = |error: &dyn std::fmt::Display| format!("tls.ca cannot be used: {error}");
    if options.ca_only {
        let mut roots = RootCertStore::empty();
        for certificate in &material.ca {
            roots.add(certificate.clone()).map_err(|e| broken(&e))?;
        }
        let builder = WebPkiServerVerifier::builder_with_provider(roots.into(), CRYPTO.clone());
        return Ok(builder.build().map_err(|e| broken(&e))?);
    }
    if material.ca.is_empty() {
        let verifier = Verifier::new(CRYPTO.clone()).map_err(|_| {
            "no root certificate on this machine; install ca-certificates, or set tls.ca".to_owned()
        })?;
        return Ok(Arc::new(verifier));
    }
    let verifier = Verifier::new_with_extra_roots(material.ca.iter().cloned(), CRYPTO.clone());
    Ok(Arc::new(verifier.map_err(|e| broken(&e))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_offered_are_those_between_min_and_max() {
        let offered = |min_version, max_version| {
            let options = TlsOptions {
                min_version,
                max_version,
                ..TlsOptions::default()
            };
            versions(&options).len()
        };
        assert_eq!(offered(TlsVersion::V1_2, TlsVersion::V1_3), 2);
        assert_eq!(offered(TlsVersion::V1_2, TlsVersion::V1_2), 1);
        assert_eq!(offered(TlsVersion::V1_3, TlsVersion::V1_3), 1);
    }

    #[test]
    fn a_young_file_has_not_settled_and_an_old_one_has() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, "x").unwrap();
        let young = Fingerprint::of(std::slice::from_ref(&file));
        assert!(!young.settled);
        // The inode's own time cannot be set back: an old file of the system stands in.
        let old = Fingerprint::of(&[PathBuf::from("/proc/self/exe")]);
        assert!(old.files[0].is_some());
        std::fs::write(&file, "xy").unwrap();
        assert_ne!(Fingerprint::of(&[file]).files, young.files);
    }

    #[test]
    fn only_files_that_settled_and_look_the_same_are_not_read_again() {
        let looks = |length| Looks {
            device: 1,
            inode: 1,
            length,
            modified: (1, 0),
            changed: (1, 0),
        };
        let seen = |length, settled| Fingerprint {
            files: vec![Some(looks(length))],
            settled,
        };
        for (read, now, known) in [
            (seen(1, true), seen(1, true), true),
            (seen(1, false), seen(1, true), false),
            (seen(1, true), seen(2, true), false),
        ] {
            let slot = Slot::default();
            assert!(slot.known(&now).is_none());
            lock(&slot.0).read = Some(Reading {
                files: read,
                error: Some("bad".into()),
            });
            assert_eq!(slot.known(&now).is_some(), known);
        }
    }

    #[test]
    fn the_memory_for_tickets_grows_with_the_targets_and_never_below_rustls_own() {
        expect_targets(1000);
        assert_eq!(TICKETS.load(Relaxed), 8000);
        expect_targets(1);
        assert_eq!(TICKETS.load(Relaxed), DEFAULT_TICKETS);
    }
}
