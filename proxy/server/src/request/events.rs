//! The upstream's events made into the caller's, one by one: the caller's name for the model, the
//! chain backward over them, usage observed.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;
use weir_dialect::{
    Api, EventFacts, JsonEdit, SseError, SseEvent, SseSplitter, apply_json_edits, encode_event,
    event_facts, outcome, quote,
};
use weir_pipeline::chain::{Chain, Stop};
use weir_pipeline::verdict::{End, EventVerdict, StreamEvent};

use crate::request::exchange::Exchange;
use crate::request::opening::{Fault, Heard, Opening};
use crate::request::refuse::Refusal;

/// What the upstream has sent since the last look.
#[derive(Default)]
pub(crate) struct Pieces {
    pub(crate) data: Vec<Bytes>,
    /// Set when nothing follows: the body's end, or the connection's.
    pub(crate) end: Option<pingora::Result<()>>,
}

/// Why a stream ends before its time.
pub(crate) struct Broken {
    pub(crate) end: End,
    pub(crate) code: &'static str,
    pub(crate) message: Cow<'static, str>,
}

/// Why a piece of a stream was not made into the caller's.
pub(crate) enum Halt {
    /// It ends here.
    Broken(Broken),
    /// The backend failed before it said anything, and what it said of that.
    Unbegun(Fault),
}

impl Broken {
    pub(crate) fn of(error: &pingora::Error) -> Self {
        if matches!(error.etype(), pingora::ErrorType::ReadTimedout) {
            return Self {
                end: End::Timeout,
                code: "upstream_stalled",
                message: "the backend stopped sending in mid-stream".into(),
            };
        }
        Self::cut()
    }

    pub(crate) fn cut() -> Self {
        Self {
            end: End::UpstreamError,
            code: "upstream_disconnected",
            message: "the backend closed the connection before the answer was complete".into(),
        }
    }
}

impl From<Broken> for Halt {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// Turns the upstream's bytes into the caller's.
pub(crate) struct Events {
    splitter: SseSplitter,
    /// Holds events back until one says something.
    opening: Option<Opening>,
    /// Whom to ask about events, if anybody wants them.
    chain: Option<Arc<Chain>>,
    /// The model's name for the caller, as a JSON string.
    model: Vec<u8>,
    /// The caller did not ask for the usage chunk that the upstream was made to send.
    hides_usage: bool,
    seq: u32,
    /// The last event by the rules of the API has passed.
    pub(crate) whole: bool,
    /// The event that holds the result has passed.
    terminal: bool,
    /// A filter has ended the stream.
    pub(crate) stopped: bool,
}

impl Events {
    /// With `held` events are held back until one says something. Events of more than
    /// `event_max_bytes` break the stream.
    pub(crate) fn new(exchange: &Exchange, held: bool, event_max_bytes: usize) -> Self {
        let call = exchange.call.as_ref();
        Self {
            splitter: SseSplitter::new(event_max_bytes),
            opening: held.then(Opening::default),
            chain: exchange.chain().filter(|chain| chain.wants_events(true)),
            model: call.map(|call| quote(&call.peek.model)).unwrap_or_default(),
            hides_usage: exchange.api == Api::ChatCompletions
                && call.is_some_and(|call| call.peek.include_usage != Some(true)),
            seq: 0,
            whole: false,
            terminal: false,
            stopped: false,
        }
    }

    /// Whether nothing was said yet.
    pub(crate) fn is_opening(&self) -> bool {
        self.opening.is_some()
    }

    /// The caller's bytes for what has arrived, none while the stream is opening, and why there
    /// will be no more. `may_fall_back`: whether there is another backend to ask.
    pub(crate) fn relayed(
        &mut self,
        exchange: &mut Exchange,
        pieces: &Pieces,
        may_fall_back: bool,
    ) -> (Bytes, Option<Halt>) {
        let length: usize = pieces.data.iter().map(Bytes::len).sum();
        let mut out = BytesMut::with_capacity(length + 64);
        let halt = self.relay_into(exchange, pieces, may_fall_back, &mut out);
        (out.freeze(), halt.err())
    }

    fn relay_into(
        &mut self,
        exchange: &mut Exchange,
        pieces: &Pieces,
        may_fall_back: bool,
        out: &mut BytesMut,
    ) -> Result<(), Halt> {
        for piece in &pieces.data {
            self.splitter.push(piece);
            while let Some(event) = self.splitter.next().map_err(too_large)? {
                self.take(exchange, event, may_fall_back, out)?;
                if self.stopped {
                    return Ok(());
                }
            }
        }
        if matches!(pieces.end, Some(Ok(())))
            && let Some(event) = self.splitter.finish()
            && is_complete(&event)
        {
            self.take(exchange, event, may_fall_back, out)?;
            if !self.is_opening() {
                // The empty line that was missing, lest whatever follows becomes part of the event.
                out.extend_from_slice(b"\n\n");
            }
        }
        Ok(())
    }

    /// The data of the event that holds the result, filters asked, once it has arrived: for a
    /// caller that wants one answer of all events. An error that came before it is kept in `error`.
    pub(crate) fn result(
        &mut self,
        exchange: &mut Exchange,
        pieces: &Pieces,
        error: &mut Option<Bytes>,
    ) -> Result<Option<Bytes>, Broken> {
        for piece in &pieces.data {
            self.splitter.push(piece);
            while let Some(event) = self.splitter.next().map_err(too_large)? {
                let Some(raw) = self.relay(exchange, &event)? else {
                    continue;
                };
                if self.terminal || self.stopped {
                    return Ok(data_of(&raw));
                }
                if self.whole && error.is_none() {
                    *error = data_of(&raw);
                }
            }
        }
        Ok(None)
    }

    fn take(
        &mut self,
        exchange: &mut Exchange,
        event: SseEvent,
        may_fall_back: bool,
        out: &mut BytesMut,
    ) -> Result<(), Halt> {
        if let Some(opening) = &mut self.opening {
            let facts = event_facts(exchange.api, event.name(), event.data());
            match opening.hear(&event, &facts) {
                Heard::Nothing => {
                    opening.hold(event);
                    return Ok(());
                }
                Heard::Failed(fault) if fault.may_pass && may_fall_back => {
                    return Err(Halt::Unbegun(fault));
                }
                Heard::Begun | Heard::Failed(_) => {}
            }
        }
        for held in self
            .opening
            .take()
            .map(Opening::release)
            .unwrap_or_default()
        {
            if let Some(relayed) = self.relay(exchange, &held)? {
                out.extend_from_slice(&relayed);
            }
        }
        if !self.stopped
            && let Some(relayed) = self.relay(exchange, &event)?
        {
            out.extend_from_slice(&relayed);
        }
        Ok(())
    }

    /// One event for the caller; `None` when it is not to see it.
    fn relay(
        &mut self,
        exchange: &mut Exchange,
        event: &SseEvent,
    ) -> Result<Option<Bytes>, Broken> {
        if event.is_done() {
            self.whole = true;
        }
        if event.is_done() || event.data().is_empty() {
            return Ok(Some(event.raw.clone()));
        }
        let facts = event_facts(exchange.api, event.name(), event.data());
        self.observe(exchange, &facts);
        if let Some(hop) = &mut exchange.hop
            && (self.seq == 0 || facts.finish)
        {
            hop.outcome.absorb(outcome(exchange.api, event.data()));
        }
        if facts.usage_only && self.hides_usage {
            return Ok(None);
        }
        let mut renamed = match &facts.model_span {
            Some(span) if event.data().get(span.clone()) != Some(self.model.as_slice()) => {
                event.with_data_span(span, &self.model)
            }
            _ => event.raw.clone(),
        };
        if self.hides_usage {
            renamed = without_usage(renamed, facts.usage.is_some());
        }
        let asked = self.seq == 0
            || self
                .chain
                .as_ref()
                .is_some_and(|chain| chain.wants_events(false));
        let relayed = match self.chain.clone().filter(|_| asked) {
            None => Some(renamed),
            Some(chain) => self.ask(exchange, &chain, event, &facts, renamed)?,
        };
        self.seq = self.seq.saturating_add(1);
        Ok(relayed)
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
        self.terminal |= facts.terminal;
        if facts.usage.is_some() {
            progress.usage_final = self.whole;
        }
    }

    fn ask(
        &mut self,
        exchange: &mut Exchange,
        chain: &Chain,
        event: &SseEvent,
        facts: &EventFacts<'_>,
        renamed: Bytes,
    ) -> Result<Option<Bytes>, Broken> {
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
        let verdict =
            verdict.map_err(|stop: Stop| stopped(&Refusal::stopped(stop, End::Denied)))?;
        Ok(match verdict {
            EventVerdict::Pass => Some(renamed),
            EventVerdict::Drop => None,
            EventVerdict::Replace(data) => Some(encode_event(event.name(), &data)),
            EventVerdict::Stop(data) => {
                self.stopped = true;
                let mut last = BytesMut::from(&*encode_event(event.name(), &data));
                if exchange.api == Api::ChatCompletions {
                    last.extend_from_slice(b"data: [DONE]\n\n");
                }
                Some(last.freeze())
            }
        })
    }
}

/// The data of an event made here.
fn data_of(raw: &Bytes) -> Option<Bytes> {
    let mut whole = SseSplitter::new(usize::MAX);
    whole.push(raw);
    let event = whole.next().ok().flatten()?;
    Some(Bytes::copy_from_slice(event.data()))
}

/// The member `usage` that the upstream was asked for and the caller was not told of: null in most
/// chunks, and `reported` in one that has a choice as well.
fn without_usage(raw: Bytes, reported: bool) -> Bytes {
    if reported {
        let mut whole = SseSplitter::new(usize::MAX);
        whole.push(&raw);
        let removal = JsonEdit::Remove {
            pointer: "/usage".into(),
        };
        if let Ok(Some(event)) = whole.next()
            && let Ok(data) = apply_json_edits(event.data(), &[removal])
        {
            return encode_event(event.name(), &data);
        }
        return raw;
    }
    // Unescaped quotes stand around names only, so that no text can look like it.
    let Some(at) = NO_USAGE_FINDER.find(&raw) else {
        return raw;
    };
    let mut kept = BytesMut::with_capacity(raw.len());
    kept.extend_from_slice(raw.get(..at).unwrap_or_default());
    kept.extend_from_slice(raw.get(at + NO_USAGE.len()..).unwrap_or_default());
    kept.freeze()
}

const NO_USAGE: &[u8] = b",\"usage\":null";
static NO_USAGE_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NO_USAGE));

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
