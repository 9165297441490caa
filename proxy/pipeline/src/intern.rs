//! Names as small numbers: append-only for the life of the process, bounded.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

/// Most names one process keeps. Beyond it [`Interner::intern`] answers [`NameId::NONE`].
pub const NAMES_MAX: usize = 65_536;

/// Of these, the names that only the gateway itself may use, for its configurations. Callers and
/// filters bring names of their own, as many as they like: they must not keep a reload from working.
pub const NAMES_KEPT: usize = 16_384;

/// An interned name; equal ids mean equal strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameId(pub u32);

impl NameId {
    /// No name.
    pub const NONE: Self = Self(0);
    /// A text that there was no room for, where that must not be taken for none.
    pub const UNNUMBERED: Self = Self(u32::MAX);
}

#[derive(Default)]
struct Names {
    by_text: HashMap<Arc<str>, u32>,
    by_id: Vec<Arc<str>>,
}

/// The process's table of names.
#[derive(Default)]
pub struct Interner {
    names: RwLock<Names>,
}

impl Interner {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of `text`, new or known. Empty text, or a full table, is [`NameId::NONE`].
    pub fn intern(&self, text: &str) -> NameId {
        self.intern_below(NAMES_MAX, text)
    }

    /// The same for what comes of callers and filters: leaves [`NAMES_KEPT`] names free.
    pub fn intern_foreign(&self, text: &str) -> NameId {
        self.intern_below(NAMES_MAX - NAMES_KEPT, text)
    }

    fn intern_below(&self, max: usize, text: &str) -> NameId {
        if text.is_empty() {
            return NameId::NONE;
        }
        if let Some(&id) = self.names.read().by_text.get(text) {
            return NameId(id);
        }
        let mut names = self.names.write();
        if let Some(&id) = names.by_text.get(text) {
            return NameId(id);
        }
        if names.by_id.len() >= max {
            return NameId::NONE;
        }
        let text: Arc<str> = Arc::from(text);
        names.by_id.push(text.clone());
        let id = u32::try_from(names.by_id.len()).unwrap_or(0);
        names.by_text.insert(text, id);
        NameId(id)
    }

    /// The text of an id, or none for [`NameId::NONE`] and numbers never given out.
    pub fn name(&self, id: NameId) -> Option<Arc<str>> {
        let index = (id.0 as usize).checked_sub(1)?;
        self.names.read().by_id.get(index).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_text_has_equal_id_and_comes_back() {
        let names = Interner::new();
        let a = names.intern("a");
        assert_eq!(a, names.intern("a"));
        assert_ne!(a, names.intern("b"));
        assert_eq!(names.name(a).as_deref(), Some("a"));
        assert_eq!(names.intern(""), NameId::NONE);
        assert_eq!(names.name(NameId::NONE), None);
        assert_eq!(names.name(NameId(99)), None);
    }

    #[test]
    fn a_full_table_answers_none_and_keeps_the_known() {
        let names = Interner::new();
        for n in 0..NAMES_MAX {
            assert_ne!(names.intern(&format!("n{n}")), NameId::NONE);
        }
        assert_eq!(names.intern("one more"), NameId::NONE);
        assert_ne!(names.intern("n7"), NameId::NONE);
    }

    #[test]
    fn foreign_names_leave_room_for_the_configuration() {
        let names = Interner::new();
        for n in 0..NAMES_MAX {
            let foreign = names.intern_foreign(&format!("caller{n}"));
            assert_eq!(foreign == NameId::NONE, n >= NAMES_MAX - NAMES_KEPT);
        }
        for n in 0..NAMES_KEPT {
            assert_ne!(names.intern(&format!("model{n}")), NameId::NONE);
        }
        assert_eq!(names.intern("one more"), NameId::NONE);
        assert_ne!(names.intern_foreign("model7"), NameId::NONE);
    }
}
