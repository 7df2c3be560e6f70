//! MQTT control packets out of a stream of bytes, and into messages.
//!
//! Sections of MQTT 3.1.1 (OASIS Standard, 29 October 2014) and of MQTT 5.0 (OASIS Standard,
//! 7 March 2019): 2.2 and 2.1 "Structure of an MQTT Control Packet", 6.0 "Using WebSocket as a
//! network transport": packets need not be aligned with WebSocket messages.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use super::Version;
use crate::proto::event::Message;

/// The largest packet that is read, in bytes; what MQTT 5 servers are told (3.1.2.11.4).
pub(super) const LARGEST: usize = 1 << 20;

/// The packet identifier of the only SUBSCRIBE.
const SUBSCRIBE_ID: u16 = 1;

/// What a server may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    ConnAck {
        code: u8,
        properties: Properties,
    },
    /// The payload.
    Publish(Bytes),
    /// A code for each filter.
    SubAck {
        codes: Bytes,
        properties: Properties,
    },
    PingResp,
    Disconnect {
        code: u8,
        properties: Properties,
    },
    /// It acknowledges what we never send.
    Other,
}

/// What counts here of a packet's properties (MQTT 5, 2.2.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Properties {
    /// In seconds.
    pub(super) server_keep_alive: Option<u16>,
    pub(super) reason: Option<Box<str>>,
    pub(super) server_reference: Option<Box<str>>,
}

/// Puts packets together.
#[derive(Default)]
pub(super) struct Packets {
    held: BytesMut,
}

impl fmt::Debug for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packets({} bytes)", self.held.len())
    }
}

impl Packets {
    /// Takes what came in.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next packet that is complete; what is wrong, in words, where none can be.
    pub(super) fn next(&mut self, version: Version) -> Result<Option<Packet>, String> {
        let mut rest = Reader(&self.held);
        let Some(first) = rest.byte() else {
            // What a large packet took is given back.
            self.held = BytesMut::new();
            return Ok(None);
        };
        let (kind, flags) = (first >> 4, first & 0x0f);
        // Sections 2.2.2 and 2.1.3: other flags are malformed. PUBREL has a bit set.
        let expected = if kind == 6 { 2 } else { 0 };
        if !matches!(kind, 2..=7 | 9 | 11 | 13..=15) || (kind != 3 && flags != expected) {
            return Err(format!("a packet that begins with {first:#04x}"));
        }
        let length = match rest.variable() {
            Variable::Value(length) => length,
            Variable::Incomplete => return Ok(None),
            Variable::Malformed => return Err("a malformed length".to_owned()),
        };
        let header = self.held.len() - rest.0.len();
        if header + length > LARGEST {
            return Err("a packet of more than 1 MiB".to_owned());
        }
        if rest.0.len() < length {
            return Ok(None);
        }
        self.held.advance(header);
        let body = self.held.split_to(length).freeze();
        let packet = match kind {
            2 => connack(&body, version),
            3 => publish(&body, flags, version),
            9 => suback(&body, version),
            13 => body.is_empty().then_some(Packet::PingResp),
            14 => disconnect(&body, version),
            15 => None, // AUTH, which we do not begin
            _ => Some(Packet::Other),
        };
        let malformed = || format!("a malformed {}", NAMES[usize::from(kind)]);
        packet.map(Some).ok_or_else(malformed)
    }
}

/// By the type's number: sections 2.2.1 and 2.1.2.
const NAMES: [&str; 16] = [
    "packet",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
];

fn connack(body: &[u8], version: Version) -> Option<Packet> {
    let mut rest = Reader(body);
    let (_flags, code) = (rest.byte()?, rest.byte()?);
    let properties = match version {
        Version::V311 if rest.0.is_empty() => Properties::default(),
        Version::V311 => return None,
        Version::V5 => rest.last_properties()?,
    };
    Some(Packet::ConnAck { code, properties })
}

fn publish(body: &Bytes, flags: u8, version: Version) -> Option<Packet> {
    let mut rest = Reader(body);
    let _topic = rest.binary()?;
    match (flags >> 1) & 3 {
        0 => {}
        1 | 2 => drop(rest.short()?),
        _ => return None, // section 3.3.1.2
    }
    if version == Version::V5 {
        rest.properties()?;
    }
    let payload = body.len() - rest.0.len();
    Some(Packet::Publish(body.slice(payload..)))
}

fn suback(body: &Bytes, version: Version) -> Option<Packet> {
    let mut rest = Reader(body);
    if rest.short()? != SUBSCRIBE_ID {
        return None;
    }
    let properties = match version {
        Version::V311 => Properties::default(),
        Version::V5 => rest.properties()?,
    };
    let codes = body.slice(body.len() - rest.0.len()..);
    Some(Packet::SubAck { codes, properties })
}

fn disconnect(body: &[u8], version: Version) -> Option<Packet> {
    let mut rest = Reader(body);
    match version {
        // Only a client may send it: section 3.14.
        Version::V311 => None,
        Version::V5 => Some(Packet::Disconnect {
            code: rest.byte().unwrap_or_default(),
            properties: rest.last_properties()?,
        }),
    }
}

/// Takes a packet apart.
struct Reader<'a>(&'a [u8]);

enum Variable {
    Value(usize),
    Incomplete,
    Malformed,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn short(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Binary data, or a UTF-8 encoded string.
    fn binary(&mut self) -> Option<&'a [u8]> {
        let length = self.short()?;
        self.bytes(length.into())
    }

    /// A variable byte integer: seven bits in each of at most four bytes, the lowest first.
    fn variable(&mut self) -> Variable {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let Some(byte) = self.byte() else {
                return Variable::Incomplete;
            };
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Variable::Value(value);
            }
        }
        Variable::Malformed
    }

    /// Properties that end a packet, and may be missing then: mosquitto leaves them out.
    fn last_properties(&mut self) -> Option<Properties> {
        if self.0.is_empty() {
            return Some(Properties::default());
        }
        let properties = self.properties()?;
        self.0.is_empty().then_some(properties)
    }

    fn properties(&mut self) -> Option<Properties> {
        let Variable::Value(length) = self.variable() else {
            return None;
        };
        let mut rest = Reader(self.bytes(length)?);
        let mut properties = Properties::default();
        let text = |bytes| Some(String::from_utf8_lossy(bytes).into());
        while let Some(property) = rest.byte() {
            // Table 2-4 in section 2.2.2.2; all identifiers fit in a byte.
            match property {
                0x13 => properties.server_keep_alive = Some(rest.short()?),
                0x1c => properties.server_reference = text(rest.binary()?),
                0x1f => properties.reason = text(rest.binary()?),
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => drop(rest.byte()?),
                0x21..=0x23 => drop(rest.short()?),
                0x02 | 0x11 | 0x18 | 0x27 => drop(rest.bytes(4)?),
                0x0b => match rest.variable() {
                    Variable::Value(_) => {}
                    Variable::Incomplete | Variable::Malformed => return None,
                },
                0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a => drop(rest.binary()?),
                0x26 => drop((rest.binary()?, rest.binary()?)),
                _ => return None,
            }
        }
        Some(properties)
    }
}

/// CONNECT, with a clean session and `keep_alive` in seconds.
pub(super) fn connect(login: &super::Login, keep_alive: u16) -> Message {
    let (level, properties): (_, &[u8]) = match login.version {
        Version::V311 => (4, &[]),
        // Five bytes: the maximum packet size.
        Version::V5 => (5, &[5, 0x27, 0, 0x10, 0, 0]),
    };
    let username = match (&login.username, &login.password, login.version) {
        (Some(name), _, _) => Some(&**name),
        // 3.1.1 has no password without a name: section 3.1.2.9.
        (None, Some(_), Version::V311) => Some(""),
        (None, _, _) => None,
    };
    let mut flags = 0x02;
    if username.is_some() {
        flags |= 0x80;
    }
    if login.password.is_some() {
        flags |= 0x40;
    }
    let mut body = Vec::new();
    push(&mut body, b"MQTT");
    body.extend([level, flags]);
    body.extend(keep_alive.to_be_bytes());
    body.extend(properties);
    push(&mut body, login.client_id.as_bytes());
    if let Some(username) = username {
        push(&mut body, username.as_bytes());
    }
    if let Some(password) = &login.password {
        push(&mut body, password);
    }
    packet(0x10, &body)
}

/// SUBSCRIBE to all of `filters` with QoS 0.
pub(super) fn subscribe(version: Version, filters: &[Box<str>]) -> Message {
    let mut body = SUBSCRIBE_ID.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0); // no properties
    }
    for filter in filters {
        push(&mut body, filter.as_bytes());
        body.push(0); // QoS 0, nothing else wanted
    }
    packet(0x82, &body)
}

/// PINGREQ.
pub(super) fn pingreq() -> Message {
    packet(0xc0, &[])
}

/// DISCONNECT; MQTT 5 leaves the reason out if it is "normal disconnection".
pub(super) fn disconnect_normally() -> Message {
    packet(0xe0, &[])
}

pub(super) fn packet(first: u8, body: &[u8]) -> Message {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        packet.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    Message::binary(packet)
}

/// Binary data or a string. There is no telling one of more than 65,535 bytes.
fn push(body: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    body.extend(length.to_be_bytes());
    body.extend(&bytes[..usize::from(length)]);
}
