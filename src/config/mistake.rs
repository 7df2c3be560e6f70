//! What is wrong with a configuration, and where.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

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

/// Mistakes shown of one report: a file that is something else altogether has one on every line.
const SHOWN: usize = 1_000;

impl Report {
    /// Mistakes in the order of their files and lines, then the others as they came.
    pub(super) fn sorted<'a>(
        mut mistakes: Vec<Mistake>,
        files: impl Iterator<Item = &'a Path>,
    ) -> Self {
        let files: HashMap<String, usize> = files
            .enumerate()
            .map(|(n, path)| (path.display().to_string(), n))
            .collect();
        mistakes.sort_by_cached_key(|mistake| {
            // `path:line:column`, or something else.
            let mut parts = mistake.place.rsplitn(3, ':');
            let column = parts.next().and_then(|n| n.parse::<u32>().ok());
            let line = parts.next().and_then(|n| n.parse::<u32>().ok());
            let file = parts.next().and_then(|path| files.get(path));
            (file.copied().unwrap_or(usize::MAX), line, column)
        });
        Self { mistakes }
    }
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
        for (n, mistake) in self.mistakes.iter().take(SHOWN).enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        match self.mistakes.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more mistakes; these come first"),
        }
    }
}

impl std::error::Error for Report {}
