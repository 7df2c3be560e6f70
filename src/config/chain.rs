//! Inheritance: the levels that give a target its keys, the strongest first.

use figment::value::{Dict, Tag, Value};

use super::layer::{Step, TextLayer};
use super::raw;
use super::read::{Field, Read, Reader};

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
