//! `on-authorize`: who calls, and may they.

use std::sync::Arc;

use wasmtime::component::TypedFunc;
use weir_pipeline::edits::Side;
use weir_pipeline::facts::Facts;
use weir_pipeline::verdict;

use crate::bindings::exports::weir::filter::on_authorize::Decision;
use crate::bindings::exports::weir::filter::on_events::Event;
use crate::bindings::weir::filter::types::RequestView;
use crate::failure::Fault;
use crate::phase::lower::view_of;
use crate::phase::{Exports, Lifting, Phase, PhaseKind};

pub(crate) struct Authorize;

impl Phase for Authorize {
    const KIND: PhaseKind = PhaseKind::Authorize;
    type Params = (RequestView,);
    type Return = (Decision,);
    type Verdict = verdict::Decision;

    fn func(exports: &Exports) -> Option<TypedFunc<Self::Params, Self::Return>> {
        exports.authorize
    }

    fn lower(&self, facts: Option<&Facts>, _: &mut Arc<Vec<Event>>) -> Self::Params {
        (view_of(facts),)
    }

    fn lift(
        &self,
        lifting: &mut Lifting<'_>,
        (decision,): Self::Return,
    ) -> Result<Self::Verdict, Fault> {
        Ok(match decision {
            Decision::Abstain => verdict::Decision::Abstain,
            Decision::Allow(principal) => verdict::Decision::Allow(lifting.principal(principal)?),
            Decision::AllowFound(number) => {
                let found = lifting.found.get(number as usize);
                let found = found.ok_or_else(|| {
                    Fault::bad_verdict(format!("principal {number} was not found"))
                })?;
                verdict::Decision::Allow(found.clone())
            }
            Decision::AllowWith((principal, edits)) => {
                let principal = lifting.principal(principal)?;
                lifting.apply(edits, Side::Request)?;
                verdict::Decision::Allow(principal)
            }
            Decision::Deny(response) => verdict::Decision::Deny(lifting.response(response)?),
        })
    }
}
