//! Values that may be kept elsewhere: what they must look like, and how they are written.

use std::borrow::Cow;

use figment::value::{Tag, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::schema;
use crate::config::read::{Read, Reader, nearest};
use crate::config::{Secret, SecretSource};
use crate::dialect::pattern::check_template;

/// Where a value is kept, and the layer that says so: a file's relative path counts from there.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Sourced {
    pub(in crate::config) source: SecretSource,
    pub(in crate::config) tag: Tag,
}

/// What a value is for, and so what it may hold, be it written down or read from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::config) enum Use {
    Header,
    Cookie,
    Password,
    /// A bearer token.
    Token,
    /// A message with templates in it.
    Template,
    /// A JSON object.
    Object,
    /// A JSON object or array.
    Params,
    /// A password that no header carries.
    Passcode,
    /// A password's bcrypt hash.
    Hash,
}

/// Each step doubles the time that a password takes: 16 is seconds, and 10 is usual.
const HIGHEST_COST: u32 = 16;

impl Use {
    /// What is wrong with `value`; it is not shown.
    pub(in crate::config) fn judge(self, value: &[u8]) -> Result<(), Cow<'static, str>> {
        let (good, wrong) = match self {
            Self::Header => (
                http::HeaderValue::from_bytes(value).is_ok(),
                "holds a character that no header may",
            ),
            Self::Cookie => (
                value.iter().all(|byte| is_cookie_octet(*byte)),
                "holds a character that no cookie may: whitespace, `;`, `,`, `\"`, `\\` \
                 or one beyond ASCII",
            ),
            Self::Password => (
                !value.iter().any(u8::is_ascii_control),
                "holds a control character, which no password may (RFC 7617 section 2)",
            ),
            Self::Token => (
                !value.is_empty() && value.iter().all(u8::is_ascii_graphic),
                "is no bearer token: letters, digits and -._~+/= (RFC 6750 section 2.1)",
            ),
            Self::Template => return judge_template(value),
            Self::Object => return judge_json(value, false),
            Self::Params => return judge_json(value, true),
            Self::Hash => return judge_hash(value),
            Self::Passcode => (
                std::str::from_utf8(value).is_ok_and(|text| !text.contains(char::is_control))
                    && u16::try_from(value.len()).is_ok(),
                "is no password that the protocol can carry: UTF-8, no control characters, at \
                 most 65535 bytes",
            ),
        };
        if good { Ok(()) } else { Err(wrong.into()) }
    }
}

fn judge_hash(value: &[u8]) -> Result<(), Cow<'static, str>> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    match text.parse::<bcrypt::HashParts>() {
        Ok(hash) if hash.get_cost() > HIGHEST_COST => Err(format!(
            "is a bcrypt hash of cost {}, which takes too long; {HIGHEST_COST} is the highest, 10 \
             is usual",
            hash.get_cost()
        )
        .into()),
        Ok(hash) if hash.get_cost() >= 4 => Ok(()),
        Ok(_) | Err(_) => {
            Err("is no bcrypt hash ($2y$10$..); make one with `htpasswd -nBC 10 NAME`".into())
        }
    }
}

fn judge_template(value: &[u8]) -> Result<(), Cow<'static, str>> {
    match std::str::from_utf8(value) {
        Ok("") => Err("must not be empty".into()),
        Ok(text) => check_template(text).map_err(|wrong| format!("is no template: {wrong}").into()),
        Err(_) => Err("is not UTF-8".into()),
    }
}

fn judge_json(value: &[u8], arrays: bool) -> Result<(), Cow<'static, str>> {
    use serde_json::Value;
    match (serde_json::from_slice(value), arrays) {
        (Ok(Value::Object(_)), _) | (Ok(Value::Array(_)), true) => Ok(()),
        (Ok(_), true) => Err("is neither a JSON object nor a JSON array".into()),
        (Ok(_), false) => Err("is no JSON object: '{\"key\":\"value\"}'".into()),
        // serde_json's own words may quote what is secret.
        (Err(error), _) => {
            let (line, column) = (error.line(), error.column());
            Err(format!("is not JSON (line {line}, column {column})").into())
        }
    }
}

/// RFC 6265 section 4.1.1.
fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)
}

/// Reads a string, which `literal` makes a source of, or a reference.
fn read_source(
    value: &Value,
    reader: &mut Reader<'_>,
    wanted: &str,
    text_may_be_table: bool,
    literal: impl FnOnce(&str) -> Result<SecretSource, String>,
) -> Option<Sourced> {
    // A value may be JSON: only what the environment and flags give can be a table as text.
    let inline = reader.judged_text(value).filter(|_| text_may_be_table);
    let inline = inline.is_some_and(|text| text.starts_with('{'));
    if let Some(text) = value.as_str().filter(|_| !inline) {
        let tag = value.tag();
        return match literal(text) {
            Ok(source) => Some(Sourced { source, tag }),
            Err(wrong) => reader.mistake(wrong),
        };
    }
    if !inline && !matches!(value, Value::Dict(..)) {
        return reader.expected(wanted, value);
    }
    let table = reader.table(value)?;
    let mut entries = table.iter();
    let (Some((kind, reference)), None) = (entries.next(), entries.next()) else {
        return reader.mistake(format!("expected {wanted}"));
    };
    let source = reader.within(kind.as_str().into(), |reader| {
        let Some(text) = reference.as_str().filter(|text| !text.is_empty()) else {
            return reader.mistake("expected a string that is not empty");
        };
        match kind.as_str() {
            "file" if text.contains('\0') => reader.mistake("must not contain a NUL"),
            "file" => Some(SecretSource::File(text.into())),
            "env" if text.contains(['=', '\0']) => reader.mistake("is no variable's name"),
            "env" => Some(SecretSource::Env(text.into())),
            "credential" if text.contains(['/', '\0']) || text.starts_with('.') => {
                reader.mistake("is no credential's name: a file name without directories")
            }
            "credential" => Some(SecretSource::Credential(text.into())),
            _ => {
                reader.key_mistake("unknown key; known here: file, env, credential");
                None
            }
        }
    })?;
    let tag = reference.tag();
    Some(Sourced { source, tag })
}

fn read_secret(
    value: &Value,
    reader: &mut Reader<'_>,
    judge: impl FnOnce(&str) -> Result<(), String>,
) -> Option<Sourced> {
    read_source(value, reader, WANTED, true, |text| {
        judge(text)?;
        Ok(SecretSource::Literal(Secret::new(text.into())))
    })
}

/// The same for what is often JSON, also where it is text: what reads as TOML is a table before it
/// comes here.
pub(super) fn read_message(
    value: &Value,
    reader: &mut Reader<'_>,
    purpose: Use,
) -> Option<Sourced> {
    let wanted = match purpose {
        Use::Object => WANTED_OBJECT,
        Use::Params => WANTED_PARAMS,
        Use::Header
        | Use::Cookie
        | Use::Password
        | Use::Token
        | Use::Template
        | Use::Passcode
        | Use::Hash => WANTED,
    };
    // A table of TOML where its text belongs; what looks like a mistyped reference is one.
    if matches!(purpose, Use::Object | Use::Params)
        && let Value::Dict(_, table) = value
        && !table
            .keys()
            .all(|key| nearest(key, REFERENCES.into_iter()).is_some())
    {
        return reader.expected(wanted, value);
    }
    read_source(value, reader, wanted, false, |text| {
        purpose.judge(text.as_bytes())?;
        Ok(SecretSource::Literal(Secret::new(text.into())))
    })
}

/// Where a value may be kept.
const REFERENCES: [&str; 3] = ["file", "env", "credential"];

const WANTED_OBJECT: &str = "a JSON object as text, as in '{\"token\":\"x\"}', or { file = .. }, \
                             { env = .. } or { credential = .. }";
const WANTED_PARAMS: &str = "a JSON object or array as text, as in '{\"token\":\"x\"}' or '[1]', or \
                             { file = .. }, { env = .. } or { credential = .. }";
const WANTED: &str = "a string, { file = .. }, { env = .. } or { credential = .. }";

/// A string, or a table that says where it is kept.
macro_rules! sourced {
    ($(#[doc = $about:literal])+ $name:ident) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub(in crate::config) struct $name(pub(in crate::config) Sourced);
        schema!($name, {
            "oneOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "file": { "type": "string", "minLength": 1 },
                        "env": { "type": "string", "minLength": 1 },
                        "credential": { "type": "string", "minLength": 1 },
                    },
                    "additionalProperties": false,
                    "minProperties": 1,
                    "maxProperties": 1,
                },
            ]
        });
    };
}

pub(super) use sourced;

sourced! {
    /// The value of a header.
    HeaderValue
}

impl Read for HeaderValue {
    const TABLE: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        read_secret(value, reader, super::header_value).map(Self)
    }
}

sourced! {
    /// The value of a cookie.
    CookieValue
}

impl Read for CookieValue {
    const TABLE: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let judge = |text: &str| Ok(Use::Cookie.judge(text.as_bytes())?);
        read_secret(value, reader, judge).map(Self)
    }
}

sourced! {
    /// A password.
    Password
}

impl Read for Password {
    const TABLE: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let judge = |text: &str| Ok(Use::Password.judge(text.as_bytes())?);
        read_secret(value, reader, judge).map(Self)
    }
}

sourced! {
    /// A bearer token.
    Token
}

impl Read for Token {
    const TABLE: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let judge = |text: &str| Ok(Use::Token.judge(text.as_bytes())?);
        read_secret(value, reader, judge).map(Self)
    }
}

sourced! {
    /// PEM: a string is the path of its file.
    Pem
}

impl Read for Pem {
    const TABLE: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        const WANTED: &str = "a path, { file = .. }, { env = .. } or { credential = .. }";
        let path = |text: &str| match text {
            "" => Err("must not be empty".to_owned()),
            // A key that was pasted is a secret.
            text if text.contains("-----BEGIN") => {
                Err("is PEM itself; write the path of a file that holds it".to_owned())
            }
            text if text.contains(char::is_control) => {
                Err("must not contain control characters".to_owned())
            }
            text => Ok(SecretSource::File(text.into())),
        };
        read_source(value, reader, WANTED, true, path).map(Self)
    }
}

sourced! {
    /// The bcrypt hash of a password.
    PasswordHash
}

impl Read for PasswordHash {
    const TABLE: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let judge = |text: &str| Ok(Use::Hash.judge(text.as_bytes())?);
        read_secret(value, reader, judge).map(Self)
    }
}
