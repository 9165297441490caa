//! Answers of the admin listener.

use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

/// JSON for people and programs.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Vec<u8>> {
    of_type(status, "application/json", document(value))
}

/// An RFC 9457 problem.
pub(crate) fn problem(status: StatusCode, value: &impl Serialize) -> Response<Vec<u8>> {
    of_type(status, "application/problem+json", document(value))
}

/// A line for people.
pub(crate) fn plain(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    of_type(status, "text/plain; charset=utf-8", body.into())
}

/// An error with its stable code.
pub(crate) fn fault(status: StatusCode, code: &str, message: &str) -> Response<Vec<u8>> {
    json(
        status,
        &serde_json::json!({ "error": { "code": code, "message": message } }),
    )
}

/// A body of some type.
pub(crate) fn of_type(
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
) -> Response<Vec<u8>> {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Done, and nothing to say.
pub(crate) fn empty() -> Response<Vec<u8>> {
    let mut response = Response::new(Vec::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Adds the methods a path takes.
pub(crate) fn with_allow(mut response: Response<Vec<u8>>, methods: &str) -> Response<Vec<u8>> {
    if let Ok(methods) = HeaderValue::from_str(methods) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

fn document(value: &impl Serialize) -> Vec<u8> {
    let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
    body.push(b'\n');
    body
}
