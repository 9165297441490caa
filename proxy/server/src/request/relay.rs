//! Step 5: the upstream's answer to the caller. Streams go on in `stream`.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession as UpstreamSession;
use tokio::time::Instant;
use weir_config::Resend;
use weir_dialect::{Api, outcome, response_facts, splice};
use weir_pipeline::facts::ResponseFacts;
use weir_pipeline::verdict::End;
use weir_routing::Reservation;

use crate::request::exchange::Exchange;
use crate::request::forward::Failure;
use crate::request::headers::{self, REQUEST_ID, X_REQUEST_ID};
use crate::request::patience::{CallerGone, while_waiting};
use crate::request::refuse::Refusal;
use crate::request::serve::Connection;
use crate::request::{aggregate, limit_headers, stream};
use crate::snapshot::Upstream;

/// By these a backend, or what stands before it, may say that it has not served the request.
const FAILED: [StatusCode; 3] = [
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];
/// Headers by which a worker says that its refusal may be followed by another candidate: ours, and
/// the one of NVCF's workers.
const RETRYABLE: [HeaderName; 2] = [
    HeaderName::from_static("x-weir-retryable"),
    HeaderName::from_static("x-stargate-retryable"),
];

/// Relays head and body. An `Err` means that nothing has reached the caller yet.
pub(crate) async fn relay(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    upstream: &Upstream,
    session: &mut UpstreamSession,
    reservation: &mut Reservation,
) -> Result<Connection, Failure> {
    let head = session.response_header().ok_or_else(Failure::gone)?;
    let status = head.status;
    let declined = declined(status, &head.headers, upstream);
    let received = headers::outbound(&head.headers);
    exchange.progress.upstream_status = Some(status.as_u16());
    downstream.set_write_timeout(Some(upstream.write_timeout));
    if headers::is_event_stream(&received) {
        // Boxed: unary exchanges, the most frequent, need not carry room for a stream.
        return if status.is_success() && exchange.aggregates() {
            Box::pin(aggregate::relay(
                exchange,
                downstream,
                upstream,
                session,
                reservation,
                received,
            ))
            .await
        } else {
            Box::pin(stream::relay(
                exchange,
                downstream,
                upstream,
                session,
                reservation,
                status,
                received,
            ))
            .await
        };
    }
    let max = exchange.snapshot.config.limits.response_max_bytes;
    let body = while_waiting(exchange, downstream, pin!(read_all(session, max)))
        .await
        .map_err(|CallerGone| Failure::gone())?;
    let body = body.map_err(|error| match error {
        Unreadable::TooLarge => Failure::last(Refusal::response_too_large(max)),
        Unreadable::Failed(error) => Failure::broken(Refusal::upstream_failed(&error), upstream),
    })?;
    if declined && may_retry(exchange, upstream) {
        // Who has too much to do is not ill.
        let blames = status != StatusCode::TOO_MANY_REQUESTS;
        return Err(Failure::next(Refusal::no_backend(&upstream.name)).blaming(blames));
    }
    if exchange.progress.head_sent {
        // The caller was promised events while the backend took its time.
        let blames = status.is_server_error();
        return Err(Failure::last(Refusal::not_a_stream(status, &body)).blaming(blames));
    }
    let arrival = match exchange.api {
        // All of the work is on the input.
        Api::Embeddings => Arrival::FirstOutput,
        _ => Arrival::Whole,
    };
    let body = if status.is_success() {
        arrived(exchange, reservation, arrival);
        observed(exchange, body)
    } else {
        body
    };
    let mut received = received;
    received.insert(CONTENT_LENGTH, headers::length(body.len()));
    answer(exchange, downstream, status, received, body).await
}

/// Writes an answer that is no stream, its length among the headers.
pub(crate) async fn answer(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    status: StatusCode,
    received: HeaderMap,
    body: Bytes,
) -> Result<Connection, Failure> {
    let head = response_head(exchange, status, received)
        .await
        .map_err(Failure::last)?;
    exchange.progress.response_bytes = body.len() as u64;
    exchange.progress.end = if status.is_server_error() {
        End::UpstreamError
    } else {
        End::Ok
    };
    let written = async {
        downstream.write_response_header(Box::new(head)).await?;
        downstream.write_response_body(body, true).await
    };
    Ok(match written.await {
        Ok(()) => Connection::Reusable,
        Err(_) => Connection::lost(exchange),
    })
}

/// Whether an answer says that the backend has not served the request, so that another one may: it
/// is unavailable, or the worker says so itself. What stands before a backend may answer 502 or 504
/// while that is at work.
fn declined(status: StatusCode, headers: &HeaderMap, upstream: &Upstream) -> bool {
    let says_so = || {
        let value = RETRYABLE.iter().find_map(|name| headers.get(name));
        value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
    };
    match status {
        StatusCode::SERVICE_UNAVAILABLE => true,
        StatusCode::TOO_MANY_REQUESTS => says_so(),
        _ if FAILED.contains(&status) => upstream.table.resend == Resend::Unanswered || says_so(),
        _ => false,
    }
}

/// Whether there is somebody else to ask; the last one's own words go to the caller.
pub(crate) fn may_retry(exchange: &Exchange, upstream: &Upstream) -> bool {
    let tries = u32::from(exchange.progress.tries);
    tries <= upstream.retries
        && !exchange.is_out_of_time()
        && (tries as usize) < upstream.members(&exchange.runtime).targets.len()
}

/// What of an answer has arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The first output: all before it was work on the input.
    FirstOutput,
    /// All of it at once: how much of the time was work on the input is not known.
    Whole,
}

/// Notes the first output of a backend that answers well.
pub(crate) fn arrived(exchange: &mut Exchange, reservation: &mut Reservation, arrival: Arrival) {
    if exchange.progress.first_byte_at.is_some() {
        return;
    }
    let now = Instant::now();
    exchange.progress.first_byte_at = Some(now);
    let since = exchange
        .progress
        .sent_at
        .map_or(0, |sent| (now - sent).as_micros());
    let since_us = u64::try_from(since).unwrap_or(u64::MAX);
    let observation = &mut exchange.progress.observation;
    match arrival {
        Arrival::FirstOutput => {
            reservation.first_byte(since_us);
            if let Some(observation) = observation {
                observation.first_output(now, since_us);
            }
        }
        Arrival::Whole => {
            reservation.whole(since_us);
            if let Some(observation) = observation {
                observation.answered(since_us);
            }
        }
    }
}

/// The response phases, then the head for the caller.
pub(crate) async fn response_head(
    exchange: &mut Exchange,
    status: StatusCode,
    mut received: HeaderMap,
) -> Result<ResponseHeader, Refusal> {
    let chain = exchange.chain().ok_or_else(Refusal::internal)?;
    limit_headers::onto_answer(exchange, &mut received);
    let mut facts = exchange.take_facts()?;
    for (name, value) in exchange.affinity.iter().flat_map(|key| &key.answer_headers) {
        received.insert(name.clone(), value.clone());
    }
    facts.response = Some(ResponseFacts {
        status,
        headers: received,
    });
    let (mut facts, result) = chain.response_headers(facts).await;
    let response = facts.response.take();
    exchange.facts = Some(facts);
    result.map_err(|stop| Refusal::stopped(stop, End::Denied))?;
    let response = response.ok_or_else(Refusal::internal)?;
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = response.status;
    parts.headers = response.headers;
    if let Ok(id) = HeaderValue::from_str(&exchange.request_id) {
        if exchange.api == Api::Messages {
            parts.headers.insert(REQUEST_ID, id.clone());
        }
        parts.headers.insert(X_REQUEST_ID, id);
    }
    exchange.progress.status = parts.status.as_u16();
    Ok(ResponseHeader::from(parts))
}

/// Reads usage, and gives the answer the name the caller used for the model.
fn observed(exchange: &mut Exchange, body: Bytes) -> Bytes {
    let facts = response_facts(exchange.api, &body);
    exchange.progress.usage = facts.usage;
    exchange.progress.usage_final = facts.usage.is_some();
    if let Some(hop) = &mut exchange.hop {
        hop.outcome = outcome(exchange.api, &body);
    }
    // Embeddings are no output.
    if facts.usage.is_none() && exchange.api != Api::Embeddings {
        exchange.progress.output_bytes = body.len() as u64;
    }
    match (facts.model_span, &exchange.call) {
        (Some(span), Some(call)) => splice(&body, &mut [(span, &call.model_json)]),
        _ => body,
    }
}

enum Unreadable {
    TooLarge,
    Failed(Box<pingora::Error>),
}

async fn read_all(session: &mut UpstreamSession, max: usize) -> Result<Bytes, Unreadable> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(chunk) = session
        .read_response_body()
        .await
        .map_err(Unreadable::Failed)?
    {
        if chunk.len() + rest.len() > max {
            return Err(Unreadable::TooLarge);
        }
        match &first {
            None => first = Some(chunk),
            Some(head) => {
                if rest.is_empty() {
                    rest.extend_from_slice(head);
                }
                rest.extend_from_slice(&chunk);
            }
        }
    }
    Ok(if rest.is_empty() {
        first.unwrap_or_default()
    } else {
        rest.freeze()
    })
}
