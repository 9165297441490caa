//! `on-route`: which backend answers.

use std::sync::Arc;

use wasmtime::component::TypedFunc;
use weir_pipeline::facts::Facts;
use weir_pipeline::verdict;

use crate::bindings::exports::weir::filter::on_events::Event;
use crate::bindings::exports::weir::filter::on_route::Choice;
use crate::bindings::weir::filter::types::RequestView;
use crate::failure::Fault;
use crate::phase::lower::view_of;
use crate::phase::{Exports, Lifting, Phase, PhaseKind};

pub(crate) struct Route {
    /// 0 when no filter derived a key.
    pub(crate) affinity_hash: u64,
}

impl Phase for Route {
    const KIND: PhaseKind = PhaseKind::Route;
    type Params = (RequestView, u64, u32, u64);
    type Return = (Choice,);
    type Verdict = verdict::Choice;

    fn func(exports: &Exports) -> Option<TypedFunc<Self::Params, Self::Return>> {
        exports.route
    }

    fn lower(&self, facts: Option<&Facts>, _: &mut Arc<Vec<Event>>) -> Self::Params {
        let generation = facts
            .and_then(|facts| facts.candidates.as_ref())
            .map_or(0, |set| set.generation());
        (view_of(facts), generation, count(facts), self.affinity_hash)
    }

    fn lift(
        &self,
        lifting: &mut Lifting<'_>,
        (choice,): Self::Return,
    ) -> Result<Self::Verdict, Fault> {
        let count = count(lifting.facts.as_deref());
        Ok(match choice {
            Choice::Abstain => verdict::Choice::Abstain,
            Choice::Pick(position) if position < count => verdict::Choice::Pick(position),
            Choice::Pick(position) => {
                return Err(Fault::bad_verdict(format!(
                    "candidate {position} of {count}"
                )));
            }
            Choice::Ranked(ranking) => {
                let fits = !ranking.is_empty() && ranking.len() <= count as usize;
                if !fits || ranking.iter().any(|&position| position >= count) {
                    return Err(Fault::bad_verdict(format!(
                        "a ranking that does not fit {count} candidates"
                    )));
                }
                verdict::Choice::Ranked(ranking)
            }
            Choice::WaitMs(ms) => verdict::Choice::WaitMs(ms),
            Choice::Reject(response) => verdict::Choice::Reject(lifting.response(response)?),
        })
    }
}

fn count(facts: Option<&Facts>) -> u32 {
    let set = facts.and_then(|facts| facts.candidates.as_ref());
    set.map_or(0, |set| u32::try_from(set.len()).unwrap_or(u32::MAX))
}
