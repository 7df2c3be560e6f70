//! The parser of event streams: any cut gives what the whole gives, that is what the reference
//! says, and nothing exceeds its limits.
//!
//! The input is a stream and nothing else, so that seeds can be written by hand; where to cut it,
//! and the limits, are drawn from a hash of it.
#![no_main]
#![allow(dead_code)] // The parser is included as it is, whatever is used of it here.

#[path = "../../src/dialect/sse/reference.rs"]
mod reference;
#[path = "../../src/dialect/sse.rs"]
mod sse;

use libfuzzer_sys::fuzz_target;
use reference::Said;
use sse::{Item, Parser, TooBig};

/// What was said, how it ended, and the last event id.
type Read = (Vec<Said>, Result<(), TooBig>, String);

fuzz_target!(|stream: &[u8]| {
    let mut dice = Dice::of(stream);

    let whole = read(Parser::default(), [stream]);
    let (said, id) = reference::read(stream);
    assert_eq!(whole, (said, Ok(()), id));
    assert_eq!(whole, read(Parser::default(), cut(stream, &mut dice)));
    assert_eq!(whole, read(Parser::default(), stream.chunks(1)));

    let (max_line, max_event) = (dice.below(64), dice.below(64));
    let limited = || Parser::new(max_line, max_event);
    let whole = read(limited(), [stream]);
    assert_eq!(whole, read(limited(), cut(stream, &mut dice)));
    for said in &whole.0 {
        if let Said::Event(kind, data) = said {
            // The type was there, and counted, unless it is the one that stands for none.
            let kind = if kind == "message" { "" } else { kind };
            assert!(kind.len() + data.len() < max_event);
        }
    }
});

fn read<'a>(mut parser: Parser, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut said = Vec::new();
    let mut fed = Ok(());
    for piece in pieces {
        fed = parser.feed(piece, |item| {
            said.push(match item {
                Item::Event { kind, data } => Said::Event(kind, data),
                Item::Comment => Said::Comment,
                Item::Retry(milliseconds) => Said::Retry(milliseconds),
            });
        });
        if fed.is_err() {
            break;
        }
    }
    (said, fed, parser.last_event_id().to_owned())
}

/// `stream` in pieces of up to 7 bytes; some are empty.
fn cut<'a>(mut stream: &'a [u8], dice: &mut Dice) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while !stream.is_empty() {
        let (piece, rest) = stream.split_at(dice.below(8).min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

/// xorshift64 (Marsaglia, 2003).
struct Dice(u64);

impl Dice {
    /// Seeded with the FNV-1a hash of `bytes`.
    fn of(bytes: &[u8]) -> Self {
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self(hash.max(1))
    }

    fn below(&mut self, end: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // From the high bits, which are the better ones.
        ((self.0 >> 32) % end) as usize
    }
}
