//! The interface `http-client`: requests to granted clusters.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use wasmtime::component::Linker;

use crate::bindings::weir::filter::http_client::{Host, Request, Response};
use crate::bindings::weir::filter::types::Failure;
use crate::guest_state::{FilterIdentity, GuestState};

/// A request of a filter to a cluster it was granted; checked already.
#[derive(Clone, Debug)]
pub struct OutboundRequest {
    /// Name of the cluster.
    pub cluster: String,
    /// Method.
    pub method: Method,
    /// Starts with `/`.
    pub path_and_query: String,
    /// Headers beside those of framing and connection, which it never sets.
    pub headers: HeaderMap,
    /// At most 1 MiB.
    pub body: Bytes,
    /// For the whole of it, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// It must not be sent without TLS.
    pub tls_only: bool,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct OutboundResponse {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// At most [`OUTBOUND_BODY_BYTES_MAX`].
    pub body: Bytes,
    /// Trailers, of HTTP/2.
    pub trailers: HeaderMap,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The config has no such cluster.
    #[error("no such cluster")]
    UnknownCluster,
    /// No backend can be reached, or the connection broke.
    #[error("no backend answers")]
    Unavailable,
    /// It took longer than the request allows.
    #[error("timed out")]
    Timeout,
    /// The answer is longer than [`OUTBOUND_BODY_BYTES_MAX`].
    #[error("the answer is too large")]
    TooLarge,
    /// It must not be sent without TLS, and the cluster has none.
    #[error("the cluster has no TLS")]
    Plaintext,
    /// The gateway's own fault.
    #[error("internal error")]
    Internal,
}

/// An answer to come. Dropping it gives the request up.
pub type OutboundAnswer =
    Pin<Box<dyn Future<Output = Result<OutboundResponse, OutboundError>> + Send>>;

/// Sends requests of filters to clusters; implemented by the server.
pub trait Outbound: Send + Sync {
    /// Called for every `http-client.send` that was granted, from many threads. Must keep to the
    /// timeout and must stop reading an answer at [`OUTBOUND_BODY_BYTES_MAX`].
    fn send(&self, request: OutboundRequest) -> OutboundAnswer;
}

/// Longest body of a filter's request and of the answer to it, in bytes.
pub const OUTBOUND_BODY_BYTES_MAX: usize = 1 << 20;

impl Host for GuestState {
    async fn send(&mut self, cluster: String, req: Request) -> Result<Response, Failure> {
        if self.pure || !self.filter.sends_to(&cluster) {
            return Err(Failure::Denied);
        }
        if !self.may_suspend {
            return Err(Failure::WouldBlock);
        }
        let (request, share) = checked(cluster, req)?;
        let outbound = self.services.outbound.get().ok_or(Failure::Unavailable)?;
        self.side_effects = true;
        let timeout = request.timeout;
        let key = share.map(|share| (self.filter.name.clone(), request.cluster.clone(), share));
        let sent = {
            let (outbound, filter) = (outbound.clone(), self.filter.clone());
            move || sent(outbound, filter, request)
        };
        let answer = async {
            match key {
                None => sent().await,
                Some(key) => self.services.shared_sends.join(key, sent).await,
            }
        };
        let answer = tokio::time::timeout(timeout, answer).await;
        response(answer.map_err(|_| Failure::Timeout)??)
    }
}

/// Sends a request, alone or for all who share it.
async fn sent(
    outbound: Arc<dyn Outbound>,
    filter: Arc<FilterIdentity>,
    request: OutboundRequest,
) -> Result<OutboundResponse, Failure> {
    // No waiting in line: a filter that is slow to be answered must not queue up exchanges.
    let permit = filter.sends.try_acquire();
    let _permit = permit.map_err(|_| Failure::Unavailable)?;
    Ok(outbound.send(request).await?)
}

/// The interface for instances that cannot suspend: every request is `would-block`.
///
/// # Errors
/// When the name is in the linker already.
pub(super) fn add_refusing(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("weir:filter/http-client@0.1.0")?;
    instance.func_wrap("send", |store, (cluster, _): (String, Request)| {
        let state: &GuestState = store.data();
        let failure = if state.pure || !state.filter.sends_to(&cluster) {
            Failure::Denied
        } else {
            Failure::WouldBlock
        };
        Ok((Err::<Response, Failure>(failure),))
    })
}

/// The request, and what it is called among those that are shared.
fn checked(cluster: String, req: Request) -> Result<(OutboundRequest, Option<String>), Failure> {
    if req.body.len() > OUTBOUND_BODY_BYTES_MAX || req.headers.len() > HEADERS_MAX {
        return Err(Failure::TooLarge);
    }
    let share_bytes = req.share.as_ref().map_or(0, String::len);
    if req.path_and_query.len() > PATH_BYTES_MAX || share_bytes > SHARE_BYTES_MAX {
        return Err(Failure::TooLarge);
    }
    let uri = http::uri::PathAndQuery::try_from(req.path_and_query.as_str());
    if !req.path_and_query.starts_with('/') || uri.is_err() {
        return Err(Failure::Invalid);
    }
    let mut headers = HeaderMap::with_capacity(req.headers.len());
    for (name, value) in req.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Failure::Invalid)?;
        if NEVER_SET.contains(&name.as_str()) {
            return Err(Failure::Denied);
        }
        headers.append(
            name,
            HeaderValue::from_bytes(&value).map_err(|_| Failure::Invalid)?,
        );
    }
    let method = Method::from_bytes(req.method.as_bytes()).map_err(|_| Failure::Invalid)?;
    if method == Method::CONNECT {
        return Err(Failure::Denied);
    }
    let request = OutboundRequest {
        cluster,
        method,
        path_and_query: req.path_and_query,
        headers,
        body: Bytes::from(req.body),
        timeout: Duration::from_millis(u64::from(req.timeout_ms.clamp(1, TIMEOUT_MS_MAX))),
        tls_only: req.tls_only,
    };
    Ok((request, req.share))
}

fn response(answer: OutboundResponse) -> Result<Response, Failure> {
    let headers = answer.headers.len() + answer.trailers.len();
    if answer.body.len() > OUTBOUND_BODY_BYTES_MAX || headers > HEADERS_ANSWERED_MAX {
        return Err(Failure::TooLarge);
    }
    Ok(Response {
        status: answer.status.as_u16(),
        headers: pairs(&answer.headers),
        body: answer.body.to_vec(),
        trailers: pairs(&answer.trailers),
    })
}

fn pairs(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    headers.iter().map(pair).collect()
}

/// They belong to the connection, to framing, or to the cluster's configuration.
const NEVER_SET: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const HEADERS_MAX: usize = 64;
const HEADERS_ANSWERED_MAX: usize = 256;
const SHARE_BYTES_MAX: usize = 256;
const PATH_BYTES_MAX: usize = 8192;
const TIMEOUT_MS_MAX: u32 = 60_000;

#[cfg(test)]
#[path = "http_client_tests.rs"]
mod tests;
