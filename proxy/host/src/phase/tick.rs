//! `on-tick`: now and then.

use std::sync::Arc;

use wasmtime::component::TypedFunc;
use weir_pipeline::facts::Facts;

use crate::bindings::exports::weir::filter::on_events::Event;
use crate::failure::Fault;
use crate::phase::{Exports, Lifting, Phase, PhaseKind};

pub(crate) struct Tick;

impl Phase for Tick {
    const KIND: PhaseKind = PhaseKind::Tick;
    type Params = ();
    type Return = ();
    type Verdict = ();

    fn func(exports: &Exports) -> Option<TypedFunc<Self::Params, Self::Return>> {
        exports.tick
    }

    fn lower(&self, _: Option<&Facts>, _: &mut Arc<Vec<Event>>) -> Self::Params {}

    fn lift(&self, _: &mut Lifting<'_>, (): Self::Return) -> Result<Self::Verdict, Fault> {
        Ok(())
    }
}
