//! Where conversations were served last.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

/// What is known of the conversation an exchange belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Session {
    /// It has no key, or nothing is remembered of keys here.
    #[default]
    Unknown,
    /// Nobody has served it yet.
    New,
    /// This domain served it last, or is the first that was asked to; whether that still lives is for
    /// the candidate set to say.
    Served(Arc<str>),
}

/// Remembers the last domain of each conversation for a time; forgets the oldest when full.
#[derive(Debug)]
pub struct LastDomains {
    shards: Box<[Mutex<Shard>]>,
    ttl_ms: u64,
    per_shard_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<u128, Entry>,
    /// Keys by the time of their last writing; keys written again since are passed over.
    order: VecDeque<(u128, u64)>,
}

#[derive(Debug)]
struct Entry {
    domain: Arc<str>,
    until_ms: u64,
    /// It has been asked, and nobody has answered yet.
    is_expected: bool,
}

impl LastDomains {
    /// For at most about `entries_max` conversations, each remembered for `ttl_ms` after its
    /// last answer.
    #[must_use]
    pub fn new(entries_max: usize, ttl_ms: u64) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            ttl_ms,
            per_shard_max: entries_max.div_ceil(SHARDS).max(1),
        }
    }

    /// The key of a conversation of a model of a function.
    #[must_use]
    pub fn key(routing_key: &str, model: &str, affinity_key: &str) -> u128 {
        let mut hash = Xxh3::new();
        for part in [routing_key, model, affinity_key] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.digest128()
    }

    /// What is known of a conversation.
    #[must_use]
    pub fn session(&self, key: u128, now_ms: u64) -> Session {
        let shard = self.shard(key).map(Mutex::lock);
        let entry = shard.as_ref().and_then(|shard| shard.entries.get(&key));
        match entry.filter(|entry| now_ms < entry.until_ms) {
            Some(entry) => Session::Served(Arc::clone(&entry.domain)),
            None => Session::New,
        }
    }

    /// This domain has answered it well.
    pub fn remember(&self, key: u128, domain: &Arc<str>, now_ms: u64) {
        if let Some(mut shard) = self.shard(key).map(Mutex::lock) {
            self.put(&mut shard, key, domain, now_ms, false);
        }
    }

    /// This domain is asked now. Until somebody has answered a conversation well, others of it
    /// find who was asked last: what comes beside its first exchange goes where that went.
    pub fn expect(&self, key: u128, domain: &Arc<str>, now_ms: u64) {
        let Some(mut shard) = self.shard(key).map(Mutex::lock) else {
            return;
        };
        let known = shard.entries.get(&key);
        if known.is_none_or(|entry| entry.is_expected || entry.until_ms <= now_ms) {
            self.put(&mut shard, key, domain, now_ms, true);
        }
    }

    fn put(&self, shard: &mut Shard, key: u128, domain: &Arc<str>, now_ms: u64, is_expected: bool) {
        let until_ms = now_ms.saturating_add(self.ttl_ms);
        let entry = Entry {
            domain: Arc::clone(domain),
            until_ms,
            is_expected,
        };
        shard.entries.insert(key, entry);
        shard.order.push_back((key, until_ms));
        shard.shrink(now_ms, self.per_shard_max);
    }

    /// How many are remembered, outdated ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().entries.len())
            .sum()
    }

    /// Nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "any bits of the hash will do"
    )]
    fn shard(&self, key: u128) -> Option<&Mutex<Shard>> {
        self.shards.get(key as usize % SHARDS)
    }
}

impl Shard {
    /// Drops what is outdated or too much, the oldest first; a few at a time.
    fn shrink(&mut self, now_ms: u64, entries_max: usize) {
        while let Some((key, until_ms)) = self.order.front().copied() {
            let current = self
                .entries
                .get(&key)
                .is_some_and(|entry| entry.until_ms == until_ms);
            let drop_it = !current
                || until_ms <= now_ms
                || self.entries.len() > entries_max
                || self.order.len() > entries_max.saturating_mul(2);
            if !drop_it {
                return;
            }
            self.order.pop_front();
            if current {
                self.entries.remove(&key);
            }
        }
    }
}

const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_are_remembered_for_a_time() {
        let last = LastDomains::new(100, 1_000);
        let key = LastDomains::key("f", "m", "conversation");
        assert_ne!(key, LastDomains::key("fm", "", "conversation"));
        let domain: Arc<str> = "x".into();
        assert_eq!(last.session(key, 0), Session::New);
        last.remember(key, &domain, 0);
        assert_eq!(last.session(key, 999), Session::Served(Arc::clone(&domain)));
        assert_eq!(last.session(key, 1_000), Session::New);
        last.remember(key, &domain, 900);
        assert_eq!(last.session(key, 1_800), Session::Served(domain));
    }

    #[test]
    fn who_is_asked_first_is_known_until_somebody_answers() {
        let last = LastDomains::new(100, 1_000);
        let key = LastDomains::key("f", "m", "conversation");
        let [one, other]: [Arc<str>; 2] = ["one".into(), "other".into()];
        let check = |now_ms, domain: &Arc<str>| {
            assert_eq!(
                last.session(key, now_ms),
                Session::Served(Arc::clone(domain))
            );
        };
        last.expect(key, &one, 0);
        check(1, &one);
        last.expect(key, &other, 1);
        check(2, &other);
        last.remember(key, &one, 2);
        last.expect(key, &other, 3);
        check(4, &one);
        last.expect(key, &other, 1_002);
        check(1_003, &other);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go_first() {
        let last = LastDomains::new(160, 1_000_000);
        let domain: Arc<str> = "x".into();
        let key = |number: u64| LastDomains::key("f", "m", &number.to_string());
        for number in 0..10_000 {
            last.remember(key(number), &domain, number);
            last.remember(key(number), &domain, number);
        }
        assert!(last.len() <= 160 && !last.is_empty(), "{}", last.len());
        assert_ne!(last.session(key(9_999), 10_000), Session::New);
        assert_eq!(last.session(key(0), 10_000), Session::New);
        let queued: usize = last
            .shards
            .iter()
            .map(|shard| shard.lock().order.len())
            .sum();
        assert!(queued <= 2 * 160, "{queued}");
    }
}
