//! What listens: the embedded peer that answers pings, and the endpoint that is scraped.

pub(crate) mod admin;
mod events;
mod faults;
mod frames;
pub(crate) mod listener;
pub(crate) mod peer;
mod request;
mod talk;
mod ticker;
pub(crate) mod tls;
mod wire;

#[cfg(test)]
mod testing;
