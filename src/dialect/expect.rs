//! The server beats: a message that matches is a beat, and nothing else of the application's.

use std::time::Duration;

use super::pattern::{Matcher, Pattern};
use super::{Speak, Step, Timing};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// The usual longest time without a match.
const SILENCE: Duration = Duration::from_secs(45);

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Expect {
    matcher: Matcher,
    /// Messages since the last match.
    unmatched: u64,
}

impl Expect {
    /// Waits for messages that match `pattern`, which holds no templates.
    pub(crate) fn new(pattern: &Pattern) -> Result<Self, String> {
        pattern.fixed().map(|matcher| Self {
            matcher,
            unmatched: 0,
        })
    }
}

impl Speak for Expect {
    fn read(&mut self, message: &Message, steps: &mut Vec<Step>) {
        steps.push(match self.matcher.matches(message) {
            true => {
                self.unmatched = 0;
                Step::Beat
            }
            false => {
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
            heartbeat: wishes.listening(),
            max_silence: Some(wishes.max_silence.unwrap_or(SILENCE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialect::Dialect;
    use crate::dialect::chatter::{chatter, hears};
    use crate::proto::heartbeat::PingMode;

    fn expect(source: &str) -> Expect {
        Expect::new(&Pattern::Regex(source.into())).unwrap()
    }

    fn read(expect: &mut Expect, text: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        expect.read(&Message::text(text), &mut steps);
        steps
    }

    #[test]
    fn it_tells_how_many_did_not_match_since_the_last_that_did() {
        let mut speaker = expect("^tick");
        assert_eq!(speaker.remark(), None);
        read(&mut speaker, "tock");
        let one = "1 message came meanwhile, and did not match `expect`";
        assert_eq!(speaker.remark().unwrap(), one);
        read(&mut speaker, "tock");
        let two = "2 messages came meanwhile, none matched `expect`";
        assert_eq!(speaker.remark().unwrap(), two);
        read(&mut speaker, "tick");
        assert_eq!(speaker.remark(), None);
    }

    #[test]
    fn what_matches_is_a_beat_and_what_does_not_a_message() {
        let mut expect = expect("^tick");
        assert_eq!(read(&mut expect, "tick 7"), [Step::Beat]);
        let news = Step::Message(Message::text("news"));
        assert_eq!(read(&mut expect, "news"), [news]);
    }

    #[test]
    fn templates_and_broken_patterns_are_refused() {
        for wrong in ["tick ${seq}", "("] {
            let wrong = Pattern::Regex(wrong.into());
            assert!(Expect::new(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn nothing_is_sent_and_45_s_are_the_usual_silence() {
        let mut wishes = Wishes::default();
        let timing = expect("tick").timing(&wishes);
        assert_eq!(timing.heartbeat.mode, PingMode::Never);
        assert_eq!(timing.max_silence, Some(SILENCE));
        let own = Duration::from_secs(3);
        wishes.max_silence = Some(own);
        assert_eq!(expect("tick").timing(&wishes).max_silence, Some(own));
    }

    proptest! {
        #[test]
        fn any_peer_is_heard(turns in chatter(&["tick 1", r#"{"type":"tick"}"#])) {
            hears(Dialect::Expect(expect("^tick")), &turns)?;
            let pointer = Pattern::Pointer { pointer: "/type".into(), value: "tick".into() };
            hears(Dialect::Expect(Expect::new(&pointer).unwrap()), &turns)?;
        }
    }
}
