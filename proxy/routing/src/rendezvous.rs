//! Weighted rendezvous hashing: who comes first for a key.

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

/// The running maximum of scores. Most logarithms are never taken: `-ln u >= 1 - u`, so that
/// `w / (1 - u)` bounds the score.
pub(crate) struct Best {
    score: f64,
    pub(crate) position: Option<u32>,
}

impl Best {
    pub(crate) fn new() -> Self {
        Self {
            score: 0.0,
            position: None,
        }
    }

    /// Takes a candidate in; `precedes` settles equal scores against the best so far.
    #[inline]
    pub(crate) fn offer(
        &mut self,
        weight: f64,
        hash: u64,
        position: u32,
        precedes: impl Fn(u32) -> bool,
    ) {
        if weight < self.score * (1.0 - unit(hash)) {
            return;
        }
        let score = score(weight, hash);
        let wins = match self.position {
            None => score > 0.0,
            Some(best) => {
                score > self.score || (score.total_cmp(&self.score).is_eq() && precedes(best))
            }
        };
        if wins {
            self.score = score;
            self.position = Some(position);
        }
    }
}

/// `(h + 1) / (2^64 + 1)` as near as a double comes, but below 1, whose logarithm is 0.
#[allow(clippy::cast_precision_loss, reason = "the nearest double is meant")]
fn unit(hash: u64) -> f64 {
    ((hash as f64 + 1.0) / 18_446_744_073_709_551_617.0).min(1.0 - f64::EPSILON / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_has_a_finite_score() {
        for hash in [0, 1, 1 << 63, u64::MAX - 1, u64::MAX] {
            assert!(unit(hash) > 0.0 && unit(hash) < 1.0, "{hash}");
            assert!(
                score(1.0, hash).is_finite() && score(1.0, hash) > 0.0,
                "{hash}"
            );
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
            let mut best = Best::new();
            for (position, (weight, hash)) in (0..).zip(&entries) {
                best.offer(*weight, *hash, position, |_| false);
            }
            let expected = (0..)
                .zip(&entries)
                .filter(|(_, (weight, _))| *weight > 0.0)
                .max_by(|(_, one), (_, other)| {
                    score(one.0, one.1).total_cmp(&score(other.0, other.1))
                })
                .map(|(position, _)| position);
            assert_eq!(best.position, expected, "{entries:?}");
        }
    }
}
