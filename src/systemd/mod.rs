//! What this program has to do with the service manager that started it: telling it how things
//! stand, taking the sockets it opened, writing to its journal. All of it is protocol by datagram,
//! environment variable and descriptor; nothing here needs systemd to be there.

mod activation;
mod journal;
mod notify;

pub(crate) use activation::{Listening, Passed, take_passed};
pub(crate) use journal::{Entry, Journal, stderr_is_the_journal};
pub(crate) use notify::Manager;
