//! JSON of the peer's.

use serde_json::{Map, Value};

use crate::proto::event::Message;

/// The object that a message is, if it is one. Text in a binary message counts as text.
pub(super) fn object(message: &Message) -> Option<Map<String, Value>> {
    match serde_json::from_slice(message.as_bytes()) {
        Ok(Value::Object(object)) => Some(object),
        Ok(_) | Err(_) => None,
    }
}

/// The text at `key`.
pub(super) fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// A number of ours that the peer repeats.
pub(super) fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| number.try_into().ok())
}
