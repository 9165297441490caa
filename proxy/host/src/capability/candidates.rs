//! The interface `candidates`: those who may serve the exchange being routed.

use std::time::{SystemTime, UNIX_EPOCH};

use weir_pipeline::facts::Facts;
use weir_routing as routing;

use crate::bindings::weir::filter::candidates::{
    Backend, Figure, Host, Load, Session, Total, Weighting,
};
use crate::guest_state::GuestState;

impl Host for GuestState {
    fn backends(&mut self) -> Vec<Backend> {
        let Some((_, set)) = self.candidates() else {
            return Vec::new();
        };
        let interner = &self.services.interner;
        let load = |position| set.load_at(position).unwrap_or_default();
        let backend = |(candidate, position): (&routing::Candidate, u32)| {
            let cluster = candidate.members().next();
            let cluster = cluster.map(|member| interner.intern(member.backend.cluster()));
            Backend {
                id: interner.intern(candidate.id()).0,
                cluster: cluster.map_or(0, |name| name.0),
                region: 0,
                weight: candidate.weight(),
                max_concurrency: candidate.max_concurrency(),
                kv_capacity_tokens: load(position).kv_capacity_tokens,
            }
        };
        set.iter().zip(0..).map(backend).collect()
    }

    fn load_at(&mut self, index: u32) -> Option<Load> {
        let load = self.candidates()?.1.load_at(index)?;
        Some(Load {
            running: load.running,
            queued: load.queued,
            queued_input_tokens: load.queued_input_tokens,
            kv_free_tokens: load.kv_free_tokens,
            input_tps: load.input_tps,
            output_tps: load.output_tps,
            ewma_ttft_us: load.ewma_ttft_us,
            error_permille: load.error_permille,
            age_ms: u16::try_from(load.age_ms).unwrap_or(u16::MAX),
        })
    }

    fn figure_at(&mut self, index: u32, figure: Figure) -> Option<f64> {
        let (facts, set) = self.candidates()?;
        set.figure_at(index, native(figure), &facts.demand())
    }

    fn column(&mut self, figure: Figure) -> Vec<f64> {
        self.candidates().map_or_else(Vec::new, |(facts, set)| {
            set.column(native(figure), &facts.demand())
        })
    }

    fn total_of(&mut self, figure: Figure) -> Total {
        let total = self
            .candidates()
            .map(|(facts, set)| set.total(native(figure), &facts.demand()));
        let routing::Total { sum, known } = total.unwrap_or_default();
        Total { sum, known }
    }

    fn at_most(&mut self, figure: Figure, limit: f64, among: Vec<u32>) -> Vec<u32> {
        self.found(&among, |set, demand, among| {
            set.at_most(native(figure), limit, demand, among)
        })
    }

    fn with_room(&mut self, queued_max: u32, among: Vec<u32>) -> Vec<u32> {
        self.found(&among, |set, _, among| set.with_room(queued_max, among))
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
        self.candidates()
            .map_or_else(Vec::new, |(_, set)| set.rendezvous(key_hash, n as usize))
    }

    fn rendezvous_by(
        &mut self,
        prefix: Vec<u8>,
        by: Weighting,
        n: u32,
        among: Vec<u32>,
    ) -> Vec<u32> {
        let facts = self.current.as_deref();
        let Some(set) = facts.and_then(|facts| facts.candidates.as_ref()) else {
            return Vec::new();
        };
        let weighting = match by {
            Weighting::Configured => routing::Weighting::Configured,
            Weighting::InputTps => routing::Weighting::InputTps,
            Weighting::MaxInputTps => routing::Weighting::MaxInputTps,
        };
        let among = bounded(&among, AMONG_MAX);
        let known = &mut self.key_hashes;
        set.rendezvous_by(
            bounded(&prefix, KEY_BYTES_MAX),
            weighting,
            among,
            n as usize,
            known,
        )
    }

    fn ring(&mut self, prefix: Vec<u8>, key: Vec<u8>, nodes: u32, n: u32) -> Vec<u32> {
        self.candidates().map_or_else(Vec::new, |(_, set)| {
            set.ring(
                bounded(&prefix, KEY_BYTES_MAX),
                bounded(&key, KEY_BYTES_MAX),
                nodes,
                n as usize,
            )
        })
    }

    fn affinity_key(&mut self) -> Option<String> {
        let affinity = self.current.as_deref()?.affinity.as_ref()?;
        Some(affinity.key.clone())
    }

    fn last_served(&mut self) -> Session {
        let Some((facts, set)) = self.candidates() else {
            return Session::Unknown;
        };
        match &facts.session {
            routing::Session::Unknown => Session::Unknown,
            routing::Session::New => Session::New,
            routing::Session::Served(domain) => set
                .position_of(domain)
                .map_or(Session::Stale, Session::Returning),
        }
    }

    fn elapsed_ms(&mut self) -> u32 {
        let Some(facts) = self.current.as_deref() else {
            return 0;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |since| since.as_millis());
        let elapsed_ms = now_ms.saturating_sub(u128::from(facts.received_unix_ms));
        u32::try_from(elapsed_ms).unwrap_or(u32::MAX)
    }

    fn next_cursor(&mut self) -> u64 {
        // 53 bits, like every number that may come near 2^64 here.
        self.candidates()
            .map_or(0, |(_, set)| set.next_cursor() & ((1 << 53) - 1))
    }
}

impl GuestState {
    fn candidates(&self) -> Option<(&Facts, &routing::CandidateSet)> {
        let facts = self.current.as_deref()?;
        Some((facts, facts.candidates.as_ref()?))
    }

    /// What a search finds among some (empty = all not excluded).
    fn found(
        &self,
        among: &[u32],
        search: impl FnOnce(&routing::CandidateSet, &routing::Demand, &[u32]) -> Vec<u32>,
    ) -> Vec<u32> {
        let Some((facts, set)) = self.candidates() else {
            return Vec::new();
        };
        let mut found = search(set, &facts.demand(), bounded(among, AMONG_MAX));
        if among.is_empty() && !facts.excluded.is_empty() {
            found.retain(|position| !facts.excluded.contains(position));
        }
        found
    }
}

fn least(facts: &Facts, figure: routing::Figure, among: &[u32]) -> Option<u32> {
    let set = facts.candidates.as_ref()?;
    let demand = facts.demand();
    if !among.is_empty() {
        let among = bounded(among, AMONG_MAX);
        return set.least(figure, &demand, among);
    }
    if facts.excluded.is_empty() {
        return set.least(figure, &demand, &[]);
    }
    let positions = 0..u32::try_from(set.len()).unwrap_or(u32::MAX);
    let left: Vec<u32> = positions
        .filter(|position| !facts.excluded.contains(position))
        .collect();
    // To the set an empty list means all.
    if left.is_empty() {
        None
    } else {
        set.least(figure, &demand, &left)
    }
}

fn bounded<T>(list: &[T], max: usize) -> &[T] {
    list.get(..max).unwrap_or(list)
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
        Figure::TtftUs => routing::Figure::TtftUs,
        Figure::QueueUs => routing::Figure::QueueUs,
        Figure::PrefillUs => routing::Figure::PrefillUs,
        Figure::RttUs => routing::Figure::RttUs,
        Figure::InputWorkUs => routing::Figure::InputWorkUs,
        Figure::Utilization => routing::Figure::Utilization,
        Figure::Slots => routing::Figure::Slots,
        Figure::MaxInputTps => routing::Figure::MaxInputTps,
        Figure::MaxOutputTps => routing::Figure::MaxOutputTps,
        Figure::KvUsedTokens => routing::Figure::KvUsedTokens,
        Figure::KvCapacityTokens => routing::Figure::KvCapacityTokens,
        Figure::AgeMs => routing::Figure::AgeMs,
    }
}

/// Most positions looked at in one question.
const AMONG_MAX: usize = 65_536;
/// Longest key that is hashed.
const KEY_BYTES_MAX: usize = 4096;
