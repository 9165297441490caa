//! Phase `route`: which backend answers.

use crate::bindings::route::exports::weir::filter::on_route as contract;
pub use crate::bindings::route::exports::weir::filter::on_route::Choice;
use crate::{Filter, Instance, LocalResponse, RequestView};

/// What there is to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    /// Equal generations mean equal backends at equal positions; see
    /// [`candidates::PerGeneration`](crate::candidates::PerGeneration).
    pub generation: u64,
    /// How many candidates there are; positions are `0..candidates`.
    pub candidates: u32,
    /// Hash of the affinity key, 0 when no filter derived one.
    pub affinity_hash: u64,
}

/// Chooses among the candidates.
pub trait Route: Filter {
    /// Called once per attempt: when the chosen backend fails before anything reached the
    /// caller, it is called again with `request.attempt` one higher and the failed position in
    /// [`candidates::excluded`](crate::candidates::excluded). Costs 0.41 µs for a round robin,
    /// 0.83 µs with two [`candidates::load`](crate::candidates::load) calls.
    ///
    /// [`Choice::Abstain`]: the next routing filter chooses, then the host's round robin.
    /// [`Choice::Pick`]: this one. [`Choice::Ranked`]: in this order; the host walks down it
    /// when a candidate has no free slot. [`Choice::WaitMs`]: nothing is good now, ask again.
    /// [`Choice::Reject`]: answer and stop. May suspend.
    fn route(&self, request: RequestView, routing: Routing) -> Choice;
}

impl<F: Route + Instance> contract::Guest for F {
    fn route(request: RequestView, generation: u64, candidates: u32, affinity_hash: u64) -> Choice {
        F::with(|filter| {
            filter.route(
                request,
                Routing {
                    generation,
                    candidates,
                    affinity_hash,
                },
            )
        })
    }
}

impl From<Option<u32>> for Choice {
    fn from(picked: Option<u32>) -> Self {
        picked.map_or(Self::Abstain, Self::Pick)
    }
}

impl From<LocalResponse> for Choice {
    fn from(response: LocalResponse) -> Self {
        Self::Reject(response)
    }
}
