//! What asks for a reload and what it is answered: the messages between the signal, the file
//! watch, the control socket, `POST /-/reload`, and the one place that reloads.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

/// Asks for a reload, and may wait for its outcome.
#[derive(Debug)]
pub(crate) struct ReloadRequest {
    pub(crate) trigger: Trigger,
    pub(crate) reply: Option<oneshot::Sender<ReloadOutcome>>,
}

pub(crate) type ReloadSender = mpsc::Sender<ReloadRequest>;

/// What was changed, or every mistake of the new configuration, one to a line.
pub(crate) type ReloadOutcome = Result<Changes, String>;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The file, or one in its `.d` directory, changed.
    File,
    /// SIGHUP.
    Signal,
    /// `POST /-/reload`.
    Http,
    /// `ws-keepalive reload`.
    Control,
}

impl Trigger {
    /// In words that follow "reloaded by".
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::File => "a file change",
            Self::Signal => "SIGHUP",
            Self::Http => "POST /-/reload",
            Self::Control => "the control socket",
        }
    }
}

/// What a reload did, by target name.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Changes {
    pub(crate) kept: usize,
    pub(crate) retuned: Vec<Arc<str>>,
    pub(crate) replaced: Vec<Arc<str>>,
    pub(crate) added: Vec<Arc<str>>,
    pub(crate) removed: Vec<Arc<str>>,
    /// Listeners that were bound, closed or changed, in words.
    pub(crate) listeners: Vec<String>,
    /// Changes that only a restart applies, in words.
    pub(crate) pending: Vec<String>,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |names: &[Arc<str>]| names.len();
        write!(
            f,
            "kept {}, retuned {}, replaced {}, added {}, removed {}",
            self.kept,
            count(&self.retuned),
            count(&self.replaced),
            count(&self.added),
            count(&self.removed),
        )?;
        for words in self.listeners.iter().chain(&self.pending) {
            write!(f, "; {words}")?;
        }
        Ok(())
    }
}
