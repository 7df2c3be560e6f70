//! What a collector is told, and how.

use std::borrow::Cow;
use std::collections::BTreeMap;

use figment::value::Value;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{read_choice, schema};
use crate::config::otlp::{OtlpProtocol, Temporality};
use crate::config::place::{Place, Split};
use crate::config::read::{Read, Reader};

/// The base URL of a collector. It may hold secrets.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct CollectorUrl(pub(in crate::config) Place);
schema!(CollectorUrl, { "type": "string", "pattern": "^[hH][tT][tT][pP][sS]?://[^#]+$" });

impl CollectorUrl {
    /// Judges a URL. The message shows nothing of it but its scheme.
    pub(in crate::config) fn parse(text: &str) -> Result<Self, String> {
        const SCHEMES: &str = "http://HOST:PORT or https://HOST:PORT";
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        match scheme.map(str::to_ascii_lowercase).as_deref() {
            Some("http" | "https") => Ok(Self(Place::of(&Split::parse(text)?)?)),
            Some(other) if other.chars().all(|c| c.is_ascii_alphanumeric()) => {
                Err(format!("has the scheme `{other}`; use {SCHEMES}"))
            }
            Some(_) | None => Err(format!("needs a scheme: {SCHEMES}")),
        }
    }
}

impl Read for CollectorUrl {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.expected("a URL such as \"http://localhost:4318\"", value);
        };
        match Self::parse(text) {
            Ok(url) => Some(url),
            Err(wrong) => reader.mistake(wrong),
        }
    }
}

schema!(OtlpProtocol, { "enum": ["grpc", "http/protobuf"] });

impl Read for OtlpProtocol {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let choices = [Self::Grpc, Self::HttpProtobuf];
        read_choice(value, reader, &choices.map(|p| (p.as_str(), p)))
    }
}

schema!(Temporality, { "enum": ["delta", "cumulative"] });

impl Read for Temporality {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let choices = [Self::Delta, Self::Cumulative];
        read_choice(value, reader, &choices.map(|t| (t.as_str(), t)))
    }
}

/// Whether what is sent is compressed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) struct Gzip(pub(in crate::config) bool);
schema!(Gzip, { "enum": ["gzip", "none"] });

impl Read for Gzip {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let choices = [("gzip", Self(true)), ("none", Self(false))];
        read_choice(value, reader, &choices)
    }
}

/// Attributes of the resource, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::config) struct Attributes(pub(in crate::config) BTreeMap<Box<str>, Box<str>>);
schema!(Attributes, { "type": "object", "additionalProperties": { "type": "string" } });

impl Read for Attributes {
    const MAP: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let mut attributes = Self::default();
        for (name, value) in reader.table(value)?.iter() {
            reader.within(name.as_str().into(), |reader| match (name.as_str(), value) {
                ("", _) => reader.key_mistake("must not be empty"),
                (name, Value::String(_, text)) => {
                    attributes.0.insert(name.into(), text.as_str().into());
                }
                // Written as one name it is quoted; without quotes TOML reads a table.
                (name, Value::Dict(..)) => reader.key_mistake(format!(
                    "expected a string, found a table; quote a name that has dots: \"{name}. ..\" = .."
                )),
                (_, value) => {
                    reader.expected::<()>("a string", value);
                }
            });
        }
        Some(attributes)
    }
}
