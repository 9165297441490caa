//! Requests of filters to clusters they were granted.

use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TE};
use http::{HeaderMap, HeaderValue, Uri};
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use weir_host::{
    OUTBOUND_BODY_BYTES_MAX, Outbound, OutboundAnswer, OutboundError, OutboundRequest,
    OutboundResponse,
};
use weir_routing::{Candidate, Reservation};

use crate::members::{Members, Target};
use crate::runtime::Runtime;
use crate::snapshot::Upstream;
use crate::upstream::{Link, Wanted, connect, release};

/// Sends over the gateway's own connections. Holds the runtime weakly: the runtime's host holds this.
pub(crate) struct Messenger {
    runtime: Weak<Runtime>,
}

impl Messenger {
    /// For one runtime.
    pub(crate) fn new(runtime: &Arc<Runtime>) -> Arc<Self> {
        Arc::new(Self {
            runtime: Arc::downgrade(runtime),
        })
    }
}

impl Outbound for Messenger {
    fn send(&self, request: OutboundRequest) -> OutboundAnswer {
        let runtime = self.runtime.upgrade();
        Box::pin(async move {
            let runtime = runtime.ok_or(OutboundError::Internal)?;
            let timeout = request.timeout;
            tokio::time::timeout(timeout, send(&runtime, request))
                .await
                .map_err(|_| OutboundError::Timeout)?
        })
    }
}

async fn send(
    runtime: &Runtime,
    request: OutboundRequest,
) -> Result<OutboundResponse, OutboundError> {
    let snapshot = runtime.snapshot();
    let upstream = snapshot
        .upstreams
        .get(&request.cluster)
        .ok_or(OutboundError::UnknownCluster)?;
    if request.tls_only && upstream.table.tls.is_none() {
        return Err(OutboundError::Plaintext);
    }
    let members = upstream.members(runtime);
    let mut tried = Vec::new();
    for _ in 0..=upstream.retries {
        let Some((index, reservation)) = reserve(runtime, &members, &tried) else {
            break;
        };
        tried.push(index);
        let target = members
            .targets
            .get(index as usize)
            .ok_or(OutboundError::Internal)?;
        let head = head(&request, upstream, target).ok_or(OutboundError::Internal)?;
        match ask(runtime, upstream, target, head, request.body.clone()).await {
            Ok(answer) => {
                reservation.backend().record_success();
                return answer;
            }
            Err(error) => {
                tracing::debug!(cluster = %upstream.name, %error, "a filter's request failed");
                reservation
                    .backend()
                    .record_failure(runtime.now_ms(), &upstream.ejection);
            }
        }
    }
    Err(OutboundError::Unavailable)
}

fn reserve(runtime: &Runtime, members: &Members, tried: &[u32]) -> Option<(u32, Reservation)> {
    let candidates = members.cluster.candidates(runtime.now_ms(), tried);
    let count = candidates.len() as u64;
    let start = candidates.next_cursor();
    (0..count)
        .filter_map(|step| candidates.at(u32::try_from(start.wrapping_add(step) % count).ok()?))
        .find_map(Candidate::reserve)
}

fn head(request: &OutboundRequest, upstream: &Upstream, target: &Target) -> Option<RequestHeader> {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = request.method.clone();
    parts.headers = request.headers.clone();
    parts
        .headers
        .insert(CONTENT_LENGTH, HeaderValue::from(request.body.len()));
    if let Some((name, credential)) = &upstream.credential {
        parts.headers.insert(name.clone(), credential.clone());
    }
    parts.uri = if upstream.table.http2 {
        let content_type = request.headers.get(CONTENT_TYPE);
        if content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            // Some proxies on the way drop trailers without it, and the status is in them.
            parts
                .headers
                .insert(TE, HeaderValue::from_static("trailers"));
        }
        let scheme = if upstream.table.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(target.authority.as_bytes());
        uri.path_and_query(request.path_and_query.as_str())
            .build()
            .ok()?
    } else {
        parts.headers.insert(HOST, target.authority.clone());
        request.path_and_query.parse().ok()?
    };
    Some(RequestHeader::from(parts))
}

/// The inner result is the answer's own fault, which another backend would not mend.
async fn ask(
    runtime: &Runtime,
    upstream: &Upstream,
    target: &Target,
    head: RequestHeader,
    body: Bytes,
) -> pingora::Result<Result<OutboundResponse, OutboundError>> {
    let Link { mut session, .. } =
        connect(&runtime.connector, upstream, target, Wanted::Any).await?;
    session.write_request_header(Box::new(head)).await?;
    session.write_request_body(body, true).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let mut read = BytesMut::new();
    while let Some(chunk) = session.read_response_body().await? {
        if read.len() + chunk.len() > OUTBOUND_BODY_BYTES_MAX {
            session.shutdown().await;
            return Ok(Err(OutboundError::TooLarge));
        }
        read.extend_from_slice(&chunk);
    }
    let trailers = match &mut session {
        HttpSession::H2(session) => session.read_trailers().await?.unwrap_or_default(),
        _ => HeaderMap::new(),
    };
    let answer = session.response_header().map(|head| OutboundResponse {
        status: head.status,
        headers: head.headers.clone(),
        body: read.freeze(),
        trailers,
    });
    if session.response_done() {
        release(&runtime.connector, upstream, target, session).await;
    }
    Ok(answer.ok_or(OutboundError::Internal))
}
