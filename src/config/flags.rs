//! One target that flags alone describe: for commands that hold one connection.

use std::fmt;
use std::time::Duration;

use figment::value::{Dict, Value};

use super::duration::format_duration;
use super::layer::{KeyPath, Step, TextLayer, insert, parse_toml_value};
use super::mistake::{Mistake, Report};

/// Keys of a target, and the flag that set each. Displays nothing: values may be secret.
#[derive(Clone, Default)]
pub(crate) struct FlagTarget {
    parts: Vec<Part>,
}

#[derive(Clone)]
struct Part {
    flag: &'static str,
    path: Vec<String>,
    value: Value,
}

impl fmt::Debug for FlagTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = self.parts.iter().map(|part| part.flag);
        f.debug_list().entries(flags).finish()
    }
}

impl FlagTarget {
    /// Gives the key at `path` a value that `flag` said.
    pub(crate) fn set(&mut self, flag: &'static str, path: &[&str], value: impl Into<Value>) {
        self.parts.push(Part {
            flag,
            path: path.iter().map(|key| (*key).to_owned()).collect(),
            value: value.into(),
        });
    }

    /// The same, for a key that holds a duration.
    pub(crate) fn set_duration(&mut self, flag: &'static str, path: &[&str], value: Duration) {
        self.set(flag, path, format_duration(value));
    }

    /// The same, for a key that holds a table, which `text` is as TOML's inline one. The error shows
    /// nothing of it.
    pub(crate) fn set_table(
        &mut self,
        flag: &'static str,
        path: &[&str],
        text: &str,
    ) -> Result<(), String> {
        let table = parse_toml_value(text)?;
        self.set(flag, path, table);
        Ok(())
    }

    /// What was set: flag, key path and value, for tests of what a flag stands for.
    #[cfg(test)]
    pub(crate) fn parts(&self) -> Vec<(&'static str, String, Value)> {
        let parts = self.parts.iter();
        let part = |part: &Part| (part.flag, part.path.join("."), part.value.clone());
        parts.map(part).collect()
    }

    /// Adds the target to `layer`.
    pub(super) fn add_to(&self, layer: &mut TextLayer, mistakes: &mut Vec<Mistake>) {
        let mut target = Dict::new();
        for (index, part) in self.parts.iter().enumerate() {
            // `headers.x` and `headers.x.file` are the same header.
            let same = |before: &&Part| {
                let shared = before.path.len().min(part.path.len());
                before.path[..shared] == part.path[..shared]
            };
            if self.parts[..index].iter().any(|before| same(&before)) {
                let path: Vec<Step> = part.path.iter().map(|key| key.as_str().into()).collect();
                mistakes.push(Mistake {
                    place: part.flag.to_owned(),
                    key: format!("{TARGET}{}", KeyPath(&path[..path.len().min(2)])),
                    message: "is there twice".to_owned(),
                });
                continue;
            }
            insert(&mut target, &part.path, part.value.clone());
        }
        let origins = self.parts.iter();
        let origins = origins.map(|part| (part.path.clone(), part.flag.to_owned()));
        layer.push_parts(
            "target",
            "flags".to_owned(),
            target.into(),
            origins.collect(),
        );
    }
}

/// What stands before a key of the one target.
const TARGET: &str = "target[0].";

/// Every mistake on a line of its own, by flag: `--header Connection: is set by the upgrade itself`.
pub(crate) fn in_words(report: &Report) -> String {
    let lines = report.mistakes.iter().map(|mistake| {
        let key = mistake.key.strip_prefix(TARGET).unwrap_or_default();
        // The flag names the key, but for tables that are given whole.
        let tables = ["headers.", "labels.", "cookies.", "heartbeat."];
        let own = tables.iter().find_map(|table| key.strip_prefix(table));
        let own = own.map(|name| format!(" {name}")).unwrap_or_default();
        format!("{}{own}: {}", mistake.place, mistake.message)
    });
    lines.collect::<Vec<_>>().join("\n")
}
