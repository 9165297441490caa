//! Weighted rendezvous hashing: who comes first for a key.

use std::cmp::Ordering;

/// What a candidate's weight is in the ranking of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighting {
    /// The configured one.
    Configured,
    /// The reported mean input rate, in steps of 5 %.
    InputTps,
    /// The greatest reported input rate, in steps of 5 %.
    MaxInputTps,
}

/// `w / (-ln u)`, whose greatest wins: each wins a share of the keys by its weight.
pub(crate) fn score(weight: f64, hash: u64) -> f64 {
    weight / -unit(hash).ln()
}

/// The best few by score so far, best first. Most logarithms are never taken: `-ln u >= 1 - u`, so
/// that `w / (1 - u)` bounds the score, and so does the weight over anything less than `1 - u`.
pub(crate) struct Best<P> {
    count: usize,
    scored: Vec<(f64, u32)>,
    /// What one has to reach to come in.
    floor: f64,
    /// Settles equal scores.
    precedes: P,
}

impl<P: Fn(u32, u32) -> bool> Best<P> {
    /// The best `count`: a few, for each that comes in is put in its place among them.
    pub(crate) fn new(count: usize, precedes: P) -> Self {
        Self {
            count,
            scored: Vec::with_capacity(count + 1),
            floor: 0.0,
            precedes,
        }
    }

    /// Takes a candidate in. One without weight has no share of the keys.
    #[inline]
    pub(crate) fn offer(&mut self, weight: f64, hash: u64, position: u32) {
        if weight > 0.0 && weight >= self.floor * complement(hash) {
            self.place(score(weight, hash), position);
        }
    }

    fn place(&mut self, score: f64, position: u32) {
        let after = |(other, at): &(f64, u32)| match score.total_cmp(other) {
            Ordering::Less => true,
            Ordering::Equal => (self.precedes)(*at, position),
            Ordering::Greater => false,
        };
        let place = self.scored.partition_point(after);
        self.scored.insert(place, (score, position));
        if self.scored.len() > self.count {
            self.scored.pop();
        }
        if self.scored.len() == self.count {
            self.floor = self
                .scored
                .last()
                .map_or(f64::INFINITY, |(score, _)| *score);
        }
    }

    pub(crate) fn positions(self) -> Vec<u32> {
        self.scored
            .into_iter()
            .map(|(_, position)| position)
            .collect()
    }
}

/// `(h + 1) / (2^64 + 1)` as near as a double comes, but below 1, whose logarithm is 0.
#[allow(clippy::cast_precision_loss, reason = "the nearest double is meant")]
fn unit(hash: u64) -> f64 {
    ((hash as f64 + 1.0) / 18_446_744_073_709_551_617.0).min(1.0 - f64::EPSILON / 2.0)
}

/// At most `1 - unit(hash)`, and cheaper.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    reason = "53 bits, which are exact; a signed number is converted in one step"
)]
fn complement(hash: u64) -> f64 {
    (!hash >> 11) as i64 as f64 * (f64::EPSILON / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_has_a_finite_score() {
        for hash in [
            0,
            1,
            1 << 11,
            1 << 53,
            1 << 63,
            u64::MAX - 1024,
            u64::MAX - 1,
            u64::MAX,
        ] {
            assert!(unit(hash) > 0.0 && unit(hash) < 1.0, "{hash}");
            assert!(
                score(1.0, hash).is_finite() && score(1.0, hash) > 0.0,
                "{hash}"
            );
            assert!(complement(hash) <= 1.0 - unit(hash), "{hash}");
        }
    }

    #[test]
    fn the_bound_never_changes_who_wins() {
        let mut state = 1_u64;
        let mut next = || {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        for _ in 0..2_000 {
            let entries: Vec<(f64, u64)> = (0..20)
                .map(|_| (f64::from((next() % 50) as u32), next()))
                .collect();
            let mut scored: Vec<(f64, u32)> = (0..)
                .zip(&entries)
                .filter(|(_, (weight, _))| *weight > 0.0)
                .map(|(position, (weight, hash))| (score(*weight, *hash), position))
                .collect();
            scored.sort_by(|one, other| other.0.total_cmp(&one.0));
            for count in [0, 1, 3, 20, 25] {
                let mut best = Best::new(count, |one, other| one < other);
                for (position, (weight, hash)) in (0..).zip(&entries) {
                    best.offer(*weight, *hash, position);
                }
                let expected = scored.iter().map(|(_, position)| *position).take(count);
                assert_eq!(
                    best.positions(),
                    expected.collect::<Vec<u32>>(),
                    "{count} of {entries:?}"
                );
            }
        }
    }
}
