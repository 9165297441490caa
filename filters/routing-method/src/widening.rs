//! Waiting for a better candidate, and taking more of them in while one waits: what
//! `groq_multiregion` and `pulsar_multiregion` share.

use weir_sdk::candidates::{self, Figure};

use crate::buckets;
use crate::config::Compared;
use crate::power_of_two;
use crate::weights::Weights;
use crate::whole_fleet;

/// What became of one look at some candidates.
#[derive(Debug, PartialEq)]
pub(crate) enum Look {
    /// This one.
    Pick(u32),
    /// None now; ask again in this many milliseconds, if a time is known at which more open.
    Wait(Option<f64>),
}

/// How candidates are looked at.
pub(crate) struct Rules<'a> {
    /// Since when buckets open.
    pub(crate) budget_ms: f64,
    pub(crate) bucket_ms: f64,
    pub(crate) unlock_factor: f64,
    pub(crate) max_queued: u32,
    pub(crate) sample_count: u32,
    pub(crate) comparators: &'a [Compared],
    /// Share of the input that has to be worked through.
    pub(crate) input_scale: f64,
    /// Longest queue.
    pub(crate) queue_ms_max: Option<f64>,
    pub(crate) tried: &'a [u32],
    pub(crate) weights: &'a Weights,
}

/// Looks at a few candidates, or at all of `count`.
pub(crate) fn look(rules: &Rules<'_>, among: Option<&[u32]>, count: u32) -> Look {
    if among.is_none()
        && count > SMALL
        && let Some(look) = whole_fleet::look(rules, count)
    {
        return look;
    }
    let mut positions = among.map_or_else(|| (0..count).collect(), <[u32]>::to_vec);
    positions.retain(|position| !rules.tried.contains(position));
    positions = with_short_queue(rules, positions);
    let mut open = buckets::open(
        &ttfts_us(rules, &positions, among.is_none()),
        rules.budget_ms * 1e3,
        rules.bucket_ms * 1e3,
        rules.unlock_factor,
    );
    let sample = sample_with_room(rules, &mut open.positions);
    match least(rules, &sample) {
        Some(position) => Look::Pick(position),
        None => Look::Wait(open.next_us.map(|us| us / 1e3)),
    }
}

/// The least by the first comparator, of equals by the next.
pub(crate) fn least(rules: &Rules<'_>, sample: &[u32]) -> Option<u32> {
    let [first, more @ ..] = rules.comparators else {
        return sample.first().copied();
    };
    let best = power_of_two::best(*first, rules.weights, sample)?;
    let Some(next) = more.first() else {
        return Some(best);
    };
    let value = candidates::figure(best, first.figure());
    let equal: Vec<u32> = sample
        .iter()
        .copied()
        .filter(|position| candidates::figure(*position, first.figure()) == value)
        .collect();
    power_of_two::best(*next, rules.weights, &equal)
}

/// The predicted time to the first byte with that share of the input to be worked through.
pub(crate) fn ttft_us(position: u32, input_scale: f64) -> Option<f64> {
    let whole = candidates::figure(position, Figure::TtftUs)?;
    if input_scale >= 1.0 {
        return Some(whole);
    }
    let prefill = candidates::figure(position, Figure::PrefillUs)?;
    Some(whole - (1.0 - input_scale) * prefill)
}

/// Those whose queue is short enough.
pub(crate) fn with_short_queue(rules: &Rules<'_>, positions: Vec<u32>) -> Vec<u32> {
    match rules.queue_ms_max {
        Some(limit_ms) if !positions.is_empty() => {
            candidates::at_most(Figure::QueueUs, limit_ms * 1e3, &positions)
        }
        _ => positions,
    }
}

/// The predicted first byte of each; where they are `all`, or nearly, from one column.
fn ttfts_us(rules: &Rules<'_>, positions: &[u32], all: bool) -> Vec<(f64, u32)> {
    let column = all.then(|| candidates::column(Figure::TtftUs));
    let of = |position: u32| match &column {
        Some(column) => column.get(position as usize).copied(),
        None => ttft_us(position, rules.input_scale),
    };
    let each = positions.iter();
    each.filter_map(|position| Some((of(*position)?, *position)))
        .collect()
}

/// A random sample of those with room. Usually most have: then no more than it are asked about.
fn sample_with_room(rules: &Rules<'_>, left: &mut Vec<u32>) -> Vec<u32> {
    let wanted = rules.sample_count;
    let drawn = power_of_two::sample(left, wanted.saturating_mul(2));
    let with_room = drawn.iter().copied();
    let with_room = with_room.filter(|position| has_room(rules, *position));
    let found: Vec<u32> = with_room.take(wanted as usize).collect();
    if found.len() >= wanted as usize || drawn.len() == left.len() {
        return found;
    }
    *left = candidates::with_room(rules.max_queued, left);
    power_of_two::sample(left, wanted).to_vec()
}

/// Slots unknown are no limit.
pub(crate) fn has_room(rules: &Rules<'_>, position: u32) -> bool {
    let running = candidates::figure(position, Figure::Running);
    let slots = candidates::figure(position, Figure::Slots);
    let both = running.zip(slots);
    both.is_some_and(|(running, slots)| {
        slots <= 0.0 || running < slots + f64::from(rules.max_queued)
    })
}

/// How long to wait until something is looked at again, whole milliseconds.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded below and above"
)]
pub(crate) fn pause_ms(times: impl IntoIterator<Item = Option<f64>>) -> u32 {
    let soonest = times.into_iter().flatten().fold(RECHECK_MS, f64::min);
    soonest.ceil().max(1.0) as u32
}

/// Up to so many are looked at one by one.
const SMALL: u32 = 16;
/// Looked at again at least this often, whatever happens.
const RECHECK_MS: f64 = 25.0;
