//! The JSON Schema, made of the keys' types and documentation.

use schemars::transform::{RecursiveTransform, Transform};
use schemars::{Schema, generate::SchemaSettings};

use super::raw;

/// The JSON Schema of the configuration file.
pub(crate) fn json_schema() -> serde_json::Value {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<raw::File>();
    // No key is required, a target's url apart: all have defaults.
    RecursiveTransform(|schema: &mut Schema| {
        schema.remove("required");
    })
    .transform(&mut schema);
    let mut schema = schema.to_value();
    schema["$defs"]["Target"]["required"] = serde_json::json!(["url"]);
    schema["title"] = "ws-keepalive".into();
    schema
}
