//! A bounded map cut into shards: one short lock per operation, idle entries make room.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

type Shard<V> = Mutex<HashMap<Arc<str>, V>>;

/// Holds at most `keys_max` keys, exactly.
#[derive(Debug)]
pub(crate) struct Sharded<V> {
    shards: Box<[Shard<V>]>,
    hasher: RandomState,
    keys: AtomicUsize,
    keys_max: usize,
    /// When it was last searched for idle entries; `u64::MAX` = never.
    swept_at_ms: AtomicU64,
}

impl<V> Sharded<V> {
    pub(crate) fn new(keys_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            keys: AtomicUsize::new(0),
            keys_max,
            swept_at_ms: AtomicU64::new(u64::MAX),
        }
    }

    /// Works on the entry of a key, made by `fresh` if there is none. `None` when it would be
    /// one too many: then entries that are `idle` were searched for, at most once a second,
    /// so that a flood of new keys does not turn into a flood of searches.
    pub(crate) fn with<R>(
        &self,
        key: &str,
        now_ms: u64,
        idle: impl Fn(&V) -> bool,
        fresh: impl FnOnce(&Arc<str>) -> V,
        work: impl FnOnce(&mut V) -> R,
    ) -> Option<R> {
        let shard = self.shard(key)?;
        let mut map = shard.lock();
        if let Some(value) = map.get_mut(key) {
            return Some(work(value));
        }
        if !self.claim_place() {
            drop(map);
            self.sweep(now_ms, &idle);
            map = shard.lock();
            if let Some(value) = map.get_mut(key) {
                return Some(work(value));
            }
            if !self.claim_place() {
                return None;
            }
        }
        let key: Arc<str> = key.into();
        let mut value = fresh(&key);
        let result = work(&mut value);
        map.insert(key, value);
        Some(result)
    }

    /// Works on the entry of a key if there is one, and removes it if it is `gone` then.
    pub(crate) fn visit<R>(
        &self,
        key: &str,
        work: impl FnOnce(&mut V) -> R,
        gone: impl FnOnce(&V) -> bool,
    ) -> Option<R> {
        let mut map = self.shard(key)?.lock();
        let value = map.get_mut(key)?;
        let result = work(value);
        if gone(value) {
            map.remove(key);
            self.keys.fetch_sub(1, Relaxed);
        }
        Some(result)
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.load(Relaxed)
    }

    fn shard(&self, key: &str) -> Option<&Shard<V>> {
        let hash = self.hasher.hash_one(key);
        self.shards.get(usize::try_from(hash % SHARDS).ok()?)
    }

    fn claim_place(&self) -> bool {
        let one_more = |keys| (keys < self.keys_max).then_some(keys + 1);
        self.keys.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    /// Removes idle entries, at most once a second.
    pub(crate) fn sweep(&self, now_ms: u64, idle: &impl Fn(&V) -> bool) {
        let last_ms = self.swept_at_ms.load(Relaxed);
        let due = last_ms == u64::MAX || now_ms.saturating_sub(last_ms) >= SWEEP_MS;
        let claimed = || {
            self.swept_at_ms
                .compare_exchange(last_ms, now_ms, Relaxed, Relaxed)
        };
        if !due || claimed().is_err() {
            return;
        }
        for shard in &self.shards {
            let mut map = shard.lock();
            let before = map.len();
            map.retain(|_, value| !idle(value));
            self.keys.fetch_sub(before - map.len(), Relaxed);
            if map.len() < map.capacity() / 4 {
                map.shrink_to_fit();
            }
        }
    }
}

const SHARDS: u64 = 64;
const SWEEP_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_bound_and_idle_entries_make_room() {
        let map: Sharded<bool> = Sharded::new(100);
        let put = |key: usize, now_ms, idle| {
            map.with(&key.to_string(), now_ms, |idle| *idle, |_| idle, |_| ())
        };
        assert!((0..150).all(|key| put(key, 0, key % 2 == 0).is_some()));
        assert_eq!(map.len(), 100, "one search made room for half");
        assert!(
            put(201, 500, false).is_none(),
            "full, and searched a moment ago"
        );
        assert!(put(1, 500, false).is_some(), "known keys are never refused");
        assert!(put(201, 1000, false).is_some(), "searched again");
        map.visit("201", |_| (), |_| true);
        assert!(map.visit("201", |_| (), |_| true).is_none());
    }
}
