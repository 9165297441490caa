//! The candidates of one exchange, and the questions a routing method asks of them.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed},
};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::candidate::Candidate;
use crate::least::Least;
use crate::load::{Figure, Load};
use crate::prediction::Demand;
use crate::rendezvous::{Weighting, floors, score_from};
use crate::report::STEPS_TAKEN;
use crate::ring::Ring;
use crate::tails::Tails;

/// The hashes of one key with every candidate of a set: the dear part of a ranking.
#[derive(Debug, Default)]
pub struct KeyHashes {
    generation: u64,
    prefix: Vec<u8>,
    hashes: Vec<u64>,
}

/// The members of a set, shared by all exchanges that see the same ones.
#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) generation: u64,
    pub(crate) entries: Vec<Candidate>,
    pub(crate) cursor: Arc<AtomicU64>,
    tails: Tails,
    rings: Mutex<Vec<Arc<Ring>>>,
    weights: Mutex<Option<KnownWeights>>,
}

/// The weights of a set by the rule that was asked for last.
#[derive(Debug)]
struct KnownWeights {
    weighting: Weighting,
    steps: u64,
    weights: Weights,
}

/// Weights in rankings, in order of position.
#[derive(Debug, Clone)]
struct Weights {
    each: Arc<[f64]>,
    sum: f64,
}

impl Members {
    pub(crate) fn new(generation: u64, entries: Vec<Candidate>, cursor: Arc<AtomicU64>) -> Self {
        let tails = Tails::new(entries.iter().map(|candidate| candidate.id().as_ref()));
        Self {
            generation,
            entries,
            cursor,
            tails,
            rings: Mutex::default(),
            weights: Mutex::default(),
        }
    }

    /// The weights in rankings by a rule. Reported rates move in steps, so that they are seldom made
    /// anew.
    fn weights(&self, weighting: Weighting) -> Weights {
        let steps = STEPS_TAKEN.load(Acquire);
        let same = |known: &&KnownWeights| known.weighting == weighting && known.steps == steps;
        if let Some(known) = self.weights.lock().as_ref().filter(same) {
            return known.weights.clone();
        }
        let each = weights(&self.entries, weighting);
        let weights = Weights {
            sum: each.iter().sum(),
            each,
        };
        // The rate of several backends together has steps of its own, which nobody counts.
        if self.entries.iter().all(Candidate::is_one) {
            *self.weights.lock() = Some(KnownWeights {
                weighting,
                steps,
                weights: weights.clone(),
            });
        }
        weights
    }

    /// The ring of a prefix; the last few are kept, since building one is dear.
    fn ring(&self, prefix: &[u8], nodes: u32) -> Arc<Ring> {
        let each_max = NODES_MAX / self.entries.len().max(1);
        let nodes = nodes.clamp(1, u32::try_from(each_max.max(1)).unwrap_or(u32::MAX));
        let prefix_hash = xxh3_64(prefix);
        let alike = |ring: &&Arc<Ring>| ring.prefix_hash == prefix_hash && ring.nodes == nodes;
        if let Some(known) = self.rings.lock().iter().find(alike) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(Ring::new(prefix, nodes, &self.entries));
        let mut rings = self.rings.lock();
        if rings.len() >= RINGS_MAX {
            rings.remove(0);
        }
        rings.push(Arc::clone(&fresh));
        fresh
    }
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
        Some(self.at(position)?.load(self.now_ms))
    }

    /// One live figure of one.
    #[must_use]
    pub fn figure_at(&self, position: u32, figure: Figure, demand: &Demand) -> Option<f64> {
        Some(self.at(position)?.figure(figure, demand, self.now_ms))
    }

    /// The position of a domain by its name.
    #[must_use]
    pub fn position_of(&self, domain: &str) -> Option<u32> {
        let hash = xxh3_64(domain.as_bytes());
        let same = |candidate: &Candidate| {
            candidate.id_hash() == hash && candidate.id().as_ref() == domain
        };
        u32::try_from(self.iter().position(same)?).ok()
    }

    /// One figure of all, in order of position, as an exchange with this demand sees it.
    #[must_use]
    pub fn column(&self, figure: Figure, demand: &Demand) -> Vec<f64> {
        self.figures(figure, demand, Vec::with_capacity(self.len()))
    }

    /// The position with the least figure among `among` (empty = all; positions that do not
    /// exist are passed over). Equals are chosen among evenly, so that idle backends fill up
    /// together.
    #[must_use]
    pub fn least(&self, figure: Figure, demand: &Demand, among: &[u32]) -> Option<u32> {
        if among.is_empty() {
            return self.figures(figure, demand, Least::default()).position;
        }
        let mut best = Least::default();
        for position in among {
            if let Some(value) = self.figure_at(*position, figure, demand) {
                best.offer(value, *position);
            }
        }
        best.position
    }

    /// One figure of all, added up.
    #[must_use]
    pub fn total(&self, figure: Figure, demand: &Demand) -> Total {
        self.figures(figure, demand, Total::default())
    }

    /// Those among `among` (empty = all; positions that do not exist are left out) whose figure is at
    /// most `limit`, in that order.
    #[must_use]
    pub fn at_most(&self, figure: Figure, limit: f64, demand: &Demand, among: &[u32]) -> Vec<u32> {
        if among.is_empty() {
            let found = Vec::new();
            return self.figures(figure, demand, AtMost { limit, found }).found;
        }
        let is_at_most = |position: &u32| {
            let value = self.figure_at(*position, figure, demand);
            value.is_some_and(|value| value <= limit)
        };
        among.iter().copied().filter(is_at_most).collect()
    }

    /// Those among `among` (as for [`CandidateSet::at_most`]) that run fewer than their slots plus
    /// `queued_max`; slots unknown are no limit.
    #[must_use]
    pub fn with_room(&self, queued_max: u32, among: &[u32]) -> Vec<u32> {
        let demand = Demand::default();
        let mut found = Vec::new();
        each(&self.members.entries, among, |position, candidate| {
            let figure = |figure| candidate.figure(figure, &demand, self.now_ms);
            let slots = figure(Figure::Slots);
            if slots <= 0.0 || figure(Figure::Running) < slots + f64::from(queued_max) {
                found.push(position);
            }
        });
        found
    }

    /// Shows a figure of all to whatever makes something of it, in order of position. Those that
    /// choices compare by have loops of their own, which do not ask for each candidate which figure
    /// it is.
    #[inline]
    fn figures<T: Extend<f64>>(&self, figure: Figure, demand: &Demand, mut into: T) -> T {
        let (demand, now_ms) = (*demand, self.now_ms);
        let value = |one: &Candidate, figure| one.figure(figure, &demand, now_ms);
        match figure {
            Figure::Running => into.extend(self.iter().map(|one| value(one, Figure::Running))),
            Figure::TtftUs => into.extend(self.iter().map(|one| value(one, Figure::TtftUs))),
            Figure::MaxInputTps => {
                into.extend(self.iter().map(|one| value(one, Figure::MaxInputTps)));
            }
            figure => into.extend(self.iter().map(|one| value(one, figure))),
        }
        into
    }

    /// The first `n` positions in the order of weighted rendezvous hashing: the same key
    /// meets the same candidate in every process, a share of keys proportional to weight
    /// prefers each, and a leaving candidate moves its own keys only.
    #[must_use]
    pub fn rendezvous(&self, key_hash: u64, n: usize) -> Vec<u32> {
        let hash = |position| {
            let mut pair = [0_u8; 16];
            let (key, id) = pair.split_at_mut(8);
            key.copy_from_slice(&key_hash.to_le_bytes());
            let id_hash = self.at(position).map_or(0, Candidate::id_hash);
            id.copy_from_slice(&id_hash.to_le_bytes());
            xxh3_64(&pair)
        };
        self.ranking(hash, Weighting::Configured, &[], n)
    }

    /// The same for a key of bytes, among `among` (empty = all): the hash of a candidate is
    /// `xxh3_64(prefix || len as u64 LE || id)` with the name of its domain, so `prefix` is the
    /// key and whatever marks the field of the name.
    ///
    /// `known` keeps the hashes for the next question about the same key, be it of another
    /// exchange.
    #[must_use]
    pub fn rendezvous_by(
        &self,
        prefix: &[u8],
        weighting: Weighting,
        among: &[u32],
        n: usize,
        known: &mut KeyHashes,
    ) -> Vec<u32> {
        if known.generation != self.generation() || known.prefix != prefix {
            known.hashes.clear();
            self.members.tails.hash_behind(prefix, &mut known.hashes);
            known.prefix.clear();
            known.prefix.extend_from_slice(prefix);
            known.generation = self.generation();
        }
        let hash = |position: u32| {
            let known = known.hashes.get(position as usize);
            known.copied().unwrap_or_default()
        };
        self.ranking(hash, weighting, among, n)
    }

    /// The first `n` different candidates on a ring of `nodes` virtual nodes for each: from
    /// `xxh3_64(key)` upwards. A node is at `xxh3_64(prefix || len || id || 0x06 0xff || 8 as u64
    /// LE || number as u64 LE)`. All nodes together are at most 2^18, so that beyond about 1,700
    /// candidates each has fewer than 150.
    #[must_use]
    pub fn ring(&self, prefix: &[u8], key: &[u8], nodes: u32, n: usize) -> Vec<u32> {
        let ring = self.members.ring(prefix, nodes);
        ring.first(xxh3_64(key), n.min(self.len()))
    }

    /// The next value of the cluster's round-robin cursor, which counts on over reloads.
    #[must_use]
    pub fn next_cursor(&self) -> u64 {
        self.members.cursor.fetch_add(1, Relaxed)
    }

    fn ranking(
        &self,
        hash: impl Fn(u32) -> u64,
        weighting: Weighting,
        among: &[u32],
        n: usize,
    ) -> Vec<u32> {
        let weights = self.members.weights(weighting);
        let count = if among.is_empty() {
            self.len()
        } else {
            among.len()
        };
        let n = n.min(count);
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        let share = count as f64 / self.len().max(1) as f64;
        let mut scored: Vec<(f64, u32)> = Vec::new();
        for floor in floors(n, count, share * weights.sum) {
            scored.clear();
            each(&weights.each, among, |position, weight| {
                let reached = score_from(*weight, hash(position), floor);
                scored.extend(reached.map(|score| (score, position)));
            });
            if scored.len() >= n {
                break;
            }
        }
        let order = |one: &(f64, u32), other: &(f64, u32)| {
            other.0.total_cmp(&one.0).then_with(|| {
                let id = |position| self.at(position).map(Candidate::id);
                id(one.1).cmp(&id(other.1))
            })
        };
        if n < scored.len() {
            scored.select_nth_unstable_by(n, order);
        }
        scored.truncate(n);
        scored.sort_unstable_by(order);
        scored.into_iter().map(|(_, position)| position).collect()
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

/// Shows `act` the entries at `among` that exist, in that order; all when it is empty.
#[inline]
fn each<'a, T>(entries: &'a [T], among: &[u32], mut act: impl FnMut(u32, &'a T)) {
    if among.is_empty() {
        for (entry, position) in entries.iter().zip(0..) {
            act(position, entry);
        }
    } else {
        for position in among {
            if let Some(entry) = entries.get(*position as usize) {
                act(*position, entry);
            }
        }
    }
}

/// A figure that is not known of one counts as the mean of the others; known of nobody, the
/// configured weights decide.
fn weights(entries: &[Candidate], weighting: Weighting) -> Arc<[f64]> {
    let by = |weighting| move |candidate: &Candidate| candidate.weight_by(weighting);
    let (mut sum, mut known) = (0.0, 0_u32);
    for weight in entries.iter().filter_map(by(weighting)) {
        sum += weight;
        known += 1;
    }
    if known == 0 {
        let configured = entries.iter().map(by(Weighting::Configured));
        return configured.map(Option::unwrap_or_default).collect();
    }
    let mean = sum / f64::from(known);
    let weights = entries.iter().map(by(weighting));
    weights.map(|weight| weight.unwrap_or(mean)).collect()
}

/// A figure of all candidates together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Total {
    /// All of them.
    pub sum: f64,
    /// How many are above 0.
    pub known: u32,
}

impl Extend<f64> for Total {
    #[inline]
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        for value in values {
            self.sum += value;
            self.known += u32::from(value > 0.0);
        }
    }
}

/// The positions of figures up to a limit.
struct AtMost {
    limit: f64,
    found: Vec<u32>,
}

/// By all positions, in their order.
impl Extend<f64> for AtMost {
    #[inline]
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        let at_most = values.into_iter().zip(0..);
        let at_most = at_most.filter(|(value, _)| *value <= self.limit);
        self.found.extend(at_most.map(|(_, position)| position));
    }
}

/// Rings kept of one set of candidates.
const RINGS_MAX: usize = 8;
/// Most virtual nodes of one ring: 4 MiB.
const NODES_MAX: usize = 1 << 18;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::cluster::{Cluster, ClusterSpec, MemberSpec};
    use crate::fleet::Fleet;
    use crate::report::Report;

    fn cluster(weights: &[u32]) -> Arc<Cluster> {
        let member =
            |(i, weight): (usize, &u32)| MemberSpec::new(&format!("10.0.0.{i}:8000"), *weight);
        let members = weights.iter().enumerate().map(member).collect();
        Fleet::default().cluster(&ClusterSpec::new("c", members), 0)
    }

    const KEYS: u64 = 200_000;
    const ANY: Demand = Demand {
        input_tokens: 0,
        priority: 0,
    };

    #[test]
    fn the_least_of_many_equals_is_any_of_them() {
        let all = cluster(&[1; 1000]).candidates(1, &[]);
        let mut quarters = [0_u32; 4];
        for _ in 0..4_000 {
            let least = all.least(Figure::Running, &Demand::default(), &[]);
            quarters[least.unwrap() as usize / 250] += 1;
        }
        // Four standard deviations.
        let even = |count: &u32| (890..=1_110).contains(count);
        assert!(quarters.iter().all(even), "{quarters:?}");
    }

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
            let after: Vec<u32> = after
                .iter()
                .map(|p| fewer.at(*p).unwrap().members().next().unwrap().index)
                .collect();
            let expected: Vec<u32> = before.into_iter().filter(|p| *p != 5).collect();
            assert_eq!(after, expected);
            assert_eq!(full.rendezvous(key, 3), full.rendezvous(key, 8)[..3]);
        }
        assert!(full.rendezvous(1, 0).is_empty());
    }

    #[test]
    fn least_finds_the_least_and_spreads_equals() {
        let all = cluster(&[1; 4]);
        let set = all.candidates(0, &[]);
        let mut picks = [0_u32; 4];
        for _ in 0..40_000 {
            picks[set.least(Figure::Running, &ANY, &[]).unwrap() as usize] += 1;
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
                set.least(Figure::Running, &ANY, among),
                expected,
                "among {among:?}"
            );
        };
        check(&[], Some(2));
        check(&[0, 1], Some(1));
        check(&[9, 0], Some(0));
        check(&[9], None);
        assert_eq!(set.column(Figure::Running, &ANY), [2.0, 1.0, 0.0, 1.0]);
        let total = set.total(Figure::Running, &ANY);
        assert_eq!((total.sum, total.known), (4.0, 3));
        for (limit, among, expected) in [
            (1.0, &[][..], &[1, 2, 3][..]),
            (0.5, &[], &[2]),
            (1.0, &[3, 9, 0, 1], &[3, 1]),
            (-1.0, &[], &[]),
        ] {
            let found = set.at_most(Figure::Running, limit, &ANY, among);
            assert_eq!(found, expected, "{limit} among {among:?}");
        }
        assert_eq!(set.load_at(0).unwrap().running, 2);
        assert!(set.load_at(4).is_none());
    }

    #[test]
    fn room_is_what_slots_leave() {
        let all = cluster(&[1; 4]);
        for (member, slots) in all.backends().iter().zip([1, 2, 0, 1]) {
            let report = Report {
                slots,
                ..Report::default()
            };
            member.backend.report(&report, 1);
        }
        let set = all.candidates(1, &[]);
        let _held: Vec<_> = [0, 0, 1, 2, 3]
            .iter()
            .map(|i| set.at(*i).unwrap().reserve())
            .collect();
        assert_eq!(set.with_room(0, &[]), [1, 2], "a slot, or none known");
        assert_eq!(set.with_room(1, &[]), [1, 2, 3], "one may wait");
        assert_eq!(set.with_room(0, &[3, 2, 9, 0]), [2]);
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
