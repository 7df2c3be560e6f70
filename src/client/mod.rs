//! Many sessions in a row: the reconnecting client.

pub(crate) mod gate;
pub(crate) mod hold;
