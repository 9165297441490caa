//! `on-request-headers`: before the body is read.

use std::sync::Arc;

use wasmtime::component::TypedFunc;
use weir_pipeline::edits::Side;
use weir_pipeline::facts::Facts;
use weir_pipeline::verdict;

use crate::bindings::exports::weir::filter::on_events::Event;
use crate::bindings::weir::filter::types::Outcome;
use crate::failure::Fault;
use crate::phase::{Exports, Lifting, Phase, PhaseKind};

pub(crate) struct RequestHeaders;

impl Phase for RequestHeaders {
    const KIND: PhaseKind = PhaseKind::RequestHeaders;
    type Params = ();
    type Return = (Outcome,);
    type Verdict = verdict::Outcome;

    fn func(exports: &Exports) -> Option<TypedFunc<Self::Params, Self::Return>> {
        exports.request_headers
    }

    fn lower(&self, _: Option<&Facts>, _: &mut Arc<Vec<Event>>) -> Self::Params {}

    fn lift(
        &self,
        lifting: &mut Lifting<'_>,
        (outcome,): Self::Return,
    ) -> Result<Self::Verdict, Fault> {
        lifting.outcome(outcome, Side::Request)
    }
}
