//! The pure core: what a connection's life is, with time passed in.
//!
//! Nothing here does I/O, reads a clock or draws randomness of its own: `now` and random numbers
//! are arguments, deadlines and actions are results. A week of keepalive is a millisecond of test.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub(crate) mod backoff;
pub(crate) mod close;
pub(crate) mod event;
pub(crate) mod heartbeat;
pub(crate) mod probe;
pub(crate) mod reconnect;
pub(crate) mod silence;
