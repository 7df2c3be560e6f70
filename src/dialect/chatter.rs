//! Arbitrary peers for the property tests: they say what a peer might, what it might not, and
//! what no peer would.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::{Dialect, Stamp, Step};
use crate::proto::event::Message;
use crate::proto::heartbeat::Wishes;

/// Sequences of messages; among them `plausible` ones, whole, cut short or with a character
/// replaced. `None` is the time for a beat of ours.
pub(super) fn chatter(
    plausible: &'static [&'static str],
) -> impl Strategy<Value = Vec<Option<Message>>> {
    let whole = || select(plausible).prop_map(str::to_owned);
    let cut = (whole(), any::<prop::sample::Index>()).prop_map(|(text, at)| {
        let mut text: Vec<char> = text.chars().collect();
        text.truncate(at.index(text.len() + 1));
        text.into_iter().collect::<String>()
    });
    let mangled = (whole(), any::<prop::sample::Index>(), any::<char>());
    let mangled = mangled.prop_map(|(text, at, other)| {
        let mut text: Vec<char> = text.chars().collect();
        if !text.is_empty() {
            let at = at.index(text.len());
            text[at] = other;
        }
        text.into_iter().collect::<String>()
    });
    let message = prop_oneof![
        6 => whole().prop_map(Message::text),
        1 => whole().prop_map(|text| Message::binary(text.into_bytes())),
        2 => cut.prop_map(Message::text),
        2 => mangled.prop_map(Message::text),
        1 => any::<String>().prop_map(Message::text),
        1 => any::<Vec<u8>>().prop_map(Message::binary),
    ];
    let turn = prop_oneof![3 => message.prop_map(Some), 1 => Just(None)];
    prop::collection::vec(turn, 0..24)
}

/// Lets a dialect hear all of it: it panics at nothing, and its words fit on a line.
pub(super) fn hears(
    mut dialect: Dialect,
    chatter: &[Option<Message>],
) -> Result<(), TestCaseError> {
    let wishes = Wishes::default();
    dialect.open(&wishes);
    let mut seq = 0;
    for turn in chatter {
        let Some(message) = turn else {
            seq += 1;
            let unix = Duration::from_secs(1_763_650_000);
            dialect.beat(Stamp { seq, unix });
            continue;
        };
        let mut steps = Vec::new();
        dialect.read(message, &mut steps);
        for step in steps {
            match step {
                Step::Refused(refusal) => fits(&refusal.words)?,
                Step::Answer(answered) => {
                    prop_assert!(seq > 0, "an answer to nothing");
                    prop_assert!(answered.is_none_or(|n| n >= 1 && n <= seq), "{answered:?}");
                }
                Step::Message(_) | Step::Beat | Step::Life | Step::Send(_) => {}
            }
        }
        if let Some(what) = dialect.awaits() {
            fits(&what)?;
        }
        dialect.timing(&wishes);
    }
    dialect.leave();
    Ok(())
}

fn fits(words: &str) -> Result<(), TestCaseError> {
    prop_assert!(!words.chars().any(char::is_control), "{words:?}");
    prop_assert!(words.chars().count() < 512, "{words:?}");
    Ok(())
}
