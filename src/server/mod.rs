//! What listens: the embedded peer that answers pings, and the endpoint that is scraped.

pub(crate) mod admin;
pub(crate) mod peer;
pub(crate) mod tls;
