//! Waiting beside the caller: its leaving is noticed, and one that waits for events gets a comment
//! now and then, so that nothing between here and there takes the silence for an end.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::protocols::http::ServerSession;
use tokio::time::sleep;

use crate::request::exchange::Exchange;
use crate::request::stream;

/// Ignored by every reader of server-sent events (WHATWG HTML, 9.2.6).
const COMMENT: Bytes = Bytes::from_static(b": waiting\n\n");

/// The caller closed its connection or reset its stream.
pub(crate) struct CallerGone;

/// Does `work`, unless the caller leaves first. Takes it pinned: a future that is moved is stored
/// twice, and every byte of an exchange's future is copied once per request.
pub(crate) async fn while_heard<T>(
    downstream: &mut ServerSession,
    work: Pin<&mut impl Future<Output = T>>,
) -> Result<T, CallerGone> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = left(downstream) => Err(CallerGone),
    }
}

/// The same, with a comment to a caller that waits for events whenever it has heard nothing for
/// `streams.comment_interval_ms`.
pub(crate) async fn while_waiting<T>(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Result<T, CallerGone> {
    let interval_ms = exchange.snapshot.config.streams.comment_interval_ms;
    if interval_ms == 0 || !exchange.wants_events() {
        return while_heard(downstream, work).await;
    }
    loop {
        tokio::select! {
            biased;
            done = work.as_mut() => return Ok(done),
            () = left(downstream) => return Err(CallerGone),
            () = sleep(Duration::from_millis(interval_ms)) => {}
        }
        // Boxed: few exchanges ever come here.
        Box::pin(comment(exchange, downstream)).await?;
    }
}

async fn left(downstream: &mut ServerSession) {
    // The body was read to its end: the only news from the caller is its leaving.
    while downstream.read_body_or_idle(true).await.is_ok() {}
}

async fn comment(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
) -> Result<(), CallerGone> {
    if !exchange.progress.head_sent {
        let mut head = HeaderMap::new();
        head.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        // A filter that refuses answers will do so again when there is one.
        let Ok(begun) = stream::begin(exchange, downstream, StatusCode::OK, head).await else {
            return Ok(());
        };
        begun?;
    }
    exchange.progress.response_bytes += COMMENT.len() as u64;
    downstream
        .write_response_body(COMMENT, false)
        .await
        .map_err(|_| CallerGone)
}
