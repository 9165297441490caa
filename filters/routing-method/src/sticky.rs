//! Keeps a conversation on one backend, whatever the method, as long as that one is not much busier
//! than the others.

use weir_sdk::candidates::{self, Figure};

use crate::weights::Weights;

/// The first position in the order of the affinity key that was not tried yet and has room.
///
/// The order does not change while the backends do not, and a backend that leaves moves its own
/// conversations only; so retries of one conversation agree as well. Having room is the bound of
/// consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, arXiv:1608.01350) with
/// c = 1.25: many callers who begin alike must not end up on one backend while others idle. Up to
/// [`FREE`] requests at once have room everywhere, so that light load moves nobody.
pub(crate) fn pick(
    affinity_hash: u64,
    weights: &Weights,
    candidates: u32,
    tried: &[u32],
) -> Option<u32> {
    let wanted = u32::try_from(tried.len())
        .unwrap_or(u32::MAX)
        .saturating_add(1);
    let first = untried(affinity_hash, wanted, tried).next()?;
    let running = candidates::load(first).map_or(0, |load| load.running);
    if running < FREE {
        return Some(first);
    }
    let running = candidates::column(Figure::Running);
    let total: f64 = running.iter().sum::<f64>() + 1.0;
    let shares: u64 = (0..candidates).map(|at| weights.weight(at)).sum();
    let has_room = |position: &u32| {
        let share = weights.weight(*position) as f64 / shares.max(1) as f64;
        let bound = (CROWDING * total * share).ceil().max(f64::from(FREE));
        running
            .get(*position as usize)
            .is_some_and(|running| *running < bound)
    };
    Some(
        untried(affinity_hash, candidates, tried)
            .find(has_room)
            .unwrap_or(first),
    )
}

fn untried(affinity_hash: u64, wanted: u32, tried: &[u32]) -> impl Iterator<Item = u32> {
    let order = candidates::rendezvous(affinity_hash, wanted);
    order
        .into_iter()
        .filter(|position| !tried.contains(position))
}

/// Requests at once that a backend may have whatever the others have.
const FREE: u32 = 8;
/// How much more than its share a backend may have.
const CROWDING: f64 = 1.25;
