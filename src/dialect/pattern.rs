//! What a message must look like.

/// A pattern, its templates (`${seq}`, ..) not yet expanded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    /// A regular expression that the text matches somewhere.
    Regex(Box<str>),
    /// JSON that has this value at this pointer (RFC 6901).
    Pointer { pointer: Box<str>, value: Box<str> },
}

impl Pattern {
    /// Whether the pattern can be used; what is wrong with it, if not.
    pub(crate) fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
