//! The backends one exchange may use, and the questions a routing method asks of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xxhash_rust::xxh3::xxh3_64;

use crate::backend::{Backend, Reservation};
use crate::load::{Figure, Load};

/// A backend as a value, at selection time.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Place in the cluster's configuration: what `excluded` lists. Not the position in a
    /// candidate set.
    pub index: u32,
    /// Configured weight, relative to the others'.
    pub weight: u32,
    /// Exchanges in progress it may hold; 0 = no limit.
    pub max_concurrency: u32,
    /// The backend itself.
    pub backend: Arc<Backend>,
}

impl Candidate {
    /// Claims it for one exchange; `None` when it holds `max_concurrency` already.
    #[must_use]
    pub fn reserve(&self) -> Option<Reservation> {
        self.backend.reserve(self.max_concurrency)
    }
}

/// The members of a set, shared by all exchanges that see the same ones.
#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) generation: u64,
    pub(crate) entries: Vec<Candidate>,
    pub(crate) cursor: Arc<AtomicU64>,
}

/// Those who may serve one exchange, as of one moment. Positions (`0..len`) are what filters
/// see and stay valid as long as the set; cloning it costs one counter.
#[derive(Debug, Clone)]
pub struct CandidateSet {
    members: Arc<Members>,
    now_ms: u64,
}

impl CandidateSet {
    pub(crate) fn new(members: Arc<Members>, now_ms: u64) -> Self {
        Self { members, now_ms }
    }

    /// Equal generations mean equal members at equal positions with equal static facts, in
    /// this process, whatever the cluster. Below 2^53.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.members.generation
    }

    /// Number of candidates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.entries.len()
    }

    /// Nobody may serve.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.entries.is_empty()
    }

    /// The candidate at a position.
    #[must_use]
    pub fn at(&self, position: u32) -> Option<&Candidate> {
        self.members.entries.get(usize::try_from(position).ok()?)
    }

    /// All of them, in order of position.
    pub fn iter(&self) -> std::slice::Iter<'_, Candidate> {
        self.members.entries.iter()
    }

    /// Live figures of one.
    #[must_use]
    pub fn load_at(&self, position: u32) -> Option<Load> {
        Some(self.at(position)?.backend.load(self.now_ms))
    }

    /// One figure of all, in order of position.
    #[must_use]
    pub fn column(&self, figure: Figure) -> Vec<f64> {
        let value = |candidate: &Candidate| candidate.backend.load(self.now_ms).figure(figure);
        self.iter().map(value).collect()
    }

    /// The position with the least figure among `among` (empty = all; positions that do not
    /// exist are passed over). Equals are chosen among evenly, so that idle backends fill up
    /// together.
    #[must_use]
    pub fn least(&self, figure: Figure, among: &[u32]) -> Option<u32> {
        let mut best = Least {
            value: f64::INFINITY,
            position: None,
            ties: 0,
            seed: self.members.cursor.load(Relaxed) ^ TIES.fetch_add(1, Relaxed),
        };
        if among.is_empty() {
            for (candidate, position) in self.iter().zip(0..) {
                best.offer(candidate.backend.load(self.now_ms).figure(figure), position);
            }
        } else {
            for position in among {
                if let Some(load) = self.load_at(*position) {
                    best.offer(load.figure(figure), *position);
                }
            }
        }
        best.position
    }

    /// The first `n` positions in the order of weighted rendezvous hashing: the same key
    /// meets the same backend in every process, a share of keys proportional to weight
    /// prefers each, and a leaving backend moves its own keys only.
    #[must_use]
    pub fn rendezvous(&self, key_hash: u64, n: usize) -> Vec<u32> {
        let score = |candidate: &Candidate| {
            let mut pair = [0_u8; 16];
            let (key, id) = pair.split_at_mut(8);
            key.copy_from_slice(&key_hash.to_le_bytes());
            id.copy_from_slice(&candidate.backend.id_hash().to_le_bytes());
            f64::from(candidate.weight) / -unit(xxh3_64(&pair)).ln()
        };
        let mut scored: Vec<(f64, u32)> = self.iter().map(score).zip(0..).collect();
        let n = n.min(scored.len());
        let order = |one: &(f64, u32), other: &(f64, u32)| {
            other.0.total_cmp(&one.0).then_with(|| {
                let id = |position| self.at(position).map(|candidate| candidate.backend.id());
                id(one.1).cmp(&id(other.1))
            })
        };
        if n > 0 && n < scored.len() {
            scored.select_nth_unstable_by(n - 1, order);
        }
        scored.truncate(n);
        scored.sort_unstable_by(order);
        scored.into_iter().map(|(_, position)| position).collect()
    }

    /// The next value of the cluster's round-robin cursor, which counts on over reloads.
    #[must_use]
    pub fn next_cursor(&self) -> u64 {
        self.members.cursor.fetch_add(1, Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn shares(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.members, &other.members)
    }
}

impl<'a> IntoIterator for &'a CandidateSet {
    type Item = &'a Candidate;
    type IntoIter = std::slice::Iter<'a, Candidate>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The running minimum, with one of several equals kept by a reservoir of one.
struct Least {
    value: f64,
    position: Option<u32>,
    ties: u64,
    seed: u64,
}

impl Least {
    fn offer(&mut self, value: f64, position: u32) {
        let first = self.position.is_none() || value < self.value;
        if !first && value > self.value {
            return;
        }
        self.ties = if first { 1 } else { self.ties + 1 };
        let mixed = (self.seed ^ (self.ties << 56)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        if first || (mixed >> 32).is_multiple_of(self.ties) {
            self.position = Some(position);
        }
        self.value = value;
    }
}

/// A hash as a number strictly between 0 and 1. 52 bits: with 53 the greatest rounds to 1,
/// whose logarithm is 0.
#[allow(clippy::cast_precision_loss, reason = "52 bits fit exactly")]
fn unit(hash: u64) -> f64 {
    ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

/// Sets successive choices among equals apart.
static TIES: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::backend::EjectionPolicy;
    use crate::cluster::{Cluster, ClusterSpec};
    use crate::fleet::Fleet;

    fn cluster(weights: &[u32]) -> Arc<Cluster> {
        let endpoint = |(i, weight): (usize, &u32)| (format!("10.0.0.{i}:8000"), *weight);
        Fleet::default().cluster(&ClusterSpec {
            name: "c".into(),
            endpoints: weights.iter().enumerate().map(endpoint).collect(),
            max_concurrency: 0,
            ejection: EjectionPolicy::default(),
            health: false,
        })
    }

    const KEYS: u64 = 200_000;

    #[test]
    fn rendezvous_shares_keys_by_weight() {
        let weights = [1, 2, 3, 4, 0];
        let set = cluster(&weights).candidates(0, &[]);
        assert_eq!(set.len(), 4, "weight 0 is no candidate");
        let mut firsts = [0_u64; 4];
        for key in 0..KEYS {
            firsts[set.rendezvous(xxh3_64(&key.to_le_bytes()), 1)[0] as usize] += 1;
        }
        for (count, weight) in firsts.iter().zip(weights) {
            let share = *count as f64 / KEYS as f64;
            let expected = f64::from(weight) / 10.0;
            assert!((share - expected).abs() < 0.01, "{firsts:?}");
        }
    }

    #[test]
    fn rendezvous_moves_only_the_keys_of_who_leaves() {
        let all = cluster(&[1; 8]);
        let (full, fewer) = (all.candidates(0, &[]), all.candidates(0, &[5]));
        for key in 0..20_000 {
            let before: Vec<u32> = full.rendezvous(key, 8);
            let after: Vec<u32> = fewer.rendezvous(key, 8);
            let after: Vec<u32> = after.iter().map(|p| fewer.at(*p).unwrap().index).collect();
            let expected: Vec<u32> = before.into_iter().filter(|p| *p != 5).collect();
            assert_eq!(after, expected);
            assert_eq!(full.rendezvous(key, 3), full.rendezvous(key, 8)[..3]);
        }
        assert!(full.rendezvous(1, 0).is_empty());
    }

    #[test]
    fn the_greatest_hash_has_a_finite_score() {
        assert!(unit(u64::MAX) < 1.0 && unit(0) > 0.0);
        assert!((-unit(u64::MAX).ln()) > 0.0);
    }

    #[test]
    fn least_finds_the_least_and_spreads_equals() {
        let all = cluster(&[1; 4]);
        let set = all.candidates(0, &[]);
        let mut picks = [0_u32; 4];
        for _ in 0..40_000 {
            picks[set.least(Figure::Running, &[]).unwrap() as usize] += 1;
        }
        assert!(
            picks.iter().all(|count| (9_000..11_000).contains(count)),
            "{picks:?}"
        );
        let _held: Vec<_> = [0, 0, 1, 3]
            .iter()
            .map(|i| set.at(*i).unwrap().reserve())
            .collect();
        let check = |among: &[u32], expected: Option<u32>| {
            assert_eq!(
                set.least(Figure::Running, among),
                expected,
                "among {among:?}"
            );
        };
        check(&[], Some(2));
        check(&[0, 1], Some(1));
        check(&[9, 0], Some(0));
        check(&[9], None);
        assert_eq!(set.column(Figure::Running), [2.0, 1.0, 0.0, 1.0]);
        assert_eq!(set.load_at(0).unwrap().running, 2);
        assert!(set.load_at(4).is_none());
    }

    #[test]
    fn the_cursor_counts_every_call_once() {
        let all = cluster(&[1; 3]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| _ = all.candidates(0, &[1]).next_cursor()));
            }
        });
        assert_eq!(all.candidates(0, &[]).next_cursor(), 4000);
    }
}
