//! Sets of public keys that filters check signatures by, as their files say.

use std::collections::BTreeMap;
use std::sync::Arc;

/// All key sets of one generation of the config, as JSON text (RFC 7517); replaced as a whole by a
/// reload.
#[derive(Debug, Default)]
pub struct KeySets {
    sets: BTreeMap<String, Arc<str>>,
}

impl KeySets {
    /// Sets by name; their text has been checked.
    #[must_use]
    pub fn new(sets: BTreeMap<String, Arc<str>>) -> Self {
        Self { sets }
    }

    /// The text of a set.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<str>> {
        self.sets.get(name)
    }
}
