//! What all phases have in common.

use std::sync::Arc;

use wasmtime::component::{ComponentNamedList, Lift, Lower, TypedFunc};
use weir_pipeline::facts::Facts;

use crate::bindings::exports::weir::filter::on_events::Event;
use crate::failure::Fault;
use crate::phase::{Exports, Lifting, PhaseKind};

/// One call of one phase, with what the facts do not say.
pub(crate) trait Phase: Send + Sync {
    const KIND: PhaseKind;
    type Params: ComponentNamedList + Lower + Send + Sync + 'static;
    type Return: ComponentNamedList + Lift + Send + Sync + 'static;
    type Verdict: Send;

    /// The function to call.
    fn func(exports: &Exports) -> Option<TypedFunc<Self::Params, Self::Return>>;

    /// Its arguments. `room` is the instance's, for events.
    fn lower(&self, facts: Option<&Facts>, room: &mut Arc<Vec<Event>>) -> Self::Params;

    /// Checks what it returned and applies its edits.
    fn lift(
        &self,
        lifting: &mut Lifting<'_>,
        returned: Self::Return,
    ) -> Result<Self::Verdict, Fault>;
}
