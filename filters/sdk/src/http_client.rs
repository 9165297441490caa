//! Requests to clusters that the configuration names and grants to this filter.
//!
//! A call suspends the filter, not the gateway. Available in request phases and ticks; in stream
//! phases it answers [`Failure::WouldBlock`].

pub use crate::bindings::imports::weir::filter::http_client::{Request, Response};
use crate::raw::http_client as raw;
use crate::types::Failure;

/// Sends a request to a backend of `cluster` and waits for the whole answer.
///
/// # Errors
/// [`Failure::Denied`] for a cluster not granted, [`Failure::Timeout`], [`Failure::TooLarge`]
/// for an answer over the limit, [`Failure::Unavailable`] when no backend answers.
pub fn send(cluster: &str, request: &Request) -> Result<Response, Failure> {
    raw::send(cluster, request)
}

impl Request {
    /// A GET with 1 s for everything.
    #[must_use]
    pub fn get(path_and_query: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            path_and_query: path_and_query.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: 1_000,
        }
    }

    /// A POST of JSON text with 1 s for everything.
    #[must_use]
    pub fn post_json(path_and_query: &str, json: impl Into<Vec<u8>>) -> Self {
        let mut request = Self::get(path_and_query);
        request.method = "POST".to_owned();
        request
            .headers
            .push(("content-type".to_owned(), b"application/json".to_vec()));
        request.body = json.into();
        request
    }
}
