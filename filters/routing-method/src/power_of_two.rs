//! `power_of_two`: the better of a few drawn at random.
//!
//! Nearly as good as looking at all of them, and without the herd that runs to the one that
//! looked best a moment ago.

use weir_sdk::candidates::{self, Load};
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
    let sample = draw(config.choices, count, tried);
    if config.figure == Compared::EstWaitUs {
        // The host alone can tell this one; equals are its choice.
        return candidates::least(config.figure.figure(), &sample);
    }
    let mut best: Option<(u32, f64)> = None;
    for position in sample {
        let Some(load) = candidates::load(position) else {
            continue;
        };
        let cost = cost(config.figure, &load, weights.weight(position));
        // The sample is in random order, so the first of equals is a random one.
        if best.is_none_or(|(_, least)| cost < least) {
            best = Some((position, cost));
        }
    }
    best.map(|(position, _)| position)
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
    let wanted = left.len().min(choices as usize);
    for at in 0..wanted {
        let span = u32::try_from(left.len() - at).unwrap_or(u32::MAX);
        left.swap(at, at + host::random_below(span) as usize);
    }
    left.truncate(wanted);
    left
}

fn below(bits: u64, bound: u32) -> u32 {
    u32::try_from(bits % u64::from(bound)).unwrap_or(0)
}

/// Less is better. Amounts of work are per weight; qualities of one backend are not.
#[allow(clippy::cast_precision_loss, reason = "compared, not counted")]
fn cost(figure: Compared, load: &Load, weight: u64) -> f64 {
    if weight == 0 {
        return f64::INFINITY;
    }
    let share = weight as f64;
    match figure {
        // One more for the request itself: an idle heavy backend beats an idle light one.
        Compared::Running => (f64::from(load.running) + 1.0) / share,
        Compared::Queued => (f64::from(load.queued) + 1.0) / share,
        Compared::QueuedInputTokens => (load.queued_input_tokens as f64 + 1.0) / share,
        Compared::KvFreeTokens => -(load.kv_free_tokens as f64),
        Compared::EwmaTtftUs => f64::from(load.ewma_ttft_us),
        Compared::EstWaitUs => 0.0,
    }
}

const LOW_BITS: u64 = (1 << 26) - 1;
