//! STOMP 1.2 and 1.1 over WebSocket: CONNECT, subscriptions with receipts, and heart-beats of both
//! sides, which nobody answers.
//!
//! <https://stomp.github.io/stomp-specification-1.2.html>, sections "Connecting", "Heart-beating",
//! "SUBSCRIBE", "ERROR". We offer to beat, and ask for beats, every 10 s or at the target's
//! `interval`; each direction goes at the slower of what is offered and what is asked for. A peer
//! that is silent for twice its interval is given up. Where it promises no beats there is no life
//! sign of its own, and a `max_silence` of the target's is met by messages alone; where it wants
//! none we send none.
//!
//! "Any new data received over the network connection is an indication that the remote end is
//! alive", and brokers do leave out beats while they send messages (RabbitMQ's `rabbit_heartbeat`
//! beats only if the connection's count of bytes stood still), so data is as good as a beat.

mod codec;

use std::fmt;
use std::time::Duration;

use self::codec::{Command, Frame, Frames};
use super::{MOST_STEPS, Speak, Step, Timing};
use crate::proto::close::{BeatNames, Refusal};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;
use crate::proto::reconnect::Advice;

/// How often each side beats where the target does not say: what RabbitMQ and `stompjs` propose.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// No peer is taken at its word for longer between two beats.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How the CONNECT frame reads.
#[derive(Clone)]
pub(crate) struct Login {
    /// The `host` header.
    pub(crate) vhost: Box<str>,
    pub(crate) login: Option<Box<str>>,
    pub(crate) passcode: Option<Box<str>>,
    /// Destinations to subscribe to.
    pub(crate) topics: Vec<Box<str>>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("vhost", &self.vhost)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Stomp {
    /// Until CONNECT is sent.
    login: Option<Login>,
    connected: bool,
    /// Destinations to subscribe to, with the number of each, that are not confirmed yet.
    unconfirmed: Vec<(usize, Box<str>)>,
    /// What we offered and asked for.
    asked: Duration,
    /// How often we beat, and the peer; `None` for never.
    ours: Option<Duration>,
    theirs: Option<Duration>,
    frames: Frames,
    /// The peer refused us, or made no sense: nothing more is read.
    is_over: bool,
}

impl Stomp {
    /// Connects with `login`.
    pub(crate) fn new(mut login: Login) -> Self {
        let topics = std::mem::take(&mut login.topics);
        Self {
            login: Some(login),
            connected: false,
            unconfirmed: topics.into_iter().enumerate().collect(),
            asked: INTERVAL,
            ours: None,
            theirs: None,
            frames: Frames::default(),
            is_over: false,
        }
    }

    fn frame(&mut self, frame: Frame) -> Result<Vec<Step>, Refusal> {
        match frame.command {
            Command::Connected if !self.connected => self.connected(&frame),
            Command::Message if self.connected => {
                let is_text = std::str::from_utf8(&frame.body).is_ok();
                let body = Message::from_parts(frame.body, is_text);
                Ok(vec![Step::Message(body)])
            }
            Command::Receipt if self.connected => {
                let id = frame.header("receipt-id").unwrap_or_default();
                self.unconfirmed
                    .retain(|(number, _)| receipt(*number) != id);
                Ok(Vec::new())
            }
            Command::Error => {
                let advice = match self.awaits() {
                    Some(_) => Advice::Refused,
                    None => Advice::Backoff,
                };
                Err(Refusal::of_peer(error(&frame), advice))
            }
            Command::Connected => Err(malformed("a second CONNECTED")),
            Command::Message | Command::Receipt => Err(malformed("a frame before CONNECTED")),
        }
    }

    fn connected(&mut self, frame: &Frame) -> Result<Vec<Step>, Refusal> {
        match frame.header("version") {
            Some("1.1" | "1.2") => {}
            version => {
                let version = super::shown(version.unwrap_or("1.0"));
                let what = format!("CONNECTED of version {version}, 1.1 or 1.2 is spoken");
                return Err(malformed(&what));
            }
        }
        let beats = frame.header("heart-beat").unwrap_or("0,0");
        let Some((can, wants)) = both(beats) else {
            let what = format!("CONNECTED with heart-beat {}", super::shown(beats));
            return Err(malformed(&what));
        };
        let slower = |theirs: Duration| match theirs {
            Duration::ZERO => None,
            theirs => Some(theirs.max(self.asked).min(LONGEST)),
        };
        (self.theirs, self.ours) = (slower(can), slower(wants));
        self.connected = true;
        let subscribe = self.unconfirmed.iter().map(|(number, destination)| {
            let headers = [
                ("id", &*number.to_string()),
                ("destination", &*codec::escaped(destination)),
                ("ack", "auto"),
                ("receipt", &*receipt(*number)),
            ];
            Step::Send(Message::text(codec::encoded("SUBSCRIBE", &headers)))
        });
        Ok(subscribe.collect())
    }
}

impl Speak for Stomp {
    fn open(&mut self, wishes: &Wishes) -> Vec<Message> {
        let Some(login) = self.login.take() else {
            return Vec::new();
        };
        // In whole milliseconds, and not none at all.
        let asked = wishes.interval.unwrap_or(INTERVAL).min(LONGEST);
        let millis = asked.as_millis().max(1);
        self.asked = asked.max(Duration::from_millis(1));
        let beats = format!("{millis},{millis}");
        let vhost = codec::in_connect(&login.vhost);
        let user = login.login.as_deref().map(codec::in_connect);
        let passcode = login.passcode.as_deref().map(codec::in_connect);
        let headers = [
            ("accept-version", Some("1.1,1.2")),
            ("host", Some(&*vhost)),
            ("login", user.as_deref()),
            ("passcode", passcode.as_deref()),
            ("heart-beat", Some(&*beats)),
        ];
        let headers: Vec<_> = headers
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        vec![Message::text(codec::encoded("CONNECT", &headers))]
    }

    fn awaits(&self) -> Option<String> {
        if !self.connected {
            return Some("CONNECTED".to_owned());
        }
        let (_, destination) = self.unconfirmed.first()?;
        Some(format!("RECEIPT for {}", super::shown(destination)))
    }

    fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        let bytes = message.as_bytes();
        if self.is_over || bytes.is_empty() {
            return;
        }
        // The EOLs that may follow a frame's NUL are no beats; a message of EOLs alone is one.
        let eols = bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        steps.push(match eols && self.frames.is_between() {
            true => Step::Beat,
            false => Step::Life,
        });
        self.frames.add(bytes);
        loop {
            let meant = match self.frames.next() {
                Ok(Some(_)) if steps.len() >= MOST_STEPS => Err(malformed(&format!(
                    "more than {MOST_STEPS} frames in a message"
                ))),
                Ok(Some(frame)) => self.frame(frame),
                Ok(None) => return,
                Err(what) => Err(malformed(&what)),
            };
            match meant {
                Ok(meant) => steps.extend(meant),
                Err(refusal) => {
                    // Nothing that follows is read.
                    steps.push(Step::Refused(refusal));
                    self.is_over = true;
                    self.frames = Frames::default();
                    return;
                }
            }
        }
    }

    fn timing(&self, wishes: &Wishes) -> Timing {
        let mut heartbeat = match self.ours {
            Some(promised) => wishes.telling(promised),
            None => wishes.listening(),
        };
        if let Some(promised) = self.ours {
            // Another interval may have been set since we promised this one.
            heartbeat.interval = heartbeat.interval.min(promised);
        }
        let silence = self.theirs.map(|promised| promised * 2);
        Timing {
            heartbeat,
            max_silence: wishes.max_silence.or(silence),
        }
    }

    fn beat(&mut self, _: super::Stamp) -> Option<Message> {
        Some(Message::text("\n"))
    }

    /// Without asking for a receipt: nothing is waited for but the reply to Close.
    fn leave(&mut self) -> Option<Message> {
        Some(Message::text(codec::encoded("DISCONNECT", &[])))
    }

    fn names(&self) -> BeatNames {
        BeatNames {
            beat: "heart-beat",
            answer: "heart-beat",
        }
    }
}

fn receipt(number: usize) -> String {
    format!("sub-{number}")
}

/// `heart-beat:<can>,<wants>`, in milliseconds.
fn both(header: &str) -> Option<(Duration, Duration)> {
    let (can, wants) = header.split_once(',')?;
    let millis = |text: &str| Some(Duration::from_millis(text.trim().parse().ok()?));
    Some((millis(can)?, millis(wants)?))
}

/// `ERROR: Bad CONNECT (Access refused for user 'guest')`.
fn error(frame: &Frame) -> String {
    let message = frame.header("message").map(|text| {
        // One that is escaped wrongly is still worth to be read.
        let text = codec::unescaped(text).unwrap_or_else(|| text.to_owned());
        super::shown(&text)
    });
    let body = String::from_utf8_lossy(&frame.body);
    let more = body.lines().find(|line| !line.trim().is_empty());
    match (message, more.map(super::shown)) {
        (Some(message), Some(more)) => format!("ERROR: {message} ({more})"),
        (Some(words), None) | (None, Some(words)) => format!("ERROR: {words}"),
        (None, None) => "ERROR".to_owned(),
    }
}

fn malformed(what: &str) -> Refusal {
    Refusal::malformed(format!("{what}; is this STOMP?"))
}

#[cfg(test)]
mod tests;
