//! `/echo`: tells what arrived, for tests of pass-through routes.

use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::stats::headers_json;

/// Reads the body to its end without keeping it; its length in bytes.
pub(crate) async fn drain(mut body: Incoming) -> Result<u64, hyper::Error> {
    let mut bytes = 0;
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else {
            break;
        };
        bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}

pub(crate) fn describe(parts: &Parts, body_bytes: u64) -> String {
    serde_json::json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path_and_query().map(ToString::to_string),
        "version": format!("{:?}", parts.version),
        "headers": headers_json(&parts.headers),
        "body_bytes": body_bytes,
    })
    .to_string()
}
