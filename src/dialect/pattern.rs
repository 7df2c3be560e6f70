//! What the user writes about messages: templates, and what a message must look like.
//!
//! A template holds `${seq}`, `${nonce}`, `${unix}`, `${unix_nanos}` and `${subsec_nanos}`;
//! `$${` stands for a `${` of its own. Inside a pattern what they stand for is escaped.

use regex::{Regex, RegexBuilder};

use super::Stamp;
use crate::proto::event::Message;

/// A larger message is nobody's heartbeat, and is not searched: all targets share a thread.
const LARGEST: usize = 1 << 20;

/// How large a compiled regular expression may be, in bytes: enough for what one writes about a
/// heartbeat, and each connection has its own.
const LARGEST_REGEX: usize = 256 << 10;

/// Names of templates longer than this are not repeated: they may be anything, secrets too.
const LONGEST_NAME: usize = 20;

/// What a template stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    /// The beat's number on its connection, from 1.
    Seq,
    /// The connection's own, 8 hex digits.
    Nonce,
    /// Seconds since 1970.
    Unix,
    /// Nanoseconds since 1970.
    UnixNanos,
    /// Nanoseconds since the last full second.
    SubsecNanos,
}

impl Variable {
    const ALL: [Self; 5] = [
        Self::Seq,
        Self::Nonce,
        Self::Unix,
        Self::UnixNanos,
        Self::SubsecNanos,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Seq => "seq",
            Self::Nonce => "nonce",
            Self::Unix => "unix",
            Self::UnixNanos => "unix_nanos",
            Self::SubsecNanos => "subsec_nanos",
        }
    }

    fn value(self, stamp: Stamp, nonce: u32) -> String {
        match self {
            Self::Seq => stamp.seq.to_string(),
            Self::Nonce => format!("{nonce:08x}"),
            Self::Unix => stamp.unix.as_secs().to_string(),
            Self::UnixNanos => stamp.unix.as_nanos().to_string(),
            Self::SubsecNanos => stamp.unix.subsec_nanos().to_string(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// A `${` meant as such.
    Brace,
    Variable(Variable),
}

/// A text with templates in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                parts.extend([Part::Text(before.into()), Part::Brace]);
                rest = after;
                continue;
            }
            let Some(end) = after.find('}') else {
                let position = text.len() - after.len() - 1;
                return Err(unknown(&format!(
                    "the `${{` at byte {position} has no `}}`"
                )));
            };
            let name = &after[..end];
            let known = Variable::ALL.into_iter().find(|v| v.name() == name);
            let Some(variable) = known else {
                let shown = match name.len() <= LONGEST_NAME {
                    true => name.escape_debug().to_string(),
                    false => "..".to_owned(),
                };
                return Err(unknown(&format!("`${{{shown}}}` is not known")));
            };
            parts.extend([Part::Text(before.into()), Part::Variable(variable)]);
            rest = &after[end + 1..];
        }
        parts.push(Part::Text(rest.into()));
        Ok(Self(parts))
    }

    /// The text, its templates filled in.
    pub(super) fn expand(&self, stamp: Stamp, nonce: u32) -> String {
        self.filled(stamp, nonce, str::to_owned)
    }

    /// The text, what its templates stand for passed through `escape`.
    fn filled(&self, stamp: Stamp, nonce: u32, escape: impl Fn(&str) -> String) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.to_string(),
            Part::Brace => escape("${"),
            Part::Variable(variable) => escape(&variable.value(stamp, nonce)),
        });
        parts.collect()
    }

    fn variables(&self) -> impl Iterator<Item = Variable> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(*variable),
            Part::Text(_) | Part::Brace => None,
        })
    }
}

fn unknown(what: &str) -> String {
    let known = Variable::ALL.map(|variable| format!("${{{}}}", variable.name()));
    let known = known.join(", ");
    format!("{what}; there are {known}, and `$${{` for a `${{` of its own")
}

/// Whether a text's templates are all known; what is wrong with it, if not.
pub(crate) fn check_template(text: &str) -> Result<(), String> {
    Template::parse(text).map(|_| ())
}

/// A pattern, its templates (`${seq}`, ..) not yet expanded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    /// A regular expression that the text matches somewhere.
    Regex(Box<str>),
    /// JSON that has this value at this pointer (RFC 6901).
    Pointer { pointer: Box<str>, value: Box<str> },
}

impl Pattern {
    /// Whether the pattern can be used; what is wrong with it, if not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let stamp = Stamp {
            seq: 1,
            unix: std::time::Duration::new(1, 1),
        };
        self.parse()?.matcher(stamp, 1).map(|_| ())
    }

    /// Whether it is another pattern for each beat; not of one that cannot be used.
    pub(crate) fn changes(&self) -> bool {
        self.parse().is_ok_and(|expected| expected.changes())
    }

    /// Whether the pattern can be used where nothing is sent that a template could speak of.
    pub(crate) fn check_fixed(&self) -> Result<(), String> {
        self.fixed().map(|_| ())
    }

    /// The pattern of messages that answer nothing.
    pub(super) fn fixed(&self) -> Result<Matcher, String> {
        let expected = self.parse()?;
        if let Some(variable) = expected.template.variables().next() {
            let name = variable.name();
            return Err(format!(
                "`${{{name}}}` means nothing here, for nothing is sent; write what the peer's own \
                 messages look like"
            ));
        }
        expected.matcher(Stamp::default(), 0)
    }

    /// Reads the templates.
    pub(super) fn parse(&self) -> Result<Expected, String> {
        let (pointer, text) = match self {
            Self::Regex(text) => (None, text),
            Self::Pointer { pointer, value } => (Some(checked_pointer(pointer)?), value),
        };
        if pointer.is_none() && text.is_empty() {
            return Err("an empty pattern matches everything; `.` matches any text".to_owned());
        }
        Ok(Expected {
            pointer: pointer.map(Into::into),
            template: Template::parse(text)?,
        })
    }
}

/// A pattern whose templates are read.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pointer: Option<Box<str>>,
    template: Template,
}

impl Expected {
    /// Whether a message that matches tells which beat it answers.
    pub(super) fn has_seq(&self) -> bool {
        self.template.variables().any(|v| v == Variable::Seq)
    }

    /// Whether it is another pattern for each beat.
    pub(super) fn changes(&self) -> bool {
        self.template.variables().any(|v| v != Variable::Nonce)
    }

    /// What a message has to look like that speaks of `stamp`.
    pub(super) fn matcher(&self, stamp: Stamp, nonce: u32) -> Result<Matcher, String> {
        if let Some(pointer) = &self.pointer {
            return Ok(Matcher::Pointer {
                pointer: pointer.clone(),
                value: self.template.expand(stamp, nonce).into(),
            });
        }
        let source = self.template.filled(stamp, nonce, regex::escape);
        let regex = RegexBuilder::new(&source).size_limit(LARGEST_REGEX).build();
        regex.map(Matcher::Regex).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                let kib = LARGEST_REGEX >> 10;
                format!("the regular expression needs more than {kib} KiB compiled; repeat less")
            }
            // Its last line says what is wrong; the others draw where.
            error => {
                let words = error.to_string();
                let last = words.lines().last().unwrap_or_default();
                let last = last.strip_prefix("error: ").unwrap_or(last);
                format!("the regular expression is broken: {last}")
            }
        })
    }
}

/// What a message has to look like.
#[derive(Debug, Clone)]
pub(super) enum Matcher {
    Regex(Regex),
    Pointer { pointer: Box<str>, value: Box<str> },
}

impl Matcher {
    /// Whether `message` looks like it. Text in a binary message counts as text.
    pub(super) fn matches(&self, message: &Message) -> bool {
        let bytes = message.as_bytes();
        if bytes.len() > LARGEST {
            return false;
        }
        match self {
            Self::Regex(regex) => std::str::from_utf8(bytes).is_ok_and(|text| regex.is_match(text)),
            Self::Pointer { pointer, value } => {
                let json: Result<serde_json::Value, _> = serde_json::from_slice(bytes);
                let json = json.ok();
                let found = json.as_ref().and_then(|json| json.pointer(pointer));
                found.is_some_and(|found| reads(found, value))
            }
        }
    }
}

/// Whether a scalar reads `text`.
fn reads(scalar: &serde_json::Value, text: &str) -> bool {
    use serde_json::Value;
    match scalar {
        Value::String(string) => string == text,
        Value::Number(number) => number.to_string() == text,
        Value::Bool(bool) => bool.to_string() == text,
        Value::Null => text == "null",
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// RFC 6901 section 3: empty, or tokens that each begin with `/`, a `~` only as `~0` or `~1`.
fn checked_pointer(pointer: &str) -> Result<&str, String> {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(format!(
            "the JSON pointer `{}` does not begin with `/` (RFC 6901), as `/result/status` does",
            super::shown(pointer)
        ));
    }
    let mut after = pointer.split('~').skip(1);
    if after.any(|rest| !rest.starts_with(['0', '1'])) {
        return Err(format!(
            "the JSON pointer `{}` has a `~` that is neither `~0`, which is `~`, nor `~1`, which \
             is `/` (RFC 6901)",
            super::shown(pointer)
        ));
    }
    Ok(pointer)
}

#[cfg(test)]
mod tests;
