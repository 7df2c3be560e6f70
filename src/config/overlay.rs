//! What a stronger layer says replaces what a weaker one says, value by value. figment merges
//! tables key by key, but `{ file = ".." }` and `{ env = ".." }` for one header make no value, a
//! token beside the user of a weaker layer no credentials, and the keys of two kinds of heartbeat
//! no heartbeat.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::layer::Layer;
use super::raw;
use super::read::{Key, Read};

/// The keys that stronger layers give.
#[derive(Default)]
pub(super) struct Overlay {
    paths: Vec<Vec<String>>,
    /// The kind of the default heartbeat, as the strongest layer says it that does.
    kind: Option<String>,
}

impl Overlay {
    /// Counts `dict` among the stronger layers.
    pub(super) fn add(&mut self, dict: &Dict) {
        collect(dict, raw::File::KEYS, &mut Vec::new(), &mut self.paths);
        if self.kind.is_none() {
            self.kind = kind(dict).map(str::to_owned);
        }
    }

    /// `layer` without what is replaced.
    pub(super) fn below<'l>(&self, layer: &'l dyn Layer) -> Below<'l> {
        Below {
            layer,
            replaced: self.paths.clone(),
            kind: self.kind.clone(),
        }
    }
}

/// The kind of the default heartbeat.
fn kind(dict: &Dict) -> Option<&str> {
    let defaults = dict.get("defaults")?.as_dict()?;
    defaults.get("heartbeat")?.as_dict()?.get("kind")?.as_str()
}

/// Adds the paths at which `dict` has a value that is taken whole.
fn collect(dict: &Dict, keys: &[Key], path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    for (name, value) in dict {
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            continue; // reported
        };
        path.push(name.clone());
        match value {
            // Entries replace one another each.
            Value::Dict(_, entries) if key.map => {
                paths.extend(entries.keys().map(|entry| {
                    let entry = std::slice::from_ref(entry);
                    [path.as_slice(), entry].concat()
                }));
            }
            Value::Dict(_, inside) if !key.keys.is_empty() => {
                collect(inside, key.keys, path, paths);
            }
            _ => paths.push(path.clone()),
        }
        path.pop();
    }
}

/// A layer without what stronger ones replace.
pub(super) struct Below<'l> {
    layer: &'l dyn Layer,
    replaced: Vec<Vec<String>>,
    kind: Option<String>,
}

impl Provider for Below<'_> {
    fn metadata(&self) -> Metadata {
        self.layer.metadata()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut data = self.layer.data()?;
        for dict in data.values_mut() {
            let other =
                kind(dict).is_some_and(|own| self.kind.as_deref().is_some_and(|k| k != own));
            if other {
                remove(dict, &["defaults".to_owned(), "heartbeat".to_owned()]);
            }
            for path in &self.replaced {
                remove(dict, path);
            }
        }
        Ok(data)
    }
}

fn remove(dict: &mut Dict, path: &[String]) {
    match path {
        [] => {}
        [last] => {
            dict.remove(last);
        }
        [first, rest @ ..] => {
            if let Some(Value::Dict(_, inside)) = dict.get_mut(first) {
                remove(inside, rest);
            }
        }
    }
}
