//! The interface `candidates`: the backends of the exchange being routed.

use weir_pipeline::facts::Facts;
use weir_routing as routing;

use crate::bindings::weir::filter::candidates::{Backend, Figure, Host, Load};
use crate::guest_state::GuestState;

impl Host for GuestState {
    fn backends(&mut self) -> Vec<Backend> {
        let Some(set) = self
            .current
            .as_deref()
            .and_then(|facts| facts.candidates.as_ref())
        else {
            return Vec::new();
        };
        let interner = &self.services.interner;
        let backend = |candidate: &routing::Candidate| Backend {
            id: interner.intern(candidate.backend.id()).0,
            cluster: interner.intern(candidate.backend.cluster()).0,
            region: 0,
            weight: candidate.weight,
            max_concurrency: candidate.max_concurrency,
            kv_capacity_tokens: 0,
        };
        set.iter().map(backend).collect()
    }

    fn load_at(&mut self, index: u32) -> Option<Load> {
        let load = self
            .current
            .as_deref()?
            .candidates
            .as_ref()?
            .load_at(index)?;
        Some(Load {
            running: load.running,
            queued: load.queued,
            queued_input_tokens: load.queued_input_tokens,
            kv_free_tokens: load.kv_free_tokens,
            input_tps: load.input_tps,
            output_tps: load.output_tps,
            ewma_ttft_us: load.ewma_ttft_us,
            error_permille: load.error_permille,
            age_ms: load.age_ms,
        })
    }

    fn column(&mut self, figure: Figure) -> Vec<f64> {
        let set = self
            .current
            .as_deref()
            .and_then(|facts| facts.candidates.as_ref());
        set.map_or_else(Vec::new, |set| set.column(native(figure)))
    }

    fn excluded(&mut self) -> Vec<u32> {
        self.current
            .as_deref()
            .map_or_else(Vec::new, |facts| facts.excluded.clone())
    }

    fn least(&mut self, figure: Figure, among: Vec<u32>) -> Option<u32> {
        least(self.current.as_deref()?, native(figure), &among)
    }

    fn rendezvous(&mut self, key_hash: u64, n: u32) -> Vec<u32> {
        let set = self
            .current
            .as_deref()
            .and_then(|facts| facts.candidates.as_ref());
        set.map_or_else(Vec::new, |set| set.rendezvous(key_hash, n as usize))
    }

    fn next_cursor(&mut self) -> u64 {
        let set = self
            .current
            .as_deref()
            .and_then(|facts| facts.candidates.as_ref());
        // 53 bits, like every number that may come near 2^64 here.
        set.map_or(0, |set| set.next_cursor() & ((1 << 53) - 1))
    }
}

fn least(facts: &Facts, figure: routing::Figure, among: &[u32]) -> Option<u32> {
    let set = facts.candidates.as_ref()?;
    if !among.is_empty() {
        return set.least(figure, among.get(..AMONG_MAX).unwrap_or(among));
    }
    if facts.excluded.is_empty() {
        return set.least(figure, &[]);
    }
    let positions = 0..u32::try_from(set.len()).unwrap_or(u32::MAX);
    let left: Vec<u32> = positions
        .filter(|position| !facts.excluded.contains(position))
        .collect();
    // To the set an empty list means all.
    if left.is_empty() {
        None
    } else {
        set.least(figure, &left)
    }
}

fn native(figure: Figure) -> routing::Figure {
    match figure {
        Figure::Running => routing::Figure::Running,
        Figure::Queued => routing::Figure::Queued,
        Figure::QueuedInputTokens => routing::Figure::QueuedInputTokens,
        Figure::KvFreeTokens => routing::Figure::KvFreeTokens,
        Figure::InputTps => routing::Figure::InputTps,
        Figure::OutputTps => routing::Figure::OutputTps,
        Figure::EwmaTtftUs => routing::Figure::EwmaTtftUs,
        Figure::ErrorPermille => routing::Figure::ErrorPermille,
        Figure::EstWaitUs => routing::Figure::EstWaitUs,
    }
}

/// Most positions looked at in one question.
const AMONG_MAX: usize = 65_536;
