//! By which way a target is reached.

use std::borrow::Cow;

use figment::value::{Tag, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use url::Url;

use super::schema;
use super::source::{Password, Sourced};
use crate::config::read::{Field, Read, Reader, section};
use crate::config::{ProxyKind, Secret, SecretSource};

/// RFC 1929 gives a byte to each length.
const LONGEST_SOCKS_WORD: usize = 255;

/// `none`, `env`, or a proxy.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum ProxySetting {
    None,
    Environment,
    Via(ProxyAddress, Option<(Secret<Box<str>>, Sourced)>),
}

/// Where a proxy is, and what it speaks.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct ProxyAddress {
    pub(in crate::config) kind: ProxyKind,
    pub(in crate::config) host: Box<str>,
    pub(in crate::config) port: u16,
}

section! {
    /// A proxy with credentials of its own.
    ProxyTable {
        /// `http://`, `https://`, `socks5://` or `socks5h://` host and port.
        url: ProxyUrl,
        /// For the proxy.
        username: Username,
        /// A string, or where it is kept.
        password: Password,
    }
}

/// The name of a user, which is as secret as the password.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Username(pub(in crate::config) Secret<Box<str>>);
schema!(Username, { "type": "string", "minLength": 1 });

impl Read for Username {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.expected("a string", value);
        };
        match judge_username(text) {
            Ok(()) => Some(Self(Secret::new(text.into()))),
            Err(wrong) => reader.mistake(wrong),
        }
    }
}

/// RFC 7617 section 2: the first colon ends the user's name.
fn judge_username(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("must not be empty"),
        name if name.contains(':') => Err("must not contain `:` (RFC 7617 section 2)"),
        name if name.contains(char::is_control) => Err("must not contain control characters"),
        _ => Ok(()),
    }
}

/// The URL of a proxy.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ProxyUrl {
    address: ProxyAddress,
    username: Option<Secret<Box<str>>>,
    password: Option<Secret<Box<str>>>,
}
schema!(ProxyUrl, { "type": "string", "pattern": "^(https?|socks5h?)://[^?#]+$" });

impl Read for ProxyUrl {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.expected("a proxy's URL", value);
        };
        match Self::parse(text) {
            Ok(url) => Some(url),
            Err(wrong) => reader.mistake(wrong),
        }
    }
}

impl ProxyUrl {
    /// Judges a URL. The message shows nothing of it but its scheme.
    fn parse(text: &str) -> Result<Self, String> {
        const SCHEMES: &str = "http://, https://, socks5:// or socks5h://";
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("needs a scheme: {SCHEMES}"));
        };
        let in_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.chars().all(in_scheme) {
            return Err(format!("needs a scheme: {SCHEMES}"));
        }
        let (kind, usual_port) = match scheme.to_ascii_lowercase().as_str() {
            // squid's port: what people mean by an http proxy without one.
            "http" => (ProxyKind::Http, 3128),
            "https" => (ProxyKind::Https, 443),
            "socks5" => (ProxyKind::Socks5, 1080),
            "socks5h" => (ProxyKind::Socks5h, 1080),
            other => return Err(format!("has the scheme `{other}`; use {SCHEMES}")),
        };
        let parse = |scheme: &str| {
            let url = Url::parse(&format!("{scheme}://{rest}"));
            url.map_err(|error| format!("is no URL: {error}"))
        };
        let url = parse("http")?;
        // A scheme's own port is dropped; no port is that of both.
        let port = url.port().or(parse("ftp")?.port());
        if port == Some(0) {
            return Err("must not have port 0".into());
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("must end after host and port".into());
        }
        let decode = |text| {
            let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
            decoded.map_err(|_| "has userinfo that is not UTF-8".to_owned())
        };
        let username = decode(url.username())?;
        let password = url.password().map(decode).transpose()?;
        if username.is_empty() && password.is_some() {
            return Err("has a password and no user".into());
        }
        if !username.is_empty() {
            judge_username(&username).map_err(|wrong| format!("has a user that {wrong}"))?;
        }
        if let Some(password) = &password {
            let judged = super::Use::Password.judge(password.as_bytes());
            judged.map_err(|wrong| format!("has a password that {wrong}"))?;
        }
        let host = url.host_str().unwrap_or_default();
        Ok(Self {
            address: ProxyAddress {
                kind,
                host: host.trim_matches(['[', ']']).into(),
                port: port.unwrap_or(usual_port),
            },
            username: (!username.is_empty()).then(|| Secret::new((&*username).into())),
            password: password.map(|password| Secret::new((&*password).into())),
        })
    }
}

/// A proxy's URL, `env` or `none`, as it may be shown.
pub(in crate::config) fn masked_proxy(text: &str) -> String {
    match ProxyUrl::parse(text) {
        _ if matches!(text, "env" | "none") => text.to_owned(),
        Ok(_) if !text.contains('@') => text.to_owned(),
        Ok(url) => {
            let ProxyAddress { kind, host, port } = &url.address;
            let kind = kind.as_str();
            match host.contains(':') {
                true => format!("{kind}://***@[{host}]:{port}"),
                false => format!("{kind}://***@{host}:{port}"),
            }
        }
        Err(_) => "***".to_owned(),
    }
}

impl JsonSchema for ProxySetting {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Proxy".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "type": "string", "pattern": "^(none|env|(https?|socks5h?)://[^?#]+)$" },
            generator.subschema_for::<ProxyTable>(),
        ] })
    }
}

impl Read for ProxySetting {
    const TABLE: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        match value {
            Value::String(_, text) => match text.as_str() {
                "none" => Some(Self::None),
                "env" => Some(Self::Environment),
                text if text.contains("://") => {
                    let url = ProxyUrl::read(value, reader)?;
                    Self::of(&url, None, None, reader)
                }
                text if text.starts_with('{') && reader.text(value).is_some() => {
                    Self::read_table(value, reader)
                }
                _ => reader.mistake(
                    "expected a URL such as http://HOST:PORT, socks5h://HOST:PORT, \
                     or one of `env`, `none`",
                ),
            },
            Value::Dict(..) => Self::read_table(value, reader),
            _ => reader.expected(
                "a proxy's URL, `env`, `none` or a table with a `url`",
                value,
            ),
        }
    }
}

impl ProxySetting {
    fn read_table(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let table = ProxyTable::read(value, reader)?;
        let (url, username, password) = (&table.url, &table.username, &table.password);
        let bad = matches!(url, Field::Bad)
            || matches!(username, Field::Bad)
            || matches!(password, Field::Bad);
        if bad {
            return None; // reported
        }
        let Some(url) = url.get() else {
            return reader.mistake("has no `url`; add one: url = \"http://HOST:PORT\"");
        };
        let username = username.get().map(|name| name.0.clone());
        let password = password.get().map(|password| password.0.clone());
        Self::of(url, username, password, reader)
    }

    fn of(
        url: &ProxyUrl,
        username: Option<Secret<Box<str>>>,
        password: Option<Sourced>,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        if url.username.is_some() && username.is_some() {
            return reader.mistake("has a user in `url` and in `username`; keep one");
        }
        if url.password.is_some() && password.is_some() {
            return reader.mistake("has a password in `url` and in `password`; keep one");
        }
        let literal = |password: Secret<Box<str>>| Sourced {
            source: SecretSource::Literal(password),
            tag: Tag::Default,
        };
        let given = password.or_else(|| url.password.clone().map(literal));
        let credentials = match (url.username.clone().or(username), given) {
            (None, Some(_)) => return reader.mistake("has a `password` and no `username`"),
            (None, None) => None,
            (Some(name), Some(password)) => Some((name, password)),
            (Some(name), None) => Some((name, literal(Secret::new("".into())))),
        };
        if let Some((name, password)) = &credentials
            && matches!(url.address.kind, ProxyKind::Socks5 | ProxyKind::Socks5h)
        {
            let fits = |text: &str| (1..=LONGEST_SOCKS_WORD).contains(&text.len());
            let password = match &password.source {
                SecretSource::Literal(text) => fits(text.expose()),
                SecretSource::File(_) | SecretSource::Env(_) | SecretSource::Credential(_) => true,
            };
            if !fits(name.expose()) || !password {
                return reader.mistake(format!(
                    "needs a user and a password of 1 to {LONGEST_SOCKS_WORD} bytes each: \
                     SOCKS5 has no others (RFC 1929)"
                ));
            }
        }
        Some(Self::Via(url.address.clone(), credentials))
    }
}
