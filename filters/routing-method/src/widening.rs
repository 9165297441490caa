//! Waiting for a better candidate, and taking more of them in while one waits: what
//! `groq_multiregion` and `pulsar_multiregion` share.

use weir_sdk::candidates::{self, Figure};
use weir_sdk::host;

use crate::buckets;
use crate::config::Compared;
use crate::power_of_two;
use crate::weights::Weights;

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
    let ttfts_us = if let Some(few) = among {
        few.iter()
            .filter_map(|position| Some((ttft_us(*position, rules.input_scale)?, *position)))
            .collect()
    } else {
        if let Some(position) = drawn(rules, count) {
            return Look::Pick(position);
        }
        let column = candidates::column(Figure::TtftUs);
        column.into_iter().zip(0..count).collect()
    };
    let fit = within_queue(rules, ttfts_us, among.is_none());
    let open = buckets::open(
        &fit,
        rules.budget_ms * 1e3,
        rules.bucket_ms * 1e3,
        rules.unlock_factor,
    );
    let mut left = open.positions;
    let sample = with_room(rules, &mut left);
    match least(rules, &sample) {
        Some(position) => Look::Pick(position),
        None => Look::Wait(open.next_us.map(|us| us / 1e3)),
    }
}

/// The least by the first comparator, of equals by the next.
fn least(rules: &Rules<'_>, sample: &[u32]) -> Option<u32> {
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

/// The usual case without a list of those that are open: random ones are drawn until enough of
/// them are surely open and have room. The same distribution, for what a few draws cost; none
/// when they do not suffice. The host finds the least, so that no figures of all need be brought
/// here.
fn drawn(rules: &Rules<'_>, count: u32) -> Option<u32> {
    if rules.queue_ms_max.is_some() || !rules.tried.is_empty() || count <= DRAWS_MAX {
        return None;
    }
    let ttft_us = |position| candidates::figure(position, Figure::TtftUs);
    let least_us = ttft_us(candidates::least(Figure::TtftUs, &[])?)?;
    let reach_us = match rules.unlock_factor {
        factor if factor > 0.0 => rules.budget_ms.max(0.0) * 1e3 / factor,
        _ => f64::INFINITY,
    };
    let surely_us = least_us + reach_us.max(rules.bucket_ms * 1e3);
    let mut looked: Vec<u32> = Vec::with_capacity(DRAWS_MAX as usize);
    let mut sample: Vec<u32> = Vec::with_capacity(rules.sample_count as usize);
    for _ in 0..DRAWS_MAX {
        let position = host::random_below(count);
        if looked.contains(&position) {
            continue;
        }
        looked.push(position);
        let open = ttft_us(position).is_some_and(|ttft| ttft <= surely_us);
        if open && position_has_room(rules, position) {
            sample.push(position);
            if sample.len() >= rules.sample_count as usize {
                return least(rules, &sample);
            }
        }
    }
    None
}

fn position_has_room(rules: &Rules<'_>, position: u32) -> bool {
    let running = candidates::figure(position, Figure::Running);
    let slots = candidates::figure(position, Figure::Slots);
    running
        .zip(slots)
        .is_some_and(|(running, slots)| has_room(rules, running, slots))
}

/// Those that were not tried and whose queue is short enough.
fn within_queue(rules: &Rules<'_>, mut ttfts_us: Vec<(f64, u32)>, all: bool) -> Vec<(f64, u32)> {
    if !rules.tried.is_empty() {
        ttfts_us.retain(|(_, position)| !rules.tried.contains(position));
    }
    if let Some(limit_ms) = rules.queue_ms_max {
        let short = |us: Option<f64>| us.is_some_and(|us| us <= limit_ms * 1e3);
        if all {
            let queues = candidates::column(Figure::QueueUs);
            ttfts_us.retain(|(_, at)| short(queues.get(*at as usize).copied()));
        } else {
            ttfts_us.retain(|(_, at)| short(candidates::figure(*at, Figure::QueueUs)));
        }
    }
    ttfts_us
}

/// A random sample of those with room. Usually most have: then only the sample is asked for.
fn with_room(rules: &Rules<'_>, left: &mut Vec<u32>) -> Vec<u32> {
    let wanted = rules.sample_count;
    let drawn = power_of_two::sample(left, wanted.saturating_mul(2));
    let mut found: Vec<u32> = drawn
        .iter()
        .copied()
        .filter(|position| position_has_room(rules, *position))
        .take(wanted as usize)
        .collect();
    if found.len() >= left.len().min(wanted as usize) {
        return found;
    }
    let running = candidates::column(Figure::Running);
    let slots = candidates::column(Figure::Slots);
    left.retain(|position| {
        let at = *position as usize;
        let both = running.get(at).zip(slots.get(at));
        both.is_some_and(|(running, slots)| has_room(rules, *running, *slots))
    });
    found.clear();
    found.extend_from_slice(power_of_two::sample(left, wanted));
    found
}

/// Slots unknown are no limit.
fn has_room(rules: &Rules<'_>, running: f64, slots: f64) -> bool {
    slots <= 0.0 || running < slots + f64::from(rules.max_queued)
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

/// Drawn before a list is made of all.
const DRAWS_MAX: u32 = 16;
/// Looked at again at least this often, whatever happens.
const RECHECK_MS: f64 = 25.0;
