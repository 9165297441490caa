//! Figures made from samples: percentiles, balance, medians.

/// Percentiles of times, in the unit of the samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
}

impl Percentiles {
    /// Not a number where there is no sample.
    pub(crate) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Self {
            p50: at(&sorted, 0.5),
            p95: at(&sorted, 0.95),
            p99: at(&sorted, 0.99),
        }
    }
}

/// The value below which a share of the sorted samples is: the nearest rank.
pub(crate) fn at(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    let place = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

/// The middle one; the mean of the middle two of an even number; not a number without any.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    let place = |place: usize| figures.get(place).copied().unwrap_or(f64::NAN);
    let lower = place(figures.len().saturating_sub(1) / 2);
    f64::midpoint(lower, place(figures.len() / 2))
}

/// How many times its share the busiest has: 1 is perfect. 1 when nobody has anything.
pub(crate) fn max_to_mean(amounts: &[f64]) -> f64 {
    let sum: f64 = amounts.iter().sum();
    if sum <= 0.0 {
        return 1.0;
    }
    let max = amounts.iter().copied().fold(0.0, f64::max);
    max * amounts.len() as f64 / sum
}

/// How much of the machines is used when the busiest is full, 0 to 1: 1 is perfect. `work` and
/// `capacity` are by machine, in the same unit.
pub(crate) fn capacity_balance(work: &[f64], capacity: &[f64]) -> f64 {
    let busy: Vec<f64> = work
        .iter()
        .zip(capacity)
        .map(|(work, capacity)| work / capacity.max(f64::MIN_POSITIVE))
        .collect();
    let max = busy.iter().copied().fold(0.0, f64::max);
    if max <= 0.0 {
        return 1.0;
    }
    let used: f64 = work.iter().sum();
    let total: f64 = capacity.iter().take(work.len()).sum();
    used / (max * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let found = Percentiles::of(&hundred);
        assert_eq!((found.p50, found.p95, found.p99), (50.0, 95.0, 99.0));
        let one = Percentiles::of(&[7.0]);
        assert_eq!((one.p50, one.p99), (7.0, 7.0));
        assert!(Percentiles::of(&[]).p50.is_nan());
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn balance() {
        for (amounts, expected) in [
            (&[1.0, 1.0, 1.0][..], 1.0),
            (&[3.0, 0.0, 0.0], 3.0),
            (&[2.0, 1.0, 0.0], 2.0),
            (&[0.0, 0.0], 1.0),
        ] {
            assert!(
                (max_to_mean(amounts) - expected).abs() < 1e-9,
                "{amounts:?}"
            );
        }
        for (work, capacity, expected) in [
            (&[4.0, 1.0][..], &[4.0, 1.0][..], 1.0),
            (&[1.0, 1.0], &[4.0, 1.0], 0.4),
            (&[8.0, 0.0], &[4.0, 4.0], 0.5),
            (&[0.0, 0.0], &[4.0, 1.0], 1.0),
        ] {
            let found = capacity_balance(work, capacity);
            assert!((found - expected).abs() < 1e-9, "{work:?} {found}");
        }
    }
}
