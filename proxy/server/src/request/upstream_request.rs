//! Step 4b: the request for one backend: the caller's body with the model's own name in it.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Uri};
use pingora::http::RequestHeader;
use weir_dialect::{Api, peek, splice};

use crate::members::Target;
use crate::request::exchange::Exchange;
use crate::request::headers::{self, X_REQUEST_ID};
use crate::request::refuse::Refusal;
use crate::snapshot::Upstream;

/// The body for the upstream, the same for every try.
pub(crate) fn body(exchange: &Exchange) -> Result<Bytes, Refusal> {
    let (Some(call), Some(facts)) = (&exchange.call, &exchange.facts) else {
        return Err(Refusal::internal());
    };
    // A filter may have edited the body; then the places found at first are not the places now.
    let again;
    let peek = if facts.body_edited {
        again = peek(exchange.api, &facts.body).map_err(|error| Refusal::bad_body(&error))?;
        &again
    } else {
        &call.peek
    };
    let mut edits: Vec<(Range<usize>, Cow<'_, [u8]>)> = Vec::with_capacity(2);
    let model = call.target.upstream_model_json.as_slice();
    if facts.body.get(peek.model_span.clone()) != Some(model) {
        edits.push((peek.model_span.clone(), model.into()));
    }
    let more = peek.upstream_edits(exchange.api, &facts.body, exchange.aggregates());
    edits.extend(more.into_iter().map(|(span, text)| (span, text.into())));
    Ok(if edits.is_empty() {
        facts.body.clone()
    } else {
        splice(&facts.body, &mut edits)
    })
}

/// The head for one backend.
pub(crate) fn head(
    exchange: &Exchange,
    upstream: &Upstream,
    target: &Target,
    body: &Bytes,
) -> Result<RequestHeader, Refusal> {
    let facts = exchange.facts.as_ref().ok_or_else(Refusal::internal)?;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = facts.method.clone();
    parts.uri = uri(exchange.api, facts.query.as_deref(), upstream, target)?;
    parts.headers = headers::upstream(&facts.headers, &facts.edited_headers, &upstream.table);
    if let Some((name, key)) = &upstream.credential {
        parts.headers.insert(name.clone(), key.clone());
    }
    if upstream.table.router_headers {
        headers::tell_router(&mut parts.headers, facts, exchange.affinity.as_deref());
    }
    if !upstream.table.http2 {
        parts.headers.insert(HOST, target.authority.clone());
    }
    parts
        .headers
        .insert(CONTENT_LENGTH, headers::length(body.len()));
    parts
        .headers
        .entry(CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(&exchange.request_id) {
        parts.headers.insert(X_REQUEST_ID, id);
    }
    Ok(RequestHeader::from(parts))
}

fn uri(
    api: Api,
    query: Option<&str>,
    upstream: &Upstream,
    target: &Target,
) -> Result<Uri, Refusal> {
    if query.is_none() && !upstream.table.http2 {
        return Ok(Uri::from_static(api.path()));
    }
    let path = match query {
        Some(query) => format!("{}?{query}", api.path()),
        None => api.path().to_owned(),
    };
    let uri = if upstream.table.http2 {
        // HTTP/2 carries scheme and authority in the request line's place.
        let scheme = if upstream.table.tls.is_some() {
            "https"
        } else {
            "http"
        };
        Uri::builder()
            .scheme(scheme)
            .authority(target.authority.as_bytes())
            .path_and_query(path)
            .build()
    } else {
        path.parse().map_err(http::Error::from)
    };
    uri.map_err(|_| Refusal::internal())
}
