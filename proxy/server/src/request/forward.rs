//! Step 4: ask the chosen backend, and try the next while nothing has reached the caller.

use std::pin::pin;

use bytes::Bytes;
use pingora::connectors::http::Connector;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession as UpstreamSession;
use tokio::time::Instant;
use weir_config::Resend;
use weir_pipeline::verdict::End;
use weir_routing::{Demand, Reservation};

use crate::members::Target;
use crate::request::exchange::Exchange;
use crate::request::patience::{CallerGone, while_waiting};
use crate::request::refuse::Refusal;
use crate::request::route::{Chosen, Selection};
use crate::request::serve::Connection;
use crate::request::{relay, upstream_request};
use crate::snapshot::Upstream;
use crate::upstream::{Link, Wanted, connect, is_undelivered, release};

/// A try that did not answer the caller.
pub(crate) struct Failure {
    /// What to say if no other try does better.
    pub(crate) refusal: Refusal,
    /// Whether another candidate may be asked: nothing has reached the caller, and the request is
    /// not run twice by it, or may be.
    pub(crate) retry: bool,
    /// The connection was an old one that the backend has closed just now: the same backend may be
    /// asked once more on a new one.
    pub(crate) stale: bool,
    /// The backend is to blame: enough of these in a row take it out for a while.
    pub(crate) blames: bool,
}

/// How an upstream try failed.
struct Unanswered {
    error: Box<pingora::Error>,
    /// The connection had served before.
    reused: bool,
    /// There was no connection, or it failed before all of the request was written.
    unsent: bool,
}

impl Failure {
    /// The backend said itself that it does not serve the request: another may.
    pub(crate) fn next(refusal: Refusal) -> Self {
        Self {
            refusal,
            retry: true,
            stale: false,
            blames: true,
        }
    }

    /// No other backend is to be asked; the one that was is not to blame.
    pub(crate) fn last(refusal: Refusal) -> Self {
        Self {
            refusal,
            retry: false,
            stale: false,
            blames: false,
        }
    }

    /// The same, and whether the backend is to blame.
    pub(crate) fn blaming(self, blames: bool) -> Self {
        Self { blames, ..self }
    }

    /// The caller left.
    pub(crate) fn gone() -> Self {
        Self::last(Refusal::caller_gone())
    }

    /// The backend had the request and broke off without an answer: it may be at work on it.
    pub(crate) fn broken(refusal: Refusal, upstream: &Upstream) -> Self {
        Self {
            refusal,
            retry: upstream.table.resend == Resend::Unanswered,
            stale: false,
            blames: true,
        }
    }

    /// No answer came.
    fn unanswered(tried: &Unanswered, upstream: &Upstream) -> Self {
        let undelivered = tried.unsent || is_undelivered(&tried.error);
        let timed_out = matches!(
            tried.error.etype(),
            pingora::ErrorType::ReadTimedout | pingora::ErrorType::WriteTimedout
        );
        let retry = undelivered || upstream.table.resend == Resend::Unanswered;
        Self {
            refusal: Refusal::upstream_failed(&tried.error),
            retry,
            stale: tried.reused && retry && !timed_out,
            blames: true,
        }
    }
}

/// Walks candidates until one answers.
pub(crate) async fn forward(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
) -> Result<Connection, Refusal> {
    let upstream = match &exchange.call {
        Some(call) => call.target.upstream.clone(),
        None => return Err(Refusal::internal()),
    };
    let body = upstream_request::body(exchange)?;
    let mut selection = Selection::begin(exchange, &upstream);
    let mut tries_left = upstream.retries;
    let mut last: Option<Refusal> = None;
    loop {
        let mut chosen = match selection.next(exchange, Some(downstream)).await {
            Ok(chosen) => chosen,
            // Why the tried ones failed says more than that there are no more.
            Err(refusal) => return Err(last.unwrap_or(refusal)),
        };
        let mut wanted = Wanted::Any;
        let failure = loop {
            match attempt(exchange, downstream, &upstream, &mut chosen, &body, wanted).await {
                Ok(connection) => {
                    let progress = &exchange.progress;
                    let failed = matches!(progress.end, End::UpstreamError | End::Timeout);
                    if !failed || progress.callers_fault {
                        chosen.reservation.backend().record_success();
                        selection.remember(exchange, &chosen);
                    } else {
                        note_failure(exchange, &upstream, &chosen.reservation);
                    }
                    return Ok(connection);
                }
                Err(failure) if failure.stale && wanted == Wanted::Any => wanted = Wanted::New,
                Err(failure) => break failure,
            }
        };
        if failure.blames {
            note_failure(exchange, &upstream, &chosen.reservation);
        }
        if !failure.retry || tries_left == 0 || exchange.is_out_of_time() {
            return Err(failure.refusal);
        }
        tries_left -= 1;
        selection.exclude(chosen.reservation.backend());
        last = Some(failure.refusal);
        exchange.runtime.metrics.retried(&upstream.name);
    }
}

/// Counts a failure against the backend; enough of them take it out for a while.
pub(crate) fn note_failure(exchange: &Exchange, upstream: &Upstream, reservation: &Reservation) {
    let backend = reservation.backend();
    if backend.record_failure(exchange.runtime.now_ms(), &upstream.ejection) {
        tracing::warn!(cluster = %upstream.name, backend = %backend.id(), "backend ejected after failures in a row");
    }
}

/// One try: connect, send, read the head, relay.
async fn attempt(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    upstream: &Upstream,
    chosen: &mut Chosen,
    body: &Bytes,
    wanted: Wanted,
) -> Result<Connection, Failure> {
    let internal = || Failure::last(Refusal::internal());
    let target = chosen.members.targets.get(chosen.index as usize);
    let target = target.ok_or_else(internal)?;
    let reservation = &mut chosen.reservation;
    let head = upstream_request::head(exchange, upstream, target, body).map_err(Failure::last)?;
    exchange.progress.backend = Some(reservation.backend().id().clone());
    // A second connection to the same backend is no other try.
    exchange.progress.tries += u16::from(wanted == Wanted::Any);
    exchange.progress.upstream_status = None;
    // What an earlier try has said does not count: nobody has seen it.
    exchange.progress.usage = None;
    exchange.progress.usage_final = false;
    exchange.progress.callers_fault = false;
    exchange.progress.output_bytes = 0;
    exchange.progress.first_byte_at = None;
    let facts = exchange.facts.as_ref();
    let demand = facts.map_or_else(Demand::default, |facts| facts.demand());
    reservation.await_input(&demand);
    exchange.progress.observation = target.observe(&demand);
    let runtime = exchange.runtime.clone();
    let asking = pin!(ask(
        &runtime.connector,
        upstream,
        target,
        head,
        body.clone(),
        wanted
    ));
    let asked_at = Instant::now();
    let asked = while_waiting(exchange, downstream, asking)
        .await
        .map_err(|CallerGone| {
            exchange.progress.sent_at = Some(asked_at);
            Failure::gone()
        })?;
    exchange.progress.sent_at = Some(asked_at);
    let mut session = asked.map_err(|tried| {
        let Unanswered { error, reused, .. } = &tried;
        tracing::debug!(backend = %reservation.backend().id(), %error, reused, "upstream try failed");
        Failure::unanswered(&tried, upstream)
    })?;
    let connection =
        relay::relay(exchange, downstream, upstream, &mut session, reservation).await?;
    if connection == Connection::Reusable && session.response_done() {
        release(&exchange.runtime.connector, upstream, target, session).await;
    } else {
        session.shutdown().await;
    }
    Ok(connection)
}

/// Sends the request and reads the answer's head.
async fn ask(
    connector: &Connector,
    upstream: &Upstream,
    target: &Target,
    head: pingora::http::RequestHeader,
    body: Bytes,
    wanted: Wanted,
) -> Result<UpstreamSession, Unanswered> {
    let Link {
        mut session,
        reused,
    } = connect(connector, upstream, target, wanted)
        .await
        .map_err(|error| Unanswered {
            error,
            reused: false,
            unsent: true,
        })?;
    session.set_read_timeout(Some(upstream.first_byte_timeout));
    session.set_write_timeout(Some(upstream.write_timeout));
    let mut unsent = true;
    let exchanged = async {
        session.write_request_header(Box::new(head)).await?;
        session.write_request_body(body, true).await?;
        session.finish_request_body().await?;
        unsent = false;
        loop {
            session.read_response_header().await?;
            let interim = session
                .response_header()
                .is_some_and(|head| head.status.is_informational());
            if !interim {
                return Ok(());
            }
        }
    };
    exchanged.await.map_err(|error| Unanswered {
        error,
        reused,
        unsent,
    })?;
    session.set_read_timeout(Some(upstream.between_bytes_timeout));
    Ok(session)
}
