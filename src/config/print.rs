//! The effective configuration as TOML, each value with its source, secrets masked.

use std::fmt::Write as _;
use std::time::Duration;

use figment::value::{Dict, Num, Value};

use super::chain::{Chain, Level, hears_defaults};
use super::duration::format_duration;
use super::heartbeat::Kind;
use super::layer::{KeyPath, Layer as _, Step, quoted};
use super::layers::Layers;
use super::leaf::masked_proxy;
use super::place::Split;
use super::raw;
use super::read::{Key, Read, integer};
use super::resolve::useless;
use super::{Config, Target};

pub(super) const MASK: &str = "\"***\"";

/// What holds, as TOML: every key of every section and target.
pub(super) fn effective(layers: &Layers<'_>, config: &Config) -> String {
    let mut text = String::new();
    let empty = Dict::new();
    for section in raw::File::KEYS {
        if matches!(section.name, "target" | "defaults")
            || (section.name == "server" && config.server.is_none())
            || (section.name == "otlp" && config.otlp.is_none())
        {
            continue;
        }
        let dict = layers.merged().get(section.name).and_then(Value::as_dict);
        let level = Level::new(dict.unwrap_or(&empty), vec![section.name.into()], None);
        let _ = writeln!(text, "[{}]", section.name);
        let mut table = Table {
            layers,
            levels: &[&level],
            text: &mut text,
            target: None,
            derived: &|key| match (section.name, key) {
                ("server", "pong_timeout") => config.server.as_ref().map(|server| {
                    (
                        quoted(&format_duration(server.pong_timeout)),
                        "2 x ping_interval".to_owned(),
                    )
                }),
                ("control", "socket") => config
                    .control
                    .as_ref()
                    .map(|path| (quoted(&path.to_string_lossy()), "$RUNTIME_DIRECTORY".into())),
                ("otlp", key) => config.otlp.as_ref().and_then(|otlp| {
                    let mut derived = otlp.derived.iter();
                    let (_, value, from) = derived.find(|(known, _, _)| *known == key)?;
                    Some((value.clone(), from.clone()))
                }),
                _ => None,
            },
        };
        table.keys(section.keys, &mut Vec::new());
        if let ("otlp", Some(otlp)) = (section.name, &config.otlp) {
            for remark in &otlp.remarks {
                let _ = writeln!(text, "{remark}");
            }
        }
        text.push('\n');
    }

    let defaults = layers.merged().get("defaults").and_then(Value::as_dict);
    let defaults = Level::new(defaults.unwrap_or(&empty), vec!["defaults".into()], None);
    let forced_dict = layers.forced().dict();
    let forced = Level::new(&forced_dict, Vec::new(), Some(layers.forced()));
    for ((path, dict), target) in layers.targets().zip(&config.targets) {
        let name = &target.identity.name;
        let own = Level::new(dict, path, None);
        // Judged before: what is wrong was reported.
        let single = layers.singles_of(name, &mut Vec::new());
        let single_dict = single.dict();
        let single = Level::new(&single_dict, Vec::new(), Some(&single));
        text.push_str("[[target]]\n");
        let chain = Chain {
            levels: [Some(&single), Some(&forced), Some(&own), Some(&defaults)],
        };
        let kind = target.connection.heartbeat.kind();
        let mut table = Table {
            layers,
            levels: &[&single, &forced, &own, &defaults],
            text: &mut text,
            target: Some((kind, &chain)),
            derived: &|key| match key {
                "name" => Some((quoted(name), "host and path of the url".into())),
                key => derived(key, target),
            },
        };
        table.keys(raw::Target::KEYS, &mut Vec::new());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// What a target has for a key that nobody set, where it is not always the same, and why.
fn derived(key: &str, target: &Target) -> Option<(String, String)> {
    let (policy, heartbeat) = (&target.policy, &target.connection.heartbeat);
    let kind = heartbeat.kind();
    let of_kind = format!("of {}", kind.as_str());
    let time = |time: Duration, from: &str| Some((quoted(&format_duration(time)), from.to_owned()));
    match (key, heartbeat.timing(&policy.wishes)) {
        ("heartbeat.kind", _) if kind == Kind::Sse => {
            Some((quoted("sse"), "of http and https".into()))
        }
        ("heartbeat.kind", _) => Some((quoted(kind.as_str()), "of ws and wss".into())),
        ("subprotocols", _) if !kind.subprotocols().is_empty() => {
            let offered = kind.subprotocols().iter().map(|name| quoted(name));
            let offered: Vec<String> = offered.collect();
            let list = format!("[{}]", offered.join(", "));
            Some((list, of_kind))
        }
        ("pong_timeout", None) => time(policy.heartbeat.pong_timeout, "2 x ping_interval"),
        ("ping_interval", Some(own)) => time(own.heartbeat.interval, &of_kind),
        ("pong_timeout", Some(own)) => time(own.heartbeat.pong_timeout, &of_kind),
        ("max_retry_limit", Some(own)) => Some((own.heartbeat.max_retries.to_string(), of_kind)),
        ("max_silence", Some(own)) => time(own.max_silence?, &of_kind),
        _ => None,
    }
}

struct Table<'a> {
    layers: &'a Layers<'a>,
    /// Strongest first.
    levels: &'a [&'a Level<'a>],
    text: &'a mut String,
    /// The default of a key, by its path, whose default depends on something, and on what.
    derived: &'a dyn Fn(&str) -> Option<(String, String)>,
    /// What a target's heartbeat is, and the levels as a chain.
    target: Option<(Kind, &'a Chain<'a>)>,
}

impl Table<'_> {
    /// Prints `keys` of the table at `path`.
    fn keys(&mut self, keys: &[Key], path: &mut Vec<Step>) {
        for key in keys {
            path.push(key.name.into());
            if let Some(why) = self.useless(path) {
                let _ = writeln!(self.text, "# {} has no effect: {why}", KeyPath(path));
            } else if key.map {
                self.map(path);
            } else if key.name == "heartbeat" {
                self.heartbeat(key.keys, path);
            } else if key.name == "proxy_tls" && !self.has(path) {
                // Written out it would be a table, which inherits nothing.
                let _ = writeln!(self.text, "# proxy_tls is not set: trusts as tls does");
            } else if key.name == "tls_server_config" && !self.has(path) {
                // Written out it would be a table, which serves TLS.
                let _ = writeln!(self.text, "# tls_server_config is not set: HTTP is served");
            } else if !key.keys.is_empty() {
                self.keys(key.keys, path);
            } else {
                self.key(key, path);
            }
            path.pop();
        }
    }

    /// Why a key does nothing for the target, unless somebody set it for this very one.
    fn useless(&self, path: &[Step]) -> Option<String> {
        let (kind, chain) = self.target?;
        let [Step::Key(key)] = path else {
            return None;
        };
        let why = useless(key, kind)?;
        let mut levels = chain.levels();
        let own = levels.any(|level| !chain.is_default(level) && level.dict.contains_key(key));
        (!own).then_some(why)
    }

    /// Prints the heartbeat: its kind and the keys that this takes, of the tables that hold.
    fn heartbeat(&mut self, keys: &[Key], path: &mut Vec<Step>) {
        let Some((kind, chain)) = self.target else {
            return;
        };
        let tables = chain.heartbeat(kind == Kind::Sse);
        let levels = tables.map_or_else(Vec::new, |tables| tables.levels);
        let mut table = Table {
            layers: self.layers,
            levels: &levels,
            text: self.text,
            derived: self.derived,
            target: None,
        };
        for key in keys {
            if key.name == "kind" || kind.keys().contains(&key.name) {
                path.push(key.name.into());
                table.key(key, path);
                path.pop();
            }
        }
    }

    /// Whether what `level` has at `path` is for targets whose heartbeat has nothing of its own.
    fn passed_over(&self, level: &Level<'_>, path: &[Step]) -> bool {
        let (Some((kind, chain)), [Step::Key(key)]) = (self.target, path) else {
            return false;
        };
        chain.is_default(level) && !hears_defaults(key, kind)
    }

    /// Whether any level has something at `path`.
    fn has(&self, path: &[Step]) -> bool {
        let mut levels = self.levels.iter();
        levels.any(|level| find(level.dict, path).is_some())
    }

    /// Prints the entries of a table whose keys the user chose. Header names differ in case only
    /// by how they are written.
    fn map(&mut self, path: &mut Vec<Step>) {
        let headers = path.first() == Some(&"headers".into());
        let mut names: Vec<String> = Vec::new();
        for level in self.levels {
            for name in find(level.dict, path)
                .and_then(Value::as_dict)
                .into_iter()
                .flat_map(Dict::keys)
            {
                let there = names
                    .iter()
                    .any(|known| known == name || (headers && known.eq_ignore_ascii_case(name)));
                if !there {
                    names.push(name.clone());
                }
            }
        }
        if names.is_empty() {
            let path = KeyPath(path).to_string();
            if let Some((value, from)) = (self.derived)(&path) {
                let _ = writeln!(self.text, "{path} = {value}  # default: {from}");
            }
        }
        names.sort_unstable();
        for name in names {
            path.push(Step::Key(name));
            self.set(path);
            path.pop();
        }
    }

    fn key(&mut self, key: &Key, path: &[Step]) {
        if self.set(path) {
            return;
        }
        let path_text = KeyPath(path).to_string();
        let mut levels = self.levels.iter();
        let passed_over =
            levels.any(|level| self.passed_over(level, path) && find(level.dict, path).is_some());
        let over = match passed_over {
            true => ", which [defaults] does not change",
            false => "",
        };
        let _ = match ((self.derived)(&path_text), key.default()) {
            (Some((value, from)), _) => {
                writeln!(self.text, "{path_text} = {value}  # default: {from}{over}")
            }
            (None, Some(default)) => writeln!(self.text, "{path_text} = {default}  # default"),
            (None, None) => writeln!(self.text, "# {path_text} is not set"),
        };
    }

    /// Prints the value at `path` of the strongest level that has one.
    fn set(&mut self, path: &[Step]) -> bool {
        for level in self.levels {
            if self.passed_over(level, path) {
                continue;
            }
            if let Some(value) = find(level.dict, path) {
                let place = match level.layer {
                    Some(layer) => layer.place(path, false),
                    None => self.layers.place(level, path),
                };
                let value = shown(value, path);
                let _ = writeln!(
                    self.text,
                    "{} = {value}  # {}",
                    KeyPath(path),
                    shortened(&place)
                );
                return true;
            }
        }
        false
    }
}

fn find<'v>(dict: &'v Dict, path: &[Step]) -> Option<&'v Value> {
    let (first, rest) = path.split_first()?;
    let Step::Key(first) = first else {
        return None;
    };
    let value = dict.get(first)?;
    if rest.is_empty() {
        Some(value)
    } else {
        find(value.as_dict()?, rest)
    }
}

/// `file:line` of `file:line:column`; variables and flags as they are.
fn shortened(place: &str) -> &str {
    match place.rsplit_once(':') {
        Some((line, column)) if column.bytes().all(|b| b.is_ascii_digit()) => line,
        _ => place,
    }
}

/// A value as TOML; what is secret is masked.
fn shown(value: &Value, path: &[Step]) -> String {
    let Some(Step::Key(key)) = path.first() else {
        return plain(value);
    };
    match key.as_str() {
        "url" | "endpoint" => quoted(&masked_url(value.as_str().unwrap_or(""))),
        "on_open" => {
            let count = value.as_array().map_or(1, <[Value]>::len);
            format!("[{}]", vec![MASK; count].join(", "))
        }
        "headers" | "cookies" | "basic_auth_users" => secret(value),
        "heartbeat" => match path.last() {
            Some(Step::Key(key)) => of_heartbeat(key, value),
            Some(Step::Index(_)) | None => MASK.to_owned(),
        },
        "auth" | "proxy" => match value.as_dict() {
            Some(table) => entries(table, |key, value| match (key, value.as_str()) {
                ("url", Some(url)) => quoted(&masked_proxy(url)),
                _ => secret(value),
            }),
            None if key == "proxy" => quoted(&masked_proxy(value.as_str().unwrap_or(""))),
            None => MASK.to_owned(),
        },
        _ => plain(value),
    }
}

/// A value of the heartbeat table.
fn of_heartbeat(key: &str, value: &Value) -> String {
    match (key, value) {
        ("send" | "payload" | "params" | "login" | "password", _) => secret(value),
        // What they are called is none; what they are entered with may be.
        ("channels" | "topics", Value::Array(_, members)) => {
            let members: Vec<String> = members.iter().map(member).collect();
            format!("[{}]", members.join(", "))
        }
        ("channels" | "topics", Value::Dict(..)) => member(value),
        // A list as text, of the environment or a flag.
        ("channels" | "topics", Value::String(_, text)) if text.starts_with('[') => MASK.to_owned(),
        _ => plain(value),
    }
}

fn member(value: &Value) -> String {
    match value {
        Value::Dict(_, table) => entries(table, |key, value| match key {
            "channel" | "topic" => plain(value),
            _ => MASK.to_owned(),
        }),
        name => plain(name),
    }
}

/// A reference is no secret; a text is.
fn secret(value: &Value) -> String {
    match value {
        Value::Dict(..) => plain(value),
        _ => MASK.to_owned(),
    }
}

/// A URL whose userinfo and query values are masked.
pub(super) fn masked_url(text: &str) -> String {
    let Ok(mut split) = Split::parse(text) else {
        return "***".to_owned();
    };
    let url = &mut split.url;
    let secret_user = !url.username().is_empty() || url.password().is_some();
    let query: Option<String> = url.query().map(|query| {
        let masked = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) => format!("{name}=***"),
            None => "***".to_owned(),
        });
        masked.collect::<Vec<_>>().join("&")
    });
    url.set_query(query.as_deref());
    if secret_user && (url.set_password(None).is_err() || url.set_username("***").is_err()) {
        return "***".to_owned();
    }
    split.whole().replace("%2A%2A%2A", "***")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(_, text) => quoted(text),
        Value::Char(_, c) => quoted(&c.to_string()),
        Value::Bool(_, yes) => yes.to_string(),
        Value::Num(_, Num::F64(number)) => format!("{number:?}"),
        Value::Num(_, number) => integer(number).map_or_else(String::new, |n| n.to_string()),
        Value::Empty(..) => String::new(),
        Value::Array(_, elements) => {
            format!(
                "[{}]",
                elements.iter().map(plain).collect::<Vec<_>>().join(", ")
            )
        }
        Value::Dict(_, dict) => entries(dict, |_, value| plain(value)),
    }
}

/// An inline table.
fn entries(table: &Dict, shown: impl Fn(&str, &Value) -> String) -> String {
    let entries = table.iter().map(|(key, value)| {
        let name = KeyPath(&[Step::Key(key.clone())]).to_string();
        format!("{name} = {}", shown(key, value))
    });
    format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
}
