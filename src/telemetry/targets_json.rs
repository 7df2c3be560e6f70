//! The JSON of `/api/v1/targets`, and the table `ws-keepalive status` makes of it.

use serde::{Deserialize, Serialize};

use crate::stats::Registry;

/// Every target, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TargetsJson {}

/// What the registry knows of every target.
pub(crate) fn targets(_registry: &Registry) -> TargetsJson {
    TargetsJson {}
}

/// The targets as a table for people: TARGET STATE SINCE RTT DROPS URL.
pub(crate) fn table(_json: &TargetsJson) -> String {
    String::new()
}
