//! Labels of metrics.

use std::borrow::Cow;
use std::collections::BTreeMap;

use figment::value::Value;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::schema;
use crate::config::read::{Read, Reader};

/// Labels of a target's own.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::config) struct Labels(pub(in crate::config) BTreeMap<Box<str>, Box<str>>);
schema!(Labels, {
    "type": "object",
    "propertyNames": {
        "pattern": "^(?!__)[a-zA-Z_][a-zA-Z0-9_]*$",
        "not": { "enum": [
            "target", "address_index", "cause", "phase", "listener", "le", "url", "protocol"
        ] },
    },
    "additionalProperties": { "type": "string" },
});

/// Labels that the program's own metrics use.
const TAKEN: [&str; 8] = [
    "target",
    "address_index",
    "cause",
    "phase",
    "listener",
    "le",
    "url",
    "protocol",
];

impl Read for Labels {
    const MAP: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let mut labels = Self::default();
        for (name, value) in reader.table(value)?.iter() {
            reader.within(name.as_str().into(), |reader| {
                if TAKEN.contains(&name.as_str()) {
                    reader.key_mistake("is a label of the program's own; choose another name");
                } else if name.starts_with("__") {
                    reader.key_mistake(
                        "names that begin with `__` belong to Prometheus; choose another name",
                    );
                } else if !is_label_name(name) {
                    reader.key_mistake(
                        "is no label name: letters, digits and `_`, not beginning with a digit",
                    );
                }
                match value.as_str() {
                    Some(text) => {
                        labels.0.insert(name.as_str().into(), text.into());
                    }
                    None => {
                        reader.expected::<()>("a string", value);
                    }
                }
            });
        }
        Some(labels)
    }
}

fn is_label_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}
