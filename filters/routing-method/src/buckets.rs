//! Candidates in the order of their predicted first byte, opened bucket by bucket.

/// Which candidates are open.
#[derive(Debug, PartialEq)]
pub(crate) struct Open {
    /// Positions, in no order.
    pub(crate) positions: Vec<u32>,
    /// Microseconds until the next bucket opens; none: all are open.
    pub(crate) next_us: Option<f64>,
}

/// Until when a bucket's first has to answer for the bucket to be open, where the very first of all
/// answers at `least_us`.
pub(crate) fn reach_us(least_us: f64, budget_us: f64, factor: f64) -> f64 {
    if factor > 0.0 {
        least_us + budget_us.max(0.0) / factor
    } else {
        f64::INFINITY
    }
}

/// Those that are open after waiting `budget_us`.
///
/// A bucket holds all within `size_us` of its first. Opening the next one costs `factor` of how
/// much later its first would answer. The costs of several add up to the distance from the very
/// first, so a bucket is open when its first is within `budget_us / factor` of that one; only
/// buckets behind the first have to be told apart, and seldom.
pub(crate) fn open(ttfts_us: &[(f64, u32)], budget_us: f64, size_us: f64, factor: f64) -> Open {
    let least = ttfts_us
        .iter()
        .fold(f64::INFINITY, |least, (ttft, _)| least.min(*ttft));
    let reach = reach_us(least, budget_us, factor);
    let mut positions = Vec::new();
    let mut behind: Vec<f64> = Vec::new();
    let mut next = f64::INFINITY;
    let first_end = least + size_us;
    for (ttft, position) in ttfts_us {
        if *ttft <= first_end || *ttft <= reach {
            positions.push(*position);
        }
        if *ttft > first_end {
            next = next.min(*ttft);
            if *ttft <= reach + size_us {
                behind.push(*ttft);
            }
        }
    }
    if next > reach {
        let next_us = next.is_finite().then_some((next - reach) * factor);
        return Open { positions, next_us };
    }
    behind.sort_unstable_by(f64::total_cmp);
    // The first of the last bucket that is open: all within its size are open as well.
    let (mut start, mut locked) = (next, f64::INFINITY);
    for ttft in behind {
        if ttft > start + size_us {
            if ttft > reach {
                locked = ttft;
                break;
            }
            start = ttft;
        }
    }
    let end = start + size_us;
    let mut beyond = locked;
    for (ttft, position) in ttfts_us {
        if *ttft > reach && *ttft > first_end {
            if *ttft <= end {
                positions.push(*position);
            } else {
                beyond = beyond.min(*ttft);
            }
        }
    }
    let next_us = beyond.is_finite().then_some((beyond - reach) * factor);
    Open { positions, next_us }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "exact by construction")]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// The rule word for word: sorted, bucket by bucket, the budget spent.
    fn slowly(
        ttfts: &[(f64, u32)],
        budget: f64,
        size: f64,
        factor: f64,
    ) -> (Vec<u32>, Option<f64>) {
        let mut sorted = ttfts.to_vec();
        sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (mut open, mut left, mut start) = (Vec::new(), budget, None::<f64>);
        for (ttft, position) in sorted {
            match start {
                None => start = Some(ttft),
                Some(first) if ttft > first + size => {
                    let cost = (ttft - first) * factor;
                    if cost > left {
                        return (open, Some(cost - left));
                    }
                    left -= cost;
                    start = Some(ttft);
                }
                Some(_) => {}
            }
            open.push(position);
        }
        (open, None)
    }

    #[test]
    fn buckets_open_one_after_the_other() {
        // First at 100; buckets 100..=120, 130..=150, 300.
        let ttfts = [(130.0, 0), (100.0, 1), (120.0, 2), (150.0, 3), (300.0, 4)];
        let table: [(f64, &[u32], Option<f64>); 4] = [
            (0.0, &[1, 2], Some(7.5)),
            (7.5, &[0, 1, 2, 3], Some(42.5)),
            (49.0, &[0, 1, 2, 3], Some(1.0)),
            (50.0, &[0, 1, 2, 3, 4], None),
        ];
        for (budget, expected, next) in table {
            let mut found = open(&ttfts, budget, 20.0, 0.25);
            found.positions.sort_unstable();
            assert_eq!(found.positions, expected, "{budget}");
            assert_eq!(found.next_us, next, "{budget}");
        }
        let all = open(&ttfts, 0.0, 20.0, 0.0);
        assert_eq!((all.positions.len(), all.next_us), (5, None));
        assert!(open(&[], 5.0, 20.0, 0.25).positions.is_empty());
    }

    #[test]
    fn it_is_the_rule_for_any_times() {
        let mut random = Rng::with_seed(7);
        let mut next = |bound: u32| random.u32(..bound);
        for round in 0..2_000 {
            let count = next(30);
            let ttfts: Vec<(f64, u32)> = (0..count).map(|at| (f64::from(next(800)), at)).collect();
            let budget = f64::from(next(300));
            let mut found = open(&ttfts, budget, 20.0, 0.25);
            let (mut expected, wait) = slowly(&ttfts, budget, 20.0, 0.25);
            found.positions.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found.positions, expected, "{round}: {ttfts:?} {budget}");
            assert_eq!(found.next_us, wait, "{round}: {ttfts:?} {budget}");
        }
    }
}
