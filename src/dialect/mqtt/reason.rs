//! What MQTT's codes mean, in the words of its tables.

use super::Version;
use crate::proto::reconnect::Advice;

/// The name of a code: of MQTT 3.1.1's CONNACK (section 3.2.2.3) and SUBACK (3.9.3), or of MQTT 5
/// (section 2.4). A server that does not know MQTT 5 may refuse it in the words of 3.1.1.
pub(super) fn name(code: u8, version: Version) -> &'static str {
    match (version, code) {
        (Version::V311, 0x01) => "unacceptable protocol version",
        (Version::V311, 0x02) => "identifier rejected",
        (Version::V311, 0x03) => "server unavailable",
        (Version::V311, 0x04) => "bad user name or password",
        (Version::V311, 0x05) => "not authorized",
        (Version::V311, 0x80) => "failure",
        (Version::V311 | Version::V5, code) => name_5(code),
    }
}

fn name_5(code: u8) -> &'static str {
    match code {
        0x00 => "normal disconnection",
        0x04 => "disconnect with Will Message",
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        0x84 => "unsupported protocol version",
        0x85 => "client identifier not valid",
        0x86 => "bad user name or password",
        0x87 => "not authorized",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x8a => "banned",
        0x8b => "server shutting down",
        0x8c => "bad authentication method",
        0x8d => "keep alive timeout",
        0x8e => "session taken over",
        0x8f => "topic filter invalid",
        0x90 => "topic name invalid",
        0x91 => "packet identifier in use",
        0x92 => "packet identifier not found",
        0x93 => "receive maximum exceeded",
        0x94 => "topic alias invalid",
        0x95 => "packet too large",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        0x99 => "payload format invalid",
        0x9a => "retain not supported",
        0x9b => "QoS not supported",
        0x9c => "use another server",
        0x9d => "server moved",
        0x9e => "shared subscriptions not supported",
        0x9f => "connection rate exceeded",
        0xa0 => "maximum connect time",
        0xa1 => "subscription identifiers not supported",
        0xa2 => "wildcard subscriptions not supported",
        _ => "unknown code",
    }
}

/// Whether asking again soon is any use. A session that was taken over is refused as well: two
/// clients of one identifier would else throw each other out without end.
pub(super) fn advice(code: u8) -> Advice {
    match code {
        0x01 | 0x02 | 0x04 | 0x05 => Advice::Refused,
        0x84..=0x87 | 0x8a | 0x8c | 0x8e..=0x90 => Advice::Refused,
        0x98 | 0x9c..=0x9e | 0xa1 | 0xa2 => Advice::Refused,
        _ => Advice::Backoff,
    }
}
