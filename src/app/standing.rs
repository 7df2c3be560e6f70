//! How things stand, in the one line that `systemctl status` shows.

use std::fmt;
use std::sync::Arc;

use crate::stats::Registry;

/// What the line is made of. Two counters and a word: it is looked at every second.
#[derive(Debug)]
pub(super) struct Standing {
    registry: Arc<Registry>,
    /// Mistakes of the last reload, if it was refused.
    mistakes: Option<usize>,
    is_stopping: bool,
}

impl Standing {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            mistakes: None,
            is_stopping: false,
        }
    }

    /// A reload was refused for so many mistakes, or applied.
    pub(super) fn reloaded(&mut self, mistakes: Option<usize>) {
        self.mistakes = mistakes;
    }

    pub(super) fn stopping(&mut self) {
        self.is_stopping = true;
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (up, all) = (
            self.registry.established_count(),
            self.registry.target_count(),
        );
        if self.is_stopping {
            return write!(f, "stopping: {up} of {all} targets still established");
        }
        match all {
            0 => f.write_str("no targets configured")?,
            1 => write!(f, "{up} of 1 target established")?,
            _ => write!(f, "{up} of {all} targets established")?,
        }
        match self.mistakes {
            None => Ok(()),
            Some(1) => f.write_str("; last reload failed: 1 error"),
            Some(n) => write!(f, "; last reload failed: {n} errors"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_reload_is_said_until_one_is_applied() {
        let mut standing = Standing::new(Registry::new());
        assert_eq!(standing.to_string(), "no targets configured");
        for (mistakes, words) in [
            (
                Some(2),
                "no targets configured; last reload failed: 2 errors",
            ),
            (
                Some(1),
                "no targets configured; last reload failed: 1 error",
            ),
            (None, "no targets configured"),
        ] {
            standing.reloaded(mistakes);
            assert_eq!(standing.to_string(), words);
        }
        standing.reloaded(Some(2));
        standing.stopping();
        assert_eq!(
            standing.to_string(),
            "stopping: 0 of 0 targets still established"
        );
    }
}
