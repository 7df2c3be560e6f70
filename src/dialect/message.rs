//! Beats of the user's own making: a message sent, and the answer expected.

use std::fmt;
use std::time::Duration;

use super::pattern::{Expected, Matcher, Pattern, Template};
use super::{Speak, Stamp, Step, Timing};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// The usual time from an answer to the next beat.
const INTERVAL: Duration = Duration::from_secs(10);
/// The usual wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One connection's state.
pub(crate) struct Templates {
    send: Template,
    expect: Expected,
    nonce: u32,
    /// The beat sent last, and what its answer looks like. Kept over the beats by a pattern that
    /// is the same for all.
    last: Option<(Stamp, Matcher)>,
    /// Messages since the last answer.
    unmatched: u64,
}

impl Templates {
    /// Sends `send` and expects `expect`, templates both; `nonce` makes this connection's beats its own.
    pub(crate) fn new(send: &str, expect: &Pattern, nonce: u32) -> Result<Self, String> {
        expect.check().map_err(|wrong| format!("expect: {wrong}"))?;
        Ok(Self {
            send: Template::parse(send).map_err(|wrong| format!("send: {wrong}"))?,
            expect: expect.parse().map_err(|wrong| format!("expect: {wrong}"))?,
            nonce,
            last: None,
            unmatched: 0,
        })
    }
}

impl fmt::Debug for Templates {
    /// Without what is sent, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Templates");
        shown.field("expect", &self.expect).finish_non_exhaustive()
    }
}

impl Speak for Templates {
    fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        let answers = self.last.as_ref();
        let answers = answers.filter(|(_, matcher)| matcher.matches(message));
        steps.push(match answers {
            Some((stamp, _)) => {
                self.unmatched = 0;
                Step::Answer(self.expect.has_seq().then_some(stamp.seq))
            }
            None => {
                self.unmatched += 1;
                Step::Message(message.clone())
            }
        });
    }

    fn remark(&self) -> Option<String> {
        super::none_matched(self.unmatched)
    }

    fn timing(&self, wishes: &Wishes) -> Timing {
        Timing {
            heartbeat: wishes.asking(INTERVAL, TIMEOUT),
            max_silence: None,
        }
    }

    fn beat(&mut self, stamp: Stamp) -> Option<Message> {
        let kept = self.last.take().map(|(_, matcher)| matcher);
        let kept = kept.filter(|_| !self.expect.changes());
        // It was compiled with other numbers before; if it is too large with these, no answer is
        // recognised, and the beat is sent all the same.
        let matcher = kept.or_else(|| self.expect.matcher(stamp, self.nonce).ok());
        self.last = matcher.map(|matcher| (stamp, matcher));
        Some(Message::text(self.send.expand(stamp, self.nonce)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialect::Dialect;
    use crate::dialect::chatter::{chatter, hears};

    const SEND: &str = r#"Ping:{"Sequence":${seq},"Seconds":${unix},"Nanos":${subsec_nanos}}"#;
    const EXPECT: &str = r#"^Pong:\{"Sequence":${seq},"Seconds":${unix},"#;

    fn templates(send: &str, expect: &str) -> Templates {
        Templates::new(send, &Pattern::Regex(expect.into()), 0xbeef).unwrap()
    }

    fn beat(speaker: &mut Templates, seq: u32) -> String {
        let unix = Duration::new(1_763_650_000 + u64::from(seq), 5);
        let beat = speaker.beat(Stamp { seq, unix }).unwrap();
        beat.as_text().unwrap().to_owned()
    }

    fn read(speaker: &mut Templates, text: &str) -> Step {
        let mut steps = Vec::new();
        speaker.read(&Message::text(text), &mut steps);
        assert_eq!(steps.len(), 1, "{steps:?}");
        steps.remove(0)
    }

    fn message(text: &str) -> Step {
        Step::Message(Message::text(text))
    }

    #[test]
    fn an_answer_carries_the_sequence_last_sent() {
        let mut ticker = templates(SEND, EXPECT);
        let first = beat(&mut ticker, 1);
        assert_eq!(
            first,
            r#"Ping:{"Sequence":1,"Seconds":1763650001,"Nanos":5}"#
        );
        let echo = |ping: &str| ping.replace("Ping", "Pong");
        assert_eq!(read(&mut ticker, &echo(&first)), Step::Answer(Some(1)));
        let second = beat(&mut ticker, 2);
        assert_eq!(read(&mut ticker, &echo(&first)), message(&echo(&first)));
        assert_eq!(read(&mut ticker, &echo(&second)), Step::Answer(Some(2)));
        // The right number, and another time.
        let wrong = r#"Pong:{"Sequence":2,"Seconds":1763650001,"#;
        assert_eq!(read(&mut ticker, wrong), message(wrong));
        let change = r#"TickerChange:{"Changes":[]}"#;
        assert_eq!(read(&mut ticker, change), message(change));
    }

    #[test]
    fn before_the_first_beat_nothing_is_an_answer() {
        let mut speaker = templates("ping", "pong");
        assert_eq!(read(&mut speaker, "pong"), message("pong"));
        assert_eq!(beat(&mut speaker, 1), "ping");
        assert_eq!(read(&mut speaker, "pong"), Step::Answer(None));
        assert_eq!(beat(&mut speaker, 2), "ping");
        assert_eq!(read(&mut speaker, "pong"), Step::Answer(None));
    }

    #[test]
    fn a_pattern_that_does_not_change_is_compiled_once() {
        let same = |speaker: &Templates| match &speaker.last {
            Some((_, Matcher::Regex(regex))) => regex.as_str().as_ptr(),
            other => panic!("{other:?}"),
        };
        let mut speaker = templates("ping ${seq}", "pong ${nonce}");
        beat(&mut speaker, 1);
        let first = same(&speaker);
        beat(&mut speaker, 2);
        assert_eq!(same(&speaker), first);
        assert_eq!(read(&mut speaker, "pong 0000beef"), Step::Answer(None));
    }

    #[test]
    fn a_pointer_answers_too() {
        let expect = Pattern::Pointer {
            pointer: "/id".into(),
            value: "${nonce}-${seq}".into(),
        };
        let mut speaker = Templates::new("x", &expect, 1).unwrap();
        beat(&mut speaker, 3);
        let answer = r#"{"id":"00000001-3"}"#;
        assert_eq!(read(&mut speaker, answer), Step::Answer(Some(3)));
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_key() {
        let expect = Pattern::Regex("pong".into());
        let wrong = Templates::new("${x}", &expect, 1).unwrap_err();
        assert!(wrong.starts_with("send: `${x}` is not known"), "{wrong}");
        let wrong = Templates::new("x", &Pattern::Regex("(".into()), 1).unwrap_err();
        assert!(wrong.starts_with("expect: the regular"), "{wrong}");
    }

    #[test]
    fn what_is_sent_is_not_shown() {
        let speaker = templates("s3cret", "pong");
        assert!(!format!("{speaker:?}").contains("s3cret"));
    }

    #[test]
    fn it_beats_each_10_s_and_waits_20_s() {
        let timing = templates("ping", "pong").timing(&Wishes::default());
        assert_eq!(timing.heartbeat.interval, INTERVAL);
        assert_eq!(timing.heartbeat.pong_timeout, TIMEOUT);
        assert_eq!(timing.heartbeat.max_retries, 0);
        assert_eq!(timing.max_silence, None);
    }

    proptest! {
        #[test]
        fn any_peer_is_heard(
            turns in chatter(&[r#"Pong:{"Sequence":1,"Seconds":1763650000,"#, "pong", "7"]),
            expect in prop::sample::select(vec![EXPECT, "pong", "${seq}", "."]),
        ) {
            hears(Dialect::Message(templates(SEND, expect)), &turns)?;
        }
    }
}
