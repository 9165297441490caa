//! Step 5 for streams: events as they come. A stream never ends in silence.

use std::pin::pin;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession as UpstreamSession;
use weir_dialect::{Fault, render_fault_event};
use weir_routing::Reservation;

use crate::request::events::{Broken, Events, Halt, Pieces};
use crate::request::exchange::Exchange;
use crate::request::forward::Failure;
use crate::request::patience::{CallerGone, while_waiting};
use crate::request::refuse::Refusal;
use crate::request::relay::{self, Arrival};
use crate::request::serve::Connection;
use crate::snapshot::Upstream;

/// Pieces of an answer that have arrived already and go to the caller in one write.
const PIECES_PER_WRITE_MAX: usize = 32;

/// Relays a stream of events. An `Err` means that nothing of it has reached the caller yet.
pub(crate) async fn relay(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    upstream: &Upstream,
    session: &mut UpstreamSession,
    reservation: &mut Reservation,
    status: StatusCode,
    received: HeaderMap,
) -> Result<Connection, Failure> {
    let config = &exchange.snapshot.config;
    let held = config.streams.hold_first_event && status.is_success();
    let mut events = Events::new(exchange, held, config.limits.event_max_bytes);
    let mut head = Some(received);
    let may_fall_back = relay::may_retry(exchange, upstream);
    if !held && let Some(received) = head.take().filter(|_| !exchange.progress.head_sent) {
        let begun = begin(exchange, downstream, status, received).await;
        if begun.map_err(Failure::last)?.is_err() {
            return Ok(Connection::lost(exchange));
        }
    }
    loop {
        let waiting = pin!(next_pieces(session));
        let pieces = match while_waiting(exchange, downstream, waiting).await {
            Ok(pieces) => pieces,
            Err(CallerGone) => return Ok(Connection::lost(exchange)),
        };
        let (out, halt) = events.relayed(exchange, &pieces, may_fall_back);
        if events.has_said {
            relay::arrived(exchange, reservation, Arrival::FirstOutput);
        }
        let ended = pieces.end.is_some();
        let broken = match (halt, pieces.end) {
            (Some(Halt::Unbegun(fault)), _) => {
                return Err(Failure::next(Refusal::upstream_said(fault.message)));
            }
            (Some(Halt::Broken(broken)), _) => Some(broken),
            (None, Some(Err(error))) if !events.stopped => {
                tracing::warn!(request_id = %exchange.request_id, %error, "upstream failed in mid-stream");
                Some(Broken::of(&error))
            }
            (None, Some(Ok(()))) if !events.whole && !events.stopped => Some(Broken::cut()),
            _ => None,
        };
        if events.is_opening() {
            // Nothing was said: if another backend says it, the head becomes its head.
            match broken {
                Some(broken) => return Err(Failure::broken(Refusal::broken(broken), upstream)),
                None => continue,
            }
        }
        if let Some(received) = head.take().filter(|_| !exchange.progress.head_sent) {
            let begun = begin(exchange, downstream, status, received).await;
            if begun.map_err(Failure::last)?.is_err() {
                return Ok(Connection::lost(exchange));
            }
        }
        if !out.is_empty() {
            exchange.progress.response_bytes += out.len() as u64;
            if downstream.write_response_body(out, false).await.is_err() {
                return Ok(Connection::lost(exchange));
            }
        }
        if let Some(broken) = broken {
            return Ok(end_with(exchange, downstream, broken).await);
        }
        if ended || events.stopped {
            break;
        }
    }
    match downstream.write_response_body(Bytes::new(), true).await {
        Ok(()) => Ok(Connection::Reusable),
        Err(_) => Ok(Connection::lost(exchange)),
    }
}

/// Sends the head of a stream: from then on whatever goes wrong is told by an event.
pub(crate) async fn begin(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    status: StatusCode,
    mut received: HeaderMap,
) -> Result<Result<(), CallerGone>, Refusal> {
    received.remove(CONTENT_LENGTH);
    if downstream.req_header().version == Version::HTTP_10 {
        // Such a caller knows the end of an answer of unknown length by the connection's end.
        downstream.set_keepalive(None);
    } else if !downstream.is_http2() {
        received.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    received
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache"));
    let head = relay::response_head(exchange, status, received).await?;
    exchange.progress.head_sent = true;
    let written = downstream.write_response_header(Box::new(head)).await;
    Ok(written.map_err(|_| CallerGone))
}

/// Waits for one piece and takes along those that are there already: under load many small events
/// cost one write instead of many. Reading is cancel safe: what has arrived stays in the session.
pub(crate) async fn next_pieces(session: &mut UpstreamSession) -> Pieces {
    let mut pieces = Pieces::default();
    let mut next = session.read_response_body().await;
    loop {
        match next {
            Ok(Some(piece)) => pieces.data.push(piece),
            Ok(None) => pieces.end = Some(Ok(())),
            Err(error) => pieces.end = Some(Err(error)),
        }
        if pieces.end.is_some() || pieces.data.len() >= PIECES_PER_WRITE_MAX {
            return pieces;
        }
        match session.read_response_body().now_or_never() {
            Some(result) => next = result,
            None => return pieces,
        }
    }
}

/// Ends a stream with an error event in the caller's format.
async fn end_with(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    broken: Broken,
) -> Connection {
    exchange.progress.end = broken.end;
    exchange.progress.code = Some(broken.code.into());
    let fault = Fault {
        status: StatusCode::BAD_GATEWAY.as_u16(),
        error_type: "server_error",
        code: broken.code,
        message: &broken.message,
        param: None,
    };
    end_with_fault(exchange, downstream, &fault).await
}

/// The last event of a stream that has begun, and its end.
pub(crate) async fn end_with_fault(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    fault: &Fault<'_>,
) -> Connection {
    let event = render_fault_event(exchange.api, fault, &exchange.request_id);
    exchange.progress.response_bytes += event.len() as u64;
    let written = async {
        downstream.write_response_body(event, false).await?;
        downstream.write_response_body(Bytes::new(), true).await
    };
    match written.await {
        Ok(()) => Connection::Reusable,
        Err(_) => Connection::lost(exchange),
    }
}
