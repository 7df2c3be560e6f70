//! Values of flags that more than one command reads.

use std::time::Duration;

use crate::config::duration::parse_duration;

/// A duration with a unit, more than nothing.
pub(super) fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("must be more than 0".into()),
        duration => Ok(duration),
    }
}
