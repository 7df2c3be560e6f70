//! Values of flags that more than one command reads, beside those the configuration judges.

use std::net::IpAddr;

use crate::config::{Listen, Secret};

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

/// An address without a port; an IPv6 literal with its brackets or without.
pub(super) fn parse_address(text: &str) -> Result<IpAddr, String> {
    let inside = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    inside.unwrap_or(text).parse().map_err(|_| {
        let hint = match text {
            "localhost" => "; for localhost alone 127.0.0.1",
            _ => "",
        };
        format!("expected an address such as 0.0.0.0, 127.0.0.1 or ::1, without a port{hint}")
    })
}

/// Takes anything, since an error of clap's would show it.
#[allow(clippy::unnecessary_wraps)] // the form clap asks for
pub(super) fn parse_secret(text: &str) -> Result<Secret<String>, String> {
    Ok(Secret::new(text.to_owned()))
}
