//! Engine.IO 4 under Socket.IO 4: the server pings, we answer, and a namespace is joined.
//!
//! After <https://github.com/socketio/engine.io-protocol> (revision 4: "Handshake", "Heartbeat",
//! "Packet encoding") over its WebSocket transport, and
//! <https://github.com/socketio/socket.io-protocol> (revision 5: "Connection to a namespace",
//! "Packet encoding"). The server pings at its interval whatever else it sends, and only its pings
//! put off the end, as in its own client (`resetPingTimeout`).
//!
//! A Socket.IO server drops a client that joins no namespace within its `connectTimeout` (default
//! 45 s), so `/` is joined where none is named; an empty name is plain Engine.IO.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::{Speak, Step, Timing};
use crate::proto::close::Refusal;
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;
use crate::proto::reconnect::Advice;

/// The shortest and the longest silence a server may ask for. Its own default is 45 s.
const SILENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 60 * 60));

/// Where the hello stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hello {
    /// Nothing came yet.
    Open,
    /// The namespace is asked for.
    Connect,
    Done,
}

/// One connection's state.
pub(crate) struct EngineIo {
    hello: Hello,
    /// The namespace to join; `None` for plain Engine.IO.
    namespace: Option<Box<str>>,
    /// The packet that joins it, until it is sent; secret.
    connect: Option<String>,
    /// `pingInterval` and `pingTimeout` of the open packet together.
    max_silence: Duration,
}

impl fmt::Debug for EngineIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineIo")
            .field("hello", &self.hello)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl EngineIo {
    /// Joins the Socket.IO `namespace` (`/admin`), `/` by default, with `payload` as its `auth`.
    /// An empty name joins none: plain Engine.IO.
    pub(crate) fn new(namespace: Option<&str>, payload: Option<Value>) -> Self {
        let namespace: Option<Box<str>> = match namespace {
            None => Some("/".into()),
            Some("") => None,
            Some(name) if name.starts_with('/') => Some(name.into()),
            Some(name) => Some(format!("/{name}").into()),
        };
        let connect = namespace.as_deref().map(|name| {
            let payload = payload.map(|payload| payload.to_string());
            let payload = payload.unwrap_or_default();
            match name {
                "/" => format!("40{payload}"),
                name => format!("40{name},{payload}"),
            }
        });
        Self {
            hello: Hello::Open,
            namespace,
            connect,
            max_silence: SILENCE.1,
        }
    }

    /// The open packet: `{"sid":..,"pingInterval":25000,"pingTimeout":20000,..}`.
    fn open(&mut self, handshake: &str, steps: &mut Vec<Step>) {
        let Some(max_silence) = silence(handshake) else {
            steps.push(malformed(
                "an open packet without sid, pingInterval or pingTimeout",
            ));
            return;
        };
        self.max_silence = max_silence;
        match self.connect.take() {
            Some(connect) => {
                self.hello = Hello::Connect;
                steps.push(Step::Send(Message::text(connect)));
            }
            None => self.hello = Hello::Done,
        }
    }

    /// A Socket.IO packet, by what follows Engine.IO's `4`.
    fn packet(&mut self, packet: &str, message: &Message, steps: &mut Vec<Step>) {
        let Some(ours) = self.namespace.as_deref() else {
            steps.push(Step::Message(message.clone()));
            return;
        };
        let mut rest = packet.chars();
        let kind = rest.next();
        let (namespace, payload) = addressed(rest.as_str());
        let is_ours = namespace == ours;
        match kind {
            Some('0') if is_ours && self.hello == Hello::Connect => {
                match string(payload, "sid") {
                    Some(_) => self.hello = Hello::Done,
                    // Socket.IO 2 speaks Engine.IO 3, in which we would have to ping.
                    None => steps.push(malformed("a CONNECT packet without sid")),
                }
            }
            Some('1') if is_ours => steps.push(refused(
                format!("disconnect from {}", super::shown(ours)),
                // Its own client does not come back either ("io server disconnect").
                Advice::Refused,
            )),
            Some('4') if is_ours => {
                let said = string(payload, "message");
                let said = super::shown(said.as_deref().unwrap_or(payload));
                let words = format!("connect_error of {}: {said}", super::shown(ours));
                steps.push(refused(words, Advice::Refused));
            }
            Some('2' | '3' | '5' | '6') => steps.push(Step::Message(message.clone())),
            Some('0' | '1' | '4') => {}
            Some(_) | None => steps.push(malformed("a Socket.IO packet of unknown type")),
        }
    }
}

impl Speak for EngineIo {
    fn awaits(&self) -> Option<String> {
        match self.hello {
            Hello::Open => Some("open packet".to_owned()),
            Hello::Connect => {
                let namespace = self.namespace.as_deref().unwrap_or_default();
                Some(format!("CONNECT packet for {}", super::shown(namespace)))
            }
            Hello::Done => None,
        }
    }

    fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        let Some(text) = message.as_text() else {
            // A binary message has no type: the attachment of an event.
            match self.hello {
                Hello::Open => steps.push(malformed("a binary message before the open packet")),
                Hello::Connect | Hello::Done => steps.push(Step::Message(message.clone())),
            }
            return;
        };
        let mut rest = text.chars();
        let kind = rest.next();
        match (self.hello, kind) {
            (Hello::Open, Some('0')) => self.open(rest.as_str(), steps),
            (Hello::Open, _) => steps.push(malformed("a message before the open packet")),
            (_, Some('1')) => steps.push(refused("close".to_owned(), Advice::Backoff)),
            (_, Some('2')) => {
                steps.push(Step::Beat);
                steps.push(Step::Send(Message::text("3")));
            }
            (_, Some('4')) => self.packet(rest.as_str(), message, steps),
            // A second open packet, a pong, an upgrade, a noop.
            (_, Some('0' | '3' | '5' | '6')) => {}
            (_, Some(_) | None) => steps.push(malformed("a packet of unknown type")),
        }
    }

    fn timing(&self, wishes: &Wishes) -> Timing {
        Timing {
            heartbeat: wishes.listening(),
            max_silence: Some(wishes.max_silence.unwrap_or(self.max_silence)),
        }
    }

    /// Engine.IO closes with no code of its own: at the server's shutdown, and when it heard no
    /// pong in time.
    fn explain(&self, code: u16) -> Option<&'static str> {
        (code == 1005).then_some("transport close, as when the server shuts down")
    }
}

/// Namespace and payload of a packet of a type without attachments: `/admin,{..}` or `{..}`.
fn addressed(rest: &str) -> (&str, &str) {
    match (rest.starts_with('/'), rest.split_once(',')) {
        (true, Some((namespace, payload))) => (namespace, payload),
        (true, None) => (rest, ""),
        (false, _) => ("/", rest),
    }
}

fn string(payload: &str, key: &str) -> Option<String> {
    match serde_json::from_str(payload).ok()? {
        Value::Object(mut object) => match object.remove(key)? {
            Value::String(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// How long a server that greets like this may be silent.
fn silence(handshake: &str) -> Option<Duration> {
    let Ok(Value::Object(handshake)) = serde_json::from_str(handshake) else {
        return None;
    };
    handshake.get("sid")?.as_str()?;
    let millis = |key: &str| handshake.get(key).and_then(Value::as_f64);
    let millis = millis("pingInterval")? + millis("pingTimeout")?;
    let (shortest, longest) = SILENCE;
    let silence = Duration::try_from_secs_f64(millis / 1000.0);
    // What is no duration is negative, or longer than there are seconds.
    let silence = silence.unwrap_or(if millis < 0.0 { shortest } else { longest });
    Some(silence.clamp(shortest, longest))
}

fn malformed(what: &str) -> Step {
    Step::Refused(Refusal::malformed(format!("{what}; is this Engine.IO 4?")))
}

fn refused(words: String, advice: Advice) -> Step {
    Step::Refused(Refusal::of_peer(words, advice))
}

#[cfg(test)]
mod tests;
