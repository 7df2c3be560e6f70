//! The library's error: opaque, asked by predicate.

use std::fmt;

/// Why a [`Client`](crate::Client) could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Config(Box<str>),
    Closed,
    NotSent,
}

impl Error {
    pub(crate) fn config(what: impl Into<Box<str>>) -> Self {
        Self(Kind::Config(what.into()))
    }

    pub(crate) fn closed() -> Self {
        Self(Kind::Closed)
    }

    pub(crate) fn not_sent() -> Self {
        Self(Kind::NotSent)
    }

    /// The URL or a setting is wrong: trying again is no use.
    pub fn is_config(&self) -> bool {
        matches!(self.0, Kind::Config(_))
    }

    /// The client was closed, or gave up.
    pub fn is_closed(&self) -> bool {
        self.0 == Kind::Closed
    }

    /// The connection broke while the message was written.
    pub fn is_not_sent(&self) -> bool {
        self.0 == Kind::NotSent
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Config(what) => f.write_str(what),
            Kind::Closed => f.write_str("the client is closed"),
            Kind::NotSent => f.write_str("the connection broke before the message was sent"),
        }
    }
}

impl std::error::Error for Error {}
