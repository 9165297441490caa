//! The interface `http-client`: requests to granted clusters.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use wasmtime::component::Linker;

use crate::bindings::weir::filter::http_client::{Host, Request, Response};
use crate::bindings::weir::filter::types::Failure;
use crate::guest_state::GuestState;

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
        let request = checked(cluster, req)?;
        let outbound = self.services.outbound.get().ok_or(Failure::Unavailable)?;
        // No waiting in line: a filter that is slow to be answered must not queue up exchanges.
        let _permit = self
            .filter
            .sends
            .try_acquire()
            .map_err(|_| Failure::Unavailable)?;
        self.side_effects = true;
        let timeout = request.timeout;
        let answer = tokio::time::timeout(timeout, outbound.send(request)).await;
        response(answer.map_err(|_| Failure::Timeout)??)
    }
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

fn checked(cluster: String, req: Request) -> Result<OutboundRequest, Failure> {
    if req.body.len() > OUTBOUND_BODY_BYTES_MAX || req.headers.len() > HEADERS_MAX {
        return Err(Failure::TooLarge);
    }
    if req.path_and_query.len() > PATH_BYTES_MAX {
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
    Ok(OutboundRequest {
        cluster,
        method,
        path_and_query: req.path_and_query,
        headers,
        body: Bytes::from(req.body),
        timeout: Duration::from_millis(u64::from(req.timeout_ms.clamp(1, TIMEOUT_MS_MAX))),
    })
}

fn response(answer: OutboundResponse) -> Result<Response, Failure> {
    if answer.body.len() > OUTBOUND_BODY_BYTES_MAX || answer.headers.len() > HEADERS_ANSWERED_MAX {
        return Err(Failure::TooLarge);
    }
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    Ok(Response {
        status: answer.status.as_u16(),
        headers: answer.headers.iter().map(pair).collect(),
        body: answer.body.to_vec(),
    })
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
const PATH_BYTES_MAX: usize = 8192;
const TIMEOUT_MS_MAX: u32 = 60_000;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use weir_config::{FilterLimits, Grants};

    use super::*;
    use crate::guest_state::FilterIdentity;
    use crate::services::Services;

    /// Answers with the path; `/never` is never answered.
    struct Echo;

    impl Outbound for Echo {
        fn send(&self, request: OutboundRequest) -> OutboundAnswer {
            Box::pin(async move {
                match request.path_and_query.as_str() {
                    "/never" => std::future::pending().await,
                    "/long" => Err(OutboundError::TooLarge),
                    path => Ok(OutboundResponse {
                        status: StatusCode::OK,
                        headers: request.headers,
                        body: Bytes::copy_from_slice(path.as_bytes()),
                    }),
                }
            })
        }
    }

    fn request(path: &str, header: &str) -> Request {
        Request {
            method: "POST".into(),
            path_and_query: path.into(),
            headers: vec![(header.into(), b"v".to_vec())],
            body: Vec::new(),
            timeout_ms: 1,
        }
    }

    #[tokio::test]
    async fn sends_only_what_is_granted_and_well_formed() {
        let table = [
            ("c", "/a?b", "x-a", true, Ok(&b"/a?b"[..])),
            ("other", "/a", "x-a", true, Err(Failure::Denied)),
            ("c", "/a", "x-a", false, Err(Failure::WouldBlock)),
            ("c", "a", "x-a", true, Err(Failure::Invalid)),
            ("c", "/a b", "x-a", true, Err(Failure::Invalid)),
            ("c", "/a", "host", true, Err(Failure::Denied)),
            ("c", "/a", "x a", true, Err(Failure::Invalid)),
            ("c", "/long", "x-a", true, Err(Failure::TooLarge)),
            ("c", "/never", "x-a", true, Err(Failure::Timeout)),
        ];
        let services = Arc::new(Services::new(prometheus::Registry::new()));
        let grants = Grants {
            clusters: vec!["c".into()],
            ..Grants::default()
        };
        let filter = FilterIdentity::new("f", grants, FilterLimits::default());
        let mut state = GuestState::new(Arc::new(filter), services.clone());
        state.may_suspend = true;
        let unset = state.send("c".into(), request("/a", "x-a")).await;
        assert_eq!(unset.unwrap_err(), Failure::Unavailable);
        assert!(services.outbound.set(Arc::new(Echo)).is_ok());
        for (cluster, path, header, may_suspend, expected) in table {
            state.enter(None);
            state.may_suspend = may_suspend;
            let answer = state.send(cluster.into(), request(path, header)).await;
            let sent = matches!(expected, Ok(_) | Err(Failure::TooLarge | Failure::Timeout));
            assert_eq!(state.side_effects, sent, "{path}");
            assert_eq!(
                answer.as_ref().map(|answer| &*answer.body).map_err(|e| *e),
                expected,
                "{path}"
            );
        }
        assert_eq!(state.filter.sends.available_permits(), SENDS_LEFT);
    }

    const SENDS_LEFT: usize = 16;
}
