//! Tables of known caller keys, looked up by presented credential without telling by time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use weir_pipeline::principal::Principal;

/// Longest credential that is looked up, in bytes; a longer one is nobody's.
pub const PRESENTED_BYTES_MAX: usize = 4096;

/// One known key.
#[derive(Clone, Debug)]
pub struct KeyEntry {
    /// SHA-256 of the key; the key itself is not kept.
    pub sha256: [u8; 32],
    /// Who presents it.
    pub principal: Arc<Principal>,
}

/// A named set of keys.
///
/// What a lookup must not tell by its duration is how much of a presented key is right. The key is
/// hashed with SHA-256 first, so that equal leading bytes of two keys mean nothing for what is
/// compared. Small tables are then compared whole, in the same number of steps whatever is
/// presented. In large ones that would cost microseconds per thousand keys; there a hash keyed
/// with a secret of this process picks the few entries to compare: which ones, a caller can
/// neither foresee nor steer, and within them the comparison is in constant time again.
#[derive(Debug)]
pub struct KeyTable {
    name: Arc<str>,
    entries: Vec<KeyEntry>,
    /// Absent in small tables.
    index: Option<Index>,
}

#[derive(Debug)]
struct Index {
    /// Randomly keyed SipHash.
    seed: RandomState,
    buckets: HashMap<u64, Vec<u32>>,
}

impl KeyTable {
    /// A table of `entries`. Of equal hashes the first counts.
    #[must_use]
    pub fn new(name: &str, entries: Vec<KeyEntry>) -> Self {
        let index = (entries.len() > COMPARED_WHOLE_MAX).then(|| Index::new(&entries));
        Self {
            name: Arc::from(name),
            entries,
            index,
        }
    }

    /// Its name in the config.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Who presents this credential, if it is a known one.
    #[must_use]
    pub fn lookup(&self, presented: &[u8]) -> Option<Arc<Principal>> {
        if presented.is_empty() || presented.len() > PRESENTED_BYTES_MAX {
            return None;
        }
        let hash: [u8; 32] = Sha256::digest(presented).into();
        let place = match &self.index {
            None => first_equal(self.entries.iter().zip(1..), &hash),
            Some(index) => {
                let places = index.bucket(&hash).iter();
                let entry = |place: &u32| Some((self.entries.get(*place as usize - 1)?, *place));
                first_equal(places.filter_map(entry), &hash)
            }
        };
        let index = (place as usize).checked_sub(1)?;
        self.entries.get(index).map(|entry| entry.principal.clone())
    }
}

impl Index {
    fn new(entries: &[KeyEntry]) -> Self {
        let seed = RandomState::new();
        let mut buckets: HashMap<u64, Vec<u32>> = HashMap::with_capacity(entries.len());
        for (entry, place) in entries.iter().zip(1_u32..) {
            buckets
                .entry(seed.hash_one(entry.sha256))
                .or_default()
                .push(place);
        }
        Self { seed, buckets }
    }

    /// Places in the list, counted from 1.
    fn bucket(&self, hash: &[u8; 32]) -> &[u32] {
        self.buckets
            .get(&self.seed.hash_one(hash))
            .map_or(&[], Vec::as_slice)
    }
}

/// The place of the first entry with this hash, 0 = none. Looks at every entry, without a branch
/// on what it finds.
fn first_equal<'a>(entries: impl Iterator<Item = (&'a KeyEntry, u32)>, hash: &[u8; 32]) -> u32 {
    let mut found = 0_u32;
    for (entry, place) in entries {
        let hit = entry.sha256.ct_eq(hash) & found.ct_eq(&0);
        found.conditional_assign(&place, hit);
    }
    found
}

/// All key tables of one generation of the config; replaced as a whole by a reload.
#[derive(Debug, Default)]
pub struct KeyTables {
    tables: Vec<KeyTable>,
}

impl KeyTables {
    /// Of equal names the first counts.
    #[must_use]
    pub fn new(tables: Vec<KeyTable>) -> Self {
        Self { tables }
    }

    /// A table by its name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&KeyTable> {
        self.tables.iter().find(|table| &*table.name == name)
    }
}

/// Largest table that is compared whole: about a microsecond.
const COMPARED_WHOLE_MAX: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use weir_pipeline::intern::NameId;

    fn entry(key: &str) -> KeyEntry {
        let principal = Principal {
            id: NameId::NONE,
            subject: key.into(),
            tenant: "t".into(),
            plan: "p".into(),
            scopes: Vec::new(),
            models: Vec::new(),
            priority: None,
        };
        KeyEntry {
            sha256: Sha256::digest(key).into(),
            principal: Arc::new(principal),
        }
    }

    #[test]
    fn finds_each_key_and_no_other_in_small_and_large_tables() {
        for size in [0, 1, 64, 65, 1000] {
            let table = KeyTable::new("t", (0..size).map(|n| entry(&format!("k{n}"))).collect());
            assert_eq!(table.index.is_some(), size > 64);
            for n in 0..size {
                let found = table.lookup(format!("k{n}").as_bytes()).unwrap();
                assert_eq!(*found.subject, format!("k{n}"));
            }
            for wrong in ["", "k", "K0", "k0 ", "kx"] {
                assert!(table.lookup(wrong.as_bytes()).is_none(), "{size} {wrong}");
            }
            assert!(table.lookup(&vec![b'k'; PRESENTED_BYTES_MAX + 1]).is_none());
        }
    }

    #[test]
    fn the_first_of_equals_counts() {
        for filler in [0, 100] {
            let mut entries = vec![entry("same"), entry("same")];
            let first = entries.first().unwrap().principal.clone();
            entries.extend((0..filler).map(|n| entry(&format!("k{n}"))));
            let found = KeyTable::new("t", entries).lookup(b"same").unwrap();
            assert!(Arc::ptr_eq(&found, &first));
        }
    }

    #[test]
    fn tables_by_name() {
        let tables = KeyTables::new(vec![KeyTable::new("a", vec![entry("x")])]);
        assert_eq!(tables.find("a").map(KeyTable::len), Some(1));
        assert!(tables.find("b").is_none());
    }
}
