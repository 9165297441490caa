//! One exchange as a span, by the conventions for generative AI.

use std::time::UNIX_EPOCH;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use weir_dialect::Api;

use crate::telemetry::genai::Operation;
use crate::telemetry::otlp::spans::{Asked, Ended};

/// The span of an exchange: of kind client, as the conventions have it, for what it tells of is
/// the call of a model.
pub(super) fn span(ended: &Ended) -> Span {
    let end = ended.ended.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(0);
    let hop = &ended.hop;
    let parent = hop
        .parent
        .map_or_else(Vec::new, |id| id.to_be_bytes().to_vec());
    let remote = if hop.parent.is_some() { IS_REMOTE } else { 0 };
    Span {
        trace_id: hop.trace_id.to_be_bytes().to_vec(),
        span_id: hop.span_id.to_be_bytes().to_vec(),
        trace_state: ended.trace_state.clone().unwrap_or_default(),
        parent_span_id: parent,
        flags: u32::from(hop.flags) | HAS_IS_REMOTE | remote,
        name: name(ended),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: nanoseconds(end.saturating_sub(ended.total)),
        end_time_unix_nano: nanoseconds(end),
        attributes: attributes(ended),
        status: ended.error.map(|_| Status {
            message: String::new(),
            code: StatusCode::Error.into(),
        }),
        ..Span::default()
    }
}

/// Of few values: no path that a caller chose.
fn name(ended: &Ended) -> String {
    match (Operation::of(ended.api), &ended.asked) {
        (Some(operation), Some(asked)) => format!("{} {}", operation.name(), asked.target.model),
        (Some(operation), None) => operation.name().to_owned(),
        (None, _) if ended.api == Api::Models => format!("{} {}", ended.method, ended.api.path()),
        (None, _) => ended.method.to_string(),
    }
}

fn attributes(ended: &Ended) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(24);
    match Operation::of(ended.api) {
        Some(operation) => {
            attributes.push(text("gen_ai.operation.name", operation.name()));
            attributes.push(text("gen_ai.provider.name", operation.provider()));
            if let Some(kind) = openai_api(ended.api) {
                attributes.push(text("openai.api.type", kind));
            }
        }
        None => {
            attributes.push(text("http.request.method", ended.method.as_str()));
            attributes.push(text("url.path", &ended.path));
        }
    }
    if let Some(asked) = &ended.asked {
        about_call(&mut attributes, ended, asked);
    }
    if let Some((host, port)) = ended.backend.as_deref().and_then(|at| at.rsplit_once(':')) {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        attributes.push(text("server.address", host));
        attributes.extend(port.parse().ok().map(|port| integer("server.port", port)));
    }
    if ended.status != 0 {
        let status = i64::from(ended.status);
        attributes.push(integer("http.response.status_code", status));
    }
    if let Some(error) = ended.error {
        attributes.push(text("error.type", error));
    }
    if let Some(code) = &ended.code {
        attributes.push(text("weir.code", code));
    }
    if let Some(principal) = &ended.principal {
        attributes.push(text("weir.tenant", &principal.tenant));
        attributes.push(text("weir.principal", &principal.subject));
    }
    attributes.push(text("weir.request_id", &ended.request_id));
    attributes.push(integer("weir.tries", i64::from(ended.tries)));
    attributes
}

fn about_call(attributes: &mut Vec<KeyValue>, ended: &Ended, asked: &Asked) {
    let target = &asked.target;
    attributes.push(text("gen_ai.request.model", &target.model));
    attributes.push(text("weir.function", &target.routing_key));
    attributes.push(text("weir.cluster", &target.upstream.name));
    if asked.stream {
        attributes.push(flag("gen_ai.request.stream", true));
    }
    if asked.json {
        attributes.push(text("gen_ai.output.type", "json"));
    }
    if asked.max_output_tokens > 0 {
        let max = i64::from(asked.max_output_tokens);
        attributes.push(integer("gen_ai.request.max_tokens", max));
    }
    if let Some(first) = ended.first.filter(|_| asked.stream) {
        let seconds = first.as_secs_f64();
        attributes.push(number("gen_ai.response.time_to_first_chunk", seconds));
    }
    let outcome = &ended.hop.outcome;
    if let Some(id) = &outcome.id {
        attributes.push(text("gen_ai.response.id", id));
    }
    if let Some(model) = &outcome.model {
        attributes.push(text("gen_ai.response.model", model));
    }
    if !outcome.finish_reasons.is_empty() {
        let reasons = texts("gen_ai.response.finish_reasons", &outcome.finish_reasons);
        attributes.push(reasons);
    }
    let usage = &ended.usage;
    if !usage.reported {
        return;
    }
    let mut tokens = |name, tokens: u64| {
        attributes.push(integer(name, i64::try_from(tokens).unwrap_or(i64::MAX)));
    };
    tokens("gen_ai.usage.input_tokens", usage.input_tokens);
    if ended.api != Api::Embeddings {
        tokens("gen_ai.usage.output_tokens", usage.output_tokens);
    }
    if usage.cached_input_tokens > 0 {
        let cached = usage.cached_input_tokens;
        tokens("gen_ai.usage.cache_read.input_tokens", cached);
    }
    if usage.reasoning_tokens > 0 {
        let reasoning = usage.reasoning_tokens;
        tokens("gen_ai.usage.reasoning.output_tokens", reasoning);
    }
}

/// Which of OpenAI's two APIs for the same it is.
fn openai_api(api: Api) -> Option<&'static str> {
    match api {
        Api::ChatCompletions => Some("chat_completions"),
        Api::Responses => Some("responses"),
        _ => None,
    }
}

/// An attribute that is a text; of a long one its beginning.
pub(super) fn text(key: &str, value: &str) -> KeyValue {
    let end = value.floor_char_boundary(TEXT_BYTES_MAX);
    let value = value.get(..end).unwrap_or_default();
    attribute(key, Value::StringValue(value.to_owned()))
}

fn texts(key: &str, values: &[String]) -> KeyValue {
    let values = values
        .iter()
        .map(|value| text(key, value).value.unwrap_or_default());
    let values = values.collect();
    attribute(key, Value::ArrayValue(ArrayValue { values }))
}

fn integer(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn number(key: &str, value: f64) -> KeyValue {
    attribute(key, Value::DoubleValue(value))
}

fn flag(key: &str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// Longest text of an attribute.
const TEXT_BYTES_MAX: usize = 1_024;
/// Flags of a span: it is known whether its parent is in another process, and it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
