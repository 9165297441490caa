//! Which headers pass the edge, inwards and outwards.

use std::sync::Arc;

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use weir_config::ClusterTable;
use weir_dialect::Api;
use weir_pipeline::facts::Facts;
use weir_pipeline::verdict::Affinity;

use crate::request::hexadecimal;

/// The id of a request, in and out.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where Anthropic clients look for it in an answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Anthropic clients put their key here.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Where the caller wants to be served, in NVCF's words and in older ones; both are sent on.
const REGION: HeaderName = HeaderName::from_static("x-nvcf-target-region");
const OLD_REGION: HeaderName = HeaderName::from_static("x-groq-region");
/// A caller that sends it is refused: it would be served as it deems fit.
pub(crate) const X_PRIORITY: HeaderName = HeaderName::from_static("x-priority");
/// How a trusted caller wants to be routed: for filters that may read it, never for an upstream.
pub(crate) const X_ROUTING_METHOD: HeaderName = HeaderName::from_static("x-routing-method");
/// How long a trusted caller would wait for a backend, when its first token shall be there, and until
/// when others are tried: as [`X_ROUTING_METHOD`].
pub(crate) const X_MAX_WAIT_MS: HeaderName = HeaderName::from_static("x-max-wait-ms");
const X_REQUEST_SLO_MS: HeaderName = HeaderName::from_static("x-request-slo-ms");
pub(crate) const X_STARGATE_MAX_WAIT_MS: HeaderName =
    HeaderName::from_static("x-stargate-max-wait-ms");
/// What of the internal ones a trusted caller may say to this gateway, and to nobody behind it.
pub(crate) const HINTS: [HeaderName; 4] = [
    X_ROUTING_METHOD,
    X_MAX_WAIT_MS,
    X_REQUEST_SLO_MS,
    X_STARGATE_MAX_WAIT_MS,
];
/// Longest request id taken from a caller.
const REQUEST_ID_MAX: usize = 128;

/// They belong to one connection (RFC 9110, 7.6.1), or framing is done anew.
const HOP_BY_HOP: &[HeaderName] = &[
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    CONTENT_LENGTH,
];
const HOP_BY_HOP_NAMES: &[&str] = &[
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "http2-settings",
];

/// What routers and workers say among themselves: a caller may not say it, nor hear it.
const INTERNAL: &[&str] = &[
    "x-routing-key",
    "x-model",
    "x-routing-method",
    "x-cache-affinity-key",
    "x-input-tokens",
    "x-token-estimate",
    "x-priority",
    "x-request-slo-ms",
    "x-max-wait-ms",
    "x-inference-server-id",
    "x-inference-server-url",
];
const INTERNAL_PREFIXES: &[&str] = &["x-weir-", "x-stargate-"];

/// Whether a header is the edge's own business.
pub(crate) fn is_internal(name: &str) -> bool {
    name.starts_with("x-")
        && (INTERNAL.contains(&name) || INTERNAL_PREFIXES.iter().any(|p| name.starts_with(p)))
}

/// Whether a header belongs to one connection only; `connection` is that header's value.
pub(crate) fn is_hop_by_hop(name: &HeaderName, connection: Option<&HeaderValue>) -> bool {
    HOP_BY_HOP.contains(name)
        || HOP_BY_HOP_NAMES.contains(&name.as_str())
        || connection.is_some_and(|value| names(value, name.as_str()))
}

fn names(connection: &HeaderValue, name: &str) -> bool {
    let text = connection.to_str().unwrap_or_default();
    text.split(',')
        .any(|token| token.trim().eq_ignore_ascii_case(name))
}

/// The caller's headers as filters see them and as they go on: nothing of the connection, nothing
/// internal but [`HINTS`], which go no further. The credential stays until [`upstream`], for the
/// authorizer.
pub(crate) fn inbound(head: &RequestHeader) -> HeaderMap {
    let connection = connection_tokens(&head.headers);
    let mut kept = HeaderMap::with_capacity(head.headers.len() + 4);
    for (name, value) in &head.headers {
        let drop = is_hop_by_hop(name, connection)
            || name == EXPECT
            || name == HOST
            || (is_internal(name.as_str()) && !HINTS.contains(name));
        if !drop {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// The headers for the upstream: what APIs use, what filters have set and what the cluster is to
/// get. The caller's credential is none of it unless the cluster passes it on, and the answer is
/// never compressed, for it is read here.
pub(crate) fn upstream(
    inbound: &HeaderMap,
    edited: &[HeaderName],
    cluster: &ClusterTable,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(inbound.len() + 8);
    let granted = |name: &str| {
        cluster
            .forward_headers
            .iter()
            .any(|granted| granted == "*" || granted == name)
    };
    for (name, value) in inbound {
        let goes = if [AUTHORIZATION, X_API_KEY, COOKIE].contains(name) {
            cluster.pass_authorization
        } else {
            is_api_header(name.as_str())
                || edited.contains(name)
                || (granted(name.as_str()) && !is_internal(name.as_str()))
        };
        if goes {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(region) = headers.get(&REGION).or(headers.get(&OLD_REGION)).cloned() {
        headers.insert(OLD_REGION, region.clone());
        headers.insert(REGION, region);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
}

/// What the APIs served here, tracing and model servers read.
fn is_api_header(name: &str) -> bool {
    matches!(
        name,
        "accept"
            | "content-type"
            | "user-agent"
            | "traceparent"
            | "tracestate"
            | "baggage"
            | "anthropic-version"
            | "anthropic-beta"
            | "openai-beta"
            | "openai-organization"
            | "openai-project"
            | "idempotency-key"
            | "x-client-request-id"
            | "x-nvcf-target-region"
            | "x-groq-region"
    )
}

/// What routers of NVCF's kind are told, in headers that no caller can set.
pub(crate) fn tell_router(headers: &mut HeaderMap, facts: &Facts, affinity: Option<&Affinity>) {
    let mut tell = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    let view = &facts.view;
    // Responses may reason at length before they say anything: their limit counts from the start.
    let estimate = match view.api {
        Api::Responses => view.est_input_tokens.saturating_add(view.max_output_tokens),
        _ => view.est_input_tokens,
    };
    tell("x-routing-key", &facts.routing_key);
    tell("x-model", &facts.model);
    tell("x-input-tokens", &view.est_input_tokens.to_string());
    tell("x-token-estimate", &estimate.to_string());
    let method = facts
        .settings
        .as_ref()
        .and_then(|known| known.routing_method.as_ref());
    if let Some(method) = method {
        tell("x-routing-method", method.trim());
    }
    if let Some(affinity) = affinity {
        tell("x-cache-affinity-key", &affinity.key);
    }
    if let Some(priority) = view.priority {
        tell("x-priority", &priority.to_string());
    }
}

/// The upstream's headers for the caller.
pub(crate) fn outbound(upstream: &HeaderMap) -> HeaderMap {
    let connection = connection_tokens(upstream);
    // With room for what the gateway adds: a map that grows is built anew.
    let mut kept = HeaderMap::with_capacity(upstream.len() + 12);
    for (name, value) in upstream {
        if !is_hop_by_hop(name, connection) && *name != X_REQUEST_ID && !is_internal(name.as_str())
        {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// `connection` when it names more than the usual `close` and `keep-alive`.
fn connection_tokens(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(CONNECTION).filter(|value| {
        !value.as_bytes().eq_ignore_ascii_case(b"keep-alive")
            && !value.as_bytes().eq_ignore_ascii_case(b"close")
    })
}

/// Length the caller announced.
pub(crate) fn content_length(head: &RequestHeader) -> Option<u64> {
    head.headers
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// A length as the value of a header.
pub(crate) fn length(bytes: usize) -> HeaderValue {
    let mut digits = itoa::Buffer::new();
    // `HeaderValue::from` would allocate twice.
    HeaderValue::from_str(digits.format(bytes)).unwrap_or_else(|_| HeaderValue::from(bytes))
}

/// Whether an answer is a stream of server-sent events.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    value
        .get(..17)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
}

/// The caller's id when it is printable and short, else a new UUID v4.
pub(crate) fn request_id(head: &RequestHeader) -> Arc<str> {
    let given = head
        .headers
        .get(&X_REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let usable = |id: &&str| {
        !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.bytes().all(|b| b.is_ascii_graphic())
    };
    match given.filter(usable) {
        Some(id) => Arc::from(id),
        None => Arc::from(uuid_v4(fastrand::u128(..))),
    }
}

/// A UUID of version 4 made of random bits.
pub(crate) fn uuid_v4(random: u128) -> String {
    // RFC 9562, 5.4: version 4, variant 10. Written by hand: it is made for every request.
    let bits = (random & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
    let mut text = String::with_capacity(36);
    let mut rest = &bits.to_be_bytes()[..];
    for group in [4, 2, 2, 2, 6] {
        let (bytes, later) = rest.split_at(group);
        hexadecimal::push(&mut text, bytes);
        rest = later;
        if !rest.is_empty() {
            text.push('-');
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut head = RequestHeader::build("POST", b"/v1/chat/completions", None).unwrap();
        for (name, value) in headers {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    fn cluster(lines: &str) -> ClusterTable {
        let text = format!("[clusters.c]\nendpoints = [\"h:1\"]\n{lines}\n");
        weir_config::parse(&text, "f").unwrap().clusters["c"].clone()
    }

    #[test]
    fn the_edge_keeps_what_is_the_callers() {
        let head = request(&[
            ("host", "x"),
            ("connection", "keep-alive, x-private"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
            ("x-stargate-anything", "1"),
            ("x-priority", "0"),
            ("authorization", "Bearer k"),
            ("user-agent", "ua"),
            ("x-own", "1"),
            ("accept-encoding", "gzip"),
        ]);
        let inward = inbound(&head);
        let names: Vec<&str> = inward.keys().map(HeaderName::as_str).collect();
        let expected = ["authorization", "user-agent", "x-own", "accept-encoding"];
        assert_eq!(names, expected);
        let sent = |lines: &str, edited: &[HeaderName]| {
            let onward = upstream(&inward, edited, &cluster(lines));
            let mut names: Vec<_> = onward.keys().map(|name| name.as_str().to_owned()).collect();
            names.sort_unstable();
            names.join(" ")
        };
        let own = [HeaderName::from_static("x-own")];
        let table: [(&str, &[HeaderName], &str); 5] = [
            ("", &[], "accept-encoding user-agent"),
            ("", &own, "accept-encoding user-agent x-own"),
            (
                "forward_headers = [\"x-own\"]",
                &[],
                "accept-encoding user-agent x-own",
            ),
            (
                "forward_headers = [\"*\"]",
                &[],
                "accept-encoding user-agent x-own",
            ),
            (
                "pass_authorization = true",
                &[],
                "accept-encoding authorization user-agent",
            ),
        ];
        for (lines, edited, expected) in table {
            assert_eq!(sent(lines, edited), expected, "{lines} {edited:?}");
        }
        let onward = upstream(&inward, &[], &cluster(""));
        assert_eq!(onward[ACCEPT_ENCODING], "identity");
    }

    #[test]
    fn either_region_is_both() {
        for name in ["x-nvcf-target-region", "x-groq-region"] {
            let inward = inbound(&request(&[(name, "eu")]));
            let onward = upstream(&inward, &[], &cluster(""));
            assert_eq!(
                (&onward[REGION], &onward[OLD_REGION]),
                (&"eu".parse().unwrap(), &"eu".parse().unwrap())
            );
        }
    }

    #[test]
    fn ids_of_callers_are_kept_when_printable() {
        assert_eq!(
            &*request_id(&request(&[("x-request-id", "abc-1")])),
            "abc-1"
        );
        assert_eq!(request_id(&request(&[("x-request-id", "a b")])).len(), 36);
        assert_eq!(uuid_v4(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid_v4(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn event_streams_are_known_by_their_type() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            is_event_stream(&headers)
        };
        assert!(with("text/event-stream"));
        assert!(with("Text/Event-Stream; charset=utf-8"));
        assert!(!with("application/json"));
        assert!(!is_event_stream(&HeaderMap::new()));
    }
}
