//! Concurrency slots: how many exchanges of a key may be in progress at once.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::sharded::Sharded;

/// All slots of the process, by name and key.
#[derive(Debug, Default)]
pub struct Slots {
    named: RwLock<HashMap<Box<str>, Arc<InUse>>>,
}

/// Slots in use by key. A key without any is not kept.
type InUse = Sharded<Taken>;

#[derive(Debug)]
struct Taken {
    key: Arc<str>,
    count: u32,
}

impl Slots {
    /// Takes one of `max` slots of a key; `None` when all are taken, or when there are more
    /// names (1024) or keys of a name (100 000) in use than can be kept. Exact under
    /// concurrency; callers with different `max` count together.
    #[must_use]
    pub fn acquire(&self, name: &str, key: &str, max: u32) -> Option<SlotGuard> {
        if max == 0 || key.len() > KEY_BYTES_MAX {
            return None;
        }
        let in_use = self.named(name)?;
        let fresh = |key: &Arc<str>| Taken {
            key: Arc::clone(key),
            count: 0,
        };
        let take = |taken: &mut Taken| {
            if taken.count >= max {
                return None;
            }
            taken.count += 1;
            Some(Arc::clone(&taken.key))
        };
        let key = in_use.with(key, 0, |_| false, fresh, take)??;
        Some(SlotGuard { in_use, key })
    }

    /// Slots of a key taken now.
    #[must_use]
    pub fn taken(&self, name: &str, key: &str) -> u32 {
        let in_use = self.named.read().get(name).map(Arc::clone);
        let count = |in_use: Arc<InUse>| in_use.visit(key, |taken| taken.count, |_| false);
        in_use.and_then(count).unwrap_or(0)
    }

    fn named(&self, name: &str) -> Option<Arc<InUse>> {
        if let Some(known) = self.named.read().get(name) {
            return Some(Arc::clone(known));
        }
        let mut named = self.named.write();
        if named.len() >= NAMES_MAX {
            // Whoever is about to take a slot holds a count already.
            named.retain(|_, in_use| Arc::strong_count(in_use) > 1 || in_use.len() > 0);
        }
        if named.len() >= NAMES_MAX && !named.contains_key(name) {
            return None;
        }
        let entry = named.entry(name.into());
        Some(Arc::clone(
            entry.or_insert_with(|| Arc::new(Sharded::new(KEYS_MAX))),
        ))
    }
}

/// A slot taken. Dropping it gives the slot back.
#[derive(Debug)]
#[must_use = "dropping a slot guard gives the slot back"]
pub struct SlotGuard {
    in_use: Arc<InUse>,
    key: Arc<str>,
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let give_back = |taken: &mut Taken| taken.count = taken.count.saturating_sub(1);
        self.in_use
            .visit(&self.key, give_back, |taken| taken.count == 0);
    }
}

const NAMES_MAX: usize = 1024;
const KEYS_MAX: usize = 100_000;
const KEY_BYTES_MAX: usize = 512;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[test]
    fn slots_are_counted_by_name_and_key() {
        let slots = Slots::default();
        let first = slots.acquire("n", "k", 2).unwrap();
        let second = slots.acquire("n", "k", 2).unwrap();
        assert!(slots.acquire("n", "k", 2).is_none());
        assert!(slots.acquire("n", "other", 1).is_some());
        assert!(slots.acquire("other", "k", 1).is_some());
        assert!(slots.acquire("n", "k", 0).is_none());
        drop(first);
        assert_eq!(slots.taken("n", "k"), 1);
        let third = slots.acquire("n", "k", 2);
        assert!(third.is_some());
        drop((second, third));
        assert_eq!(slots.taken("n", "k"), 0);
        assert_eq!(
            slots.named("n").unwrap().len(),
            0,
            "unused keys are not kept"
        );
    }

    #[test]
    fn never_more_than_max_at_once() {
        let (slots, inside) = (Slots::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..3_000 {
                        if let Some(_guard) = slots.acquire("n", "k", 3) {
                            assert!(inside.fetch_add(1, SeqCst) < 3);
                            inside.fetch_sub(1, SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(slots.taken("n", "k"), 0);
    }

    #[test]
    fn unused_names_make_room() {
        let slots = Slots::default();
        let _held = slots.acquire("held", "k", 1).unwrap();
        for name in 0..3_000 {
            assert!(slots.acquire(&name.to_string(), "k", 1).is_some());
        }
        assert!(slots.acquire("held", "k", 1).is_none());
    }
}
