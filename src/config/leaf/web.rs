//! What the metrics listener's tables hold, by the names of the web configuration that Prometheus'
//! exporters share.

use std::borrow::Cow;
use std::collections::BTreeMap;

use figment::value::Value;
use http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS, X_XSS_PROTECTION,
};
use rustls::CipherSuite;
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::source::{PasswordHash, Sourced};
use super::{header_value, read_choice, schema};
use crate::config::read::{Read, Reader, nearest};
use crate::config::{ClientAuth, TlsVersion};

/// The mode of a file, in octal digits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) struct FileMode(pub(in crate::config) u32);
schema!(FileMode, { "type": "string", "pattern": "^0?[0-7]{3}$" });

impl Read for FileMode {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        const WANTED: &str = "a file's mode as a string of octal digits, as in \"0660\"";
        let Some(text) = value.as_str() else {
            return reader.expected(WANTED, value);
        };
        let digits = text.strip_prefix('0').unwrap_or(text);
        let mode = (digits.len() == 3).then(|| u32::from_str_radix(digits, 8));
        match mode {
            // A sign is no digit.
            Some(Ok(mode)) if !digits.starts_with('+') => Some(Self(mode)),
            _ => reader.mistake(format!("expected {WANTED}")),
        }
    }
}

schema!(ClientAuth, { "enum": [
    "NoClientCert", "RequestClientCert", "RequireAnyClientCert", "RequireClientCert",
    "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
] });

impl Read for ClientAuth {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        // What RequireAnyClientCert was called before.
        if value.as_str() == Some("RequireClientCert") {
            return Some(Self::RequireAnyClientCert);
        }
        let choices = Self::ALL.map(|choice| (choice.as_str(), choice));
        read_choice(value, reader, &choices)
    }
}

/// A version of TLS by its name in Go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) struct WebTlsVersion(pub(in crate::config) TlsVersion);
schema!(WebTlsVersion, { "enum": ["TLS12", "TLS13"] });

impl Read for WebTlsVersion {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        if let Some("TLS10" | "TLS11") = value.as_str() {
            return reader.mistake("is a version that is no longer spoken; TLS12 or TLS13");
        }
        let choices = [("TLS12", TlsVersion::V1_2), ("TLS13", TlsVersion::V1_3)];
        read_choice(value, reader, &choices).map(Self)
    }
}

/// Cipher suites, in the order of our preference.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct CipherSuites(pub(in crate::config) Vec<CipherSuite>);
schema!(CipherSuites, { "type": "array", "items": { "type": "string" }, "minItems": 1 });

impl Read for CipherSuites {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let suites = Vec::<Suite>::read(value, reader)?;
        if suites.is_empty() {
            return reader.mistake("must not be empty; without the key all are spoken");
        }
        Some(Self(suites.into_iter().map(|suite| suite.0).collect()))
    }
}

struct Suite(CipherSuite);

impl Read for Suite {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.expected("the name of a cipher suite", value);
        };
        let known = || ALL_CIPHER_SUITES.iter().map(|suite| suite.suite());
        if let Some(suite) = known().find(|suite| iana_name(*suite) == text) {
            return Some(Self(suite));
        }
        let names: Vec<String> = known().map(iana_name).collect();
        let shown = text.escape_debug();
        let message = match nearest(text, names.iter().map(String::as_str)) {
            Some(near) => format!("`{shown}` is not spoken here; `{near}`?"),
            None => format!("`{shown}` is not spoken here; {} are", names.join(", ")),
        };
        reader.mistake(message)
    }
}

/// As IANA has it, and Go; rustls sets those of TLS 1.3 apart.
fn iana_name(suite: CipherSuite) -> String {
    let name = suite.as_str().unwrap_or_default();
    name.replace("TLS13_", "TLS_")
}

/// The headers that may be added to every answer, and their values where only these make sense:
/// what the exporters allow.
const ALLOWED: [(&str, HeaderName, &[&str]); 5] = [
    ("Strict-Transport-Security", STRICT_TRANSPORT_SECURITY, &[]),
    (
        "X-Content-Type-Options",
        X_CONTENT_TYPE_OPTIONS,
        &["nosniff"],
    ),
    ("X-Frame-Options", X_FRAME_OPTIONS, &["deny", "sameorigin"]),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY, &[]),
    ("X-XSS-Protection", X_XSS_PROTECTION, &[]),
];

/// Headers of every answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::config) struct AnswerHeaders(pub(in crate::config) Vec<(HeaderName, HeaderValue)>);
schema!(AnswerHeaders, {
    "type": "object",
    "properties": {
        "Strict-Transport-Security": { "type": "string" },
        "X-Content-Type-Options": { "enum": ["", "nosniff"] },
        "X-Frame-Options": { "enum": ["", "deny", "sameorigin"] },
        "Content-Security-Policy": { "type": "string" },
        "X-XSS-Protection": { "type": "string" },
    },
    "additionalProperties": false,
});

impl Read for AnswerHeaders {
    const MAP: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let mut headers = Self::default();
        for (name, value) in reader.table(value)?.iter() {
            reader.within(name.as_str().into(), |reader| {
                let known = ALLOWED.iter().find(|(n, ..)| n.eq_ignore_ascii_case(name));
                let Some((_, name, values)) = known else {
                    let names = ALLOWED.map(|(name, ..)| name).join(", ");
                    reader.key_mistake(format!("is no header that can be added; {names} can"));
                    return;
                };
                let Some(text) = value.as_str() else {
                    reader.expected::<()>("a string", value);
                    return;
                };
                // As the exporters have it: a blank one is not sent.
                if text.is_empty() {
                    return;
                }
                if !values.is_empty() && !values.contains(&text) {
                    let list = values.join(" or ");
                    reader.mistake::<()>(format!("must be {list}"));
                    return;
                }
                match header_value(text).map(|()| HeaderValue::from_str(text)) {
                    Ok(Ok(value)) if headers.0.iter().all(|(there, _)| there != name) => {
                        headers.0.push((name.clone(), value));
                    }
                    Ok(Ok(_)) => reader
                        .key_mistake("is there twice; the case of a header's name does not count"),
                    Ok(Err(_)) | Err(_) => {
                        reader.mistake::<()>("holds a character that no header may");
                    }
                }
            });
        }
        Some(headers)
    }
}

/// Who may ask: names, and the hashes of passwords.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::config) struct UserTable(pub(in crate::config) BTreeMap<Box<str>, Sourced>);

impl JsonSchema for UserTable {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Users".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": generator.subschema_for::<PasswordHash>(),
        })
    }
}

impl Read for UserTable {
    const MAP: bool = true;
    const TABLE: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let mut users = Self::default();
        for (name, value) in reader.table(value)?.iter() {
            reader.within(name.as_str().into(), |reader| {
                // RFC 7617 section 2: what comes after the colon is the password.
                if name.is_empty() || name.contains(':') || name.contains(char::is_control) {
                    reader.key_mistake(
                        "is no name to log in with: not empty, no `:`, no control characters",
                    );
                }
                if let Some(PasswordHash(hash)) = PasswordHash::read(value, reader) {
                    users.0.insert(name.as_str().into(), hash);
                }
            });
        }
        Some(users)
    }
}
