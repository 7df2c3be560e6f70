//! Things that happen, in order, written by one thread and awaited by another.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shorthand: most waits here are some seconds long.
pub(crate) fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Looks every 20 ms until `look` finds something, and panics with what it saw last when `within`
/// has passed.
pub(crate) fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return found,
            Err(saw) if Instant::now() >= deadline => {
                panic!("not within {within:?}: {what}; last seen: {saw}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A list that only grows, and wakes whoever waits for its next entry.
pub(crate) struct Journal<T>(Arc<(Mutex<State<T>>, Condvar)>);

struct State<T> {
    entries: Vec<Arc<T>>,
    /// Nothing more will come.
    over: bool,
}

impl<T> Clone for Journal<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Journal<T> {
    fn default() -> Self {
        let state = State {
            entries: Vec::new(),
            over: false,
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }
}

impl<T: std::fmt::Debug> Journal<T> {
    pub(crate) fn push(&self, entry: T) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.entries.push(Arc::new(entry));
        self.0.1.notify_all();
    }

    /// Says that nothing more will come: whoever waits need not wait out the deadline.
    pub(crate) fn end(&self) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.over = true;
        self.0.1.notify_all();
    }

    pub(crate) fn is_over(&self) -> bool {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.over
    }

    pub(crate) fn len(&self) -> usize {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.entries.len()
    }

    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.entries.clone()
    }

    /// Waits for the first entry for which `find` gives something, old ones included.
    pub(crate) fn wait<R>(
        &self,
        what: &str,
        within: Duration,
        find: impl FnMut(&T) -> Option<R>,
    ) -> R {
        self.wait_from(0, what, within, find)
    }

    /// Like [`Self::wait`], but only among the entries from `position` on.
    pub(crate) fn wait_from<R>(
        &self,
        mut position: usize,
        what: &str,
        within: Duration,
        mut find: impl FnMut(&T) -> Option<R>,
    ) -> R {
        let deadline = Instant::now() + within;
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(entry) = state.entries.get(position) {
                if let Some(found) = find(entry) {
                    return found;
                }
                position += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.over || left.is_zero() {
                let why = if state.over { "it ended" } else { "timed out" };
                let tail = &state.entries[state.entries.len().saturating_sub(12)..];
                panic!("not seen ({why}, {within:?}): {what}; last entries: {tail:#?}");
            }
            let waited = self.0.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
