//! `on-request`: the body is buffered and parsed.

use std::sync::Arc;

use wasmtime::component::TypedFunc;
use weir_pipeline::edits::Side;
use weir_pipeline::facts::Facts;
use weir_pipeline::verdict;

use crate::bindings::exports::weir::filter::on_events::Event;
use crate::bindings::weir::filter::types::{Outcome, RequestView};
use crate::failure::Fault;
use crate::phase::lower::view_of;
use crate::phase::{Exports, Lifting, Phase, PhaseKind};

pub(crate) struct Request;

impl Phase for Request {
    const KIND: PhaseKind = PhaseKind::Request;
    type Params = (RequestView,);
    type Return = (Outcome,);
    type Verdict = verdict::Outcome;

    fn func(exports: &Exports) -> Option<TypedFunc<Self::Params, Self::Return>> {
        exports.request
    }

    fn lower(&self, facts: Option<&Facts>, _: &mut Arc<Vec<Event>>) -> Self::Params {
        (view_of(facts),)
    }

    fn lift(
        &self,
        lifting: &mut Lifting<'_>,
        (outcome,): Self::Return,
    ) -> Result<Self::Verdict, Fault> {
        lifting.outcome(outcome, Side::Request)
    }
}
