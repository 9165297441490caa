//! The upstream's events made into the caller's, one by one: the caller's name for the model, the
//! chain backward over them, usage observed.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;
use weir_dialect::{
    Api, EventFacts, JsonEdit, SseError, SseEvent, SseSplitter, apply_json_edits, encode_event,
    event_facts, outcome,
};
use weir_pipeline::chain::{Chain, Stop};
use weir_pipeline::verdict::{End, EventVerdict, StreamEvent};

use crate::request::exchange::Exchange;
use crate::request::opening::{self, Fault, Heard, Opening};
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
    /// The model's name as the caller wrote it, as a JSON string.
    model: Bytes,
    /// The caller did not ask for the usage chunk that the upstream was made to send.
    hides_usage: bool,
    seq: u32,
    /// An event that says something of the answer has passed.
    pub(crate) has_said: bool,
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
            model: call.map(|call| call.model_json.clone()).unwrap_or_default(),
            hides_usage: exchange.api == Api::ChatCompletions
                && call.is_some_and(|call| call.peek.include_usage != Some(true)),
            seq: 0,
            has_said: false,
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
                let mut relayed = BytesMut::new();
                self.relay(exchange, &event, &mut relayed)?;
                let data = || data_of(relayed.freeze());
                if self.terminal || self.stopped {
                    return Ok(data());
                }
                if self.whole && error.is_none() {
                    *error = data();
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
            self.relay(exchange, &held, out)?;
        }
        if !self.stopped {
            self.relay(exchange, &event, out)?;
        }
        Ok(())
    }

    /// Appends one event as the caller is to see it, if it is.
    fn relay(
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
        if facts.is_error {
            let fault = Fault::read(event.data());
            exchange.progress.end = End::UpstreamError;
            exchange.progress.callers_fault = !fault.may_pass;
        }
        if let Some(hop) = &mut exchange.hop
            && (self.seq == 0 || facts.finish)
        {
            hop.outcome.absorb(outcome(exchange.api, event.data()));
        }
        if facts.usage_only && self.hides_usage {
            return Ok(());
        }
        let start = out.len();
        match &facts.model_span {
            Some(span) if event.data().get(span.clone()) != Some(&*self.model) => {
                event.write_with_data_span(span, &self.model, out);
            }
            _ => out.extend_from_slice(&event.raw),
        }
        if self.hides_usage {
            hide_usage(out, start, facts.usage.is_some());
        }
        let first = self.seq == 0;
        let asked = |chain: &&Arc<Chain>| first || chain.wants_events(false);
        if let Some(chain) = self.chain.as_ref().filter(asked).cloned() {
            self.ask(exchange, &chain, event, &facts, (out, start))?;
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
        self.has_said |= !facts.is_error && opening::says(facts);
        // A provider that ends with a finished choice but no `[DONE]` has said all it had to say.
        self.whole |= facts.terminal || facts.finish || facts.is_error;
        self.terminal |= facts.terminal;
        if facts.usage.is_some() {
            progress.usage_final = self.whole;
        }
    }

    /// Asks the filters about an event that stands in `out` from `start` on.
    fn ask(
        &mut self,
        exchange: &mut Exchange,
        chain: &Chain,
        event: &SseEvent,
        facts: &EventFacts<'_>,
        (out, start): (&mut BytesMut, usize),
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
        let verdict =
            verdict.map_err(|stop: Stop| stopped(&Refusal::stopped(stop, End::Denied)))?;
        if verdict == EventVerdict::Pass {
            return Ok(());
        }
        out.truncate(start);
        if let EventVerdict::Replace(data) | EventVerdict::Stop(data) = &verdict {
            out.extend_from_slice(&encode_event(event.name(), data));
        }
        if matches!(verdict, EventVerdict::Stop(_)) {
            self.stopped = true;
            if exchange.api == Api::ChatCompletions {
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
        }
        Ok(())
    }
}

/// The data of an event made here, if there is one.
fn data_of(raw: Bytes) -> Option<Bytes> {
    let event = event_of(raw)?;
    Some(Bytes::copy_from_slice(event.data()))
}

fn event_of(raw: Bytes) -> Option<SseEvent> {
    let mut whole = SseSplitter::new(usize::MAX);
    whole.push(&raw);
    whole.next().ok().flatten()
}

/// Takes the member `usage`, which the upstream was asked for and the caller was not told of, out of
/// the event that stands in `out` from `start` on: it is null in most chunks, and `reported` in one
/// that has a choice as well.
fn hide_usage(out: &mut BytesMut, start: usize, reported: bool) {
    let raw = out.get(start..).unwrap_or_default();
    if reported {
        let removal = JsonEdit::Remove {
            pointer: "/usage".into(),
        };
        if let Some(event) = event_of(Bytes::copy_from_slice(raw))
            && let Ok(data) = apply_json_edits(event.data(), &[removal])
        {
            out.truncate(start);
            out.extend_from_slice(&encode_event(event.name(), &data));
        }
        return;
    }
    // Unescaped quotes stand around names only, so that no text can look like it.
    if let Some(at) = NO_USAGE_FINDER.find(raw) {
        let at = start + at;
        out.copy_within(at + NO_USAGE.len().., at);
        out.truncate(out.len() - NO_USAGE.len());
    }
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
