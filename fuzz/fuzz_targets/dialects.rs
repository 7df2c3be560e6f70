//! Every dialect, and what users write about messages: whatever a peer says, and in whatever order,
//! nothing panics, only beats that were sent are answered, and words fit on a line.
//!
//! The input is text one can write: the dialect's name on the first line, then what the peer says,
//! pieces ended by 0x1f and a line feed. An empty piece is the time for a beat of ours. A piece
//! that begins with 0x00, or is no UTF-8, is a binary message. For `message` and `expect` the second
//! line is the pattern: a JSON pointer and, after a space, its value if it begins with `/`.
#![no_main]
#![allow(dead_code)] // The modules are included as they are, whatever is used of them here.

#[path = "../../src/dialect/mod.rs"]
mod dialect;
#[path = "../../src/proto/mod.rs"]
mod proto;

use std::time::Duration;

use dialect::pattern::{Pattern, check_template};
use dialect::{Dialect, Stamp, Step};
use libfuzzer_sys::fuzz_target;
use proto::event::Message;
use proto::heartbeat::Wishes;
use serde_json::json;

fuzz_target!(|input: &[u8]| {
    let (name, said) = line(input);
    let Some((mut dialect, said)) = dialect(name, said) else {
        return;
    };
    let wishes = Wishes::default();
    dialect.open(&wishes);
    let mut seq = 0;
    for piece in pieces(said) {
        if piece.is_empty() {
            seq += 1;
            let unix = Duration::new(1_763_650_000, seq);
            dialect.beat(Stamp { seq, unix });
            continue;
        }
        let mut steps = Vec::new();
        dialect.read(&message(piece), &mut steps);
        for step in &steps {
            match step {
                Step::Answer(Some(answered)) => assert!((1..=seq).contains(answered)),
                Step::Refused(refusal) => fits(&refusal.words),
                Step::Message(_) | Step::Beat | Step::Life | Step::Answer(None) | Step::Send(_) => {
                }
            }
        }
        if let Some(what) = dialect.awaits() {
            fits(&what);
        }
        dialect.timing(&wishes);
    }
    dialect.leave();
});

/// The dialect of this name, and what is left of the input for its peer to say.
fn dialect<'a>(name: &[u8], said: &'a [u8]) -> Option<(Dialect, &'a [u8])> {
    use dialect::*;
    let topics = || vec!["a/b".into(), "room:lobby".into()];
    let dialect = match name {
        b"message" | b"expect" => {
            let (pattern, said) = line(said);
            let pattern = pattern_of(std::str::from_utf8(pattern).ok()?);
            let checked = pattern.check();
            let dialect = if name == b"message" {
                let send = "${seq} ${nonce} ${unix} ${unix_nanos} ${subsec_nanos}";
                let speaker = message::Templates::new(send, &pattern, 7);
                assert_eq!(speaker.is_ok(), checked.is_ok());
                Dialect::Message(speaker.ok()?)
            } else {
                let speaker = expect::Expect::new(&pattern);
                assert_eq!(speaker.is_ok(), pattern.check_fixed().is_ok());
                Dialect::Expect(speaker.ok()?)
            };
            return Some((dialect, said));
        }
        b"sse" => Dialect::Sse(listener::Listener),
        b"actioncable" => Dialect::ActionCable(actioncable::ActionCable::new(vec![
            r#"{"channel":"ChatChannel","room":1}"#.into(),
        ])),
        b"engineio" => Dialect::EngineIo(engineio::EngineIo::new(
            Some("/"),
            Some(json!({ "token": "x" })),
        )),
        b"graphql-transport-ws" => Dialect::GraphqlTransportWs(
            graphql_transport_ws::GraphqlTransportWs::new(None, Some("subscription { tick }")),
        ),
        b"phoenix" => Dialect::Phoenix(phoenix::Phoenix::new(
            topics()
                .into_iter()
                .map(|topic| (topic, json!({})))
                .collect(),
        )),
        b"stomp" => Dialect::Stomp(stomp::Stomp::new(stomp::Login {
            vhost: "/".into(),
            login: None,
            passcode: None,
            topics: topics(),
        })),
        b"mqtt" | b"mqtt5" => Dialect::Mqtt(mqtt::Mqtt::new(mqtt::Login {
            version: match name {
                b"mqtt" => mqtt::Version::V311,
                _ => mqtt::Version::V5,
            },
            client_id: "c".into(),
            username: None,
            password: None,
            topics: topics(),
        })),
        b"signalr" => Dialect::SignalR(signalr::SignalR::new()),
        b"json-rpc" => Dialect::JsonRpc(json_rpc::JsonRpc::new("ping", None)),
        _ => return None,
    };
    Some((dialect, said))
}

fn pattern_of(text: &str) -> Pattern {
    let _ = check_template(text);
    match text.split_once(' ') {
        Some((pointer, value)) if pointer.starts_with('/') => Pattern::Pointer {
            pointer: pointer.into(),
            value: value.into(),
        },
        Some(_) | None => Pattern::Regex(text.into()),
    }
}

fn message(piece: &[u8]) -> Message {
    match (piece.strip_prefix(&[0]), std::str::from_utf8(piece)) {
        (Some(binary), _) => Message::binary(binary),
        (None, Ok(text)) => Message::text(text),
        (None, Err(_)) => Message::binary(piece),
    }
}

/// The first line, without its end, and what follows.
fn line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| *byte == b'\n');
    let end = end.unwrap_or(text.len());
    (&text[..end], text.get(end + 1..).unwrap_or_default())
}

fn pieces(mut said: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some(end) = said.windows(2).position(|two| two == [0x1f, b'\n']) {
        pieces.push(&said[..end]);
        said = &said[end + 2..];
    }
    if !said.is_empty() {
        pieces.push(said);
    }
    pieces
}

/// Words of a refusal, and of what is waited for, are shown on one line.
fn fits(words: &str) {
    assert!(!words.chars().any(char::is_control), "{words:?}");
    assert!(words.chars().count() < 512, "{words:?}");
}
