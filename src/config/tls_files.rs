//! Whether the TLS files were good when they were last read: the dial writes it, the metric reads
//! it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::TlsOptions;

/// Of this process.
static STANDING: Standing = Standing::new();

/// How the files were when they were last read.
struct Standing {
    /// Options whose files were bad. Those no configuration holds any more are dropped.
    bad: Mutex<Vec<Weak<TlsOptions>>>,
    /// Whether the files of each listener were good. Those nobody serves by any more are dropped.
    listeners: Mutex<Vec<Weak<AtomicBool>>>,
}

impl Standing {
    const fn new() -> Self {
        Self {
            bad: Mutex::new(Vec::new()),
            listeners: Mutex::new(Vec::new()),
        }
    }

    fn bad(&self) -> MutexGuard<'_, Vec<Weak<TlsOptions>>> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Weak<AtomicBool>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self, options: &Arc<TlsOptions>, good: bool) {
        let mut bad = self.bad();
        bad.retain(|other| other.upgrade().is_some_and(|other| other != *options));
        if !good {
            bad.push(Arc::downgrade(options));
        }
    }

    fn listener(&self) -> ListenerFiles {
        let good = Arc::new(AtomicBool::new(true));
        let mut all = self.listeners();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&good));
        ListenerFiles(good)
    }

    fn is_good(&self) -> bool {
        let mut bad = self.bad();
        bad.retain(|options| options.strong_count() > 0);
        let listeners = self.listeners();
        let mut listeners = listeners.iter().filter_map(Weak::upgrade);
        bad.is_empty() && listeners.all(|good| good.load(Relaxed))
    }
}

/// Books how the files of `options` were when they were read just now.
pub(crate) fn book(options: &Arc<TlsOptions>, good: bool) {
    STANDING.book(options, good);
}

/// Whether one listener's files were good when they were last read; for as long as it lives.
#[derive(Debug)]
pub(crate) struct ListenerFiles(Arc<AtomicBool>);

impl ListenerFiles {
    /// Of files that were good just now.
    pub(crate) fn good() -> Self {
        STANDING.listener()
    }

    /// Books how they were when they were read just now.
    pub(crate) fn book(&self, good: bool) {
        self.0.store(good, Relaxed);
    }
}

/// Whether every TLS file in use was good when it was last read.
pub(crate) fn files_are_good() -> bool {
    STANDING.is_good()
}

/// For tests, which share the process with others.
#[cfg(test)]
pub(crate) fn is_good(options: &TlsOptions) -> bool {
    let bad = STANDING.bad();
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
        let standing = Standing::new();
        assert!(standing.is_good());
        let (first, equal) = (named("first.test"), named("first.test"));
        standing.book(&first, false);
        assert!(!standing.is_good());
        standing.book(&named("other.test"), true);
        assert!(!standing.is_good(), "the first's are bad as before");
        standing.book(&equal, true);
        assert!(standing.is_good());
        standing.book(&first, false);
        drop(first);
        assert!(standing.is_good());
    }

    #[test]
    fn bad_files_of_one_listener_count_until_they_are_good_or_it_is_gone() {
        let standing = Standing::new();
        let (one, other) = (standing.listener(), standing.listener());
        assert!(standing.is_good());
        one.book(false);
        other.book(true);
        assert!(!standing.is_good());
        one.book(true);
        assert!(standing.is_good());
        one.book(false);
        drop(one);
        assert!(standing.is_good());
    }
}
