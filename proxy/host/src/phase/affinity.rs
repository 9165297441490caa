//! `on-affinity`: what keeps a conversation on one backend.

use std::sync::Arc;

use wasmtime::component::TypedFunc;
use weir_pipeline::facts::Facts;
use weir_pipeline::verdict;

use crate::bindings::exports::weir::filter::on_affinity::Affinity;
use crate::bindings::exports::weir::filter::on_events::Event;
use crate::bindings::weir::filter::types::RequestView;
use crate::failure::Fault;
use crate::phase::lower::view_of;
use crate::phase::{Exports, Lifting, Phase, PhaseKind};

pub(crate) struct Affine;

impl Phase for Affine {
    const KIND: PhaseKind = PhaseKind::Affinity;
    type Params = (RequestView,);
    type Return = (Option<Affinity>,);
    type Verdict = Option<verdict::Affinity>;

    fn func(exports: &Exports) -> Option<TypedFunc<Self::Params, Self::Return>> {
        exports.affinity
    }

    fn lower(&self, facts: Option<&Facts>, _: &mut Arc<Vec<Event>>) -> Self::Params {
        (view_of(facts),)
    }

    fn lift(
        &self,
        lifting: &mut Lifting<'_>,
        (affinity,): Self::Return,
    ) -> Result<Self::Verdict, Fault> {
        let Some(Affinity {
            key,
            ttl_ms,
            strict,
            answer_headers,
        }) = affinity
        else {
            return Ok(None);
        };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Fault::bad_verdict(format!(
                "an affinity key of {} bytes",
                key.len()
            )));
        }
        // As `host.hash64` with seed 0; 0 itself means that there is no key.
        let hash = crate::hash::hash53(key.as_bytes());
        Ok(Some(verdict::Affinity {
            key,
            hash,
            ttl_ms,
            strict,
            answer_headers: lifting.answer_headers(answer_headers)?,
        }))
    }
}

const KEY_BYTES_MAX: usize = 256;
