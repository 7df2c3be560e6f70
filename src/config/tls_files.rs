//! Whether the TLS files were good when they were last read: the dial writes it, the metric reads
//! it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::TlsOptions;

/// Options whose files were bad when they were last read. Those no configuration holds any more
/// are dropped.
static BAD: Mutex<Vec<Weak<TlsOptions>>> = Mutex::new(Vec::new());

/// Books how the files of `options` were when they were read just now.
pub(crate) fn book(options: &Arc<TlsOptions>, good: bool) {
    let mut bad = BAD.lock().unwrap_or_else(PoisonError::into_inner);
    bad.retain(|other| other.upgrade().is_some_and(|other| other != *options));
    if !good {
        bad.push(Arc::downgrade(options));
    }
}

/// Whether the files of each listener were good when they were last read. Those nobody serves by
/// any more are dropped.
static LISTENERS: Mutex<Vec<Weak<AtomicBool>>> = Mutex::new(Vec::new());

/// Whether one listener's files were good when they were last read; for as long as it lives.
#[derive(Debug)]
pub(crate) struct ListenerFiles(Arc<AtomicBool>);

impl ListenerFiles {
    /// Of files that were good just now.
    pub(crate) fn good() -> Self {
        let good = Arc::new(AtomicBool::new(true));
        let mut all = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&good));
        Self(good)
    }

    /// Books how they were when they were read just now.
    pub(crate) fn book(&self, good: bool) {
        self.0.store(good, Relaxed);
    }
}

/// Whether every TLS file in use was good when it was last read.
pub(crate) fn files_are_good() -> bool {
    let mut bad = BAD.lock().unwrap_or_else(PoisonError::into_inner);
    bad.retain(|options| options.strong_count() > 0);
    let listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut listeners = listeners.iter().filter_map(Weak::upgrade);
    bad.is_empty() && listeners.all(|good| good.load(Relaxed))
}

/// For tests, which share the process with others.
#[cfg(test)]
pub(crate) fn is_good(options: &TlsOptions) -> bool {
    let bad = BAD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bad = bad.iter().filter_map(Weak::upgrade);
    !bad.any(|other| *other == *options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_files_of_options_nobody_uses_are_forgotten() {
        let named = |name: &str| {
            Arc::new(TlsOptions {
                server_name: Some(name.into()),
                ..TlsOptions::default()
            })
        };
        let (first, equal) = (named("first.test"), named("first.test"));
        book(&first, false);
        assert!(!is_good(&equal) && !files_are_good());
        book(&equal, true);
        assert!(is_good(&first));
        book(&first, false);
        drop(first);
        assert!(is_good(&equal));
    }
}
