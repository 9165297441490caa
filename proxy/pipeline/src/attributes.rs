//! The bounded notes that filters leave for later filters of the same exchange.

use std::sync::Arc;

/// Most attributes one exchange carries.
pub const ATTRIBUTES_MAX: usize = 64;
/// Longest value of one attribute, in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 4096;

/// A small map `FILTER.NAME` -> text; the gateway's own names start with `weir.`.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    entries: Vec<(Arc<str>, Arc<str>)>,
}

impl Attributes {
    /// The value of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<str>> {
        self.entries
            .iter()
            .find(|(key, _)| &**key == name)
            .map(|(_, value)| value)
    }

    /// Sets or replaces a value; `false` when a bound would be broken.
    #[must_use]
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        if value.len() > ATTRIBUTE_BYTES_MAX || name.len() > 256 {
            return false;
        }
        if let Some(entry) = self.entries.iter_mut().find(|(key, _)| &**key == name) {
            entry.1 = Arc::from(value);
            return true;
        }
        if self.entries.len() >= ATTRIBUTES_MAX {
            return false;
        }
        self.entries.push((Arc::from(name), Arc::from(value)));
        true
    }

    /// All, in the order they were first set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
