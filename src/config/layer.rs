//! The layers a configuration is made of: TOML files, the environment, flags. Each is a figment
//! provider, and each can say where in it a key stands.

use std::cell::OnceCell;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Empty, Map, Num, Tag, Value};
use figment::{Metadata, Profile, Provider, Source};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Mistake;

/// One step of a key path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

/// A key path as people write it: `target[2].reconnect.max`.
pub(super) struct KeyPath<'a>(pub(super) &'a [Step]);

impl fmt::Display for KeyPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            let dot = if n > 0 { "." } else { "" };
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if is_bare_key(key) => write!(f, "{dot}{key}")?,
                Step::Key(key) => write!(f, "{dot}{}", quoted(key))?,
            }
        }
        Ok(())
    }
}

/// Whether TOML takes `key` without quotes.
pub(super) fn is_bare_key(key: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !key.is_empty() && key.chars().all(plain)
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Something that gives values and knows where they stand.
pub(super) trait Layer: Provider {
    /// Where the value at `path` stands; the nearest that exists if there is none. With `key`,
    /// where its key stands.
    fn place(&self, path: &[Step], key: bool) -> String;

    /// Whether the value at `path` is only a guess, because its line is broken.
    fn is_broken(&self, _path: &[Step]) -> bool {
        false
    }

    /// Whether values are text to be read as what their key asks for, as in the environment.
    fn is_text(&self) -> bool;

    /// Tells this layer from every other in a [`Value`]'s metadata.
    fn source(&self) -> Source;
}

/// A TOML file.
pub(super) struct Document<'t> {
    path: PathBuf,
    text: &'t str,
    /// Offsets at which lines begin; made for the first mistake.
    lines: OnceCell<Vec<usize>>,
    table: DeTable<'t>,
    /// Lines with a syntax error: what stands there is not judged further.
    broken: Vec<usize>,
    /// Only `[[target]]` counts: a file of the `.d` directory.
    targets_only: bool,
}

impl<'t> Document<'t> {
    /// Parses `text`. What is broken is left out and reported.
    pub(super) fn parse(
        path: &Path,
        text: &'t str,
        targets_only: bool,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut document = Self {
            path: path.to_owned(),
            text,
            lines: OnceCell::new(),
            table: table.into_inner(),
            broken: Vec::new(),
            targets_only,
        };
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            let line = document.line_and_column(offset).0;
            document.broken.push(line);
            mistakes.push(Mistake {
                place: document.place_of(offset),
                key: String::new(),
                message: format!("not TOML: {}", error.message()),
            });
        }
        document
    }

    /// The top-level keys a file of the `.d` directory may not have.
    pub(super) fn misplaced(&self) -> impl Iterator<Item = &str> {
        let keys = self.table.keys().map(|key| &**key.get_ref());
        keys.filter(|key| self.targets_only && *key != "target")
    }

    /// `path:line:column`.
    fn place_of(&self, offset: usize) -> String {
        let (line, column) = self.line_and_column(offset);
        format!("{}:{line}:{column}", self.path.display())
    }

    /// Counted from 1, columns in characters.
    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let lines = self.lines.get_or_init(|| {
            let after = self.text.match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(after).collect()
        });
        let line = lines.partition_point(|start| *start <= offset);
        let before = self.text.get(lines[line - 1]..offset).unwrap_or("");
        (line, before.chars().count() + 1)
    }
}

impl Provider for Document<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::from("file", self.source())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let entries = self.table.iter();
        let dict: Dict = entries
            .filter(|(key, _)| !self.targets_only || key.get_ref() == "target")
            .map(|(key, value)| (key.get_ref().to_string(), from_toml(value)))
            .collect();
        Ok(Profile::Default.collect(dict))
    }
}

impl Document<'_> {
    /// Where the value at `path`, or its key, begins.
    fn offset_of(&self, path: &[Step], key: bool) -> usize {
        let (first, rest) = match path {
            [Step::Key(first), rest @ ..] => (first, rest),
            _ => return 0,
        };
        let Some((name, mut value)) = self.table.get_key_value(first.as_str()) else {
            return 0;
        };
        let mut key_at = name.span().start;
        for step in rest {
            let (key, next) = match (step, value.get_ref()) {
                (Step::Key(key), DeValue::Table(table)) => {
                    match table.get_key_value(key.as_str()) {
                        Some((key, next)) => (key.span().start, next),
                        None => break,
                    }
                }
                (Step::Index(index), DeValue::Array(array)) => match array.get(*index) {
                    Some(next) => (next.span().start, next),
                    None => break,
                },
                _ => break,
            };
            (key_at, value) = (key, next);
        }
        if key { key_at } else { value.span().start }
    }
}

impl Layer for Document<'_> {
    fn place(&self, path: &[Step], key: bool) -> String {
        self.place_of(self.offset_of(path, key))
    }

    fn is_broken(&self, path: &[Step]) -> bool {
        let line = || self.line_and_column(self.offset_of(path, false)).0;
        !self.broken.is_empty() && self.broken.contains(&line())
    }

    fn is_text(&self) -> bool {
        false
    }

    fn source(&self) -> Source {
        Source::File(self.path.clone())
    }
}

/// Values given as text under a name: environment variables, flags.
pub(super) struct TextLayer {
    name: &'static str,
    /// Whether values are text to be read as what their key asks for.
    text: bool,
    entries: Vec<Entry>,
}

struct Entry {
    path: Vec<String>,
    /// `WS_KEEPALIVE__METRICS__LISTEN`, `--ping-interval`.
    origin: String,
    value: Value,
    /// Where the keys inside of the value were given, if not there.
    parts: Vec<(Vec<String>, String)>,
}

impl Entry {
    /// Whether what stands at `keys` is in the value at `path`, or the other way round.
    fn covers(path: &[String], keys: &[&str]) -> bool {
        path.iter().zip(keys).all(|(a, b)| a == b)
    }
}

impl TextLayer {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            text: true,
            entries: Vec::new(),
        }
    }

    /// Its values have the types their keys ask for.
    pub(super) fn typed(name: &'static str) -> Self {
        Self {
            text: false,
            ..Self::new(name)
        }
    }

    /// Gives the key at `path` a value. Of two for the same key the later one counts.
    pub(super) fn set(&mut self, path: Vec<String>, origin: String, value: Value) {
        self.entries.push(Entry {
            path,
            origin,
            value,
            parts: Vec::new(),
        });
    }

    /// Appends to the array at the top-level `key`.
    pub(super) fn push(&mut self, key: &str, origin: String, element: Value) {
        self.push_parts(key, origin, element, Vec::new());
    }

    /// The same, for a table whose keys were given in several places.
    pub(super) fn push_parts(
        &mut self,
        key: &str,
        origin: String,
        element: Value,
        parts: Vec<(Vec<String>, String)>,
    ) {
        self.entries.push(Entry {
            path: vec![key.to_owned()],
            origin,
            value: vec![element].into(),
            parts,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn dict(&self) -> Dict {
        let mut dict = Dict::new();
        for entry in &self.entries {
            insert(&mut dict, &entry.path, entry.value.clone());
        }
        dict
    }
}

pub(super) fn insert(dict: &mut Dict, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if !rest.is_empty() {
        let inner = dict
            .entry(first.clone())
            .or_insert_with(|| Dict::new().into());
        if !matches!(inner, Value::Dict(..)) {
            *inner = Dict::new().into();
        }
        if let Value::Dict(_, inner) = inner {
            insert(inner, rest, value);
        }
        return;
    }
    match (dict.get_mut(first), value) {
        (Some(Value::Array(_, there)), Value::Array(_, more)) => there.extend(more),
        (_, value) => {
            dict.insert(first.clone(), value);
        }
    }
}

impl Provider for TextLayer {
    fn metadata(&self) -> Metadata {
        Metadata::from(self.name, self.source())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict()))
    }
}

impl Layer for TextLayer {
    fn place(&self, path: &[Step], _key: bool) -> String {
        // Several `--target`: the one at that index.
        if let [Step::Key(first), Step::Index(index), inside @ ..] = path {
            let mut same = self.entries.iter().filter(|e| e.path == [first.as_str()]);
            if let Some(entry) = same.nth(*index) {
                let keys = leading_keys(inside);
                let mut parts = entry.parts.iter().filter(|_| !keys.is_empty());
                let part = parts.find(|(path, _)| Entry::covers(path, &keys));
                return part.map_or_else(|| entry.origin.clone(), |(_, origin)| origin.clone());
            }
        }
        let keys = leading_keys(path);
        let last = self
            .entries
            .iter()
            .rfind(|entry| Entry::covers(&entry.path, &keys));
        last.map_or_else(|| self.name.to_owned(), |entry| entry.origin.clone())
    }

    fn is_text(&self) -> bool {
        self.text
    }

    fn source(&self) -> Source {
        Source::Custom(self.name.to_owned())
    }
}

/// The keys before the first index.
fn leading_keys(path: &[Step]) -> Vec<&str> {
    let keys = path.iter().map_while(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    keys.collect()
}

/// A TOML value on its own, as in `--set target.x.labels='{ a = "b" }'`.
pub(super) fn parse_toml_value(text: &str) -> Result<Value, String> {
    let value = DeValue::parse(text).map_err(|error| format!("not TOML: {}", error.message()))?;
    Ok(from_toml(&value))
}

fn from_toml(value: &Spanned<DeValue<'_>>) -> Value {
    let tag = Tag::Default;
    match value.get_ref() {
        DeValue::String(text) => Value::String(tag, text.to_string()),
        DeValue::Integer(integer) => {
            let number = i128::from_str_radix(integer.as_str(), integer.radix());
            // What does not fit is far beyond any key's range, as a float is.
            Value::Num(tag, number.map_or(Num::F64(f64::MAX), Num::I128))
        }
        DeValue::Float(float) => {
            Value::Num(tag, Num::F64(float.as_str().parse().unwrap_or(f64::NAN)))
        }
        DeValue::Boolean(yes) => Value::Bool(tag, *yes),
        // No key takes a date; figment has no value for one.
        DeValue::Datetime(_) => Value::Empty(tag, Empty::Unit),
        DeValue::Array(array) => Value::Array(tag, array.iter().map(from_toml).collect()),
        DeValue::Table(table) => {
            let entries = table.iter();
            let entries = entries.map(|(key, value)| (key.get_ref().to_string(), from_toml(value)));
            Value::Dict(tag, entries.collect())
        }
    }
}
