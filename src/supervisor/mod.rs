//! Holds every target of the configuration: one task per name, told what to become when the
//! configuration changes.

mod actor;
mod fan_out;
mod fan_outs;
mod plan;

pub(crate) use actor::{Control, Hold, Reporter, Supervisor};
pub(crate) use fan_outs::{FanOuts, system_look_up};
