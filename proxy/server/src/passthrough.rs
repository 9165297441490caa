//! Any other path: the header phases of a chain, then pingora's duplex to a cluster. WebSocket and
//! gRPC go through here.

use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use weir_dialect::Api;
use weir_pipeline::facts::{ResponseFacts, Transport};
use weir_pipeline::verdict::End;
use weir_routing::Demand;

use crate::members::Way;
use crate::request::exchange::Exchange;
use crate::request::forward::note_failure;
use crate::request::headers::{self, HINTS, X_REQUEST_ID};
use crate::request::hints::Hints;
use crate::request::refuse::{self, Refusal};
use crate::request::relay::{self, Arrival};
use crate::request::route::{Chosen, Selection};
use crate::request::serve::Connection;
use crate::request::{classify, settle, trace};
use crate::runtime::Runtime;
use crate::snapshot::{Route, Snapshot, Upstream};
use crate::telemetry::Active;
use crate::workers::seat::STREAM_IDLE;

/// A pass-through exchange, admitted.
pub(crate) struct Passage {
    exchange: Exchange,
    upstream: Arc<Upstream>,
    selection: Selection,
    /// Path for the upstream when the route strips its prefix.
    path: Option<String>,
    /// The backend in use.
    chosen: Option<Chosen>,
    upgrade: bool,
    has_met_stale: bool,
    _active: Active,
}

impl Passage {
    /// Finds the route and asks the chain; refuses with the answer written already.
    pub(crate) async fn begin(
        runtime: &Arc<Runtime>,
        downstream: &mut ServerSession,
    ) -> Result<Box<Self>, Connection> {
        let snapshot = runtime.snapshot();
        let request_id = headers::request_id(downstream.req_header());
        let active = runtime.metrics.active(Api::Other);
        let mut exchange = Exchange::new(runtime, snapshot.clone(), Api::Other, request_id);
        exchange.facts = Some(Box::new(classify::facts(
            &exchange,
            downstream,
            &bytes::Bytes::new(),
        )));
        trace::join(&mut exchange);
        match Self::admit(&mut exchange, &snapshot, downstream).await {
            Ok(route) => Ok(Box::new(Self {
                selection: Selection::begin(&exchange, &route.upstream),
                upstream: Arc::clone(&route.upstream),
                path: stripped(route, downstream.req_header()),
                chosen: None,
                upgrade: downstream.req_header().headers.contains_key(UPGRADE),
                has_met_stale: false,
                exchange,
                _active: active,
            })),
            Err(refusal) => {
                let connection = refuse::write(&mut exchange, downstream, refusal).await;
                settle::settle(exchange);
                Err(connection)
            }
        }
    }

    async fn admit<'a>(
        exchange: &mut Exchange,
        snapshot: &'a Snapshot,
        downstream: &ServerSession,
    ) -> Result<&'a Route, Refusal> {
        let head = downstream.req_header();
        let path = head.uri.path();
        let Some(route) = snapshot.route(host(head), path) else {
            // So that a wrong method is told in the words of the API whose path it is.
            exchange.api = Api::from_path("POST", path).unwrap_or(exchange.api);
            return Err(unrouted(path));
        };
        exchange.passing = Some(route.chain.clone());
        if let Some(chain) = exchange.chain() {
            let (facts, result) = chain.request_headers(exchange.take_facts()?).await;
            exchange.facts = Some(facts);
            result.map_err(|stop| Refusal::stopped(stop, End::Denied))?;
            let (facts, result) = chain.authorize(exchange.take_facts()?).await;
            exchange.facts = Some(facts);
            result.map_err(|stop| Refusal::stopped(stop, End::Denied))?;
            exchange.hints = Hints::read(exchange)?;
        }
        Ok(route)
    }

    /// The next backend to try.
    pub(crate) async fn peer(&mut self) -> pingora::Result<Box<HttpPeer>> {
        let chosen = self.selection.next(&mut self.exchange, None).await;
        let chosen = chosen.map_err(|refusal| {
            self.exchange.held = Some(refusal);
            Error::new_up(ErrorType::ConnectError)
        })?;
        let target = chosen.members.targets.get(chosen.index as usize);
        let target = target.ok_or_else(|| Error::new_in(ErrorType::InternalError))?;
        let progress = &mut self.exchange.progress;
        progress.backend = Some(chosen.reservation.backend().id().clone());
        progress.tries += 1;
        progress.sent_at = Some(tokio::time::Instant::now());
        progress.observation = target.observe(&Demand::default());
        let mut peer = target.peer.clone();
        // An upgraded connection may be silent for as long as its ends like.
        peer.options.read_timeout = (!self.upgrade).then_some(self.upstream.first_byte_timeout);
        peer.options.write_timeout = Some(self.upstream.write_timeout);
        peer.options.idle_timeout = Some(match &target.way {
            Way::Tcp(..) => self.upstream.idle_timeout,
            Way::Tunnel(_) => self.upstream.idle_timeout.min(STREAM_IDLE),
        });
        self.chosen = Some(chosen);
        Ok(Box::new(peer))
    }

    /// The backend has closed a connection that was kept, which is nobody's fault; whether a
    /// connection is tried once more, which is no other try. That is so once.
    pub(crate) fn met_stale(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.has_met_stale, true);
        if first {
            self.chosen = None;
            let progress = &mut self.exchange.progress;
            progress.tries = progress.tries.saturating_sub(1);
        }
        first && !self.exchange.is_out_of_time()
    }

    /// A backend was not reached, or did not get the request; whether there is another try.
    pub(crate) fn failed(&mut self, error: &Error) -> bool {
        self.blame();
        if self.exchange.held.is_none() {
            self.exchange.held = Some(Refusal::upstream_failed(error));
        }
        let more = relay::may_retry(&self.exchange, &self.upstream);
        if more {
            self.exchange.held = None;
            self.exchange.runtime.metrics.retried(&self.upstream.name);
        }
        more
    }

    fn blame(&mut self) {
        if let Some(chosen) = self.chosen.take() {
            note_failure(&self.exchange, &self.upstream, &chosen.reservation);
            self.selection.exclude(chosen.reservation.backend());
        }
    }

    /// The request as filters left it, with the edge's own headers.
    pub(crate) fn dress_request(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        let Some(facts) = &self.exchange.facts else {
            return Ok(());
        };
        let internal: Vec<_> = request
            .headers
            .keys()
            .filter(|name| headers::is_internal(name.as_str()))
            .cloned()
            .collect();
        for name in internal {
            request.remove_header(&name);
        }
        replace_edited(request, &facts.headers)?;
        for name in HINTS {
            if !facts.edited_headers.contains(&name) {
                request.remove_header(&name);
            }
        }
        if !self.upstream.pass_authorization {
            request.remove_header(&AUTHORIZATION);
            request.remove_header("x-api-key");
            request.remove_header(&COOKIE);
        }
        if let Some((name, key)) = &self.upstream.credential {
            request.insert_header(name.clone(), key.clone())?;
        }
        request.insert_header(X_REQUEST_ID, &*self.exchange.request_id)?;
        if let Some(path) = &self.path {
            let uri = path
                .parse()
                .map_err(|_| Error::new_in(ErrorType::InternalError))?;
            request.set_uri(uri);
        }
        Ok(())
    }

    /// The answer's head: response phases, and nothing internal.
    pub(crate) async fn dress_response(
        &mut self,
        response: &mut ResponseHeader,
    ) -> pingora::Result<()> {
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
        {
            return Ok(());
        }
        self.exchange.progress.upstream_status = Some(response.status.as_u16());
        self.exchange.progress.status = response.status.as_u16();
        let well = response.status.is_success() || response.status.is_informational();
        if let Some(chosen) = self.chosen.as_mut().filter(|_| well) {
            let reservation = &mut chosen.reservation;
            relay::arrived(&mut self.exchange, reservation, Arrival::Whole);
        }
        let internal: Vec<_> = response
            .headers
            .keys()
            .filter(|name| headers::is_internal(name.as_str()))
            .cloned()
            .collect();
        for name in internal {
            response.remove_header(&name);
        }
        response.insert_header(X_REQUEST_ID, &*self.exchange.request_id)?;
        let Some(chain) = self.exchange.chain() else {
            return Ok(());
        };
        let Ok(mut facts) = self.exchange.take_facts() else {
            return Ok(());
        };
        let before = response.headers.clone();
        facts.response = Some(ResponseFacts {
            status: response.status,
            headers: before.clone(),
        });
        let (mut facts, result) = chain.response_headers(facts).await;
        let edited = facts.response.take();
        self.exchange.facts = Some(facts);
        if let Err(stop) = result {
            self.exchange.held = Some(Refusal::stopped(stop, End::Denied));
            return Err(Error::new_in(ErrorType::InternalError));
        }
        match edited {
            Some(edited) if edited.headers != before => apply(response, &before, &edited.headers),
            _ => Ok(()),
        }
    }

    /// Bytes of the answer.
    pub(crate) fn count_response(&mut self, length: usize) {
        self.exchange.progress.response_bytes += length as u64;
    }

    /// Tells the caller why there is no answer, while nothing was written; the status, or 0.
    pub(crate) async fn refuse(&mut self, downstream: &mut ServerSession, error: &Error) -> u16 {
        if *error.esource() == ErrorSource::Downstream {
            self.exchange.progress.end = End::ClientGone;
            return 0;
        }
        if *error.esource() == ErrorSource::Upstream {
            self.blame();
        }
        if downstream.response_written().is_some() {
            self.exchange.progress.end = End::UpstreamError;
            return 0;
        }
        let refusal = self
            .exchange
            .held
            .take()
            .unwrap_or_else(|| Refusal::upstream_failed(error));
        downstream.set_keepalive(None);
        refuse::write(&mut self.exchange, downstream, refusal).await;
        self.exchange.progress.status
    }

    /// The end, however it came.
    pub(crate) fn end(mut self: Box<Self>, downstream: &ServerSession, error: Option<&Error>) {
        match (error, self.chosen.take()) {
            (None, Some(chosen)) => chosen.reservation.backend().record_success(),
            (Some(error), _) if self.exchange.progress.end == End::Ok => {
                let client = *error.esource() == ErrorSource::Downstream;
                self.exchange.progress.end = if client {
                    End::ClientGone
                } else {
                    End::UpstreamError
                };
            }
            _ => {}
        }
        if downstream.response_written().is_none() {
            self.exchange.progress.status = 0;
        }
        settle::settle(self.exchange);
    }
}

fn unrouted(path: &str) -> Refusal {
    let llm = |method| Api::from_path(method, path).is_some();
    if llm("POST") {
        Refusal::method_not_allowed("POST")
    } else if llm("GET") {
        Refusal::method_not_allowed("GET")
    } else {
        Refusal::path_not_found(path)
    }
}

fn host(head: &RequestHeader) -> Option<&str> {
    let host = head
        .headers
        .get(http::header::HOST)
        .and_then(|value| value.to_str().ok());
    let host = host.or_else(|| head.uri.authority().map(http::uri::Authority::as_str))?;
    // Without the port; an IPv6 literal keeps its brackets.
    Some(
        host.rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
            .map_or(host, |(name, _)| name),
    )
}

/// Transport as filters see it.
pub(crate) fn transport(head: &RequestHeader, http2: bool) -> Transport {
    let content_type = head
        .headers
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    if content_type.starts_with(b"application/grpc") {
        Transport::Grpc
    } else if head.headers.contains_key(UPGRADE) {
        Transport::Websocket
    } else if http2 {
        Transport::Http2
    } else {
        Transport::Http1
    }
}

fn stripped(route: &Route, head: &RequestHeader) -> Option<String> {
    if !route.table.strip_prefix {
        return None;
    }
    let rest = head
        .uri
        .path()
        .strip_prefix(&route.table.path_prefix)
        .unwrap_or("");
    let query = head
        .uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    Some(format!("/{}{query}", rest.trim_start_matches('/')))
}

/// Carries what filters changed over to the request; connection headers stay pingora's.
fn replace_edited(request: &mut RequestHeader, edited: &HeaderMap) -> pingora::Result<()> {
    let before = headers::inbound(request);
    for name in before.keys().filter(|name| !edited.contains_key(*name)) {
        request.remove_header(name);
    }
    for name in edited.keys() {
        let same = before.get_all(name).iter().eq(edited.get_all(name).iter());
        if same {
            continue;
        }
        request.remove_header(name);
        for value in edited.get_all(name) {
            request.append_header(name.clone(), value.clone())?;
        }
    }
    Ok(())
}

fn apply(
    response: &mut ResponseHeader,
    before: &HeaderMap,
    edited: &HeaderMap,
) -> pingora::Result<()> {
    for name in before.keys().filter(|name| !edited.contains_key(*name)) {
        response.remove_header(name);
    }
    for name in edited.keys() {
        response.remove_header(name);
        for value in edited.get_all(name) {
            response.append_header(name.clone(), value.clone())?;
        }
    }
    Ok(())
}
