//! `on-complete`: after the last byte.

use std::sync::Arc;

use wasmtime::component::TypedFunc;
use weir_pipeline::facts::Facts;
use weir_pipeline::verdict;

use crate::bindings::exports::weir::filter::on_complete::{End, Summary};
use crate::bindings::exports::weir::filter::on_events::Event;
use crate::failure::Fault;
use crate::phase::lower::{usage, view};
use crate::phase::{Exports, Lifting, Phase, PhaseKind};

pub(crate) struct Complete<'a>(pub(crate) &'a [verdict::Summary]);

impl Phase for Complete<'_> {
    const KIND: PhaseKind = PhaseKind::Complete;
    type Params = (Vec<Summary>,);
    type Return = ();
    type Verdict = ();

    fn func(exports: &Exports) -> Option<TypedFunc<Self::Params, Self::Return>> {
        exports.complete
    }

    fn lower(&self, _: Option<&Facts>, _: &mut Arc<Vec<Event>>) -> Self::Params {
        (self.0.iter().map(summary).collect(),)
    }

    fn lift(&self, _: &mut Lifting<'_>, (): Self::Return) -> Result<Self::Verdict, Fault> {
        Ok(())
    }
}

fn summary(from: &verdict::Summary) -> Summary {
    Summary {
        req: view(&from.view),
        end: match from.end {
            verdict::End::Ok => End::Ok,
            verdict::End::ClientGone => End::ClientGone,
            verdict::End::UpstreamError => End::UpstreamError,
            verdict::End::Timeout => End::Timeout,
            verdict::End::Denied => End::Denied,
            verdict::End::Limited => End::Limited,
            verdict::End::FilterFailed => End::FilterFailed,
        },
        status: from.status,
        usage: usage(from.usage),
        backend: from.backend.0,
        queue_us: from.queue_us,
        ttft_us: from.ttft_us,
        total_us: from.total_us,
        tpot_us: from.tpot_us,
        request_bytes: from.request_bytes,
        response_bytes: from.response_bytes,
        scratch: from.scratch.clone(),
    }
}
