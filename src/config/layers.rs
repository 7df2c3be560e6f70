//! Built-in default < file < `.d` files < environment < flags: figment merges them, and every
//! value remembers the layer it came from.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;

use figment::value::{Dict, Tag, Value};
use figment::{Figment, Profile, Provider};

use super::chain::Level;
use super::layer::{Document, Layer, Step, TextLayer, parse_toml_value};
use super::load::Overrides;
use super::mistake::Mistake;
use super::overlay::Overlay;
use super::raw;
use super::read::{Key, Read, Reader, nearest};

/// Variables of ours begin so; two underscores, so that Kubernetes' service variables
/// (`WS_KEEPALIVE_PORT`) cannot collide.
const PREFIX: &str = "WS_KEEPALIVE__";

pub(super) struct Layers<'t> {
    documents: Vec<Document<'t>>,
    environment: TextLayer,
    /// Flags for sections and `[defaults]`.
    flags: TextLayer,
    /// `--target`.
    added: TextLayer,
    /// Flags that beat every target's own key; paths begin at a target.
    forced: TextLayer,
    /// `--set` for one target.
    singles: Vec<Single>,
    /// Which of them found their target.
    matched: RefCell<HashSet<usize>>,
    figment: Figment,
    merged: Dict,
}

/// `--set NAME.KEY=VALUE`; which part is the name shows only when the targets are known.
struct Single {
    path: String,
    value: String,
}

impl<'t> Layers<'t> {
    /// Judges every layer on its own and merges them.
    pub(super) fn new(
        documents: Vec<Document<'t>>,
        variables: &[(OsString, OsString)],
        overrides: &Overrides,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let mut layers = Self {
            environment: environment(variables, mistakes),
            flags: TextLayer::new("flags"),
            added: TextLayer::typed("--target"),
            forced: TextLayer::new("flags for targets"),
            singles: Vec::new(),
            matched: RefCell::default(),
            figment: Figment::new(),
            merged: Dict::new(),
            documents,
        };
        layers.take_flags(overrides, mistakes);
        for document in &layers.documents {
            for key in document.misplaced() {
                let path = [key.into()];
                mistakes.push(Mistake {
                    place: document.place(&path, true),
                    key: key.to_owned(),
                    message: "only [[target]] may stand in a file of a .d directory; \
                              move it to the main file"
                        .into(),
                });
            }
        }
        for layer in layers.all() {
            let dict = data(layer);
            raw::File::read(&dict.into(), &mut Reader::judging(layer, mistakes));
        }
        let forced = layers.forced.dict().into();
        raw::Target::read(&forced, &mut Reader::judging(&layers.forced, mistakes));

        let mut overlay = Overlay::default();
        overlay.add(&layers.flags.dict());
        let environment = overlay.below(&layers.environment);
        overlay.add(&layers.environment.dict());
        let mut figment = Figment::new();
        for document in &layers.documents {
            // Appends to the arrays of the file before: `.d` files hold nothing but targets.
            figment = figment.admerge(overlay.below(document));
        }
        figment = figment
            .merge(environment)
            .admerge(&layers.added)
            .merge(&layers.flags);
        layers.merged = data(&figment);
        layers.figment = figment;
        layers
    }

    fn take_flags(&mut self, overrides: &Overrides, mistakes: &mut Vec<Mistake>) {
        let path = |path: &[&str]| path.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let flags = &mut self.flags;
        if let Some(enabled) = overrides.metrics {
            flags.set(
                path(&["metrics", "enabled"]),
                "--metrics".into(),
                enabled.into(),
            );
        }
        if let Some(address) = &overrides.metrics_server {
            let value = address.as_str().into();
            flags.set(
                path(&["metrics", "listen"]),
                "--metrics-server".into(),
                value,
            );
        }
        if let Some(level) = overrides.log_level {
            let value = Value::from(level.as_str());
            flags.set(path(&["log", "level"]), "--log-level".into(), value);
        }
        if let Some(format) = overrides.log_format {
            let value = Value::from(format.as_str());
            flags.set(path(&["log", "format"]), "--log-format".into(), value);
        }
        if let Some(interval) = overrides.ping_interval {
            let value = Value::from(super::duration::format_duration(interval));
            self.forced
                .set(path(&["ping_interval"]), "--ping-interval".into(), value);
        }
        if let Some(limit) = overrides.max_retry_limit {
            self.forced.set(
                path(&["max_retry_limit"]),
                "--max-retry-limit".into(),
                limit.into(),
            );
        }
        for url in &overrides.targets {
            let target = Dict::from([("url".to_owned(), url.expose().as_str().into())]);
            self.added.push("target", "--target".into(), target.into());
        }
        if let Some(target) = &overrides.flag_target {
            target.add_to(&mut self.added, mistakes);
        }
        for set in &overrides.set {
            let Some((path, value)) = set.expose().split_once('=') else {
                mistakes.push(Mistake {
                    place: "--set".into(),
                    key: String::new(),
                    message: "expected KEY=VALUE, as in defaults.ping_interval=5s".into(),
                });
                continue;
            };
            let (path, value) = (path.trim(), value.trim());
            let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
            let section = keys.len() > 1 && is_section(&keys[0]);
            if section {
                let value = text_value(&keys, value);
                self.flags.set(keys, "--set".into(), value);
            } else {
                self.singles.push(Single {
                    path: path.strip_prefix("target.").unwrap_or(path).to_owned(),
                    value: value.to_owned(),
                });
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &dyn Layer> {
        let documents = self.documents.iter().map(|document| document as &dyn Layer);
        documents.chain([&self.environment as &dyn Layer, &self.added, &self.flags])
    }

    /// All layers in one, `[defaults]` not yet applied.
    pub(super) fn merged(&self) -> &Dict {
        &self.merged
    }

    /// Flags that beat a target's own keys.
    pub(super) fn forced(&self) -> &TextLayer {
        &self.forced
    }

    pub(super) fn target_count(&self) -> usize {
        let targets = self.merged.get("target").and_then(Value::as_array);
        targets.map_or(0, <[Value]>::len)
    }

    /// Every target, with its path in its own layer.
    pub(super) fn targets(&self) -> impl Iterator<Item = (Vec<Step>, &Dict)> {
        let targets = self.merged.get("target").and_then(Value::as_array);
        let mut before = (Tag::Default, 0);
        targets.into_iter().flatten().filter_map(move |target| {
            // Targets of one layer stand together.
            if before.0 != target.tag() {
                before = (target.tag(), 0);
            }
            let index = before.1;
            before.1 += 1;
            Some((vec!["target".into(), Step::Index(index)], target.as_dict()?))
        })
    }

    /// `--set` for the target of that name, judged the first time it is asked for.
    pub(super) fn singles_of(&self, name: &str, mistakes: &mut Vec<Mistake>) -> TextLayer {
        let mut layer = TextLayer::new("--set");
        for (index, single) in self.singles.iter().enumerate() {
            let key = single
                .path
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('.'));
            let Some(key) = key else {
                continue;
            };
            let keys: Vec<String> = key.split('.').map(str::to_owned).collect();
            let first = keys.first().map_or("", String::as_str);
            if keys.len() > 1 && !raw::Target::KEYS.iter().any(|key| key.name == first) {
                continue; // a longer name that begins with this one
            }
            self.matched.borrow_mut().insert(index);
            if first == "name" {
                mistakes.push(Mistake {
                    place: "--set".into(),
                    key: single.path.clone(),
                    message: "a name cannot be overridden; change it in the file".into(),
                });
                continue;
            }
            let value = text_value(&keys, &single.value);
            layer.set(keys, "--set".into(), value);
        }
        if !layer.is_empty() {
            let dict = layer.dict().into();
            let mut reader = Reader::judging(&layer, mistakes).below(name);
            raw::Target::read(&dict, &mut reader);
        }
        layer
    }

    /// Reports every `--set` that found no target.
    pub(super) fn unmatched_singles<'n>(
        &self,
        names: impl Iterator<Item = &'n str> + Clone,
        mistakes: &mut Vec<Mistake>,
    ) {
        const SECTIONS: &str = "log, metrics, control, server, dial, otlp, defaults";
        for (index, single) in self.singles.iter().enumerate() {
            if self.matched.borrow().contains(&index) {
                continue;
            }
            let name = single
                .path
                .rsplit_once('.')
                .map_or(&*single.path, |(name, _)| name);
            let sections = SECTIONS.split(", ");
            let message = match nearest(name, names.clone().chain(sections)) {
                Some(near) => format!("no section or target has this name; did you mean `{near}`?"),
                None => format!("no section ({SECTIONS}) or target has this name"),
            };
            mistakes.push(Mistake {
                place: "--set".into(),
                key: single.path.clone(),
                message,
            });
        }
    }

    /// Where `key` of a level stands.
    pub(super) fn place(&self, level: &Level<'_>, key: &[Step]) -> String {
        if let Some(layer) = level.layer {
            return layer.place(key, false);
        }
        let path = [level.base.as_slice(), key].concat();
        self.place_of(self.tag_at(level.dict, key), &path)
    }

    /// The tag of the value at `path` below `dict`, or of the nearest thing there is.
    fn tag_at(&self, dict: &Dict, path: &[Step]) -> Tag {
        let mut tag = dict.values().next().map_or(Tag::Default, Value::tag);
        let mut dict = Some(dict);
        for step in path {
            let (Some(inside), Step::Key(key)) = (dict, step) else {
                break;
            };
            let Some(value) = inside.get(key) else {
                break;
            };
            tag = value.tag();
            dict = value.as_dict();
        }
        tag
    }

    /// The file that the value with that tag stands in, if it stands in one.
    pub(super) fn file_of(&self, tag: Tag) -> Option<&Path> {
        let source = self.figment.get_metadata(tag)?.source.as_ref()?;
        source.file_path()
    }

    /// Where the value with that tag stands, which is at `path` in its own layer.
    pub(super) fn place_of(&self, tag: Tag, path: &[Step]) -> String {
        let source = self
            .figment
            .get_metadata(tag)
            .and_then(|m| m.source.clone());
        let layer = self.all().find(|layer| Some(layer.source()) == source);
        layer.map_or_else(String::new, |layer| layer.place(path, false))
    }
}

/// What a provider of ours gives; they cannot fail.
fn data(provider: &(impl Provider + ?Sized)) -> Dict {
    let mut profiles = provider.data().unwrap_or_default();
    profiles.remove(&Profile::Default).unwrap_or_default()
}

fn is_section(key: &str) -> bool {
    key != "target" && raw::File::KEYS.iter().any(|known| known.name == key)
}

/// The variables of ours.
fn environment(variables: &[(OsString, OsString)], mistakes: &mut Vec<Mistake>) -> TextLayer {
    let mut layer = TextLayer::new("environment");
    let mut ours: Vec<_> = variables
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?, value)))
        .filter_map(|(name, value)| Some((name, name.strip_prefix(PREFIX)?, value)))
        .collect();
    ours.sort_unstable();
    for (name, path, value) in ours {
        let keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        let wrong = if keys[0] == "target" {
            Some("targets cannot be set by the environment; use --target or --set")
        } else if keys.iter().any(String::is_empty) {
            Some("names no key; write WS_KEEPALIVE__SECTION__KEY")
        } else if value.to_str().is_none() {
            Some("is not UTF-8")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            mistakes.push(Mistake {
                place: name.to_owned(),
                key: String::new(),
                message: wrong.to_owned(),
            });
        } else if let Some(value) = value.to_str() {
            let value = text_value(&keys, value);
            layer.set(keys, name.to_owned(), value);
        }
    }
    layer
}

/// Text as a value: an inline table where the key holds one, so that tables merge key by key, or
/// may hold one.
fn text_value(path: &[String], text: &str) -> Value {
    let may_hold = |keys| holds_table(path, keys);
    if !may_hold(raw::File::KEYS) && !may_hold(raw::Target::KEYS) {
        return text.into();
    }
    let parsed = parse_toml_value(text).ok();
    let inline = parsed.filter(|value| value.as_dict().is_some());
    inline.unwrap_or_else(|| text.into())
}

fn holds_table(path: &[String], keys: &[Key]) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    keys.iter().any(|key| {
        key.name == first
            && match rest {
                [] => key.map || key.table || !key.keys.is_empty(),
                // A header's value may be a reference, and so may the password in `auth`.
                [_] if key.table => true,
                _ => holds_table(rest, key.keys),
            }
    })
}
