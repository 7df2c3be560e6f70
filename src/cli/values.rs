//! Values of flags that more than one command reads.

use std::time::Duration;

use crate::config::duration::parse_duration;
use crate::config::{Listen, Secret};

/// A duration with a unit, more than nothing.
pub(super) fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("must be more than 0".into()),
        duration => Ok(duration),
    }
}

/// Where to listen: an address and port, or `unix:` and a path.
pub(super) fn parse_listen(text: &str) -> Result<Listen, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("needs a path after `unix:`".into()),
        Some(path) => Ok(Listen::Unix(path.into())),
        None => text.parse().map(Listen::Tcp).map_err(|_| {
            "expected an address and port such as 127.0.0.1:8080 or [::]:8080, or unix:/path".into()
        }),
    }
}

/// Takes anything, since an error of clap's would show it.
#[allow(clippy::unnecessary_wraps)] // the form clap asks for
pub(super) fn parse_secret(text: &str) -> Result<Secret<String>, String> {
    Ok(Secret::new(text.to_owned()))
}
