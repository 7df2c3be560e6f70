//! Where listeners listen.

use std::borrow::Cow;
use std::net::SocketAddr;

use figment::value::Value;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::schema;
use crate::config::read::{Read, Reader};
use crate::config::{FaultSwitches, Listen};

/// An address and port.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct ListenAddress(pub(in crate::config) SocketAddr);
schema!(ListenAddress, { "type": "string" });

impl Read for ListenAddress {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        const WANTED: &str = "an address and port such as \"127.0.0.1:9000\" or \"[::]:9000\"";
        let Some(text) = value.as_str() else {
            return reader.expected(WANTED, value);
        };
        match text.parse() {
            Ok(address) => Some(Self(address)),
            Err(_) => {
                let shown = text.escape_debug();
                reader.mistake(format!("expected {WANTED}, found `{shown}`"))
            }
        }
    }
}

/// An address and port, or `unix:` and a path.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct AddressOrPath(pub(in crate::config) Listen);
schema!(AddressOrPath, { "type": "string" });

impl Read for AddressOrPath {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        match value.as_str().and_then(|text| text.strip_prefix("unix:")) {
            Some("") => reader.mistake("needs a path after `unix:`"),
            Some(path) => Some(Self(Listen::Unix(path.into()))),
            None => ListenAddress::read(value, reader).map(|l| Self(Listen::Tcp(l.0))),
        }
    }
}

/// Where one listener listens: one place or several.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Addresses(pub(in crate::config) Vec<Listen>);
schema!(Addresses, {
    "oneOf": [
        { "type": "string" },
        { "type": "array", "items": { "type": "string" }, "minItems": 1 },
    ]
});

impl Read for Addresses {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let list = match value {
            Value::String(_, text)
                if !text.starts_with('[') || text.parse::<SocketAddr>().is_ok() =>
            {
                vec![AddressOrPath::read(value, reader)?]
            }
            Value::String(..) | Value::Array(..) => Vec::<AddressOrPath>::read(value, reader)?,
            _ => return reader.expected("an address and port, or a list of them", value),
        };
        let mut places: Vec<Listen> = Vec::with_capacity(list.len());
        for AddressOrPath(place) in list {
            if places.contains(&place) {
                return reader.mistake("names the same address twice");
            }
            places.push(place);
        }
        if places.is_empty() {
            return reader.mistake("must not be empty; `enabled = false` opens no listener");
        }
        Some(Self(places))
    }
}

/// Whether faults are served: a boolean, or which.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct FaultSetting(pub(in crate::config) FaultSwitches);
schema!(FaultSetting, { "type": ["boolean", "string"] });

impl Read for FaultSetting {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        match value {
            Value::Bool(_, true) => Some(Self(FaultSwitches::ByQuery)),
            Value::Bool(_, false) => Some(Self(FaultSwitches::Off)),
            Value::String(_, text) => match FaultSwitches::parse(text) {
                Ok(switches) => Some(Self(switches)),
                Err(message) => reader.mistake(message),
            },
            _ => reader.expected(
                "true, false, or switches such as \"close=1012&after=10s\"",
                value,
            ),
        }
    }
}
