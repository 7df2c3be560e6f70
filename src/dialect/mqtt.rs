//! MQTT 3.1.1 and 5 over WebSocket: CONNECT, one SUBSCRIBE of QoS 0, and PINGREQ, which PINGRESP
//! answers.
//!
//! Sections of MQTT 3.1.1 and of 5.0: 3.1 "CONNECT", 3.1.2.10 "Keep Alive", 3.2 "CONNACK", 3.9
//! "SUBACK", 3.12 "PINGREQ", 3.14 "DISCONNECT". The keep alive that we announce is twice the
//! interval, or the `pong_timeout` if that is longer, in which nothing else is sent: a server may
//! drop us after one and a half times as long, that is, after two beats that it missed. `MQTT.js` beats in the same way, each 30 s at its keep alive of 60 s. A keep alive
//! that an MQTT 5 server sets instead is obeyed whatever the target wishes (3.2.2.3.14). Messages
//! that come in are no life: a PINGREQ is answered all the same.

mod codec;
mod reason;

use std::fmt;
use std::time::Duration;

use self::codec::{Packet, Packets, Properties};
use super::{MOST_STEPS, Speak, Stamp, Step, Timing};
use crate::proto::close::{BeatNames, Refusal};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;
use crate::proto::reconnect::Advice;

/// How often we beat, and how long an answer is waited for: a dead peer is noticed in half the time
/// after which a server may drop a dead client.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(15);

/// Which MQTT is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Version {
    #[default]
    V311,
    V5,
}

/// How the CONNECT packet reads. Strings and passwords of more than 65,535 bytes are cut off.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) version: Version,
    pub(crate) client_id: Box<str>,
    pub(crate) username: Option<Box<str>>,
    pub(crate) password: Option<Box<[u8]>>,
    /// Filters to subscribe to.
    pub(crate) topics: Vec<Box<str>>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

/// Where the hello stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hello {
    ConnAck,
    SubAck,
    Done,
}

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Mqtt {
    version: Version,
    /// Until CONNECT is sent.
    login: Option<Login>,
    /// Filters to subscribe to, until they are confirmed.
    topics: Vec<Box<str>>,
    hello: Hello,
    /// The longest time between two packets of ours; zero for any.
    keep_alive: Duration,
    packets: Packets,
    /// The peer refused us, or made no sense: nothing more is read.
    is_over: bool,
}

impl Mqtt {
    /// Connects with `login`.
    pub(crate) fn new(mut login: Login) -> Self {
        Self {
            version: login.version,
            topics: std::mem::take(&mut login.topics),
            login: Some(login),
            hello: Hello::ConnAck,
            keep_alive: Duration::ZERO,
            packets: Packets::default(),
            is_over: false,
        }
    }

    fn packet(&mut self, packet: Packet) -> Result<Option<Step>, Refusal> {
        match (packet, self.hello) {
            (Packet::ConnAck { code, properties }, Hello::ConnAck) => {
                self.accepted(code, &properties)
            }
            (Packet::Disconnect { code, properties }, _) => {
                Err(self.refused("DISCONNECT", code, &properties))
            }
            (_, Hello::ConnAck) => Err(malformed("a packet before CONNACK")),
            (Packet::SubAck { codes, properties }, Hello::SubAck) => {
                self.subscribed(&codes, &properties)?;
                Ok(None)
            }
            (Packet::Publish(payload), _) => {
                let message = Message::from_parts(payload, false);
                Ok(Some(Step::Message(message)))
            }
            (Packet::PingResp, _) => Ok(Some(Step::Answer(None))),
            (Packet::ConnAck { .. }, _) => Err(malformed("a second CONNACK")),
            (Packet::SubAck { .. }, _) => Err(malformed("a SUBACK for nothing")),
            (Packet::Other, _) => Ok(None),
        }
    }

    fn accepted(&mut self, code: u8, properties: &Properties) -> Result<Option<Step>, Refusal> {
        if code != 0 {
            return Err(self.refused("CONNACK", code, properties));
        }
        if let Some(seconds) = properties.server_keep_alive {
            self.keep_alive = Duration::from_secs(seconds.into());
        }
        if self.topics.is_empty() {
            self.hello = Hello::Done;
            return Ok(None);
        }
        self.hello = Hello::SubAck;
        let subscribe = codec::subscribe(self.version, &self.topics);
        Ok(Some(Step::Send(subscribe)))
    }

    fn subscribed(&mut self, codes: &[u8], properties: &Properties) -> Result<(), Refusal> {
        if codes.len() != self.topics.len() {
            return Err(malformed("a SUBACK for other filters than asked for"));
        }
        for (code, filter) in codes.iter().zip(&self.topics) {
            match code {
                0..=2 => {}
                0x80.. => {
                    let packet = format!("SUBACK for {}", super::shown(filter));
                    let mut refusal = self.refused(&packet, *code, properties);
                    if *code == 0x80 {
                        refusal.advice = Advice::Refused;
                    }
                    return Err(refusal);
                }
                _ => return Err(malformed("a malformed SUBACK")),
            }
        }
        self.topics = Vec::new();
        self.hello = Hello::Done;
        Ok(())
    }

    /// Nothing that follows is read.
    fn end(&mut self, refusal: Refusal, steps: &mut Vec<Step>) {
        steps.push(Step::Refused(refusal));
        self.is_over = true;
        self.packets = Packets::default();
    }

    /// `CONNACK: not authorized (0x87), "no such user"`.
    fn refused(&self, packet: &str, code: u8, properties: &Properties) -> Refusal {
        // Of a CONNACK: the server knows no MQTT 5, and says so in its own.
        let version = match (packet, code) {
            ("CONNACK", ..0x80) => Version::V311,
            _ => self.version,
        };
        let name = reason::name(code, version);
        let mut words = format!("{packet}: {name} ({code:#04x})");
        if let Some(reason) = &properties.reason {
            words.push_str(&format!(", \"{}\"", super::shown(reason)));
        }
        if let Some(server) = &properties.server_reference {
            words.push_str(&format!(", server reference {}", super::shown(server)));
        }
        Refusal::of_peer(words, reason::advice(code))
    }
}

impl Speak for Mqtt {
    fn open(&mut self, wishes: &Wishes) -> Vec<Message> {
        let Some(login) = self.login.take() else {
            return Vec::new();
        };
        let policy = wishes.asking(INTERVAL, TIMEOUT);
        let longest = policy.interval.saturating_mul(2).max(policy.pong_timeout);
        let seconds = longest.as_secs_f64().ceil();
        // Zero would switch it off; `as` saturates.
        let seconds = (seconds as u16).max(1);
        self.keep_alive = Duration::from_secs(seconds.into());
        vec![codec::connect(&login, seconds)]
    }

    fn awaits(&self) -> Option<String> {
        match self.hello {
            Hello::ConnAck => Some("CONNACK".to_owned()),
            Hello::SubAck => {
                let first = self.topics.first().map(|filter| super::shown(filter));
                Some(format!("SUBACK for {}", first.unwrap_or_default()))
            }
            Hello::Done => None,
        }
    }

    fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        if self.is_over {
            return;
        }
        if message.is_text() {
            // Section 6.0: who gets anything but binary frames must close.
            return self.end(malformed("a text message, where MQTT is binary"), steps);
        }
        self.packets.add(message.as_bytes());
        loop {
            let meant = match self.packets.next(self.version) {
                Ok(Some(_)) if steps.len() >= MOST_STEPS => Err(malformed(&format!(
                    "more than {MOST_STEPS} packets in a message"
                ))),
                Ok(Some(packet)) => self.packet(packet),
                Ok(None) => return,
                Err(what) => Err(malformed(&what)),
            };
            match meant {
                Ok(meant) => steps.extend(meant),
                Err(refusal) => return self.end(refusal, steps),
            }
        }
    }

    fn timing(&self, wishes: &Wishes) -> Timing {
        let mut heartbeat = wishes.asking(INTERVAL, TIMEOUT);
        if !self.keep_alive.is_zero() {
            heartbeat.interval = heartbeat.interval.min(self.keep_alive / 2);
            // While an answer is waited for nothing else is sent.
            heartbeat.pong_timeout = heartbeat.pong_timeout.min(self.keep_alive);
        }
        Timing {
            heartbeat,
            max_silence: None,
        }
    }

    fn beat(&mut self, _: Stamp) -> Option<Message> {
        Some(codec::pingreq())
    }

    fn leave(&mut self) -> Option<Message> {
        Some(codec::disconnect_normally())
    }

    fn names(&self) -> BeatNames {
        BeatNames {
            beat: "PINGREQ",
            answer: "PINGRESP",
        }
    }
}

fn malformed(what: &str) -> Refusal {
    Refusal::malformed(format!("{what}; is this MQTT?"))
}

#[cfg(test)]
mod tests;
