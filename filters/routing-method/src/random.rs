//! `random`: each by its weight, without a memory.

use weir_sdk::host;

use crate::weights::Weights;

/// A position that was not tried yet.
pub(crate) fn pick(weights: &Weights, count: u32, tried: &[u32]) -> Option<u32> {
    let drawn = weights.drawn(host::random(), count)?;
    if !tried.contains(&drawn) {
        return Some(drawn);
    }
    let left: Vec<u32> = (0..count)
        .filter(|position| !tried.contains(position))
        .collect();
    let at = host::random().checked_rem(left.len() as u64)?;
    left.get(usize::try_from(at).ok()?).copied()
}
