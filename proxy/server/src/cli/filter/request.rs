//! A case as filters see it: the exchange, its candidates, its events.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use weir_dialect::{Api, normal_routing_key, peek, split_model};
use weir_pipeline::attributes::Attributes;
use weir_pipeline::facts::{Facts, ResponseFacts, Transport};
use weir_pipeline::intern::{Interner, NameId};
use weir_pipeline::ledger::Ledger;
use weir_pipeline::principal::Principal;
use weir_pipeline::settings::ModelSettings;
use weir_pipeline::verdict::StreamEvent;
use weir_pipeline::view::{RequestView, Traits};
use weir_routing::{CandidateSet, Cluster, ClusterSpec, Fleet, MemberSpec, Report};

use crate::cli::filter::cases::{Case, EventRow, PrincipalRow, RequestRow};
use crate::request::sessions::session_keys;

/// The exchange of a case, without candidates.
pub(crate) fn facts(case: &Case, interner: &Interner) -> Result<Box<Facts>, String> {
    let row = &case.request;
    let method = row.method.as_deref().unwrap_or("POST");
    let path = row.path.as_deref().unwrap_or(Api::ChatCompletions.path());
    let api = Api::from_path(method, path).unwrap_or(Api::Other);
    let body = body(row, api)?;
    let mut view = RequestView::new(api);
    view.body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
    view.attempt = u16::try_from(case.excluded.len()).unwrap_or(u16::MAX);
    view.traits.retry_attempt = view.attempt > 0;
    let principal = case
        .principal
        .as_ref()
        .map(|row| Arc::new(principal(row, interner)));
    if let Some(principal) = &principal {
        view.principal = principal.id;
        view.priority = principal.priority;
    }
    let mut facts = Facts {
        id: 1,
        request_id: Arc::from("test-request"),
        transport: Transport::Http1,
        received_unix_ms: RECEIVED_UNIX_MS,
        view,
        method: Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("`{method}` is no method"))?,
        path: path.to_owned(),
        query: row.query.clone(),
        headers: headers(&row.headers)?,
        edited_headers: Vec::new(),
        peer: None,
        sni: None,
        body,
        body_edited: false,
        messages: 0,
        inputs: 0,
        session_keys: Vec::new(),
        principal,
        routing_key: Arc::default(),
        model: Arc::default(),
        settings: Some(Arc::new(settings(row))),
        attributes: attributes(row)?,
        scratch: Vec::new(),
        candidates: None,
        affinity: None,
        session: weir_routing::Session::Unknown,
        excluded: case.excluded.clone(),
        response: None,
        ledger: Arc::new(Ledger::default()),
        filter_ns: 0,
    };
    if let Some(row) = &case.response {
        let status = StatusCode::from_u16(row.status)
            .map_err(|_| format!("`{}` is no status", row.status))?;
        facts.response = Some(ResponseFacts {
            status,
            headers: headers(&row.headers)?,
        });
    }
    read_body(&mut facts, interner)?;
    Ok(Box::new(facts))
}

/// What the gateway reads of a model call's body before it asks filters.
fn read_body(facts: &mut Facts, interner: &Interner) -> Result<(), String> {
    if matches!(facts.view.api, Api::Models | Api::Other) {
        return Ok(());
    }
    let refused = |error: &dyn std::fmt::Display| {
        format!("the gateway refuses this body before any filter: {error}")
    };
    let peek = peek(facts.view.api, &facts.body).map_err(|error| refused(&error))?;
    let (function, model) = split_model(&peek.model).map_err(|error| refused(&error))?;
    facts.routing_key = Arc::from(normal_routing_key(function).as_ref());
    facts.model = Arc::from(model);
    facts.messages = peek.messages;
    facts.inputs = peek.inputs;
    facts.session_keys = session_keys(facts.view.api, &peek, &facts.headers, &facts.body, true)
        .map_err(|error| refused(&error))?;
    let view = &mut facts.view;
    view.routing_key = interner.intern(&facts.routing_key);
    view.model = interner.intern(&facts.model);
    let settings = facts.settings.as_ref();
    let id = settings.map_or(Some(NameId::NONE), |settings| settings.id(interner));
    view.settings = id.ok_or("too many names")?;
    view.session_hash = facts.session_keys.first().map_or(0, |key| key.hash);
    view.est_input_tokens = peek.est_input_tokens;
    view.max_output_tokens = peek.max_output_tokens;
    view.traits = Traits {
        streaming: peek.stream,
        has_tools: peek.has_tools,
        has_images: peek.has_images,
        has_audio: peek.has_audio,
        json_mode: peek.json_mode,
        logprobs: peek.logprobs,
        ..view.traits
    };
    Ok(())
}

fn body(row: &RequestRow, api: Api) -> Result<Bytes, String> {
    if let Some(text) = &row.body_text {
        return Ok(Bytes::from(text.clone().into_bytes()));
    }
    let mut object = match &row.body {
        Some(table) => serde_json::to_value(table).map_err(|error| format!("body: {error}"))?,
        None => match api {
            Api::Models | Api::Other => return Ok(Bytes::new()),
            Api::ChatCompletions | Api::Messages => {
                serde_json::json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 16})
            }
            Api::Responses | Api::Embeddings => serde_json::json!({"input": "hi"}),
        },
    };
    if let Some(object) = object.as_object_mut() {
        let model = row.model.as_deref().unwrap_or(MODEL);
        if row.model.is_some() || !object.contains_key("model") {
            object.insert("model".to_owned(), model.into());
        }
    }
    Ok(Bytes::from(object.to_string()))
}

fn headers(rows: &std::collections::BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(rows.len());
    for (name, value) in rows {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("`{name}` is no header name"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| format!("`{value}` is no header value"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn settings(row: &RequestRow) -> ModelSettings {
    let text = |value: &Option<String>| value.as_deref().map(Arc::from);
    ModelSettings {
        routing_method: text(&row.routing_method),
        token_rate_limit: text(&row.token_rate_limit),
        input_token_rate_limit: text(&row.input_token_rate_limit),
        output_token_rate_limit: text(&row.output_token_rate_limit),
        request_rate_limit: text(&row.request_rate_limit),
    }
}

fn attributes(row: &RequestRow) -> Result<Attributes, String> {
    let mut attributes = Attributes::default();
    for (name, value) in &row.attributes {
        if !attributes.set(name, value) {
            return Err(format!(
                "attribute `{name}` is too long, or there are too many"
            ));
        }
    }
    Ok(attributes)
}

fn principal(row: &PrincipalRow, interner: &Interner) -> Principal {
    Principal {
        id: interner.intern(&row.subject),
        subject: Arc::from(row.subject.as_str()),
        tenant: Arc::from(row.tenant.as_deref().unwrap_or(&row.subject)),
        plan: Arc::from(row.plan.as_str()),
        scopes: row.scopes.clone(),
        models: row.models.clone(),
        priority: row.priority,
    }
}

/// The backends of a case, with the loads they report. The same backends in a later case are the
/// same cluster, whose cursor counts on; the caller keeps it alive.
pub(crate) fn candidates(case: &Case, fleet: &Fleet, now_ms: u64) -> (Arc<Cluster>, CandidateSet) {
    let spec = ClusterSpec {
        members: case
            .candidates
            .iter()
            .map(|row| MemberSpec {
                max_concurrency: case.max_concurrency,
                ..MemberSpec::new(&row.address, row.weight)
            })
            .collect(),
        ..ClusterSpec::new("test", Vec::new())
    };
    let cluster = fleet.cluster(&spec, now_ms);
    for row in &case.candidates {
        let named = cluster
            .backends()
            .iter()
            .filter(|candidate| **candidate.backend.id() == *row.address);
        for candidate in named {
            let report = Report {
                running: row.running,
                queued: row.queued,
                queued_input_tokens: row.queued_input_tokens,
                kv_free_tokens: row.kv_free_tokens,
                input_tps: row.input_tps,
                output_tps: row.output_tps,
                ..Report::default()
            };
            candidate.backend.report(&report, now_ms);
        }
    }
    let set = cluster.candidates(now_ms, &[]);
    (cluster, set)
}

/// The events of a case, numbered.
pub(crate) fn events(rows: &[EventRow]) -> Vec<StreamEvent> {
    let event = |(seq, row): (u32, &EventRow)| StreamEvent {
        seq,
        name: row.name.clone(),
        data: Bytes::from(row.data.clone().into_bytes()),
        delta: row.delta.clone(),
        finish: row.finish,
        usage: None,
    };
    (0..).zip(rows).map(event).collect()
}

const MODEL: &str = "demo/sim";

/// The same in each run: what is derived from it does not change.
const RECEIVED_UNIX_MS: u64 = 1_700_000_000_000;
