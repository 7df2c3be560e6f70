//! The metrics listener: `/metrics`, `/healthz`, `/readyz`, `/api/v1/targets`, `POST /-/reload`.
//!
//! It runs on its own thread with its own runtime, so that no scrape delays a ping.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::config::Listen;
use crate::reload::ReloadSender;
use crate::stats::Registry;

/// Whether `/readyz` says yes: the configuration is applied and every listener bound, and the
/// program is not draining.
#[derive(Debug, Default)]
pub(crate) struct Readiness(AtomicBool);

impl Readiness {
    /// Not ready yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.0.store(ready, Relaxed);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// A listener that is bound and not yet served.
#[derive(Debug)]
pub(crate) struct BoundListener {}

/// An address that cannot be listened on; says which, and which flag and key set it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on")]
pub(crate) struct BindError {
    source: io::Error,
}

/// Binds `listen`; `flag` names where the user set it, such as
/// `--metrics-server, metrics.listen`.
pub(crate) fn bind(_listen: &Listen, _flag: &'static str) -> Result<BoundListener, BindError> {
    Ok(BoundListener {})
}

/// The running metrics listener.
#[derive(Debug)]
pub(crate) struct Admin {}

/// Listeners bound for a reload and not yet swapped in; dropped, they change nothing.
#[derive(Debug)]
pub(crate) struct ListenerChange {}

/// Serves `listeners` on a thread of their own. `reload` is where `POST /-/reload` goes; without
/// it the path is not found.
pub(crate) fn start(
    _listeners: Vec<BoundListener>,
    _registry: Arc<Registry>,
    _readiness: Arc<Readiness>,
    _reload: Option<ReloadSender>,
) -> io::Result<Admin> {
    Ok(Admin {})
}

impl Admin {
    /// The first half of a reload: binds what `wanted` has and we have not. Fails with nothing
    /// changed.
    pub(crate) fn prepare(
        &self,
        _wanted: &[Listen],
        _flag: &'static str,
    ) -> Result<ListenerChange, BindError> {
        Ok(ListenerChange {})
    }

    /// The second half: serves the new listeners and closes those no longer wanted; unchanged
    /// ones are kept. Returns what changed, in words.
    pub(crate) fn commit(&self, _change: ListenerChange) -> Vec<String> {
        Vec::new()
    }

    /// Answers `POST /-/reload` from now on, or no longer.
    pub(crate) fn set_reload(&self, _reload: Option<ReloadSender>) {}

    /// What is listened on, with the ports that were assigned.
    pub(crate) fn local_addrs(&self) -> Vec<Listen> {
        Vec::new()
    }

    /// Stops listening, lets requests under way finish until `deadline` has passed, and ends the
    /// thread. Blocks up to `deadline`; on the I/O thread use `spawn_blocking`.
    pub(crate) fn shutdown(self, _deadline: Duration) {}
}
