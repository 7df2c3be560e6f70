//! What a TLS table holds.

use std::borrow::Cow;

use figment::value::{Num, Value};
use rustls_pki_types::ServerName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{read_choice, schema};
use crate::config::TlsVersion;
use crate::config::read::{Read, Reader};

schema!(TlsVersion, { "enum": ["1.2", "1.3"] });

impl Read for TlsVersion {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        if let Value::Num(_, Num::F64(number)) = value {
            return reader.mistake(format!("must be a string: \"{number}\""));
        }
        let choices = [("1.2", Self::V1_2), ("1.3", Self::V1_3)];
        read_choice(value, reader, &choices)
    }
}

/// A name that a certificate may have: a DNS name or an address.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct TlsName(pub(in crate::config) Box<str>);
schema!(TlsName, { "type": "string", "minLength": 1 });

impl Read for TlsName {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.expected("a DNS name or an address", value);
        };
        match ServerName::try_from(text) {
            Ok(_) => Some(Self(text.into())),
            Err(_) => {
                let shown = text.escape_debug();
                reader.mistake(format!("`{shown}` is no DNS name and no address"))
            }
        }
    }
}
