//! What peers say beside the transport's own frames, and which of it is a heartbeat.

#[allow(dead_code, reason = "the link that reads it comes next")]
pub(crate) mod sse;
