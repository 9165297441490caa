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

/// `w / (-ln u)`, whose greatest wins: each wins a share of the keys by its weight. None below
/// `floor`, and without weight.
///
/// Most logarithms are never taken: `-ln u >= 1 - u`, so that `w / (1 - u)` bounds the score, and so
/// does the weight over anything less than `1 - u`.
#[inline]
pub(crate) fn score_from(weight: f64, hash: u64, floor: f64) -> Option<f64> {
    if weight > 0.0 && weight >= floor * complement(hash) {
        let score = score(weight, hash);
        return (score >= floor).then_some(score);
    }
    None
}

fn score(weight: f64, hash: u64) -> f64 {
    weight / -unit(hash).ln()
}

/// Scores that the first `n` of `count` with weights of `sum` together are looked for above, one
/// after the other until so many are found; the last is 0, which all reach.
///
/// Above a score of `s`, great against every single weight, are `sum / s` on average, and twice what
/// is wanted and some is hardly ever too few; where few have most of the weight it is.
pub(crate) fn floors(n: usize, count: usize, sum: f64) -> impl Iterator<Item = f64> {
    let enough = n.saturating_mul(2).saturating_add(4);
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let first = sum / enough as f64;
    let steps = if enough < count { STEPS } else { &[] };
    let floors = steps.iter().map(move |step| first / step);
    floors.chain(std::iter::once(0.0))
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

/// By how much a floor goes down each time too few were found above it.
const STEPS: &[f64] = &[1.0, 16.0, 256.0];

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
    fn none_that_reach_the_floor_are_missed() {
        let mut state = 1_u64;
        let mut next = || {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        for _ in 0..50_000 {
            let (weight, hash) = (f64::from((next() % 50) as u32), next());
            let whole = score(weight, hash);
            for floor in [0.0, whole / 2.0, whole, whole.next_up(), f64::INFINITY] {
                let expected = (weight > 0.0 && whole >= floor).then_some(whole);
                assert_eq!(score_from(weight, hash, floor), expected, "{weight} {hash}");
            }
        }
    }

    #[test]
    fn floors_go_down_to_all() {
        let found: Vec<f64> = floors(8, 1_000, 64_000.0).collect();
        assert_eq!(found, [3_200.0, 200.0, 12.5, 0.0]);
        assert_eq!(floors(8, 20, 64_000.0).collect::<Vec<f64>>(), [0.0]);
        assert_eq!(floors(usize::MAX, 1_000, 1.0).collect::<Vec<f64>>(), [0.0]);
    }
}
