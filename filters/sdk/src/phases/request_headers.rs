//! Phase `request_headers`: before the body is read.

use crate::bindings::request_headers::exports::weir::filter::on_request_headers as contract;
use crate::{Filter, Instance, Outcome};

/// Looks at the head of a request before its body is read.
pub trait OnRequestHeaders: Filter {
    /// Called once per request, pass-through routes included. Costs 0.29 µs when it passes.
    ///
    /// [`Outcome::Pass`]: go on. [`Outcome::Edit`]: request headers and attributes; there is no
    /// body yet, so no JSON edits. [`Outcome::Respond`]: answer and stop, the body stays unread.
    /// May suspend on [`http_client`](crate::http_client) and exact state.
    fn on_request_headers(&self) -> Outcome;
}

impl<F: OnRequestHeaders + Instance> contract::Guest for F {
    fn handle() -> Outcome {
        F::with(|filter| filter.on_request_headers())
    }
}
