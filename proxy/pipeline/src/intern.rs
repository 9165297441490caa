//! Names as small numbers: append-only for the life of the process, bounded.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

/// Most names one process keeps. Beyond it [`Interner::intern`] answers [`NameId::NONE`].
pub const NAMES_MAX: usize = 65_536;

/// An interned name; equal ids mean equal strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameId(pub u32);

impl NameId {
    /// No name.
    pub const NONE: Self = Self(0);
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
        if names.by_id.len() >= NAMES_MAX {
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
}
