//! `on-events`: inside the stream.

use std::sync::Arc;

use wasmtime::component::TypedFunc;
use weir_pipeline::facts::Facts;
use weir_pipeline::verdict::{EventVerdict, StreamEvent};

use crate::bindings::exports::weir::filter::on_events::{Event, Verdict};
use crate::failure::Fault;
use crate::phase::lower::usage;
use crate::phase::{Exports, Lifting, Phase, PhaseKind};

pub(crate) struct Events<'a>(pub(crate) &'a [StreamEvent]);

impl Phase for Events<'_> {
    const KIND: PhaseKind = PhaseKind::Events;
    type Params = (Arc<Vec<Event>>,);
    type Return = (Vec<Verdict>,);
    type Verdict = Vec<EventVerdict>;

    fn func(exports: &Exports) -> Option<TypedFunc<Self::Params, Self::Return>> {
        exports.events
    }

    /// Copied into the room of the last call, so that a stream of small events allocates nothing.
    fn lower(&self, _: Option<&Facts>, room: &mut Arc<Vec<Event>>) -> Self::Params {
        if Arc::get_mut(room).is_none() {
            *room = Arc::default();
        }
        if let Some(events) = Arc::get_mut(room) {
            events.truncate(self.0.len());
            events.resize_with(self.0.len(), empty);
            events
                .iter_mut()
                .zip(self.0)
                .for_each(|(event, from)| fill(event, from));
        }
        (room.clone(),)
    }

    fn lift(&self, _: &mut Lifting<'_>, (verdicts,): Self::Return) -> Result<Self::Verdict, Fault> {
        if !verdicts.is_empty() && verdicts.len() != self.0.len() {
            return Err(Fault::bad_verdict(format!(
                "{} verdicts for {} events",
                verdicts.len(),
                self.0.len()
            )));
        }
        let lifted = verdicts.into_iter().map(|verdict| match verdict {
            Verdict::Pass => EventVerdict::Pass,
            Verdict::Drop => EventVerdict::Drop,
            Verdict::Replace(data) => EventVerdict::Replace(data.into()),
            Verdict::Stop(data) => EventVerdict::Stop(data.into()),
        });
        Ok(lifted.collect())
    }
}

fn empty() -> Event {
    Event {
        seq: 0,
        name: String::new(),
        data: Vec::new(),
        delta: String::new(),
        finish: false,
        usage: None,
    }
}

fn fill(event: &mut Event, from: &StreamEvent) {
    // One huge event must not be paid for as long as the instance lives.
    if event.data.capacity() + event.delta.capacity() > ROOM_BYTES_MAX {
        *event = empty();
    }
    event.seq = from.seq;
    event.name.clear();
    event.name.push_str(&from.name);
    event.data.clear();
    event.data.extend_from_slice(&from.data);
    event.delta.clear();
    event.delta.push_str(&from.delta);
    event.finish = from.finish;
    event.usage = from.usage.map(usage);
}

const ROOM_BYTES_MAX: usize = 16 << 10;
