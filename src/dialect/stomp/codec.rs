//! STOMP frames out of a stream of bytes, and into text.
//!
//! <https://stomp.github.io/stomp-specification-1.2.html>, sections "STOMP Frames", "Value
//! Encoding", "Header content-length" and "Augmented BNF". A frame may come in several messages,
//! and several in one.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// The largest frame that is read, in bytes.
pub(super) const LARGEST: usize = 1 << 20;

/// What a server may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Connected,
    Message,
    Receipt,
    Error,
}

impl Command {
    const ALL: [(&'static str, Self); 4] = [
        ("CONNECTED", Self::Connected),
        ("MESSAGE", Self::Message),
        ("RECEIPT", Self::Receipt),
        ("ERROR", Self::Error),
    ];
}

/// A frame of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) command: Command,
    /// Names and values as they came, escapes and all.
    headers: Vec<(Box<str>, Box<str>)>,
    pub(super) body: Bytes,
}

impl Frame {
    /// A header's value as it came. Of repeated ones the first counts ("Repeated Header Entries").
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| **key == *name);
        found.map(|(_, value)| &**value)
    }

    fn parse(head: &[u8], body: Bytes) -> Result<Self, String> {
        let head = std::str::from_utf8(head).map_err(|_| "headers that are not UTF-8")?;
        let mut lines = head
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line));
        let name = lines.next().unwrap_or_default();
        let command = Command::ALL.iter().find(|(known, _)| *known == name);
        let (_, command) =
            command.ok_or_else(|| format!("a frame {}", crate::dialect::shown(name)))?;
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
            Ok((name.into(), value.into()))
        });
        Ok(Self {
            command: *command,
            headers: headers.collect::<Result<_, &str>>()?,
            body,
        })
    }
}

/// Puts frames together.
#[derive(Default)]
pub(super) struct Frames {
    held: BytesMut,
    /// Up to here there is no end of the headers, or of the body.
    searched: usize,
    /// Where the body begins, and how long it says it is.
    body: Option<(usize, Option<usize>)>,
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frames({} bytes)", self.held.len())
    }
}

impl Frames {
    /// Takes what came in.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Whether no frame has begun.
    pub(super) fn is_between(&self) -> bool {
        self.held.iter().all(|byte| *byte == b'\r')
    }

    /// The next frame that is complete; what is wrong, in words, where none can be.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, String> {
        loop {
            match (self.held.first(), self.held.get(1)) {
                (Some(b'\n'), _) => self.held.advance(1),
                (Some(b'\r'), Some(b'\n')) => self.held.advance(2),
                (Some(b'\r'), Some(_)) => return Err("a stray carriage return".to_owned()),
                (Some(b'\r'), None) => return Ok(None),
                (Some(_), _) => break,
                (None, _) => {
                    // What a large frame took is given back.
                    self.held = BytesMut::new();
                    return Ok(None);
                }
            }
        }
        let Some((end, body)) = self.end()? else {
            return match self.held.len() > LARGEST {
                true => Err(too_large()),
                false => Ok(None),
            };
        };
        if end > LARGEST {
            return Err(too_large());
        }
        let mut frame = self.held.split_to(end).freeze();
        self.held.advance(1); // NUL
        (self.searched, self.body) = (0, None);
        let head = frame.split_to(body);
        Frame::parse(head.trim_ascii_end(), frame).map(Some)
    }

    /// Where the frame at the beginning ends, and where its body begins.
    fn end(&mut self) -> Result<Option<(usize, usize)>, String> {
        let (begin, length) = match self.body {
            Some(body) => body,
            None => {
                let Some(begin) = self.headers_end()? else {
                    return Ok(None);
                };
                let length = content_length(&self.held[..begin])?;
                self.searched = begin;
                *self.body.insert((begin, length))
            }
        };
        let Some(length) = length else {
            let end = position(&self.held, self.searched, 0);
            self.searched = self.held.len();
            return Ok(end.map(|end| (end, begin)));
        };
        let end = begin.saturating_add(length);
        if end > LARGEST {
            return Err(too_large());
        }
        match self.held.get(end) {
            Some(0) => Ok(Some((end, begin))),
            Some(_) => Err("a body longer than its content-length".to_owned()),
            None => Ok(None),
        }
    }

    /// Where the body begins: behind the blank line.
    fn headers_end(&mut self) -> Result<Option<usize>, String> {
        let begins = |(command, _): &(&str, Command)| {
            let length = command.len().min(self.held.len());
            command.as_bytes()[..length] == self.held[..length]
        };
        if !Command::ALL.iter().any(begins) {
            return Err("a message that is no frame".to_owned());
        }
        let from = self.searched;
        let mut found = None;
        self.searched = loop {
            let Some(at) = position(&self.held, self.searched, b'\n') else {
                break self.held.len();
            };
            match (self.held.get(at + 1), self.held.get(at + 2)) {
                (Some(b'\n'), _) => found = Some(at + 2),
                (Some(b'\r'), Some(b'\n')) => found = Some(at + 3),
                (None, _) | (Some(b'\r'), None) => {}
                (Some(_), _) => {
                    self.searched = at + 1;
                    continue;
                }
            }
            break at;
        };
        let to = found.unwrap_or(self.held.len());
        if position(&self.held[..to], from, 0).is_some() {
            return Err("a frame without the blank line behind its headers".to_owned());
        }
        Ok(found)
    }
}

fn too_large() -> String {
    "a frame of more than 1 MiB".to_owned()
}

fn position(bytes: &[u8], from: usize, byte: u8) -> Option<usize> {
    let found = bytes.get(from..)?.iter().position(|one| *one == byte);
    found.map(|at| from + at)
}

fn content_length(head: &[u8]) -> Result<Option<usize>, String> {
    let lines = head.split(|byte| *byte == b'\n');
    let values = lines.filter_map(|line| line.strip_prefix(b"content-length:"));
    let Some(value) = values.into_iter().next() else {
        return Ok(None);
    };
    let value = std::str::from_utf8(value.trim_ascii()).ok();
    match value.and_then(|value| value.parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => Err("a content-length that is no number".to_owned()),
    }
}

/// A frame without a body.
pub(super) fn encoded(command: &str, headers: &[(&str, &str)]) -> String {
    let mut frame = format!("{command}\n");
    for (name, value) in headers {
        frame.extend([name, ":", value, "\n"]);
    }
    frame.push_str("\n\0");
    frame
}

/// A header's value as every frame but CONNECT and CONNECTED carries it.
pub(super) fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            ':' => escaped.push_str("\\c"),
            c => push_line(&mut escaped, c),
        }
    }
    escaped
}

/// A header's value in CONNECT, where nothing is escaped, for the sake of STOMP 1.0. A line break
/// cannot be told there; escaped it at least cannot become a header of its own.
pub(super) fn in_connect(value: &str) -> String {
    let mut line = String::with_capacity(value.len());
    value.chars().for_each(|c| push_line(&mut line, c));
    line
}

fn push_line(line: &mut String, c: char) {
    match c {
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        c => line.push(c),
    }
}

/// What an escaped value means; `None` if it is escaped as nothing is.
pub(super) fn unescaped(value: &str) -> Option<String> {
    let mut unescaped = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        unescaped.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'c' => ':',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            c => c,
        });
    }
    Some(unescaped)
}
