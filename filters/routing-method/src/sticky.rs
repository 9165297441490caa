//! Keeps a conversation on one backend, whatever the method.

use weir_sdk::candidates;

/// The first position in the order of the affinity key that was not tried yet.
///
/// The order does not change while the backends do not, and a backend that leaves moves its own
/// conversations only; so retries of one conversation agree as well.
pub(crate) fn pick(affinity_hash: u64, tried: &[u32]) -> Option<u32> {
    let wanted = u32::try_from(tried.len())
        .unwrap_or(u32::MAX)
        .saturating_add(1);
    let order = candidates::rendezvous(affinity_hash, wanted);
    order.into_iter().find(|position| !tried.contains(position))
}
