//! Small values with versions and times to live.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::error::StoreError;
use crate::sharded::Sharded;

/// All key-value stores of the process, by name. Stores live as long as the registry.
#[derive(Debug, Default)]
pub struct Stores {
    named: Mutex<HashMap<Box<str>, Arc<Kv>>>,
    limits: KvLimits,
}

/// Bounds of one store.
#[derive(Debug, Clone, Copy)]
pub struct KvLimits {
    /// Most entries.
    pub entries_max: usize,
    /// Longest key.
    pub key_bytes_max: usize,
    /// Longest value.
    pub value_bytes_max: usize,
    /// Keys and values together.
    pub total_bytes_max: usize,
}

impl Default for KvLimits {
    fn default() -> Self {
        Self {
            entries_max: 65_536,
            key_bytes_max: 256,
            value_bytes_max: 64 * 1024,
            total_bytes_max: 64 * 1024 * 1024,
        }
    }
}

impl Stores {
    /// A registry whose stores have these bounds.
    #[must_use]
    pub fn new(limits: KvLimits) -> Self {
        Self {
            named: Mutex::default(),
            limits,
        }
    }

    /// The store of a name, empty at first.
    ///
    /// # Errors
    /// [`StoreError::Full`] when there are 1024 names.
    pub fn open(&self, name: &str) -> Result<Arc<Kv>, StoreError> {
        let mut named = self.named.lock();
        if let Some(known) = named.get(name) {
            return Ok(Arc::clone(known));
        }
        if named.len() >= NAMES_MAX {
            return Err(StoreError::Full);
        }
        let fresh = Arc::new(Kv::new(self.limits));
        named.insert(name.into(), Arc::clone(&fresh));
        Ok(fresh)
    }
}

/// One store. A time to live of `None` keeps an entry until it is deleted.
#[derive(Debug)]
pub struct Kv {
    entries: Sharded<Entry>,
    limits: KvLimits,
    /// Source of versions: one for the whole store, so that an entry deleted and made anew
    /// never has an old version again.
    version: AtomicU64,
    bytes: Arc<AtomicUsize>,
}

/// A value and the version that a compare-and-swap expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes set; a number of [`Kv::add`] reads as decimal text.
    pub value: Arc<[u8]>,
    /// Never 0, different after every change.
    pub version: u64,
}

#[derive(Debug)]
struct Entry {
    value: Value,
    version: u64,
    expires_at_ms: u64,
    /// Held for its drop.
    _room: Room,
}

#[derive(Debug)]
enum Value {
    Bytes(Arc<[u8]>),
    Number(i64),
}

/// Bytes counted in the store's total until dropped.
#[derive(Debug)]
struct Room {
    bytes: usize,
    total: Arc<AtomicUsize>,
}

impl Kv {
    fn new(limits: KvLimits) -> Self {
        Self {
            entries: Sharded::new(limits.entries_max),
            limits,
            version: AtomicU64::new(0),
            bytes: Arc::default(),
        }
    }

    /// The live entry of a key.
    #[must_use]
    pub fn get(&self, key: &str, now_ms: u64) -> Option<Versioned> {
        let read = |entry: &mut Entry| {
            entry.is_live(now_ms).then(|| Versioned {
                value: entry.value.to_bytes(),
                version: entry.version,
            })
        };
        self.entries
            .visit(key, read, |entry| !entry.is_live(now_ms))?
    }

    /// Sets a value whatever was there; returns its version.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Full`].
    pub fn set(
        &self,
        key: &str,
        value: &[u8],
        ttl_ms: Option<u32>,
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        let entry = self.entry(key, value, ttl_ms, now_ms)?;
        let version = entry.version;
        self.insert(key, now_ms, entry, |_| Ok(version))
    }

    /// Sets a value if the entry has the `expected` version, 0 = only if there is none;
    /// returns the new version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::TooLarge`], [`StoreError::Full`].
    pub fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: &[u8],
        ttl_ms: Option<u32>,
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        let entry = self.entry(key, value, ttl_ms, now_ms)?;
        let version = entry.version;
        let compare = |current| {
            if current == expected {
                Ok(version)
            } else {
                Err(StoreError::Conflict { current })
            }
        };
        if expected == 0 {
            return self.insert(key, now_ms, entry, compare);
        }
        let swap = |known: &mut Entry| known.replace(entry, now_ms, compare);
        self.entries
            .visit(key, swap, |entry| !entry.is_live(now_ms))
            .unwrap_or(Err(StoreError::Conflict { current: 0 }))
    }

    /// Removes an entry; true if there was a live one.
    pub fn delete(&self, key: &str, now_ms: u64) -> bool {
        let live = |entry: &mut Entry| entry.is_live(now_ms);
        self.entries.visit(key, live, |_| true).unwrap_or(false)
    }

    /// Adds to a number, 0 if there is none, and returns the sum, which stops at the bounds
    /// of `i64`. The time to live counts from the entry's creation: later adds do not move it.
    ///
    /// # Errors
    /// [`StoreError::NotANumber`], [`StoreError::TooLarge`], [`StoreError::Full`].
    pub fn add(
        &self,
        key: &str,
        delta: i64,
        ttl_ms: Option<u32>,
        now_ms: u64,
    ) -> Result<i64, StoreError> {
        self.check_key(key)?;
        let version = self.next_version();
        let sum_up = |known: &mut Entry| -> Option<Result<i64, StoreError>> {
            if !known.is_live(now_ms) {
                return None;
            }
            let Some(number) = known.value.number() else {
                return Some(Err(StoreError::NotANumber));
            };
            let sum = number.saturating_add(delta);
            known.value = Value::Number(sum);
            known.version = version;
            Some(Ok(sum))
        };
        let summed = self
            .entries
            .visit(key, sum_up, |entry| !entry.is_live(now_ms));
        if let Some(Some(sum)) = summed {
            return sum;
        }
        // Absent a moment ago; somebody else may have made it since.
        let fresh = Entry {
            value: Value::Number(delta),
            version,
            expires_at_ms: expiry(ttl_ms, now_ms),
            _room: self.room(key.len() + NUMBER_BYTES, now_ms)?,
        };
        let create = |known: &mut Entry| {
            sum_up(known).unwrap_or_else(|| {
                *known = fresh;
                Ok(delta)
            })
        };
        let idle = |entry: &Entry| !entry.is_live(now_ms);
        self.entries
            .with(key, now_ms, idle, |_| self.absent(), create)
            .unwrap_or(Err(StoreError::Full))
    }

    /// Entries held, expired ones included until somebody meets them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No entry is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn insert(
        &self,
        key: &str,
        now_ms: u64,
        entry: Entry,
        compare: impl FnOnce(u64) -> Result<u64, StoreError>,
    ) -> Result<u64, StoreError> {
        let idle = |entry: &Entry| !entry.is_live(now_ms);
        let replace = |known: &mut Entry| known.replace(entry, now_ms, compare);
        self.entries
            .with(key, now_ms, idle, |_| self.absent(), replace)
            .unwrap_or(Err(StoreError::Full))
    }

    fn entry(
        &self,
        key: &str,
        value: &[u8],
        ttl_ms: Option<u32>,
        now_ms: u64,
    ) -> Result<Entry, StoreError> {
        self.check_key(key)?;
        bounded("value", value.len(), self.limits.value_bytes_max)?;
        Ok(Entry {
            _room: self.room(key.len() + value.len(), now_ms)?,
            value: Value::Bytes(value.into()),
            version: self.next_version(),
            expires_at_ms: expiry(ttl_ms, now_ms),
        })
    }

    /// What an operation that makes an entry finds where none was.
    fn absent(&self) -> Entry {
        Entry {
            value: Value::Number(0),
            version: 0,
            expires_at_ms: 0,
            _room: Room {
                bytes: 0,
                total: Arc::clone(&self.bytes),
            },
        }
    }

    fn check_key(&self, key: &str) -> Result<(), StoreError> {
        bounded("key", key.len(), self.limits.key_bytes_max)
    }

    fn next_version(&self) -> u64 {
        self.version.fetch_add(1, Relaxed) + 1
    }

    /// Counts bytes in before the entry is made, so that the bound is never passed; what the
    /// entry replaces is counted out after. Expired entries make room.
    fn room(&self, bytes: usize, now_ms: u64) -> Result<Room, StoreError> {
        let bytes_max = self.limits.total_bytes_max;
        let claim = || {
            let more = |total: usize| total.checked_add(bytes).filter(|sum| *sum <= bytes_max);
            self.bytes.fetch_update(Relaxed, Relaxed, more).ok()
        };
        if claim().is_none() {
            self.entries.sweep(now_ms, &|entry| !entry.is_live(now_ms));
            claim().ok_or(StoreError::Full)?;
        }
        Ok(Room {
            bytes,
            total: Arc::clone(&self.bytes),
        })
    }
}

impl Entry {
    fn is_live(&self, now_ms: u64) -> bool {
        now_ms < self.expires_at_ms
    }

    fn replace(
        &mut self,
        by: Self,
        now_ms: u64,
        compare: impl FnOnce(u64) -> Result<u64, StoreError>,
    ) -> Result<u64, StoreError> {
        let current = if self.is_live(now_ms) {
            self.version
        } else {
            0
        };
        let version = compare(current)?;
        *self = by;
        Ok(version)
    }
}

impl Value {
    fn to_bytes(&self) -> Arc<[u8]> {
        match self {
            Self::Bytes(bytes) => Arc::clone(bytes),
            Self::Number(number) => number.to_string().into_bytes().into(),
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Relaxed);
    }
}

fn bounded(what: &'static str, bytes: usize, bytes_max: usize) -> Result<(), StoreError> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(StoreError::TooLarge {
        what,
        bytes,
        bytes_max,
    })
}

fn expiry(ttl_ms: Option<u32>, now_ms: u64) -> u64 {
    ttl_ms.map_or(u64::MAX, |ttl_ms| now_ms.saturating_add(u64::from(ttl_ms)))
}

const NAMES_MAX: usize = 1024;
/// Longest decimal text of an `i64`.
const NUMBER_BYTES: usize = 20;

#[cfg(test)]
#[path = "kv_tests.rs"]
mod tests;
