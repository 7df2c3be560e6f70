//! The listeners: the peer that answers pings, and the endpoint that is scraped.

pub(crate) mod peer;
