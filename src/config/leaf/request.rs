//! What the upgrade request is made of: URL, headers, subprotocols.

use std::borrow::Cow;
use std::collections::BTreeMap;

use figment::value::Value;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::source::{HeaderValue, Sourced};
use super::{Name, schema};
use crate::config::Secret;
use crate::config::place::{Place, Split};
use crate::config::read::{Read, Reader, kind};

/// The URL of a target, secrets included.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WsUrl {
    pub(crate) url: Secret<Box<str>>,
    /// Without userinfo and query.
    pub(crate) shown: Box<str>,
    /// Host and path: the name of a target that has none.
    pub(crate) name: Box<str>,
    /// The host alone; an IPv6 literal without its brackets.
    pub(crate) host: Box<str>,
    pub(crate) place: Place,
}
schema!(WsUrl, { "type": "string", "pattern": "^(([wW][sS]|[hH][tT][tT][pP])[sS]?://|[uU][nN][iI][xX]:/)[^#]+$" });

impl WsUrl {
    /// Judges a URL. The message shows nothing of it but its scheme.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let split = Split::parse(text)?;
        let place = Place::of(&split)?;
        Ok(Self::of(&split, place))
    }

    /// The same with what a protocol's client adds to it; its name stays.
    pub(in crate::config) fn completed(&self, path: &str, parameters: &[(&str, &str)]) -> Self {
        let completed = Split::parse(self.url.expose()).and_then(|mut split| {
            split.complete(path, parameters);
            let place = Place::of(&split)?;
            Ok(Self::of(&split, place))
        });
        // It was read before; a longer query makes no URL of it that cannot be.
        let completed = completed.unwrap_or_else(|_| self.clone());
        Self {
            name: self.name.clone(),
            ..completed
        }
    }

    fn of(split: &Split, place: Place) -> Self {
        Self {
            url: Secret::new(split.whole().into()),
            shown: place.to_string().into(),
            name: split.name().into(),
            host: place.host.as_str().into(),
            place,
        }
    }
}

impl Read for WsUrl {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.mistake(format!("expected a URL, found {}", kind(value)));
        };
        match Self::parse(text) {
            Ok(url) => Some(url),
            Err(message) => reader.mistake(message),
        }
    }
}

/// Headers of the upgrade request, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::config) struct HeaderTable(
    pub(in crate::config) BTreeMap<Box<str>, (http::HeaderName, Sourced)>,
);

impl JsonSchema for HeaderTable {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Headers".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": generator.subschema_for::<HeaderValue>(),
        })
    }
}

impl Read for HeaderTable {
    const MAP: bool = true;
    const TABLE: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let mut headers = Self::default();
        for (name, value) in reader.table(value)?.iter() {
            reader.within(name.as_str().into(), |reader| {
                let parsed = header_name(name);
                if let Err(wrong) = &parsed {
                    reader.key_mistake(wrong);
                }
                let source = HeaderValue::read(value, reader);
                if let (Ok(parsed), Some(HeaderValue(source))) = (parsed, source) {
                    let key = parsed.as_str().into();
                    if headers.0.insert(key, (parsed, source)).is_some() {
                        reader.key_mistake(
                            "is there twice; the case of a header's name does not count",
                        );
                    }
                }
            });
        }
        Some(headers)
    }
}

/// Judges the name of a header of the upgrade request.
pub(in crate::config) fn header_name(name: &str) -> Result<http::HeaderName, String> {
    match http::HeaderName::from_bytes(name.as_bytes()) {
        Ok(parsed) if is_ours(parsed.as_str()) => {
            Err("is set by the upgrade itself; remove it".into())
        }
        Ok(parsed) => Ok(parsed),
        Err(_) => Err("is no header name".into()),
    }
}

/// Judges the value of a header; what it says does not show it.
pub(in crate::config) fn header_value(value: &str) -> Result<(), String> {
    match http::HeaderValue::from_str(value) {
        Ok(_) => Ok(()),
        Err(_) => Err("holds a character that no header may".into()),
    }
}

/// Headers that are hop by hop (RFC 9110 section 7.6.1), or that the upgrade (RFC 6455 section
/// 4.1) writes itself.
fn is_ours(name: &str) -> bool {
    const OURS: [&str; 11] = [
        "connection",
        "upgrade",
        "content-length",
        "transfer-encoding",
        "te",
        "trailer",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "expect",
    ];
    OURS.contains(&name) || name.starts_with("sec-websocket-")
}

/// Subprotocols to offer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::config) struct Subprotocols(pub(in crate::config) Vec<Box<str>>);
schema!(Subprotocols, { "type": "array", "items": { "type": "string" }, "uniqueItems": true });

impl Read for Subprotocols {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let names = Vec::<Name>::read(value, reader)?;
        match subprotocols(names.iter().map(|Name(name)| &**name)) {
            Ok(offered) => Some(Self(offered)),
            Err(wrong) => reader.mistake(wrong),
        }
    }
}

/// Judges subprotocols to offer: RFC 6455 section 4.1 wants them unique, and tokens of RFC 9110
/// section 5.6.2, as header names are.
pub(in crate::config) fn subprotocols<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<Box<str>>, String> {
    let mut offered: Vec<Box<str>> = Vec::new();
    for name in names {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            let shown = name.escape_debug();
            return Err(format!(
                "`{shown}` is no token: letters, digits and !#$%&'*+-.^_`|~"
            ));
        }
        if offered.iter().any(|there| **there == *name) {
            return Err(format!("`{name}` is there twice"));
        }
        offered.push(name.into());
    }
    Ok(offered)
}
