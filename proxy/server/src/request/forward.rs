//! Step 4: choose a backend, ask it, and try the next while nothing has reached the caller.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use pingora::connectors::http::Connector;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession as UpstreamSession;
use tokio::time::{Instant, sleep};
use weir_config::Resend;
use weir_pipeline::verdict::{Choice, End};
use weir_routing::{Candidate, CandidateSet, Demand, Reservation, Waiting};

use crate::request::exchange::Exchange;
use crate::request::patience::{CallerGone, while_waiting};
use crate::request::refuse::Refusal;
use crate::request::serve::Connection;
use crate::request::{relay, upstream_request};
use crate::snapshot::{Target, Upstream};
use crate::upstream::{Link, Wanted, connect, is_undelivered, release};

/// Longest time a routing filter may make an exchange wait in all.
const ROUTE_WAIT_MAX: Duration = Duration::from_secs(60);

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
}

/// How an upstream try failed.
struct Unanswered {
    error: Box<pingora::Error>,
    /// The connection had served before.
    reused: bool,
    /// No connection was there to send the request on.
    unconnected: bool,
}

impl Failure {
    /// The backend said itself that it does not serve the request: another may.
    pub(crate) fn next(refusal: Refusal) -> Self {
        Self {
            refusal,
            retry: true,
            stale: false,
        }
    }

    /// No other backend is to be asked.
    pub(crate) fn last(refusal: Refusal) -> Self {
        Self {
            refusal,
            retry: false,
            stale: false,
        }
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
        }
    }

    /// No answer came.
    fn unanswered(tried: &Unanswered, upstream: &Upstream) -> Self {
        let undelivered = tried.unconnected || is_undelivered(&tried.error);
        let refusal = Refusal::upstream_failed(&tried.error);
        Self {
            retry: undelivered || upstream.table.resend == Resend::Unanswered,
            stale: tried.reused && undelivered,
            refusal,
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
    let mut excluded: Vec<u32> = Vec::new();
    let mut tries_left = upstream.retries;
    let mut last: Option<Refusal> = None;
    loop {
        let (index, mut reservation) =
            match choose(exchange, downstream, &upstream, &excluded).await {
                Ok(chosen) => chosen,
                // Why the tried ones failed says more than that there are no more.
                Err(refusal) => return Err(last.unwrap_or(refusal)),
            };
        let mut wanted = Wanted::Any;
        let failure = loop {
            match attempt(
                exchange,
                downstream,
                &upstream,
                index,
                &mut reservation,
                &body,
                wanted,
            )
            .await
            {
                Ok(connection) => {
                    if matches!(exchange.progress.end, End::UpstreamError | End::Timeout) {
                        note_failure(exchange, &upstream, &reservation);
                    } else {
                        reservation.backend().record_success();
                    }
                    return Ok(connection);
                }
                Err(failure) if failure.stale && wanted == Wanted::Any => wanted = Wanted::New,
                Err(failure) => break failure,
            }
        };
        if failure.refusal.end() != End::ClientGone {
            note_failure(exchange, &upstream, &reservation);
        }
        if !failure.retry || tries_left == 0 {
            return Err(failure.refusal);
        }
        tries_left -= 1;
        excluded.push(index);
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

/// Asks the chain for a ranking and takes the first candidate that can be reserved.
async fn choose(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    upstream: &Upstream,
    excluded: &[u32],
) -> Result<(u32, Reservation), Refusal> {
    let affinity_hash = exchange
        .affinity
        .as_ref()
        .map_or(0, |affinity| affinity.hash);
    let give_up = Instant::now() + ROUTE_WAIT_MAX;
    let mut waiting: Option<Waiting> = None;
    loop {
        let candidates = upstream
            .cluster
            .candidates(exchange.runtime.now_ms(), excluded);
        if candidates.is_empty() {
            return Err(Refusal::no_backend(&upstream.name));
        }
        match rank(exchange, &candidates, affinity_hash).await? {
            Choice::WaitMs(ms) => {
                let pause = Duration::from_millis(u64::from(ms.max(1)));
                if Instant::now() + pause > give_up {
                    return Err(Refusal::overloaded(&upstream.name));
                }
                let Some(waiting) = &mut waiting else {
                    // Asked once more with a place among those who wait: what changes from here on
                    // is not missed.
                    let facts = exchange.facts.as_ref();
                    let demand = facts.map_or_else(Demand::default, |facts| facts.demand());
                    waiting = Some(upstream.cluster.wait(demand.priority));
                    continue;
                };
                let woken = async {
                    tokio::select! {
                        () = waiting.changed() => {}
                        () = sleep(pause) => {}
                    }
                };
                while_waiting(exchange, downstream, pin!(woken))
                    .await
                    .map_err(|CallerGone| Refusal::caller_gone())?;
            }
            Choice::Pick(position) => return reserve(upstream, &candidates, &[position], true),
            Choice::Ranked(ranking) => return reserve(upstream, &candidates, &ranking, false),
            Choice::Abstain | Choice::Reject(_) => {
                return reserve(upstream, &candidates, &[], true);
            }
        }
    }
}

async fn rank(
    exchange: &mut Exchange,
    candidates: &CandidateSet,
    affinity_hash: u64,
) -> Result<Choice, Refusal> {
    let chain = exchange.chain().ok_or_else(Refusal::internal)?;
    let mut facts = exchange.take_facts()?;
    facts.candidates = Some(candidates.clone());
    facts.affinity.clone_from(&exchange.affinity);
    facts.view.attempt = exchange.progress.tries;
    facts.view.traits.retry_attempt = exchange.progress.tries > 0;
    let (mut facts, result) = chain.route(facts, affinity_hash).await;
    facts.candidates = None;
    exchange.facts = Some(facts);
    result.map_err(|stop| Refusal::stopped(stop, End::Denied))
}

/// The first of `ranking` with room; with `others` whoever else has room after them.
fn reserve(
    upstream: &Upstream,
    candidates: &CandidateSet,
    ranking: &[u32],
    others: bool,
) -> Result<(u32, Reservation), Refusal> {
    let rest = (0..u32::try_from(candidates.len()).unwrap_or(u32::MAX)).filter(|_| others);
    ranking
        .iter()
        .copied()
        .chain(rest)
        .filter_map(|position| candidates.at(position))
        .find_map(Candidate::reserve)
        .ok_or_else(|| Refusal::overloaded(&upstream.name))
}

/// One try: connect, send, read the head, relay.
async fn attempt(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    upstream: &Upstream,
    index: u32,
    reservation: &mut Reservation,
    body: &Bytes,
    wanted: Wanted,
) -> Result<Connection, Failure> {
    let internal = || Failure::last(Refusal::internal());
    let target = upstream.targets.get(index as usize).ok_or_else(internal)?;
    let head = upstream_request::head(exchange, upstream, target, body).map_err(Failure::last)?;
    exchange.progress.backend = Some(reservation.backend().id().clone());
    exchange.progress.tries += 1;
    exchange.progress.upstream_status = None;
    // What an earlier try has said does not count: nobody has seen it.
    exchange.progress.usage = None;
    exchange.progress.usage_final = false;
    exchange.progress.output_bytes = 0;
    exchange.progress.first_byte_at = None;
    let facts = exchange.facts.as_ref();
    let demand = facts.map_or_else(Demand::default, |facts| facts.demand());
    reservation.await_input(&demand);
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
            unconnected: true,
        })?;
    session.set_read_timeout(Some(upstream.first_byte_timeout));
    session.set_write_timeout(Some(upstream.write_timeout));
    let exchanged = async {
        session.write_request_header(Box::new(head)).await?;
        session.write_request_body(body, true).await?;
        session.finish_request_body().await?;
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
        unconnected: false,
    })?;
    session.set_read_timeout(Some(upstream.between_bytes_timeout));
    Ok(session)
}
