//! Step 1: read the body, peek at it once, and find the model it names.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use pingora::protocols::http::ServerSession;
use weir_dialect::{Api, Peek, normal_routing_key, peek, split_model};
use weir_pipeline::attributes::Attributes;
use weir_pipeline::facts::Facts;
use weir_pipeline::view::{RequestView, Traits};

use crate::request::exchange::{Call, Exchange};
use crate::request::headers::{self, X_PRIORITY};
use crate::request::refuse::Refusal;
use crate::request::sessions::session_keys;

/// Reads the whole body, bounded by `limits.body_max_bytes`.
pub(crate) async fn read_body(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
) -> Result<Bytes, Refusal> {
    let head = downstream.req_header();
    let limits = &exchange.snapshot.config.limits;
    let max = limits.body_max_bytes;
    let header_bytes: usize = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if head.headers.len() > limits.headers_max || header_bytes > limits.headers_max_bytes {
        return Err(Refusal::headers_too_large(
            limits.headers_max,
            limits.headers_max_bytes,
        ));
    }
    if exchange.api == Api::Models {
        return Ok(Bytes::new());
    }
    let announced = headers::content_length(head);
    if announced.is_some_and(|length| length > max as u64) {
        return Err(Refusal::body_too_large(max));
    }
    if head.headers.contains_key(http::header::EXPECT) {
        downstream
            .write_continue_response()
            .await
            .map_err(|_| Refusal::caller_gone())?;
    }
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length = 0_usize;
    loop {
        let chunk = match downstream.read_request_body().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => return Err(Refusal::body_incomplete(&error)),
        };
        length += chunk.len();
        if length > max {
            return Err(Refusal::body_too_large(max));
        }
        match &first {
            // Most bodies come in one piece: it is kept without a copy.
            None => first = Some(chunk),
            Some(head) => {
                if rest.is_empty() {
                    rest.reserve(
                        announced.map_or(head.len() * 2, |n| usize::try_from(n).unwrap_or(0)),
                    );
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

/// Fills in what filters see and finds the model. The facts are there even when this refuses, so
/// that authorization can speak first.
pub(crate) fn classify(
    exchange: &mut Exchange,
    downstream: &ServerSession,
    body: &Bytes,
) -> Result<(), Refusal> {
    exchange.facts = Some(Box::new(facts(exchange, downstream, body)));
    if exchange.api == Api::Models {
        return Ok(());
    }
    if downstream.req_header().headers.contains_key(&X_PRIORITY) {
        return Err(Refusal::reserved_header("X-Priority"));
    }
    let mut peek = peek(exchange.api, body).map_err(|error| Refusal::bad_body(&error))?;
    let (function, model) = split_model(&peek.model).map_err(Refusal::bad_model)?;
    let function = normal_routing_key(function);
    let target = exchange.snapshot.model(&function, model).cloned();
    let target = target.ok_or_else(|| Refusal::model_not_found(&peek.model))?;
    if !target.supports(exchange.api.path()) {
        return Err(Refusal::endpoint_not_supported(
            &peek.model,
            exchange.api.path(),
        ));
    }
    let estimate = peek.est_input_tokens;
    if let Some(correction) = target.corrections.of(exchange.api, peek.has_tools) {
        peek.est_input_tokens = correction.apply(estimate);
    }
    let mut named = Ok(());
    if let Some(facts) = &mut exchange.facts {
        describe(facts, &peek, &target);
        let generated = target.chain.wants_affinity();
        named = session_keys(exchange.api, &peek, &facts.headers, body, generated).map(|keys| {
            facts.view.session_hash = keys.first().map_or(0, |key| key.hash);
            facts.session_keys = keys;
        });
    }
    exchange.call = Some(Call {
        model_json: body.slice(peek.model_span.clone()),
        peek,
        estimate,
        target,
    });
    named.map_err(|error| Refusal::bad_session(&error))
}

/// What filters see of a request before its body is understood.
pub(crate) fn facts(exchange: &Exchange, downstream: &ServerSession, body: &Bytes) -> Facts {
    let head = downstream.req_header();
    let mut view = RequestView::new(exchange.api);
    view.body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let nothing: Arc<str> = Arc::default();
    Facts {
        id: exchange.runtime.next_exchange(),
        request_id: Arc::clone(&exchange.request_id),
        transport: crate::passthrough::transport(head, downstream.is_http2()),
        received_unix_ms: unix_ms(),
        view,
        method: head.method.clone(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: headers::inbound(head),
        edited_headers: Vec::new(),
        peer: peer(downstream),
        sni: None,
        body: body.clone(),
        body_edited: false,
        messages: 0,
        inputs: 0,
        session_keys: Vec::new(),
        principal: None,
        routing_key: Arc::clone(&nothing),
        model: nothing,
        settings: None,
        attributes: Attributes::default(),
        scratch: Vec::new(),
        candidates: None,
        affinity: None,
        session: weir_routing::Session::Unknown,
        excluded: Vec::new(),
        response: None,
        ledger: Arc::clone(&exchange.ledger),
        filter_ns: 0,
    }
}

fn describe(facts: &mut Facts, peek: &Peek, target: &crate::snapshot::ModelTarget) {
    facts.messages = peek.messages;
    facts.inputs = peek.inputs;
    facts.routing_key = Arc::clone(&target.routing_key);
    facts.model = Arc::clone(&target.model);
    facts.settings.clone_from(&target.settings);
    let view = &mut facts.view;
    view.traits = Traits {
        streaming: peek.stream,
        has_tools: peek.has_tools,
        has_images: peek.has_images,
        has_audio: peek.has_audio,
        json_mode: peek.json_mode,
        logprobs: peek.logprobs,
        retry_attempt: false,
    };
    view.routing_key = target.routing_key_id;
    view.model = target.model_id;
    view.settings = target.settings_id;
    view.est_input_tokens = peek.est_input_tokens;
    view.max_output_tokens = peek.max_output_tokens;
}

fn peer(downstream: &ServerSession) -> Option<SocketAddr> {
    downstream
        .client_addr()
        .and_then(|address| address.as_inet().copied())
}

fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
