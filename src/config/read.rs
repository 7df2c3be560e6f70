//! Reading a tree of values into the raw sections, leaf by leaf, so that one mistake hides no other.

use std::borrow::Cow;

use figment::value::{Dict, Num, Tag, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::heartbeat::Kind;
use super::layer::{KeyPath, Layer, Step, parse_toml_value};
use super::mistake::Mistake;

/// Where the reader is, and where mistakes go.
pub(super) struct Reader<'a> {
    path: Vec<Step>,
    /// `None` while the merged layers are read: what is wrong there was told by its own layer.
    judge: Option<Judge<'a>>,
}

struct Judge<'a> {
    layer: &'a dyn Layer,
    mistakes: &'a mut Vec<Mistake>,
}

/// Something read from a value. What cannot be read is reported and `None`.
pub(super) trait Read: Sized {
    /// The keys of a table with fixed keys.
    const KEYS: &'static [Key] = &[];
    /// A table whose keys the user chooses.
    const MAP: bool = false;
    /// A value that may be a table, which is taken or replaced whole; of a [`Read::MAP`] each entry.
    const TABLE: bool = false;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self>;
}

/// What is known of a key without a value: for documentation, suggestions and `check --print`.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    default: Option<&'static str>,
    /// Those of the table it holds, if any.
    pub(super) keys: &'static [Key],
    pub(super) map: bool,
    /// See [`Read::TABLE`].
    pub(super) table: bool,
}

impl Key {
    /// `default` is the text of tokens, which may be broken into lines anywhere.
    pub(super) const fn new(
        name: &'static str,
        doc: &'static str,
        default: Option<&'static str>,
        keys: &'static [Self],
        (map, table): (bool, bool),
    ) -> Self {
        Self {
            name,
            doc,
            default,
            keys,
            map,
            table,
        }
    }

    /// The default as TOML, if it is always the same.
    pub(super) fn default(&self) -> Option<String> {
        let words = self.default?.split_whitespace();
        Some(words.collect::<Vec<_>>().join(" "))
    }
}

/// A key's value, if it has one, and the layer that gave it.
#[derive(Debug, Clone, Default)]
pub(super) enum Field<T> {
    #[default]
    Absent,
    /// There is a value, but it could not be read.
    Bad,
    Set(T, Tag),
}

impl<T: Read> Field<T> {
    pub(super) fn read(value: &Value, reader: &mut Reader<'_>) -> Self {
        match T::read(value, reader) {
            Some(read) => Self::Set(read, value.tag()),
            None => Self::Bad,
        }
    }
}

impl<T> Field<T> {
    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Self::Set(value, _) => Some(value),
            Self::Absent | Self::Bad => None,
        }
    }
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<'a> Reader<'a> {
    /// Reads a layer on its own and reports what is wrong with it.
    pub(super) fn judging(layer: &'a dyn Layer, mistakes: &'a mut Vec<Mistake>) -> Self {
        Self {
            path: Vec::new(),
            judge: Some(Judge { layer, mistakes }),
        }
    }

    /// The same, for values that stand below `key`.
    pub(super) fn below(mut self, key: &str) -> Self {
        self.path.push(key.into());
        self
    }

    /// Reads what was judged before.
    pub(super) fn silent() -> Self {
        Self {
            path: Vec::new(),
            judge: None,
        }
    }

    /// Reports a mistake in the value at hand.
    pub(super) fn mistake<T>(&mut self, message: impl Into<String>) -> Option<T> {
        self.report(message.into(), false);
        None
    }

    /// Reports that something else was expected; `value` itself is not shown.
    pub(super) fn expected<T>(&mut self, what: &str, value: &Value) -> Option<T> {
        self.mistake(format!("expected {what}, found {}", kind(value)))
    }

    /// Reports a mistake in the key at hand.
    pub(super) fn key_mistake(&mut self, message: impl Into<String>) {
        self.report(message.into(), true);
    }

    fn report(&mut self, message: String, key: bool) {
        if let Some(judge) = &mut self.judge
            && !judge.layer.is_broken(&self.path)
        {
            judge.mistakes.push(Mistake {
                place: judge.layer.place(&self.path, key),
                key: KeyPath(&self.path).to_string(),
                message,
            });
        }
    }

    /// Runs `read` one step further down.
    pub(super) fn within<T>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = read(self);
        self.path.pop();
        result
    }

    /// Text that stands for whatever its key asks for: from the environment and flags, not from a
    /// file. What was judged before is not judged again.
    pub(super) fn text<'v>(&self, value: &'v Value) -> Option<&'v str> {
        let text = self.judge.as_ref().is_none_or(|j| j.layer.is_text());
        value.as_str().filter(|_| text)
    }

    /// The same, and nothing of what was judged before.
    pub(super) fn judged_text<'v>(&self, value: &'v Value) -> Option<&'v str> {
        let text = self.judge.as_ref().is_some_and(|j| j.layer.is_text());
        value.as_str().filter(|_| text)
    }

    /// The elements of a list that is text: a TOML array, or the only element.
    pub(super) fn list(&mut self, value: &Value) -> Option<Vec<Value>> {
        match self.text(value) {
            Some(text) if text.trim_start().starts_with('[') => match parse_toml_value(text) {
                Ok(Value::Array(_, elements)) => Some(elements),
                Ok(_) => self.expected("an array", value),
                Err(message) => self.mistake(message),
            },
            Some(_) => Some(vec![value.clone()]),
            None => self.expected("an array", value),
        }
    }

    /// A table; as text, an inline table.
    pub(super) fn table<'v>(&mut self, value: &'v Value) -> Option<Cow<'v, Dict>> {
        if let Value::Dict(_, dict) = value {
            return Some(Cow::Borrowed(dict));
        }
        let parsed = self.text(value).filter(|text| text.starts_with('{'));
        match parsed.map(parse_toml_value) {
            Some(Ok(Value::Dict(_, dict))) => Some(Cow::Owned(dict)),
            Some(Err(message)) => self.mistake(message),
            Some(Ok(_)) | None => match self.kind_alone(value) {
                Some(kind) => {
                    let table = format!("a table: {{ kind = \"{}\" }}", kind.as_str());
                    self.expected(&table, value)
                }
                None => self.expected("a table", value),
            },
        }
    }

    /// The kind of heartbeat that stands where its table belongs.
    fn kind_alone(&self, value: &Value) -> Option<Kind> {
        let here = self.path.last() == Some(&"heartbeat".into());
        value.as_str().filter(|_| here).and_then(Kind::meant_by)
    }

    /// Reports a key that does not exist.
    pub(super) fn unknown(&mut self, name: &str, keys: &[Key]) {
        let of_metrics = self.path.first() == Some(&"metrics".into());
        let elsewhere = ELSEWHERE.iter().find(|(key, _)| *key == name);
        if let Some((_, why)) = elsewhere.filter(|_| of_metrics) {
            return self.key_mistake(*why);
        }
        let names = keys.iter().map(|key| key.name);
        let hint = match nearest(name, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", names.collect::<Vec<_>>().join(", ")),
        };
        self.key_mistake(format!("unknown key; {hint}"));
    }
}

/// Keys of the web configuration that Prometheus' exporters share and that are not ours, and why.
const ELSEWHERE: [(&str, &str); 6] = [
    (
        "cert",
        "is PEM in this file, which is not taken; write `cert_file`",
    ),
    (
        "key",
        "is PEM in this file, which is not taken; write `key_file`",
    ),
    (
        "client_ca",
        "is PEM in this file, which is not taken; write `client_ca_file`",
    ),
    (
        "curve_preferences",
        "is not to be chosen: X25519MLKEM768, X25519, P-256 and P-384 are spoken; remove the key",
    ),
    (
        "http2",
        "is not to be chosen: HTTP/1.1 alone is spoken, which Prometheus speaks as well; remove the \
         key",
    ),
    (
        "rate_limit",
        "is not to be chosen: connections, time and memory are bounded, requests are not counted; \
         remove the key",
    ),
];

/// The one of `names` that `name` was probably meant to be.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rated = names.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = rated.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.8).then_some(best.1)
}

/// An integer as one type; figment keeps signed and unsigned apart.
pub(super) fn integer(number: &Num) -> Option<i128> {
    match number {
        Num::F32(_) | Num::F64(_) => None,
        number => number
            .to_i128()
            .or_else(|| number.to_u128().and_then(|n| i128::try_from(n).ok())),
    }
}

/// What a value is, in TOML's words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "a string",
        Value::Bool(..) => "a boolean",
        Value::Num(_, Num::F32(_) | Num::F64(_)) => "a float",
        Value::Num(..) => "an integer",
        Value::Empty(..) => "a date or time",
        Value::Dict(..) => "a table",
        Value::Array(..) => "an array",
    }
}

/// A list; as text, a TOML array or the only element.
impl<T: Read> Read for Vec<T> {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let parsed;
        let elements = match value {
            Value::Array(_, elements) => elements.as_slice(),
            _ => {
                parsed = reader.list(value)?;
                &parsed
            }
        };
        let mut list = Some(Self::with_capacity(elements.len()));
        for (index, element) in elements.iter().enumerate() {
            let read = reader.within(Step::Index(index), |reader| T::read(element, reader));
            match (read, &mut list) {
                (Some(element), Some(list)) => list.push(element),
                _ => list = None, // reported; the others are still judged
            }
        }
        list
    }
}

/// Declares a table of the file: its struct, its schema, its documentation, and how it is read.
/// A key's doc comment is what users read.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $type:ty $(= $default:tt)?, )*
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Default, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub(super) struct $name {
            $(
                $(#[doc = $doc])+
                $(#[schemars(extend("default" = $default))])?
                pub(super) $key: $crate::config::read::Field<$type>,
            )*
        }

        impl $crate::config::read::Read for $name {
            const KEYS: &'static [$crate::config::read::Key] = &[$(
                $crate::config::read::Key::new(
                    stringify!($key),
                    concat!($($doc, "\n"),+),
                    section!(@default $($default)?),
                    <$type as $crate::config::read::Read>::KEYS,
                    (
                        <$type as $crate::config::read::Read>::MAP,
                        <$type as $crate::config::read::Read>::TABLE,
                    ),
                ),
            )*];

            fn read(
                value: &figment::value::Value,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                let mut section = Self::default();
                for (key, value) in reader.table(value)?.iter() {
                    reader.within(key.as_str().into(), |reader| match key.as_str() {
                        $( stringify!($key) => {
                            section.$key = $crate::config::read::Field::read(value, reader);
                        } )*
                        unknown => reader.unknown(unknown, Self::KEYS),
                    });
                }
                Some(section)
            }
        }
    };
    (@default) => { None };
    (@default $default:tt) => { Some(stringify!($default)) };
}
pub(super) use section;
