//! The whole of one LLM exchange.

use std::sync::Arc;

use pingora::protocols::http::ServerSession;
use weir_dialect::Api;
use weir_pipeline::verdict::End;

use crate::request::exchange::Exchange;
use crate::request::refuse::Refusal;
use crate::request::{admit, answer, classify, forward, headers, refuse, settle, trace};
use crate::runtime::Runtime;

/// Whether the connection may serve another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// The answer was written in full.
    Reusable,
    /// Cut short: the caller left, or the answer could not be completed.
    Broken,
}

/// Serves one request of an LLM API, from its head to its last byte.
pub(crate) async fn serve(
    runtime: &Arc<Runtime>,
    api: Api,
    downstream: &mut ServerSession,
) -> Connection {
    let request_id = headers::request_id(downstream.req_header());
    let mut exchange = Exchange::new(runtime, runtime.snapshot(), api, request_id);
    let _active = runtime.metrics.active(api);
    let connection = match steps(&mut exchange, downstream).await {
        Ok(connection) => connection,
        Err(refusal) => {
            exchange.progress.end = refusal.end();
            // A caller that is slow to hear of it keeps nothing of anybody's budget.
            settle::claims(&mut exchange);
            Box::pin(refuse::write(&mut exchange, downstream, refusal)).await
        }
    };
    settle::settle(exchange);
    connection
}

async fn steps(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
) -> Result<Connection, Refusal> {
    let body = classify::read_body(exchange, downstream).await?;
    // Whoever may not call is told so before anything is said about the body or the models.
    let classified = classify::classify(exchange, downstream, &body);
    trace::join(exchange);
    admit::authorize(exchange).await?;
    classified?;
    if exchange.api == Api::Models {
        return answer::models(exchange, downstream).await;
    }
    admit::request(exchange).await?;
    admit::affinity(exchange).await?;
    forward::forward(exchange, downstream).await
}

impl Connection {
    /// The caller is gone: nothing more can be said to it.
    pub(crate) fn lost(exchange: &mut Exchange) -> Self {
        exchange.progress.end = End::ClientGone;
        Self::Broken
    }
}
