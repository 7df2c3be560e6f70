//! What is wrong with a configuration, and where.

use std::fmt;

/// Every mistake of every layer: files first, in reading order, then environment, then flags.
/// Displays one to a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) mistakes: Vec<Mistake>,
}

/// One mistake. Its text names no secret value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// `config/x.toml:12:17`, `WS_KEEPALIVE__METRICS__LISTEN`, `--set`.
    pub(crate) place: String,
    /// `target[2].ping_interval`, counted from 0 within its file; empty where no key is concerned.
    pub(crate) key: String,
    /// What was expected and what to do.
    pub(crate) message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mistake) in self.mistakes.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
