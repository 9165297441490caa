//! `on-response-headers`: the upstream's head.

use std::sync::Arc;

use wasmtime::component::TypedFunc;
use weir_pipeline::edits::Side;
use weir_pipeline::facts::Facts;
use weir_pipeline::verdict;

use crate::bindings::exports::weir::filter::on_events::Event;
use crate::bindings::weir::filter::types::Outcome;
use crate::failure::Fault;
use crate::phase::{Exports, Lifting, Phase, PhaseKind};

pub(crate) struct ResponseHeaders;

impl Phase for ResponseHeaders {
    const KIND: PhaseKind = PhaseKind::ResponseHeaders;
    type Params = (u16,);
    type Return = (Outcome,);
    type Verdict = verdict::Outcome;

    fn func(exports: &Exports) -> Option<TypedFunc<Self::Params, Self::Return>> {
        exports.response_headers
    }

    fn lower(&self, facts: Option<&Facts>, _: &mut Arc<Vec<Event>>) -> Self::Params {
        let response = facts.and_then(|facts| facts.response.as_ref());
        (response.map_or(0, |response| response.status.as_u16()),)
    }

    fn lift(
        &self,
        lifting: &mut Lifting<'_>,
        (outcome,): Self::Return,
    ) -> Result<Self::Verdict, Fault> {
        lifting.outcome(outcome, Side::Response)
    }
}
