//! Reads of the exchange that the current phase call is about.
//!
//! Nothing is copied until asked for. Outside a phase call, and without the grant, everything is
//! absent.

pub use crate::bindings::imports::weir::filter::exchange::ExchangeMeta;
use crate::raw::exchange as raw;
use crate::raw::host;
use crate::types::{Failure, InternId, Principal, SessionKey};

/// A header's name known to the host: reading by it sends no string.
///
/// Make it in [`Filter::new`](crate::Filter::new) and keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(InternId);

impl Header {
    /// Asks the host for the id of a name; case does not matter.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(host::header_id(name))
    }

    /// First value of it in the request. Needs the `read_headers` grant. 0.25 to 0.29 µs.
    #[must_use]
    pub fn value(self) -> Option<Vec<u8>> {
        raw::header_by_id(self.0)
    }
}

/// First values of several headers in one crossing.
#[must_use]
pub fn headers(of: &[Header]) -> Vec<Option<Vec<u8>>> {
    let ids: Vec<InternId> = of.iter().map(|header| header.0).collect();
    raw::headers_by_id(&ids)
}

/// First value of a request header by name: 0.30 to 0.35 µs. See [`Header`] for names known in
/// advance.
#[must_use]
pub fn header(name: &str) -> Option<Vec<u8>> {
    raw::get_header(name)
}

/// All values of a request header.
#[must_use]
pub fn header_values(name: &str) -> Vec<Vec<u8>> {
    raw::header_values(name)
}

/// All readable request headers. 5.4 to 7.8 µs for 20: dearer than [`Header`] below about 12.
#[must_use]
pub fn header_list() -> Vec<(String, Vec<u8>)> {
    raw::header_list()
}

/// Rarer facts: id, request id, transport, time of arrival, number of messages and inputs.
#[must_use]
pub fn meta() -> ExchangeMeta {
    raw::meta()
}

/// Method of the request.
#[must_use]
pub fn method() -> String {
    raw::method()
}

/// Path of the request, without the query.
#[must_use]
pub fn path() -> String {
    raw::path()
}

/// Query of the request, without the `?`.
#[must_use]
pub fn query() -> Option<String> {
    raw::query()
}

/// Address of the caller, `IP:PORT`.
#[must_use]
pub fn peer_addr() -> String {
    raw::peer_addr()
}

/// Server name of the TLS handshake.
#[must_use]
pub fn tls_sni() -> Option<String> {
    raw::tls_sni()
}

/// Candidates for a session key found in the request, strongest first. About 0.5 µs.
///
/// The value of an input hash is already a SHA-256 in hexadecimal.
#[must_use]
pub fn session_keys() -> Vec<SessionKey> {
    raw::session_keys()
}

/// A scalar or subtree of the request body as JSON text, by RFC 6901 pointer. Needs `read_body`.
#[must_use]
pub fn json(pointer: &str) -> Option<String> {
    raw::json(pointer)
}

/// A window of the raw request body. Needs `read_body`.
///
/// # Errors
/// [`Failure::Denied`] without the grant.
pub fn body(offset: u32, max: u32) -> Result<Vec<u8>, Failure> {
    raw::body(offset, max)
}

/// What the configuration says of the request's model (`weir.routing-method`,
/// `weir.token-rate-limit`), or a note `FILTER.NAME` of an earlier filter. About 0.3 µs.
#[must_use]
pub fn attribute(name: &str) -> Option<String> {
    raw::attribute(name)
}

/// Who `authorize` let in; absent before and in that phase.
#[must_use]
pub fn principal() -> Option<Principal> {
    raw::caller()
}

/// Status of the upstream's answer, in response phases.
#[must_use]
pub fn response_status() -> Option<u16> {
    raw::response_status()
}

/// First value of a header of the upstream's answer, in response phases.
#[must_use]
pub fn response_header(name: &str) -> Option<Vec<u8>> {
    raw::response_header(name)
}

/// This filter's private bytes of this exchange; empty when never set.
#[must_use]
pub fn scratch() -> Vec<u8> {
    raw::scratch()
}

/// Keeps private bytes for later phases of this exchange, whichever instance serves them.
///
/// # Errors
/// [`Failure::TooLarge`] beyond `limits.scratch_bytes` (4 KiB by default).
pub fn set_scratch(value: &[u8]) -> Result<(), Failure> {
    raw::set_scratch(value)
}
