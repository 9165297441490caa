//! `round_robin`: one after the other, by weight.
//!
//! The cursor is the host's and shared by all instances, so the turns are exact however many
//! instances run.

use weir_sdk::candidates;

use crate::weights::Weights;

/// The next position in turn that was not tried yet.
pub(crate) fn pick(weights: &Weights, count: u32, tried: &[u32]) -> Option<u32> {
    let first = candidates::next_cursor();
    if tried.is_empty() {
        return weights.turn(first, count);
    }
    // A failed try moves on in order: turns of others are not used up for it.
    let start = weights.turn(first, count)?;
    (start..count)
        .chain(0..start)
        .find(|position| !tried.contains(position))
}
