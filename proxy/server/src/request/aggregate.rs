//! Step 5 for callers that want one answer where the upstream was asked for a stream: the object in
//! the last event of a Responses stream is that answer.

use std::pin::pin;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession as UpstreamSession;
use weir_dialect::terminal_response;
use weir_routing::Reservation;

use crate::request::events::Events;
use crate::request::exchange::Exchange;
use crate::request::forward::Failure;
use crate::request::opening::Fault;
use crate::request::patience::{CallerGone, while_heard};
use crate::request::refuse::Refusal;
use crate::request::relay::{self, Arrival};
use crate::request::serve::Connection;
use crate::request::{headers, stream};
use crate::snapshot::Upstream;

/// Consumes the stream and answers with its result. An `Err` means that nothing has reached the
/// caller.
pub(crate) async fn relay(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    upstream: &Upstream,
    session: &mut UpstreamSession,
    reservation: &mut Reservation,
    mut received: HeaderMap,
) -> Result<Connection, Failure> {
    let last = last_event(exchange, downstream, session, reservation).await?;
    let found = last
        .as_ref()
        .and_then(|data| Some(data.slice(terminal_response(data)?)));
    let Some(body) = found else {
        // Where tokens were spent on it, asking again would spend them twice.
        let spent = exchange.progress.output_bytes > 0;
        return Err(match last.map(|data| Fault::read(&data)) {
            None if spent => Failure::last(Refusal::no_terminal_event()).blaming(true),
            None => Failure::broken(Refusal::no_terminal_event(), upstream),
            Some(fault) if spent || !fault.may_pass => {
                Failure::last(Refusal::upstream_said(fault.message)).blaming(fault.may_pass)
            }
            Some(fault) => Failure::next(Refusal::upstream_said(fault.message)),
        });
    };
    // What is left of the stream, lest the connection is lost for it.
    while let Some(Ok(Some(_))) = session.read_response_body().now_or_never() {}
    received.remove(CACHE_CONTROL);
    received.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    received.insert(CONTENT_LENGTH, headers::length(body.len()));
    relay::answer(exchange, downstream, StatusCode::OK, received, body).await
}

/// The data of the event that holds the result, or of an error where there is none.
async fn last_event(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    session: &mut UpstreamSession,
    reservation: &mut Reservation,
) -> Result<Option<Bytes>, Failure> {
    let max = exchange.snapshot.config.limits.response_max_bytes;
    let mut events = Events::new(exchange, false, max);
    let mut error = None;
    loop {
        let pieces = while_heard(downstream, pin!(stream::next_pieces(session)))
            .await
            .map_err(|CallerGone| Failure::gone())?;
        let last = events
            .result(exchange, &pieces, &mut error)
            .map_err(|broken| Failure::last(Refusal::broken(broken)))?;
        if events.has_said {
            relay::arrived(exchange, reservation, Arrival::FirstOutput);
        }
        if last.is_some() {
            return Ok(last);
        }
        match pieces.end {
            None => {}
            Some(Ok(())) => return Ok(error),
            Some(Err(failure)) => {
                tracing::warn!(request_id = %exchange.request_id, error = %failure, "upstream failed in mid-stream");
                return Ok(error);
            }
        }
    }
}
