//! `power_of_two`: the better of a few drawn at random.
//!
//! Nearly as good as looking at all of them, and without the herd that runs to the one that
//! looked best a moment ago.

use weir_sdk::candidates;
use weir_sdk::host;

use crate::config::{Compared, PowerOfTwo};
use crate::weights::Weights;

/// The best of `choices` distinct positions that were not tried yet.
pub(crate) fn pick(
    config: PowerOfTwo,
    weights: &Weights,
    count: u32,
    tried: &[u32],
) -> Option<u32> {
    best(config.figure, weights, &draw(config.choices, count, tried))
}

/// The best of a sample in random order; the first of equals, which is a random one.
pub(crate) fn best(compared: Compared, weights: &Weights, sample: &[u32]) -> Option<u32> {
    let mut best: Option<(u32, f64)> = None;
    for position in sample {
        let weight = weights.weight(*position);
        let Some(figure) = candidates::figure(*position, compared.figure()) else {
            continue;
        };
        let cost = if weight == 0 {
            f64::INFINITY
        } else {
            compared.cost(figure, weight)
        };
        if best.is_none_or(|(_, least)| cost < least) {
            best = Some((*position, cost));
        }
    }
    best.map(|(position, _)| position)
}

/// Some of a list, distinct, in random order; the list is left in disorder.
pub(crate) fn sample(from: &mut [u32], wanted: u32) -> &[u32] {
    let wanted = from.len().min(wanted as usize);
    for at in 0..wanted {
        let span = u32::try_from(from.len() - at).unwrap_or(u32::MAX);
        from.swap(at, at + host::random_below(span) as usize);
    }
    from.get(..wanted).unwrap_or_default()
}

/// Distinct positions in random order.
fn draw(choices: u32, count: u32, tried: &[u32]) -> Vec<u32> {
    if choices == 2 && tried.is_empty() && count > 1 {
        // The usual case in one host call: 53 random bits are two 26-bit draws.
        let bits = host::random();
        let first = below(bits & LOW_BITS, count);
        let second = below(bits >> 26 & LOW_BITS, count - 1);
        return vec![first, if second >= first { second + 1 } else { second }];
    }
    let mut left: Vec<u32> = (0..count)
        .filter(|position| !tried.contains(position))
        .collect();
    sample(&mut left, choices).to_vec()
}

fn below(bits: u64, bound: u32) -> u32 {
    u32::try_from(bits % u64::from(bound)).unwrap_or(0)
}

const LOW_BITS: u64 = (1 << 26) - 1;
