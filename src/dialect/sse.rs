//! Server-Sent Events: what a stream of bytes says.
//!
//! To the HTML Living Standard, section 9.2.6, "Interpreting an event stream". Comments are
//! reported, for they are this protocol's heartbeat, and nothing grows without bound: a peer may
//! send a line, or an event, that never ends.
//!
//! Only std, and nothing of this crate: the fuzz targets in `fuzz/` include this file as it is.

use std::mem;

/// What the stream said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// An event that was dispatched.
    Event {
        /// Its type, `message` where the stream names none.
        kind: String,
        data: String,
    },
    /// A line that starts with a colon.
    Comment,
    /// How long the peer wants us to wait before we connect again, in milliseconds; a number
    /// beyond u64 is its greatest.
    Retry(u64),
}

/// Which limit was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooBig {
    /// A line is longer than `max_line`.
    Line,
    /// Type and data of an event are larger than `max_event`.
    Event,
}

/// Bytes of a line, if nobody says otherwise.
pub(crate) const MAX_LINE: usize = 1 << 20;
/// Bytes of an event, if nobody says otherwise.
pub(crate) const MAX_EVENT: usize = 4 << 20;

/// EF BB BF, dropped once at the beginning of a stream.
const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// Reads a stream, however it is cut into pieces.
///
/// Between the pieces it holds one unfinished line and one undispatched event, each within its
/// limit, and nothing once they are done.
#[derive(Debug)]
pub(crate) struct Parser {
    max_line: usize,
    max_event: usize,
    /// Bytes of the BOM seen at the beginning; 3 once there was one, or cannot be one any more.
    bom: usize,
    /// The last piece ended behind a CR: an LF that comes next belongs to it.
    after_cr: bool,
    /// The line so far, where a piece ended within it.
    line: Vec<u8>,
    kind: String,
    /// Each line of data with an LF behind it; empty if there was none.
    data: String,
    /// What `id` said since the last blank line; it holds from the next one on.
    id: Option<Box<str>>,
    last_event_id: Box<str>,
    too_big: Option<TooBig>,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new(MAX_LINE, MAX_EVENT)
    }
}

impl Parser {
    /// The most bytes of a line, and of an event.
    pub(crate) fn limits(&self) -> (usize, usize) {
        (self.max_line, self.max_event)
    }

    /// One that takes lines of at most `max_line` bytes, without their ends, and events whose
    /// type and data take at most `max_event` bytes: as decoded, with an LF behind each line.
    pub(crate) fn new(max_line: usize, max_event: usize) -> Self {
        Self {
            max_line,
            max_event,
            bom: 0,
            after_cr: false,
            line: Vec::new(),
            kind: String::new(),
            data: String::new(),
            id: None,
            last_event_id: "".into(),
            too_big: None,
        }
    }

    /// Goes on from the event id that a stream before this one left.
    pub(crate) fn resuming(self, last_event_id: &str) -> Self {
        Self {
            last_event_id: last_event_id.into(),
            ..self
        }
    }

    /// Takes bytes as they come and calls `each` for every item in them.
    ///
    /// After an error the stream cannot be read on: every later call fails alike.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Item)) -> Result<(), TooBig> {
        match self.too_big {
            Some(too_big) => Err(too_big),
            None => self.read(bytes, &mut each).inspect_err(|too_big| {
                self.too_big = Some(*too_big);
                (self.line, self.kind, self.data) = Default::default();
            }),
        }
    }

    /// The last event id: set by `id`, applied with the blank line that follows; empty if there
    /// was none, or an empty one took it back.
    pub(crate) fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    fn read(&mut self, bytes: &[u8], each: &mut impl FnMut(Item)) -> Result<(), TooBig> {
        let mut rest = self.without_bom(bytes)?;
        if let [first, behind @ ..] = rest
            && mem::take(&mut self.after_cr)
            && *first == b'\n'
        {
            rest = behind;
        }
        while let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let line = &rest[..end];
            if self.line.is_empty() {
                self.within_line(line.len())?;
                self.take_line(line, each)?;
            } else {
                self.keep(line)?;
                let line = mem::take(&mut self.line);
                self.take_line(&line, each)?;
            }
            let behind = &rest[end + 1..];
            rest = match (rest[end], behind) {
                (b'\r', [b'\n', behind @ ..]) => behind,
                (b'\r', []) => {
                    self.after_cr = true;
                    behind
                }
                _ => behind,
            };
        }
        self.keep(rest)
    }

    /// What follows the BOM, if the stream begins with one.
    fn without_bom<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], TooBig> {
        let mut rest = bytes;
        while let (Some(expected), [first, behind @ ..]) = (BOM.get(self.bom), rest) {
            if first == expected {
                self.bom += 1;
                rest = behind;
            } else {
                let none = mem::replace(&mut self.bom, BOM.len());
                self.keep(&BOM[..none])?;
            }
        }
        Ok(rest)
    }

    /// Adds to the line that is not complete yet.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), TooBig> {
        self.within_line(self.line.len() + bytes.len())?;
        let capacity = grown(
            self.line.capacity(),
            self.line.len() + bytes.len(),
            self.max_line,
        );
        self.line.reserve_exact(capacity - self.line.len());
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn within_line(&self, length: usize) -> Result<(), TooBig> {
        match length > self.max_line {
            true => Err(TooBig::Line),
            false => Ok(()),
        }
    }

    /// One whole line, without its end.
    ///
    /// It is decoded by itself: no CR or LF is ever a part of another character, so the text is
    /// the one that decoding the whole stream gives.
    fn take_line(&mut self, line: &[u8], each: &mut impl FnMut(Item)) -> Result<(), TooBig> {
        if line.is_empty() {
            self.dispatch(each);
            return Ok(());
        }
        let (field, value) = match line.iter().position(|b| *b == b':') {
            Some(0) => {
                each(Item::Comment);
                return Ok(());
            }
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match field {
            b"event" => {
                self.kind = String::new();
                let left = self.max_event.saturating_sub(self.data.len());
                decode(value, &mut self.kind, left).ok_or(TooBig::Event)?;
            }
            b"data" => {
                let most = self.max_event.saturating_sub(self.kind.len());
                decode(value, &mut self.data, most).ok_or(TooBig::Event)?;
                push("\n", &mut self.data, most).ok_or(TooBig::Event)?;
            }
            b"id" if !value.contains(&0) => {
                self.id = Some(String::from_utf8_lossy(value).into());
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let milliseconds = value.iter().fold(0_u64, |sum, digit| {
                    sum.saturating_mul(10)
                        .saturating_add(u64::from(digit - b'0'))
                });
                each(Item::Retry(milliseconds));
            }
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, each: &mut impl FnMut(Item)) {
        if let Some(id) = self.id.take() {
            self.last_event_id = id;
        }
        let (kind, mut data) = (mem::take(&mut self.kind), mem::take(&mut self.data));
        if data.pop().is_none() {
            return;
        }
        let kind = match kind.is_empty() {
            true => "message".to_owned(),
            false => kind,
        };
        each(Item::Event { kind, data });
    }
}

/// Appends `bytes` as text, what is not UTF-8 replaced; `None` if `text` would grow beyond `most`.
fn decode(bytes: &[u8], text: &mut String, most: usize) -> Option<()> {
    for chunk in bytes.utf8_chunks() {
        push(chunk.valid(), text, most)?;
        if !chunk.invalid().is_empty() {
            push("\u{FFFD}", text, most)?;
        }
    }
    Some(())
}

fn push(more: &str, text: &mut String, most: usize) -> Option<()> {
    let length = text.len() + more.len();
    if length > most {
        return None;
    }
    text.reserve_exact(grown(text.capacity(), length, most) - text.len());
    text.push_str(more);
    Some(())
}

/// The capacity that holds `length` bytes: twice what there was, for many small additions must
/// not each copy all, but never more than `most` unless it has to.
fn grown(capacity: usize, length: usize, most: usize) -> usize {
    match length > capacity {
        true => capacity.saturating_mul(2).min(most).max(length),
        false => capacity,
    }
}

#[cfg(test)]
#[path = "sse/tests.rs"] // For rustfmt, which reads this file as the fuzz target includes it.
mod tests;
