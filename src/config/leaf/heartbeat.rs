//! What a heartbeat table holds.

use std::borrow::Cow;

use figment::value::{Num, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::source::{Sourced, Use, read_message};
use super::{read_choice, schema};
use crate::config::Secret;
use crate::config::heartbeat::Kind;
use crate::config::layer::Step;
use crate::config::read::{Field, Read, Reader, integer, section};
use crate::dialect::mqtt;
use crate::dialect::pattern::Pattern;

/// What MQTT counts the length of a string in (16 bits), and more than anybody writes elsewhere.
const LONGEST: usize = 65_535;

schema!(Kind, { "enum": [
    "ping", "message", "expect", "none", "sse", "actioncable", "engineio",
    "graphql-transport-ws", "phoenix", "stomp", "mqtt", "signalr", "json-rpc"
] });

impl Read for Kind {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        if let Some(name) = value.as_str()
            && let Some(kind) = Self::meant_by(name)
            && kind.as_str() != name
        {
            let (shown, kind) = (name.escape_debug(), kind.as_str());
            return reader.mistake(format!("`{shown}` is `{kind}` here; write \"{kind}\""));
        }
        let choices = Self::ALL.map(|kind| (kind.as_str(), kind));
        read_choice(value, reader, &choices)
    }
}

schema!(mqtt::Version, { "enum": ["3.1.1", "5"] });

impl Read for mqtt::Version {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        if let Value::Num(_, number) = value {
            let number = integer(number).map_or_else(|| "3.1.1".into(), |n| n.to_string());
            return reader.mistake(format!("must be a string: \"{number}\""));
        }
        read_choice(value, reader, &[("3.1.1", Self::V311), ("5", Self::V5)])
    }
}

/// Text that is written down: not empty.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Text(pub(in crate::config) Box<str>);
schema!(Text, { "type": "string", "minLength": 1 });

impl Read for Text {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        match value.as_str() {
            Some("") => reader.mistake("must not be empty"),
            Some(text) => Some(Self(text.into())),
            None => reader.expected("a string", value),
        }
    }
}

/// One line that a protocol can carry: neither empty nor endless, no control characters.
fn line(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Err("must not be empty"),
        _ if text.contains(char::is_control) => Err("must not contain control characters"),
        _ if text.len() > LONGEST => Err("must be at most 65535 bytes"),
        _ => Ok(()),
    }
}

/// A name that a protocol carries.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Line(pub(in crate::config) Box<str>);
schema!(Line, { "type": "string", "minLength": 1, "maxLength": 65535 });

impl Read for Line {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.expected("a string", value);
        };
        match line(text) {
            Ok(()) => Some(Self(text.into())),
            Err(wrong) => reader.mistake(wrong),
        }
    }
}

/// A user's name.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Login(pub(in crate::config) Secret<Box<str>>);
schema!(Login, { "type": "string", "minLength": 1, "maxLength": 65535 });

impl Read for Login {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        Line::read(value, reader).map(|Line(name)| Self(Secret::new(name)))
    }
}

/// A namespace of Socket.IO.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Namespace(pub(in crate::config) Box<str>);
schema!(Namespace, { "type": "string", "pattern": "^(/[^,]*)?$" });

impl Read for Namespace {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        if value.as_str() == Some("") {
            return Some(Self("".into())); // none
        }
        let Line(name) = Line::read(value, reader)?;
        if !name.starts_with('/') || name.contains(',') {
            return reader.mistake(
                "must begin with `/` and hold no `,`: \"/\" or \"/admin\"; \"\" for none",
            );
        }
        Some(Self(name))
    }
}

/// A value that may be kept elsewhere.
macro_rules! message {
    ($(#[doc = $about:literal])+ $name:ident, $purpose:expr) => {
        super::source::sourced! {
            $(#[doc = $about])+
            $name
        }

        impl Read for $name {
            const TABLE: bool = true;

            fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
                read_message(value, reader, $purpose).map(Self)
            }
        }
    };
}

message! {
    /// A message with templates in it.
    Template, Use::Template
}

message! {
    /// A JSON object.
    JsonObject, Use::Object
}

message! {
    /// A JSON object or array.
    JsonParams, Use::Params
}

message! {
    /// A password that no header carries.
    Passcode, Use::Passcode
}

section! {
    /// What a message has to look like.
    ExpectTable {
        /// A regular expression that the text matches somewhere.
        regex: Text,
        /// A JSON pointer (RFC 6901).
        pointer: Pointer,
        /// What stands there.
        value: Scalar,
    }
}

/// A JSON pointer, judged with what stands there.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Pointer(Box<str>);
schema!(Pointer, { "type": "string", "pattern": "^(/.*)?$" });

impl Read for Pointer {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        match value.as_str() {
            Some(text) => Some(Self(text.into())),
            None => reader.expected("a JSON pointer such as \"/result/status\"", value),
        }
    }
}

/// What a JSON document may hold at a pointer, as it reads there.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Scalar(Box<str>);
schema!(Scalar, { "anyOf": [{ "type": "string" }, { "type": "number" }, { "type": "boolean" }] });

impl Read for Scalar {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        match (value, json(value)) {
            (Value::String(_, text), _) => Some(Self(text.as_str().into())),
            (Value::Num(..) | Value::Bool(..), Some(json)) => Some(Self(json.to_string().into())),
            _ => reader.expected("a string, a number, true or false", value),
        }
    }
}

/// What an answer or a beat looks like.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Expectation(pub(in crate::config) Pattern);

impl JsonSchema for Expectation {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Expectation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<ExpectTable>();
        json_schema!({ "anyOf": [{ "type": "string", "minLength": 1 }, table] })
    }
}

impl Read for Expectation {
    const TABLE: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        const WANTED: &str = "a regular expression, { regex = .. } or { pointer = .., value = .. }";
        let pattern = match value {
            Value::String(_, text) => Pattern::Regex(text.as_str().into()),
            Value::Dict(..) => {
                let table = ExpectTable::read(value, reader)?;
                match (table.regex, table.pointer, table.value) {
                    (Field::Bad, _, _) | (_, Field::Bad, _) | (_, _, Field::Bad) => return None,
                    (Field::Set(Text(regex), _), Field::Absent, Field::Absent) => {
                        Pattern::Regex(regex)
                    }
                    (Field::Absent, Field::Set(Pointer(pointer), _), Field::Set(value, _)) => {
                        let value = value.0;
                        Pattern::Pointer { pointer, value }
                    }
                    (Field::Absent, Field::Set(..), Field::Absent) => {
                        return reader.mistake("has a `pointer` and no `value` to find there");
                    }
                    (Field::Absent, Field::Absent, Field::Set(..)) => {
                        return reader.mistake("has a `value` and no `pointer` to find it at");
                    }
                    (Field::Set(..), _, _) => {
                        return reader.mistake("has `regex` beside `pointer` or `value`; keep one");
                    }
                    (Field::Absent, Field::Absent, Field::Absent) => {
                        return reader.mistake(format!("is empty; write {WANTED}"));
                    }
                }
            }
            _ => return reader.expected(WANTED, value),
        };
        match pattern.check() {
            Ok(()) => Some(Self(pattern)),
            Err(wrong) => reader.mistake(wrong),
        }
    }
}

/// A channel or a topic, and what it is entered with.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Member {
    pub(in crate::config) name: Box<str>,
    /// A JSON object without the name; `None` of a name that stands alone.
    pub(in crate::config) parameters: Option<Secret<Box<str>>>,
}

impl Member {
    /// Reads a name, or a table in which it stands at `key`.
    fn read(key: &'static str, value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let dict = match value {
            Value::String(..) => {
                let Line(name) = Line::read(value, reader)?;
                return Some(Self {
                    name,
                    parameters: None,
                });
            }
            Value::Dict(_, dict) => dict,
            _ => return reader.expected(&format!("a name, or a table with `{key}`"), value),
        };
        let Some(name) = dict.get(key) else {
            return reader.mistake(format!("has no `{key}`: the name, beside its parameters"));
        };
        let name = reader.within(key.into(), |reader| Line::read(name, reader));
        let mut parameters = serde_json::Map::new();
        let mut good = true;
        for (parameter, value) in dict.iter().filter(|(name, _)| *name != key) {
            match json(value) {
                Some(json) => {
                    parameters.insert(parameter.clone(), json);
                }
                None => reader.within(parameter.as_str().into(), |reader| {
                    good = false;
                    reader.expected::<()>("what JSON knows, too", value);
                }),
            }
        }
        let parameters = serde_json::Value::Object(parameters).to_string();
        Some(Self {
            name: name.filter(|_| good)?.0,
            parameters: (dict.len() > 1).then(|| Secret::new(parameters.into())),
        })
    }

    /// Reads a list of them; as text, a TOML array or the only element.
    fn list(key: &'static str, value: &Value, reader: &mut Reader<'_>) -> Option<Vec<Self>> {
        let one;
        let elements = match value {
            Value::Array(_, elements) => elements.as_slice(),
            // Of the environment or a flag, or a bracket forgotten, which leaves no doubt.
            Value::Dict(..) => std::slice::from_ref(value),
            _ => {
                one = reader.list(value)?;
                &one
            }
        };
        let mut list: Option<Vec<Self>> = Some(Vec::with_capacity(elements.len()));
        for (index, element) in elements.iter().enumerate() {
            let read = reader.within(Step::Index(index), |reader| {
                let member = Self::read(key, element, reader)?;
                let mut before = list.iter().flatten();
                if before.any(|before| *before == member) {
                    let shown = member.name.escape_debug();
                    return reader.mistake(format!("`{shown}` is there twice"));
                }
                Some(member)
            });
            match (read, &mut list) {
                (Some(member), Some(list)) => list.push(member),
                _ => list = None, // reported; the others are still judged
            }
        }
        list
    }
}

/// Names, or tables with the name and its parameters.
macro_rules! members {
    ($(#[doc = $about:literal])+ $name:ident, $key:literal) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Default)]
        pub(in crate::config) struct $name(pub(in crate::config) Vec<Member>);
        schema!($name, {
            "type": "array",
            "items": { "anyOf": [
                { "type": "string", "minLength": 1 },
                { "type": "object", "required": [$key] },
            ] },
            "uniqueItems": true,
        });

        impl Read for $name {
            const TABLE: bool = true;

            fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
                Member::list($key, value, reader).map(Self)
            }
        }
    };
}

members! {
    /// Channels of ActionCable.
    Channels, "channel"
}

members! {
    /// Topics, destinations or filters.
    Topics, "topic"
}

/// A TOML value as JSON; JSON knows no dates, and no numbers that are none.
fn json(value: &Value) -> Option<serde_json::Value> {
    use serde_json::Value as Json;
    Some(match value {
        Value::String(_, text) => Json::String(text.clone()),
        Value::Char(_, c) => Json::String(c.to_string()),
        Value::Bool(_, yes) => Json::Bool(*yes),
        Value::Num(_, Num::F64(number)) => Json::Number(serde_json::Number::from_f64(*number)?),
        Value::Num(_, number) => {
            let number = i64::try_from(integer(number)?).ok()?;
            Json::Number(number.into())
        }
        Value::Array(_, elements) => Json::Array(elements.iter().map(json).collect::<Option<_>>()?),
        Value::Dict(_, dict) => {
            let entries = dict.iter();
            let entries = entries.map(|(key, value)| Some((key.clone(), json(value)?)));
            Json::Object(entries.collect::<Option<_>>()?)
        }
        Value::Empty(..) => return None,
    })
}
