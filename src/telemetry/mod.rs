//! What the program tells the world: log lines, metrics, and the JSON of `/api/v1/targets`.
//!
//! Everything here reads [`crate::stats`] or takes an event; nothing sees a target or a socket.

pub(crate) mod evidence;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod observe;
pub(crate) mod targets_json;
pub(crate) mod words;

pub(crate) use evidence::certificate_time;
