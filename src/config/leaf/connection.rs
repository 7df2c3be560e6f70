//! How a peer is addressed, and who we say we are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use figment::value::Value;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::proxy::Username;
use super::source::{CookieValue, Password, Sourced, Token};
use super::{Positive, read_choice, read_integer, schema};
use crate::config::duration::format_duration;
use crate::config::place::is_zone;
use crate::config::read::{Field, Read, Reader, section};
use crate::config::{Bind, IpFamily, ResolveTo, Secret};

/// Tried one after the other; more is no list that anybody wrote.
const MOST_ADDRESSES: usize = 64;
/// The kernel's: MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of include/net/tcp.h.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(32_767);
/// Below the 2^31 ms that TCP_USER_TIMEOUT takes.
const LONGEST_USER_TIMEOUT: Duration = Duration::from_secs(24 * 86_400);
/// IFNAMSIZ, its NUL left out.
const LONGEST_INTERFACE: usize = 15;

schema!(IpFamily, { "enum": ["any", "v4", "v6"] });

impl Read for IpFamily {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let choices = [("any", Self::Any), ("v4", Self::V4), ("v6", Self::V6)];
        read_choice(value, reader, &choices)
    }
}

/// An address that is dialed instead of what DNS says.
#[derive(Debug, Clone, PartialEq)]
struct Destination(ResolveTo);

impl Destination {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                _ if !path.starts_with('/') => {
                    Err("needs an absolute path: unix:/run/app.sock".into())
                }
                _ if path.contains(char::is_control) => {
                    Err("must not contain control characters".into())
                }
                _ => Ok(Self(ResolveTo::Unix(path.into()))),
            };
        }
        let wanted = || {
            let shown = text.escape_debug();
            format!(
                "expected an address such as 10.0.0.7, 10.0.0.7:443, [fe80::1%eth0]:443 or \
                 unix:/run/app.sock, found `{shown}`"
            )
        };
        let (address, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or_else(wanted)?;
                let port = match after {
                    "" => None,
                    after => Some(after.strip_prefix(':').ok_or_else(wanted)?),
                };
                (address, port)
            }
            // A bare IPv6 address has no port.
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.split_once(':') {
                Some((address, port)) => (address, Some(port)),
                None => (text, None),
            },
        };
        let (address, zone) = match address.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (address, None),
        };
        let ip: IpAddr = match zone {
            Some(zone) if !is_zone(zone) => return Err(wanted()),
            // Only IPv6 has zones, and in brackets there is nothing else.
            Some(_) => address.parse::<Ipv6Addr>().map(IpAddr::V6),
            None if text.starts_with('[') => address.parse::<Ipv6Addr>().map(IpAddr::V6),
            None => address.parse(),
        }
        .map_err(|_| wanted())?;
        let port = match port.map(str::parse::<u16>) {
            Some(Ok(0) | Err(_)) => return Err(wanted()),
            Some(Ok(port)) => Some(port),
            None => None,
        };
        let zone = zone.map(Box::from);
        Ok(Self(ResolveTo::Ip { ip, zone, port }))
    }
}

impl Read for Destination {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.expected("an address such as \"10.0.0.7:443\"", value);
        };
        match Self::parse(text) {
            Ok(destination) => Some(destination),
            Err(wrong) => reader.mistake(wrong),
        }
    }
}

/// Addresses that are dialed instead of what DNS says, in this order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::config) struct Destinations(pub(in crate::config) Vec<ResolveTo>);
schema!(Destinations, {
    "type": "array",
    "items": { "type": "string" },
    "maxItems": 64,
    "uniqueItems": true,
});

impl Read for Destinations {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let alone = reader
            .text(value)
            .filter(|text| Destination::parse(text).is_ok());
        let list = match alone {
            // In brackets, and no TOML array.
            Some(_) => vec![Destination::read(value, reader)?],
            None => Vec::<Destination>::read(value, reader)?,
        };
        if list.len() > MOST_ADDRESSES {
            return reader.mistake(format!("must hold at most {MOST_ADDRESSES} addresses"));
        }
        let mut destinations: Vec<ResolveTo> = Vec::with_capacity(list.len());
        for Destination(destination) in list {
            if destinations.contains(&destination) {
                return reader.mistake("names the same address twice");
            }
            destinations.push(destination);
        }
        Some(Self(destinations))
    }
}

/// What a socket is bound to before it connects.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct BindTo(pub(in crate::config) Bind);
schema!(BindTo, { "type": "string", "minLength": 1 });

impl Read for BindTo {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.expected("an address or an interface", value);
        };
        if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
            return Some(Self(Bind::Address(ip)));
        }
        if text.parse::<SocketAddr>().is_ok() {
            return reader.mistake("must not have a port: the system chooses it");
        }
        // What the kernel's dev_valid_name() takes.
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let named = (1..=LONGEST_INTERFACE).contains(&text.len())
            && !text.contains(odd)
            && !matches!(text, "." | "..");
        if !named {
            let shown = text.escape_debug();
            return reader.mistake(format!(
                "`{shown}` is no address, and no interface: 1 to {LONGEST_INTERFACE} bytes \
                 without `/`, `:` and spaces"
            ));
        }
        Some(Self(Bind::Interface(text.into())))
    }
}

/// The schema of a duration that has limits of its own.
macro_rules! duration_schema {
    ($type:ident) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                Positive::json_schema(generator)
            }
        }
    };
}

/// A time of TCP keepalive, which the kernel counts in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) struct KeepaliveTime(pub(in crate::config) Duration);
duration_schema!(KeepaliveTime);

impl Read for KeepaliveTime {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Positive(time) = Positive::read(value, reader)?;
        if time < Duration::from_secs(1) || time.subsec_nanos() > 0 {
            return reader.mistake("must be whole seconds, at least 1s");
        }
        if time > LONGEST_KEEPALIVE {
            let longest = format_duration(LONGEST_KEEPALIVE);
            return reader.mistake(format!("must be at most {longest} (tcp(7))"));
        }
        Some(Self(time))
    }
}

/// TCP_USER_TIMEOUT, which the kernel counts in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) struct UserTimeout(pub(in crate::config) Duration);
duration_schema!(UserTimeout);

impl Read for UserTimeout {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Positive(time) = Positive::read(value, reader)?;
        if time.subsec_nanos() % 1_000_000 > 0 {
            return reader.mistake("must be whole milliseconds, at least 1ms");
        }
        if time > LONGEST_USER_TIMEOUT {
            return reader.mistake("must be at most 24d (tcp(7))");
        }
        Some(Self(time))
    }
}

/// How often the addresses of a name are looked up again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) struct LookupInterval(pub(in crate::config) Duration);
duration_schema!(LookupInterval);

impl Read for LookupInterval {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Positive(time) = Positive::read(value, reader)?;
        if time < Duration::from_secs(1) {
            return reader.mistake("must be at least 1s");
        }
        Some(Self(time))
    }
}

/// Unanswered probes of TCP keepalive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) struct Probes(pub(in crate::config) u32);
schema!(Probes, { "type": "integer", "minimum": 1, "maximum": 127 });

impl Read for Probes {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let count = read_integer(value, reader, 1..=127)?;
        u32::try_from(count).ok().map(Self)
    }
}

/// Redirects followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) struct Redirects(pub(in crate::config) u32);
schema!(Redirects, { "type": "integer", "minimum": 0, "maximum": 20 });

impl Read for Redirects {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let count = read_integer(value, reader, 0..=20)?;
        u32::try_from(count).ok().map(Self)
    }
}

/// Text that stands in a header, and is no secret.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct HeaderText(pub(in crate::config) Box<str>);
schema!(HeaderText, { "type": "string", "minLength": 1, "pattern": "^[\\t -~]*$" });

impl Read for HeaderText {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.expected("a string", value);
        };
        if text.trim().is_empty() {
            return reader.mistake("must not be empty");
        }
        match super::header_value(text) {
            Ok(()) => Some(Self(text.into())),
            Err(wrong) => reader.mistake(wrong),
        }
    }
}

/// Cookies by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::config) struct CookieTable(pub(in crate::config) BTreeMap<Box<str>, Sourced>);

impl JsonSchema for CookieTable {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Cookies".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^[-!#$%&'*+.^_`|~0-9a-zA-Z]+$" },
            "additionalProperties": generator.subschema_for::<CookieValue>(),
        })
    }
}

impl Read for CookieTable {
    const MAP: bool = true;
    const TABLE: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let mut cookies = Self::default();
        for (name, value) in reader.table(value)?.iter() {
            reader.within(name.as_str().into(), |reader| {
                // Tokens, as methods are (RFC 6265 section 4.1.1), in their own case.
                if http::Method::from_bytes(name.as_bytes()).is_err() {
                    reader.key_mistake("is no cookie's name: letters, digits and !#$%&'*+-.^_`|~");
                }
                if let Some(CookieValue(source)) = CookieValue::read(value, reader) {
                    cookies.0.insert(name.as_str().into(), source);
                }
            });
        }
        Some(cookies)
    }
}

section! {
    /// Credentials of the upgrade request.
    AuthTable {
        /// For basic authentication.
        username: Username,
        /// A string, or where it is kept.
        password: Password,
        /// A token: a string, or where it is kept.
        bearer: Token,
    }
}

/// What `Authorization` is made of.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum AuthChoice {
    Basic(Secret<Box<str>>, Sourced),
    Bearer(Sourced),
}

impl JsonSchema for AuthChoice {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Auth".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<AuthTable>()
    }
}

impl Read for AuthChoice {
    const TABLE: bool = true;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let table = AuthTable::read(value, reader)?;
        match (table.username, table.password, table.bearer) {
            (Field::Bad, _, _) | (_, Field::Bad, _) | (_, _, Field::Bad) => None,
            (Field::Set(username, _), Field::Set(password, _), Field::Absent) => {
                Some(Self::Basic(username.0, password.0))
            }
            (Field::Absent, Field::Absent, Field::Set(token, _)) => Some(Self::Bearer(token.0)),
            (_, _, Field::Set(..)) => {
                reader.mistake("has `bearer` beside `username` or `password`; keep one kind")
            }
            (Field::Set(..), Field::Absent, Field::Absent) => {
                reader.mistake("has a `username` and no `password`; add it")
            }
            (Field::Absent, Field::Set(..), Field::Absent) => {
                reader.mistake("has a `password` and no `username`; add it")
            }
            (Field::Absent, Field::Absent, Field::Absent) => reader
                .mistake("is empty; write { username = .., password = .. } or { bearer = .. }"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Option<String>, Option<u16>) {
        match Destination::parse(text).unwrap().0 {
            ResolveTo::Ip { ip, zone, port } => {
                (ip.to_string(), zone.map(|zone| zone.to_string()), port)
            }
            ResolveTo::Unix(path) => (path.display().to_string(), None, None),
        }
    }

    #[test]
    fn addresses_are_read_with_and_without_port_and_zone() {
        let ip = |ip: &str, zone: Option<&str>, port| (ip.into(), zone.map(Into::into), port);
        assert_eq!(parsed("10.0.0.7:443"), ip("10.0.0.7", None, Some(443)));
        assert_eq!(parsed("10.0.0.8"), ip("10.0.0.8", None, None));
        assert_eq!(parsed("::1"), ip("::1", None, None));
        assert_eq!(parsed("[::1]"), ip("::1", None, None));
        let zoned = ip("fe80::1", Some("eth0"), Some(443));
        assert_eq!(parsed("[fe80::1%eth0]:443"), zoned);
        assert_eq!(parsed("fe80::1%eth0"), ip("fe80::1", Some("eth0"), None));
        assert_eq!(parsed("unix:/run/x.sock").0, "/run/x.sock");
        for wrong in [
            "",
            "example.com",
            "10.0.0.7:0",
            "10.0.0.7:",
            "10.0.0.7:70000",
            "[10.0.0.7]:443",
            "10.0.0.7%eth0",
            "[::1",
            "[::1]443",
            "[fe80::1%]:443",
            "unix:x",
        ] {
            assert!(Destination::parse(wrong).is_err(), "{wrong}");
        }
    }
}
