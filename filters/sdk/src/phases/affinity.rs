//! Phase `affinity`: what keeps a conversation on one backend.

use crate::bindings::affinity::exports::weir::filter::on_affinity as contract;
pub use crate::bindings::affinity::exports::weir::filter::on_affinity::Affinity as AffinityKey;
use crate::{Filter, Instance, RequestView};

/// Derives the affinity key of a request.
pub trait Affinity: Filter {
    /// Called once per request, after limits and before routing. Costs about 0.94 µs when it
    /// reads the session keys.
    ///
    /// `None`: no opinion, the next affinity filter is asked. A key: its hash is what routing
    /// filters see as `affinity_hash`; at most 256 bytes. May suspend.
    fn affinity(&self, request: RequestView) -> Option<AffinityKey>;
}

impl<F: Affinity + Instance> contract::Guest for F {
    fn derive(request: RequestView) -> Option<AffinityKey> {
        F::with(|filter| filter.affinity(request))
    }
}
