//! The values that keys take, each checked on its own as it is read.

mod connection;
mod heartbeat;
mod label;
mod listen;
mod otlp;
mod proxy;
mod request;
mod source;
mod tls;
mod web;

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::{Num, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

pub(super) use connection::{
    AuthChoice, BindTo, CookieTable, Destinations, HeaderText, KeepaliveTime, LookupInterval,
    Probes, Redirects, UserTimeout,
};
pub(super) use heartbeat::{
    Channels, Expectation, JsonObject, JsonParams, Line, Login, Member, Namespace, Passcode,
    Template, Text, Topics,
};
pub(super) use label::Labels;
pub(super) use listen::{Addresses, FaultSetting, ListenAddress};
pub(super) use otlp::{Attributes, CollectorUrl, Gzip};
pub(super) use proxy::{ProxySetting, masked_proxy};
pub(crate) use request::WsUrl;
pub(super) use request::{HeaderTable, Subprotocols};
pub(super) use request::{header_name, header_value, subprotocols};
pub(super) use source::{Pem, Sourced, Use};
pub(super) use tls::TlsName;
pub(super) use web::{AnswerHeaders, CipherSuites, FileMode, UserTable, WebTlsVersion};

use super::duration::{format_duration, is_bare_number, parse_duration, parse_size};
use super::read::{Read, Reader, integer, nearest};
use super::{LogFormat, LogLevel, Secret};

/// No configured wait is longer: beyond it a mistyped unit is likelier than intent.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// Pings closer than this measure the scheduler, not the path.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// Buckets cost 8 bytes per target each.
const MOST_BUCKETS: usize = 64;

/// The schema of a leaf.
macro_rules! schema {
    ($type:ty, $json:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($json)
            }
        }
    };
}

use schema;

/// A duration above zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Positive(pub(super) Duration);
schema!(Positive, {
    "type": "string",
    "pattern": "^(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d))+$",
});

impl Read for Positive {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let text = match value {
            Value::String(_, text) => text,
            Value::Num(_, Num::F64(number)) => {
                return reader.mistake(format!("needs a unit: \"{number}s\"?"));
            }
            Value::Num(_, number) => {
                let number = integer(number).unwrap_or_default();
                return reader.mistake(format!("needs a unit: \"{number}s\"?"));
            }
            _ => return reader.expected("a duration such as \"10s\"", value),
        };
        if is_bare_number(text) {
            // As it is to be written: in a file a string.
            let quote = if reader.text(value).is_some() {
                ""
            } else {
                "\""
            };
            return reader.mistake(format!("needs a unit: {quote}{text}s{quote}?"));
        }
        match parse_duration(text) {
            Ok(Duration::ZERO) => reader.mistake("must be longer than 0"),
            Ok(duration) if duration > LONGEST => reader.mistake("must be at most 365d"),
            Ok(duration) => Some(Self(duration)),
            Err(message) => reader.mistake(message),
        }
    }
}

/// Time between pings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval(pub(super) Duration);

impl Read for Interval {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Positive(interval) = Positive::read(value, reader)?;
        if interval < SHORTEST_INTERVAL {
            let shortest = format_duration(SHORTEST_INTERVAL);
            return reader.mistake(format!("must be at least {shortest}"));
        }
        Some(Self(interval))
    }
}

impl JsonSchema for Interval {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Positive::json_schema(generator)
    }
}

/// An integer of `range`; as text, its digits.
fn read_integer(
    value: &Value,
    reader: &mut Reader<'_>,
    range: std::ops::RangeInclusive<i128>,
) -> Option<i128> {
    let text = reader.text(value).and_then(|text| text.parse().ok());
    let number = match value {
        Value::Num(_, Num::F32(_) | Num::F64(_)) => None,
        Value::Num(_, number) => integer(number),
        _ => text,
    };
    match number {
        Some(number) if range.contains(&number) => Some(number),
        Some(number) => reader.mistake(format!(
            "must be between {} and {}, not {number}",
            range.start(),
            range.end()
        )),
        None => reader.expected("an integer", value),
    }
}

/// How many, at least one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Count(pub(super) u32);
schema!(Count, { "type": "integer", "minimum": 1, "maximum": 4_294_967_295_u32 });

impl Read for Count {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let count = read_integer(value, reader, 1..=u32::MAX.into())?;
        u32::try_from(count).ok().map(Self)
    }
}

/// How many, or none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Retries(pub(super) u32);
schema!(Retries, { "type": "integer", "minimum": 0, "maximum": 1_000_000 });

impl Read for Retries {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let count = read_integer(value, reader, 0..=1_000_000)?;
        u32::try_from(count).ok().map(Self)
    }
}

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Size(pub(super) usize);
schema!(Size, {
    "oneOf": [
        { "type": "integer", "minimum": 1, "maximum": 4_294_967_295_u32 },
        { "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|kB|KB|MB|GB)?$" },
    ]
});

impl Read for Size {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let bytes = match value {
            Value::String(_, text) => match parse_size(text) {
                Ok(bytes) => bytes,
                Err(message) => return reader.mistake(message),
            },
            Value::Num(_, number) if !matches!(number, Num::F32(_) | Num::F64(_)) => {
                let bytes = read_integer(value, reader, 1..=u32::MAX.into())?;
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }
            _ => return reader.expected("a size such as \"16MiB\"", value),
        };
        if bytes == 0 || u32::try_from(bytes).is_err() {
            return reader.mistake("must be at least 1 byte and below 4GiB");
        }
        Some(Self(bytes))
    }
}

fn read_float(
    value: &Value,
    reader: &mut Reader<'_>,
    range: std::ops::RangeInclusive<f64>,
) -> Option<f64> {
    let text = reader.text(value).and_then(|text| text.parse().ok());
    let number = match value {
        Value::Num(_, Num::F64(number)) => Some(*number),
        Value::Num(_, number) => integer(number).map(|n| n as f64),
        _ => text,
    };
    match number {
        Some(number) if range.contains(&number) => Some(number),
        Some(_) => {
            let (from, to) = range.into_inner();
            reader.mistake(format!("must be between {from} and {to}"))
        }
        None => reader.expected("a number", value),
    }
}

/// Growth, at least 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Factor(pub(super) f64);
schema!(Factor, { "type": "number", "minimum": 1, "maximum": 1000 });

impl Read for Factor {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        read_float(value, reader, 1.0..=1000.0).map(Self)
    }
}

/// A share of a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share(pub(super) f64);
schema!(Share, { "type": "number", "minimum": 0, "maximum": 1 });

impl Read for Share {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        read_float(value, reader, 0.0..=1.0).map(Self)
    }
}

impl Read for bool {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        match (value, reader.text(value)) {
            (Value::Bool(_, yes), _) => Some(*yes),
            (_, Some("true")) => Some(true),
            (_, Some("false")) => Some(false),
            _ => reader.expected("true or false", value),
        }
    }
}

/// Reads one of `choices`.
fn read_choice<T: Clone>(
    value: &Value,
    reader: &mut Reader<'_>,
    choices: &[(&str, T)],
) -> Option<T> {
    let names = choices.iter().map(|(name, _)| *name);
    let list = names.clone().collect::<Vec<_>>().join(", ");
    let Some(text) = value.as_str() else {
        return reader.expected(&format!("one of {list}"), value);
    };
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Some(choice.clone());
    }
    let hint = nearest(text, names).map_or(String::new(), |near| format!("; `{near}`?"));
    let shown = text.escape_debug();
    reader.mistake(format!("expected one of {list}, found `{shown}`{hint}"))
}

impl Read for LogLevel {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let choices = [
            ("debug", Self::Debug),
            ("info", Self::Info),
            ("warn", Self::Warn),
            ("error", Self::Error),
        ];
        read_choice(value, reader, &choices)
    }
}

impl Read for LogFormat {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let choices = [
            ("auto", Self::Auto),
            ("text", Self::Text),
            ("json", Self::Json),
        ];
        read_choice(value, reader, &choices)
    }
}

/// A name people see: not empty, no control characters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Name(pub(super) Box<str>);
schema!(Name, { "type": "string", "minLength": 1 });

impl Read for Name {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        match value.as_str() {
            Some("") => reader.mistake("must not be empty"),
            Some(name) if name.contains(char::is_control) => {
                reader.mistake("must not contain control characters")
            }
            Some(name) => Some(Self(name.into())),
            None => reader.expected("a string", value),
        }
    }
}

/// A path of the file system.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FilePath(pub(super) PathBuf);
schema!(FilePath, { "type": "string", "minLength": 1 });

impl Read for FilePath {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        match value.as_str() {
            Some("") => reader.mistake("must not be empty"),
            Some(path) if path.contains('\0') => reader.mistake("must not contain a NUL"),
            Some(path) => Some(Self(path.into())),
            None => reader.expected("a path", value),
        }
    }
}

/// Bounds of the round-trip histogram.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BucketBounds(pub(super) Vec<Duration>);
schema!(BucketBounds, {
    "type": "array",
    "items": { "type": "string" },
    "minItems": 1,
    "maxItems": 64,
});

impl Read for BucketBounds {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let bounds = Vec::<Positive>::read(value, reader)?;
        let bounds: Vec<Duration> = bounds.into_iter().map(|bound| bound.0).collect();
        if bounds.is_empty() || bounds.len() > MOST_BUCKETS {
            return reader.mistake(format!("must hold 1 to {MOST_BUCKETS} bounds"));
        }
        if !bounds.is_sorted_by(|a, b| a < b) {
            return reader.mistake("must ascend");
        }
        Some(Self(bounds))
    }
}

impl Read for Secret<Box<str>> {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        match value.as_str() {
            Some(text) => Some(Self::new(text.into())),
            None => reader.expected("a string", value),
        }
    }
}

schema!(Secret<Box<str>>, { "type": "string" });
