//! A pipeline compiled: the filters of each phase in order, and the rules of the walk.

use std::sync::Arc;

use weir_routing::CandidateSet;

use crate::affinity_memory::AffinityMemory;
use crate::facts::Facts;
use crate::filter::{Filter, OnError, PhaseCall, Phases};
use crate::verdict::{
    Affinity, Choice, Decision, EventVerdict, FilterFailure, LocalResponse, Outcome, StreamEvent,
};

/// Why the chain stopped an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A filter answers itself.
    Respond {
        /// Which filter.
        filter: Arc<str>,
        /// Its answer.
        response: Box<LocalResponse>,
    },
    /// A filter failed and its policy is to deny.
    Failed(FilterFailure),
    /// There are authorizers and none let the caller in.
    NobodyAllowed,
}

type Shared = Arc<dyn Filter>;

/// The filters of one pipeline, by phase. Request phases run in the order of the config, response
/// phases in the opposite order.
pub struct Chain {
    name: Arc<str>,
    filters: Vec<Shared>,
    request_headers: Vec<Shared>,
    authorize: Vec<Shared>,
    request: Vec<Shared>,
    affinity: Vec<(Shared, AffinityMemory)>,
    route: Vec<Shared>,
    response_headers: Vec<Shared>,
    events: Vec<Shared>,
    first_event: Vec<Shared>,
    complete: Vec<Shared>,
}

impl Chain {
    /// Sorts the filters of a pipeline into their phases.
    #[must_use]
    pub fn new(name: &str, filters: Vec<Shared>) -> Self {
        let of = |takes_part: fn(&Phases) -> bool| -> Vec<Shared> {
            filters
                .iter()
                .filter(|f| takes_part(&f.phases()))
                .cloned()
                .collect()
        };
        let backward = |takes_part| {
            let mut list = of(takes_part);
            list.reverse();
            list
        };
        Self {
            name: Arc::from(name),
            request_headers: of(|p| p.request_headers),
            authorize: of(|p| p.authorize),
            request: of(|p| p.request),
            affinity: of(|p| p.affinity)
                .into_iter()
                .map(|filter| (filter, AffinityMemory::default()))
                .collect(),
            route: of(|p| p.route),
            response_headers: backward(|p| p.response_headers),
            events: backward(|p| p.events),
            first_event: backward(|p| p.events || p.first_event),
            complete: of(|p| p.complete),
            filters,
        }
    }

    /// Name of the pipeline.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// All filters, in the order of the config.
    #[must_use]
    pub fn filters(&self) -> &[Shared] {
        &self.filters
    }

    /// Filters that want to hear of ended exchanges.
    #[must_use]
    pub fn completing(&self) -> &[Shared] {
        &self.complete
    }

    /// Whether any filter wants events; `first` = only the first of the stream is asked for.
    #[must_use]
    pub fn wants_events(&self, first: bool) -> bool {
        if first {
            !self.first_event.is_empty()
        } else {
            !self.events.is_empty()
        }
    }

    /// Whether any filter derives affinity keys.
    #[must_use]
    pub fn wants_affinity(&self) -> bool {
        !self.affinity.is_empty()
    }

    /// Before the body is read.
    pub async fn request_headers(&self, facts: Box<Facts>) -> (Box<Facts>, Result<(), Stop>) {
        Self::outcomes(&self.request_headers, facts, |filter, facts| {
            filter.request_headers(facts)
        })
        .await
    }

    /// Who calls. No authorizer at all lets everyone in as anonymous; else one must allow.
    pub async fn authorize(&self, mut facts: Box<Facts>) -> (Box<Facts>, Result<(), Stop>) {
        for filter in &self.authorize {
            let (back, result) = filter.authorize(facts).answer().await;
            facts = back;
            match result {
                Ok(Decision::Abstain) => {}
                Ok(Decision::Allow(principal)) => {
                    facts.view.principal = principal.id;
                    facts.view.priority = principal.priority;
                    facts.principal = Some(principal);
                    return (facts, Ok(()));
                }
                Ok(Decision::Deny(response)) => return (facts, Err(respond(filter, response))),
                // Letting an exchange in because its guard is broken is never right, whatever
                // the policy says.
                Err(failure) => return (facts, Err(Stop::Failed(failure))),
            }
        }
        let open = self.authorize.is_empty();
        (
            facts,
            if open {
                Ok(())
            } else {
                Err(Stop::NobodyAllowed)
            },
        )
    }

    /// Body parsed: limits, validation, edits.
    pub async fn request(&self, facts: Box<Facts>) -> (Box<Facts>, Result<(), Stop>) {
        Self::outcomes(&self.request, facts, |filter, facts| filter.request(facts)).await
    }

    /// The first key any filter derives. A filter that goes by the session keys alone is asked only
    /// where there is one, and not twice about the same.
    pub async fn affinity(
        &self,
        mut facts: Box<Facts>,
    ) -> (Box<Facts>, Result<Option<Arc<Affinity>>, Stop>) {
        for (filter, memory) in &self.affinity {
            let by_key = filter.phases().affinity_by_session_key;
            if by_key && facts.session_keys.is_empty() {
                continue;
            }
            let known = by_key.then(|| memory.recall(&facts.session_keys)).flatten();
            let said = match known {
                Some(said) => said,
                None => {
                    let (back, result) = filter.affinity(facts).answer().await;
                    facts = back;
                    match result {
                        Ok(said) => {
                            let said = said.map(Arc::new);
                            if by_key {
                                memory.keep(&facts.session_keys, said.clone());
                            }
                            said
                        }
                        Err(failure) if skips(filter) => {
                            drop(failure);
                            None
                        }
                        Err(failure) => return (facts, Err(Stop::Failed(failure))),
                    }
                }
            };
            if said.is_some() {
                return (facts, Ok(said));
            }
        }
        (facts, Ok(None))
    }

    /// The first opinion any filter has, else the cluster's round robin.
    pub async fn route(
        &self,
        mut facts: Box<Facts>,
        affinity_hash: u64,
    ) -> (Box<Facts>, Result<Choice, Stop>) {
        for filter in &self.route {
            let (back, result) = filter.route(facts, affinity_hash).answer().await;
            facts = back;
            match result {
                Ok(Choice::Abstain) => {}
                Ok(Choice::Reject(response)) => return (facts, Err(respond(filter, response))),
                Ok(choice) => return (facts, Ok(choice)),
                Err(failure) if skips(filter) => drop(failure),
                Err(failure) => return (facts, Err(Stop::Failed(failure))),
            }
        }
        let choice = facts.candidates.as_ref().and_then(round_robin);
        (facts, Ok(choice.map_or(Choice::Abstain, Choice::Pick)))
    }

    /// The upstream's head, filters in opposite order; those that act on their private bytes only
    /// are asked only when they have left some.
    pub async fn response_headers(&self, facts: Box<Facts>) -> (Box<Facts>, Result<(), Stop>) {
        Self::outcomes(&self.response_headers, facts, |filter, facts| {
            if filter.phases().response_headers_after_scratch
                && facts.scratch_of(filter.name()).is_empty()
            {
                return PhaseCall::Done((facts, Ok(Outcome::Pass)));
            }
            filter.response_headers(facts)
        })
        .await
    }

    /// One event of a stream, filters in opposite order; never suspends.
    pub fn event(
        &self,
        mut facts: Box<Facts>,
        mut event: StreamEvent,
    ) -> (Box<Facts>, Result<EventVerdict, Stop>) {
        let filters = if event.seq == 0 {
            &self.first_event
        } else {
            &self.events
        };
        let mut replaced = false;
        for filter in filters {
            let (back, result) = filter.events(facts, std::slice::from_ref(&event));
            facts = back;
            match result.map(|verdicts| verdicts.into_iter().next()) {
                Ok(None | Some(EventVerdict::Pass)) => {}
                Ok(Some(EventVerdict::Replace(data))) => {
                    event.data = data;
                    replaced = true;
                }
                Ok(Some(last)) => return (facts, Ok(last)),
                Err(failure) if skips(filter) => drop(failure),
                Err(failure) => return (facts, Err(Stop::Failed(failure))),
            }
        }
        let verdict = if replaced {
            EventVerdict::Replace(event.data)
        } else {
            EventVerdict::Pass
        };
        (facts, Ok(verdict))
    }

    async fn outcomes<'a>(
        filters: &'a [Shared],
        mut facts: Box<Facts>,
        call: impl Fn(&'a dyn Filter, Box<Facts>) -> PhaseCall<'a, Outcome>,
    ) -> (Box<Facts>, Result<(), Stop>) {
        for filter in filters {
            let (back, result) = call(&**filter, facts).answer().await;
            facts = back;
            match result {
                Ok(Outcome::Pass) => {}
                Ok(Outcome::Respond(response)) => return (facts, Err(respond(filter, response))),
                Err(failure) if skips(filter) => drop(failure),
                Err(failure) => return (facts, Err(Stop::Failed(failure))),
            }
        }
        (facts, Ok(()))
    }
}

fn skips(filter: &Shared) -> bool {
    filter.on_error() == OnError::Allow
}

fn respond(filter: &Shared, response: LocalResponse) -> Stop {
    Stop::Respond {
        filter: filter.name().clone(),
        response: Box::new(response),
    }
}

fn round_robin(candidates: &CandidateSet) -> Option<u32> {
    let count = candidates.len() as u64;
    let position = candidates.next_cursor().checked_rem(count)?;
    u32::try_from(position).ok()
}

#[cfg(test)]
#[path = "chain_tests.rs"]
#[allow(clippy::panic, reason = "tests")]
mod tests;
