//! Inheritance: the levels that give a target its keys, the strongest first.

use figment::value::{Dict, Tag, Value};

use super::heartbeat::Kind;
use super::layer::{Step, TextLayer};
use super::raw;
use super::read::{Field, Read, Reader};

/// What a protocol has its own of. Defaults of them are meant for the beats that have none.
pub(super) const OWN_TIMES: [&str; 4] = [
    "ping_interval",
    "pong_timeout",
    "max_retry_limit",
    "max_silence",
];

/// Whether `[defaults]` give `key` to a target of `kind`: what is said for every target does not
/// replace a protocol's own times.
pub(super) fn hears_defaults(key: &str, kind: Kind) -> bool {
    !(kind.has_own_times() && OWN_TIMES.contains(&key))
}

/// What gives a target its keys, one of several, the strongest first.
pub(super) struct Level<'a> {
    pub(super) dict: &'a Dict,
    pub(super) raw: raw::Target,
    /// What stands before a key in a message, and in the layer's own terms.
    pub(super) base: Vec<Step>,
    /// A layer of its own; `None` for one that was merged, which a value's tag tells.
    pub(super) layer: Option<&'a TextLayer>,
}

impl<'a> Level<'a> {
    pub(super) fn new(dict: &'a Dict, base: Vec<Step>, layer: Option<&'a TextLayer>) -> Self {
        let value = Value::Dict(Tag::Default, dict.clone());
        Self {
            dict,
            raw: raw::Target::read(&value, &mut Reader::silent()).unwrap_or_default(),
            base,
            layer,
        }
    }
}

/// The levels of one target.
pub(super) struct Chain<'a> {
    /// `--set` for this target, flags for all, its own keys, `[defaults]`.
    pub(super) levels: [Option<&'a Level<'a>>; 4],
}

/// What a chain has for a key.
pub(super) enum Picked<'a, T> {
    Absent,
    Bad,
    Set(&'a Level<'a>, &'a T),
}

impl<'a, T> Picked<'a, T> {
    pub(super) fn get(&self) -> Option<&'a T> {
        match self {
            Self::Set(_, value) => Some(value),
            Self::Absent | Self::Bad => None,
        }
    }

    pub(super) fn map<U>(self, part: impl FnOnce(&'a T) -> &'a U) -> Picked<'a, U> {
        match self {
            Self::Set(level, value) => Picked::Set(level, part(value)),
            Self::Bad => Picked::Bad,
            Self::Absent => Picked::Absent,
        }
    }
}

impl<'a> Chain<'a> {
    pub(super) fn levels(&self) -> impl DoubleEndedIterator<Item = &'a Level<'a>> {
        self.levels.iter().copied().flatten()
    }

    pub(super) fn pick<T>(
        &self,
        field: impl for<'r> Fn(&'r raw::Target) -> Option<&'r Field<T>>,
    ) -> Picked<'a, T> {
        for level in self.levels() {
            match field(&level.raw) {
                Some(Field::Set(value, _)) => return Picked::Set(level, value),
                Some(Field::Bad) => return Picked::Bad,
                Some(Field::Absent) | None => {}
            }
        }
        Picked::Absent
    }

    /// Whether what `level` says is for every target.
    pub(super) fn is_default(&self, level: &Level<'_>) -> bool {
        self.levels[3].is_some_and(|defaults| std::ptr::eq(defaults, level))
    }

    /// The levels that may give `key` to a target of `kind`.
    pub(super) fn for_key(&self, key: &str, kind: Kind) -> Self {
        let mut levels = self.levels;
        if !hears_defaults(key, kind) {
            levels[3] = None;
        }
        Self { levels }
    }

    /// The `heartbeat` tables that hold for a target; `None` if a kind could not be read.
    ///
    /// Tables of one kind are one table. Of two kinds the stronger stands alone: what the weaker
    /// one says belongs to another protocol. Defaults of a kind that the url cannot have are for
    /// other targets.
    pub(super) fn heartbeat(&self, streams: bool) -> Option<HeartbeatTables<'a>> {
        let mut said: Option<(Kind, &'a Level<'a>)> = None;
        let mut levels: Vec<&'a Level<'a>> = Vec::new();
        for level in self.levels().rev() {
            let Some(table) = level.raw.heartbeat.get() else {
                continue;
            };
            let own = match &table.kind {
                Field::Set(kind, _) => Some(*kind),
                Field::Bad => return None,
                Field::Absent => None,
            };
            if self.is_default(level) && !own.unwrap_or(Kind::Ping).fits(streams) {
                continue;
            }
            if let Some(own) = own {
                if said.is_some_and(|(kind, _)| kind != own) {
                    levels.clear();
                }
                said = Some((own, level));
            }
            levels.push(level);
        }
        levels.reverse();
        Some(HeartbeatTables {
            kind: said.map_or(Kind::of_url(streams), |(kind, _)| kind),
            giver: said.map(|(_, level)| level),
            levels,
        })
    }
}

/// The `heartbeat` tables that hold for a target.
pub(super) struct HeartbeatTables<'a> {
    pub(super) kind: Kind,
    /// What said so; `None` if it is that of the url.
    pub(super) giver: Option<&'a Level<'a>>,
    /// Strongest first.
    pub(super) levels: Vec<&'a Level<'a>>,
}

impl<'a> HeartbeatTables<'a> {
    pub(super) fn pick<T>(
        &self,
        field: impl for<'r> Fn(&'r raw::Heartbeat) -> &'r Field<T>,
    ) -> Picked<'a, T> {
        for level in &self.levels {
            match level.raw.heartbeat.get().map(&field) {
                Some(Field::Set(value, _)) => return Picked::Set(level, value),
                Some(Field::Bad) => return Picked::Bad,
                Some(Field::Absent) | None => {}
            }
        }
        Picked::Absent
    }
}

/// `target.a` or `target.a.b` of the strongest level that has it.
macro_rules! pick {
    ($chain:expr, $key:ident) => {
        $chain.pick(|target| Some(&target.$key))
    };
    ($chain:expr, $table:ident . $key:ident) => {
        $chain.pick(|target| target.$table.get().map(|table| &table.$key))
    };
}
pub(super) use pick;
