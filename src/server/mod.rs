//! What listens: the metrics endpoints, and the embedded peer.

pub(crate) mod admin;
