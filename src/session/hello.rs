//! The hello of a dialect: what has to pass before a connection counts as established.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::time::timeout_at;

use super::{Speech, clock};
use crate::config::{Target, mask};
use crate::dialect::{Dialect, Step};
use crate::proto::close::{CloseFrame, Ending, Refusal};
use crate::proto::event::{Message, Phase};
use crate::proto::heartbeat::Wishes;
use crate::proto::reconnect::Advice;
use crate::transport::dial::{DialError, Dialed};
use crate::transport::link::{Incoming, Link};

/// What may come in until the hello is done, in bytes of messages and a little for each. All of it
/// counts: what is kept may be a small piece of a large message, and holds the whole of it.
const MOST_EARLY: usize = 1 << 20;
/// What a message, or a step, costs beside its bytes.
const STEP: usize = 64;

/// A connection whose hello is done.
pub(crate) struct Greeted {
    pub(crate) dialed: Dialed,
    pub(crate) speech: Speech,
}

/// Greets the peer that was reached as `target`'s protocol wants it. Without a hello nothing is
/// waited for.
pub(crate) async fn greet(mut dialed: Dialed, target: &Target) -> Result<Greeted, DialError> {
    let on_open = target.policy.on_open.iter();
    let on_open = on_open.map(|text| Message::text(text.expose().to_string()));
    let mut speech = Speech {
        on_open: on_open.collect(),
        ..Speech::default()
    };
    let began = clock();
    let made = target.connection.heartbeat.dialect(target, rand::random());
    let mut dialect = match made {
        Ok(None) => return Ok(Greeted { dialed, speech }),
        Ok(Some(dialect)) => dialect,
        Err(message) => return Err(failed(&dialed, message, Advice::Backoff)),
    };
    let wishes = &target.policy.wishes;
    if dialect.awaits().is_some() {
        let own = began + target.policy.timeouts.hello;
        let until = own.min(dialed.until);
        let limit = (target, until == own);
        let early = exchanged(&mut dialed, &mut dialect, wishes, until, limit).await;
        dialed.times[Phase::Hello as usize] = Some(clock().saturating_duration_since(began));
        speech.early = early.map_err(|(message, advice)| {
            failed(&dialed, mask(&message, &target.secrets()), advice)
        })?;
    }
    speech.dialect = Some(dialect);
    Ok(Greeted { dialed, speech })
}

fn failed(dialed: &Dialed, message: String, advice: Advice) -> DialError {
    let facts = dialed.facts.as_ref();
    DialError {
        phase: Phase::Hello,
        message,
        status: None,
        advice,
        times: dialed.times,
        certificate_not_after: facts.and_then(|facts| facts.tls.and_then(|tls| tls.not_after)),
        peer: dialed.peer,
    }
}

type Failure = (String, Advice);

async fn exchanged(
    dialed: &mut Dialed,
    dialect: &mut Dialect,
    wishes: &Wishes,
    until: Instant,
    (target, own): (&Target, bool),
) -> Result<Vec<Step>, Failure> {
    let mut talk = Talk {
        link: &mut dialed.link,
        dialect,
        close: Some(CloseFrame::new(1000, "")),
    };
    let talked = timeout_at(until.into(), talk.run(wishes)).await;
    let Ok(talked) = talked else {
        let timeouts = &target.policy.timeouts;
        let (key, limit): (_, Duration) = match own {
            true => ("hello_timeout", timeouts.hello),
            false => ("connect_timeout", timeouts.connect),
        };
        let what = talk.dialect.awaits().unwrap_or_else(|| "answer".to_owned());
        return Err((
            format!("no {what} within {limit:?} ({key})"),
            Advice::Backoff,
        ));
    };
    let broken = match talked {
        Ok(early) => {
            talk.close = None;
            return Ok(early);
        }
        Err(broken) => broken,
    };
    Err(match broken {
        Broken::Refused(refusal) if refusal.by_peer => {
            let message = format!("the peer refused ({})", refusal.words);
            (message, refusal.advice)
        }
        Broken::Refused(refusal) => {
            let verdict = Ending::Dialect(refusal).classify();
            talk.close = verdict.close;
            (verdict.message, verdict.advice)
        }
        Broken::TooMuch => {
            let message = "the peer sent more than 1 MiB before its hello was done".to_owned();
            (message, Advice::Backoff)
        }
        Broken::Ended(ending) => {
            let verdict = ending.classify();
            talk.close = verdict.close;
            let mut message = verdict.message;
            if let Ending::PeerClosed(frame) = &ending
                && let Some(words) = talk.dialect.explain(frame.code)
            {
                message.push_str(&format!(": {words}"));
            }
            if let Some(what) = talk.dialect.awaits() {
                message.push_str(&format!("; there was no {what}"));
            }
            (message, verdict.advice)
        }
    })
}

enum Broken {
    Refused(Refusal),
    Ended(Ending),
    TooMuch,
}

impl From<Ending> for Broken {
    fn from(ending: Ending) -> Self {
        Self::Ended(ending)
    }
}

/// A hello under way. However it ends, by a failure or because nobody wants it any more, the peer
/// is told: a courtesy, waiting for nothing.
struct Talk<'a> {
    link: &'a mut Link,
    dialect: &'a mut Dialect,
    /// What the peer is owed if this ends here.
    close: Option<CloseFrame>,
}

impl Drop for Talk<'_> {
    fn drop(&mut self) {
        let Some(close) = self.close.take() else {
            return;
        };
        if let Some(leave) = self.dialect.leave() {
            let _ = self.link.start_message(leave); // the Close that follows fails as well
        }
        self.link.try_close(&close);
    }
}

impl Talk<'_> {
    /// Speaks until the hello is done: what came in beside it.
    async fn run(&mut self, wishes: &Wishes) -> Result<Vec<Step>, Broken> {
        for word in self.dialect.open(wishes) {
            self.send(word).await?;
        }
        let mut early = Vec::new();
        let mut held = 0;
        let mut steps = Vec::new();
        while self.dialect.awaits().is_some() {
            match self.link.recv().await? {
                Incoming::Message(message) => {
                    held += message.as_bytes().len() + STEP;
                    self.dialect.read(&message, &mut steps);
                }
                Incoming::Close(frame) => {
                    // Our reply is queued; whether it leaves is the peer's affair.
                    let _ = self.link.flush().now_or_never();
                    return Err(Ending::PeerClosed(frame).into());
                }
                Incoming::Ping | Incoming::Pong(_) | Incoming::Comment | Incoming::Bytes => {
                    continue;
                }
            }
            for step in steps.drain(..) {
                match step {
                    Step::Send(word) => {
                        self.send(word).await?;
                        continue;
                    }
                    Step::Refused(refusal) => return Err(Broken::Refused(refusal)),
                    // Silence is counted from the end of the hello.
                    Step::Life => continue,
                    Step::Message(_) | Step::Beat | Step::Answer(_) => held += STEP,
                }
                early.push(step);
            }
            if held > MOST_EARLY && self.dialect.awaits().is_some() {
                return Err(Broken::TooMuch);
            }
        }
        Ok(early)
    }

    async fn send(&mut self, word: Message) -> Result<(), Ending> {
        self.link.start_message(word)?;
        self.link.flush().await
    }
}

#[cfg(test)]
mod tests;
