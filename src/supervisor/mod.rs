//! Holds every target of the configuration: one task per name, told what to become when the
//! configuration changes.

mod actor;
mod plan;

pub(crate) use actor::{Control, Hold, Reporter, Supervisor};
