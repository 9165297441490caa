//! Step 5 for streams: events as they come, each with the caller's name for the model, the chain
//! backward over them, usage observed. A stream never ends in silence.

use std::borrow::Cow;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession as UpstreamSession;
use weir_dialect::{
    Api, EventFacts, Fault, SseError, SseEvent, SseSplitter, encode_event, event_facts, quote,
    render_fault_event,
};
use weir_pipeline::chain::{Chain, Stop};
use weir_pipeline::verdict::{End, EventVerdict, StreamEvent};
use weir_routing::Reservation;

use crate::request::exchange::Exchange;
use crate::request::forward::{CallerGone, Failure, while_heard};
use crate::request::refuse::Refusal;
use crate::request::relay;
use crate::request::serve::Connection;

/// Pieces of an answer that have arrived already and go to the caller in one write.
const PIECES_PER_WRITE_MAX: usize = 32;

/// Relays a stream of events. An `Err` means that nothing has reached the caller yet.
pub(crate) async fn relay(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    session: &mut UpstreamSession,
    reservation: &mut Reservation,
    status: StatusCode,
    mut received: HeaderMap,
) -> Result<Connection, Failure> {
    received.remove(CONTENT_LENGTH);
    if downstream.req_header().version == Version::HTTP_10 {
        // Such a caller knows the end of an answer of unknown length by the connection's end.
        downstream.set_keepalive(None);
    } else if !downstream.is_http2() {
        received.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    received
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache"));
    let head = relay::response_head(exchange, status, received)
        .await
        .map_err(|refusal| Failure {
            refusal,
            retry: false,
            stale: false,
        })?;
    if downstream
        .write_response_header(Box::new(head))
        .await
        .is_err()
    {
        return Ok(Connection::lost(exchange));
    }
    let mut events = Events::new(exchange);
    loop {
        let pieces = match while_heard(downstream, pin!(next_pieces(session))).await {
            Ok(pieces) => pieces,
            Err(CallerGone) => return Ok(Connection::lost(exchange)),
        };
        if !pieces.data.is_empty() {
            relay::arrived(exchange, reservation);
        }
        let out = match events.relayed(exchange, &pieces) {
            Ok(out) => out,
            Err(broken) => return Ok(end_with(exchange, downstream, broken).await),
        };
        if !write(exchange, downstream, out).await {
            return Ok(Connection::lost(exchange));
        }
        match pieces.end {
            Some(Err(error)) if !events.stopped => {
                tracing::warn!(request_id = %exchange.request_id, %error, "upstream failed in mid-stream");
                return Ok(end_with(exchange, downstream, Broken::of(&error)).await);
            }
            None if !events.stopped => {}
            _ => break,
        }
    }
    if !events.whole && !events.stopped {
        return Ok(end_with(exchange, downstream, Broken::cut()).await);
    }
    match downstream.write_response_body(Bytes::new(), true).await {
        Ok(()) => Ok(Connection::Reusable),
        Err(_) => Ok(Connection::lost(exchange)),
    }
}

/// What the upstream has sent since the last look.
#[derive(Default)]
struct Pieces {
    data: Vec<Bytes>,
    /// Set when nothing follows: the body's end, or the connection's.
    end: Option<pingora::Result<()>>,
}

/// Waits for one piece and takes along those that are there already: under load many small events
/// cost one write instead of many. Reading is cancel safe: what has arrived stays in the session.
async fn next_pieces(session: &mut UpstreamSession) -> Pieces {
    let mut pieces = Pieces::default();
    let mut next = session.read_response_body().await;
    loop {
        match next {
            Ok(Some(piece)) => pieces.data.push(piece),
            Ok(None) => pieces.end = Some(Ok(())),
            Err(error) => pieces.end = Some(Err(error)),
        }
        if pieces.end.is_some() || pieces.data.len() >= PIECES_PER_WRITE_MAX {
            return pieces;
        }
        match session.read_response_body().now_or_never() {
            Some(result) => next = result,
            None => return pieces,
        }
    }
}

async fn write(exchange: &mut Exchange, downstream: &mut ServerSession, out: Bytes) -> bool {
    if out.is_empty() {
        return true;
    }
    exchange.progress.response_bytes += out.len() as u64;
    downstream.write_response_body(out, false).await.is_ok()
}

/// Why a stream ends before its time.
struct Broken {
    end: End,
    code: &'static str,
    message: Cow<'static, str>,
}

impl Broken {
    fn of(error: &pingora::Error) -> Self {
        if matches!(error.etype(), pingora::ErrorType::ReadTimedout) {
            return Self {
                end: End::Timeout,
                code: "upstream_stalled",
                message: "the backend stopped sending in mid-stream".into(),
            };
        }
        Self::cut()
    }

    fn cut() -> Self {
        Self {
            end: End::UpstreamError,
            code: "upstream_disconnected",
            message: "the backend closed the connection before the answer was complete".into(),
        }
    }
}

/// Ends a stream with an error event in the caller's format.
async fn end_with(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    broken: Broken,
) -> Connection {
    exchange.progress.end = broken.end;
    exchange.progress.code = Some(broken.code.into());
    let fault = Fault {
        status: StatusCode::BAD_GATEWAY.as_u16(),
        error_type: "server_error",
        code: broken.code,
        message: &broken.message,
        param: None,
    };
    let event = render_fault_event(exchange.api, &fault, &exchange.request_id);
    exchange.progress.response_bytes += event.len() as u64;
    let written = async {
        downstream.write_response_body(event, false).await?;
        downstream.write_response_body(Bytes::new(), true).await
    };
    match written.await {
        Ok(()) => Connection::Reusable,
        Err(_) => Connection::lost(exchange),
    }
}

/// Turns the upstream's bytes into the caller's.
struct Events {
    splitter: SseSplitter,
    /// Whom to ask about events, if anybody wants them.
    chain: Option<std::sync::Arc<Chain>>,
    /// The model's name for the caller, as a JSON string.
    model: Vec<u8>,
    /// The caller did not ask for the usage chunk that the upstream was made to send.
    hides_usage: bool,
    seq: u32,
    /// The last event by the rules of the API has passed.
    whole: bool,
    /// A filter has ended the stream.
    stopped: bool,
}

impl Events {
    fn new(exchange: &Exchange) -> Self {
        let call = exchange.call.as_ref();
        Self {
            splitter: SseSplitter::new(exchange.snapshot.config.limits.event_max_bytes),
            chain: exchange.chain().filter(|chain| chain.wants_events(true)),
            model: call.map(|call| quote(&call.peek.model)).unwrap_or_default(),
            hides_usage: exchange.api == Api::ChatCompletions
                && call.is_some_and(|call| call.peek.include_usage != Some(true)),
            seq: 0,
            whole: false,
            stopped: false,
        }
    }

    /// The caller's bytes for what has arrived.
    fn relayed(&mut self, exchange: &mut Exchange, pieces: &Pieces) -> Result<Bytes, Broken> {
        let length: usize = pieces.data.iter().map(Bytes::len).sum();
        let mut out = BytesMut::with_capacity(length + 64);
        for piece in &pieces.data {
            self.splitter.push(piece);
            while let Some(event) = self.splitter.next().map_err(too_large)? {
                self.relay_event(exchange, &event, &mut out)?;
                if self.stopped {
                    return Ok(out.freeze());
                }
            }
        }
        if matches!(pieces.end, Some(Ok(())))
            && let Some(event) = self.splitter.finish()
            && is_complete(&event)
        {
            self.relay_event(exchange, &event, &mut out)?;
            // The empty line that was missing, lest whatever follows becomes part of the event.
            out.extend_from_slice(b"\n\n");
        }
        Ok(out.freeze())
    }

    fn relay_event(
        &mut self,
        exchange: &mut Exchange,
        event: &SseEvent,
        out: &mut BytesMut,
    ) -> Result<(), Broken> {
        if event.is_done() {
            self.whole = true;
        }
        if event.is_done() || event.data().is_empty() {
            out.extend_from_slice(&event.raw);
            return Ok(());
        }
        let facts = event_facts(exchange.api, event.name(), event.data());
        self.observe(exchange, &facts);
        if facts.usage_only && self.hides_usage {
            return Ok(());
        }
        let renamed = match &facts.model_span {
            Some(span) if event.data().get(span.clone()) != Some(self.model.as_slice()) => {
                event.with_data_span(span, &self.model)
            }
            _ => event.raw.clone(),
        };
        let asked = self.seq == 0
            || self
                .chain
                .as_ref()
                .is_some_and(|chain| chain.wants_events(false));
        match self.chain.clone().filter(|_| asked) {
            None => out.extend_from_slice(&renamed),
            Some(chain) => self.ask(exchange, &chain, event, &facts, renamed, out)?,
        }
        self.seq = self.seq.saturating_add(1);
        Ok(())
    }

    fn observe(&mut self, exchange: &mut Exchange, facts: &EventFacts<'_>) {
        let progress = &mut exchange.progress;
        progress.output_bytes += (facts.delta.len() + facts.hidden_bytes) as u64;
        if let Some(usage) = facts.usage {
            match &mut progress.usage {
                Some(known) => known.absorb(usage),
                None => progress.usage = Some(usage),
            }
        }
        if facts.is_error {
            progress.end = End::UpstreamError;
        }
        // A provider that ends with a finished choice but no `[DONE]` has said all it had to say.
        self.whole |= facts.terminal || facts.finish || facts.is_error;
    }

    fn ask(
        &mut self,
        exchange: &mut Exchange,
        chain: &Chain,
        event: &SseEvent,
        facts: &EventFacts<'_>,
        renamed: Bytes,
        out: &mut BytesMut,
    ) -> Result<(), Broken> {
        let seen = StreamEvent {
            seq: self.seq,
            name: event.name().to_owned(),
            data: Bytes::copy_from_slice(event.data()),
            delta: facts.delta.clone().into_owned(),
            finish: facts.finish,
            usage: facts.usage,
        };
        let internal = |refusal: Refusal| stopped(&refusal);
        let (back, verdict) = chain.event(exchange.take_facts().map_err(internal)?, seen);
        exchange.facts = Some(back);
        match verdict.map_err(|stop: Stop| stopped(&Refusal::stopped(stop, End::Denied)))? {
            EventVerdict::Pass => out.extend_from_slice(&renamed),
            EventVerdict::Drop => {}
            EventVerdict::Replace(data) => {
                out.extend_from_slice(&encode_event(event.name(), &data))
            }
            EventVerdict::Stop(data) => {
                out.extend_from_slice(&encode_event(event.name(), &data));
                if exchange.api == Api::ChatCompletions {
                    out.extend_from_slice(b"data: [DONE]\n\n");
                }
                self.stopped = true;
            }
        }
        Ok(())
    }
}

/// Whether the last event of a stream lacks no more than the empty line behind it. A part of an
/// event is no event.
fn is_complete(event: &SseEvent) -> bool {
    event.is_done() || serde_json::from_slice::<&serde_json::value::RawValue>(event.data()).is_ok()
}

fn too_large(_: SseError) -> Broken {
    Broken {
        end: End::UpstreamError,
        code: "event_too_large",
        message: "the backend sent an event larger than limits.event_max_bytes".into(),
    }
}

fn stopped(refusal: &Refusal) -> Broken {
    let fault = refusal.fault();
    Broken {
        end: refusal.end(),
        code: "filter_unavailable",
        message: fault.message.to_owned().into(),
    }
}
