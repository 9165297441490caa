//! Where pingora hands over: LLM calls go to `request`, everything else passes through.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::ALPN;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use weir_dialect::Api;

use crate::passthrough::Passage;
use crate::request::serve::{Connection, serve};
use crate::runtime::Runtime;
use crate::upstream::is_undelivered;

/// The application behind every listener.
pub(crate) struct Gateway {
    runtime: Arc<Runtime>,
    /// Seconds an idle connection of a caller is kept.
    idle_s: u64,
}

impl Gateway {
    /// For one listener.
    pub(crate) fn new(runtime: Arc<Runtime>, idle_timeout_ms: u64) -> Self {
        Self {
            runtime,
            idle_s: idle_timeout_ms.div_ceil(1000).max(1),
        }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// State of a pass-through exchange; an LLM call keeps its own and leaves this empty.
    type CTX = Option<Box<Passage>>;

    fn new_ctx(&self) -> Self::CTX {
        None
    }

    /// None: answers pass as they come, and pingora's compression, though off, costs every request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut Self::CTX,
    ) -> pingora::Result<bool> {
        let downstream = &mut session.downstream_session;
        // A process that is about to end lets no caller keep its connection.
        downstream.set_keepalive((!self.runtime.is_draining()).then_some(self.idle_s));
        // A caller may send its next request before this one's answer (RFC 9112, 9.3.2).
        downstream.set_pipelining_enabled(true);
        let connection = match llm(downstream.req_header()) {
            Some(api) => serve(&self.runtime, api, downstream).await,
            None => match Box::pin(Passage::begin(&self.runtime, downstream)).await {
                Ok(passage) => {
                    *ctx = Some(passage);
                    return Ok(false);
                }
                Err(connection) => connection,
            },
        };
        match connection {
            Connection::Reusable => Ok(true),
            // Ends the connection, or resets the stream, so that nobody takes a part for the whole.
            Connection::Broken => Err(Error::new_down(ErrorType::ConnectionClosed)),
        }
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        ctx: &mut Self::CTX,
    ) -> pingora::Result<Box<HttpPeer>> {
        match ctx {
            Some(passage) => passage.peer().await,
            None => Err(Error::new_in(ErrorType::InternalError)),
        }
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> pingora::Result<()> {
        ctx.as_ref()
            .map_or(Ok(()), |passage| passage.dress_request(upstream_request))
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> pingora::Result<()> {
        match ctx {
            Some(passage) => passage.dress_response(upstream_response).await,
            None => Ok(()),
        }
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> pingora::Result<Option<std::time::Duration>> {
        if let (Some(passage), Some(body)) = (ctx, body) {
            passage.count_response(body.len());
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Self::CTX,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let retry = ctx.as_mut().is_some_and(|passage| passage.failed(&error));
        error.set_retry(retry);
        error
    }

    /// A request that the backend has certainly not got goes to another one, whatever its method, and
    /// one that may run twice after a kept connection has failed; while all of it that was read from
    /// the caller is still there.
    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Self::CTX,
        client_reused: bool,
    ) -> Box<Error> {
        let undelivered = is_undelivered(&error);
        let mut error = error.more_context(format!("Peer: {peer}"));
        let downstream = &session.downstream_session;
        let whole = !downstream.retry_buffer_truncated() && downstream.response_written().is_none();
        // Connections of HTTP/2 are shared: that one was there before says nothing.
        let kept = client_reused && peer.options.alpn == ALPN::H1;
        let idempotent = downstream.req_header().method.is_idempotent();
        error.retry.decide_reuse(client_reused);
        let may_retry = whole && (undelivered || idempotent && error.retry());
        let retry = may_retry
            && ctx
                .as_mut()
                .is_some_and(|passage| kept && passage.met_stale() || passage.failed(&error));
        error.set_retry(retry);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Self::CTX,
    ) -> FailToProxy {
        let error_code = match ctx {
            Some(passage) => passage.refuse(&mut session.downstream_session, error).await,
            None => 0,
        };
        FailToProxy {
            error_code,
            can_reuse_downstream: false,
        }
    }

    fn suppress_error_log(&self, _session: &Session, ctx: &Self::CTX, error: &Error) -> bool {
        // LLM exchanges have told their own story in the access log.
        ctx.is_none() || *error.esource() == ErrorSource::Downstream
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Self::CTX) {
        if let Some(passage) = ctx.take() {
            passage.end(&session.downstream_session, error);
        }
    }
}

/// The LLM API a request is for.
fn llm(head: &RequestHeader) -> Option<Api> {
    let api = Api::from_path(head.method.as_str(), head.uri.path())?;
    let served = match api {
        Api::Models => head.method == Method::GET,
        Api::Other => false,
        _ => head.method == Method::POST,
    };
    served.then_some(api)
}
