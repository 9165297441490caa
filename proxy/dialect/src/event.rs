//! Facts of one stream event or one whole answer, read without building a tree.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use crate::Api;
use crate::scan::Cursor;
use crate::text::{Text, append};
use crate::usage::{RawUsage, Usage};

/// What one event of a stream says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct EventFacts<'a> {
    /// Answer text this event adds; of several choices all of it, in order.
    pub delta: Cow<'a, str>,
    /// Bytes of output this event adds that are not answer text: reasoning, tool arguments,
    /// refusals. For estimates when no usage is reported.
    pub hidden_bytes: usize,
    /// A choice, or the answer, ends here.
    pub finish: bool,
    /// Usage up to here; merge reports by [`Usage::absorb`].
    pub usage: Option<Usage>,
    /// Where the model's JSON string stands in the data, quotes included.
    pub model_span: Option<Range<usize>>,
    /// Nothing follows by the rules of the api: a stream that ends after this one is whole.
    pub terminal: bool,
    /// The provider reports a failure.
    pub is_error: bool,
    /// A chunk that only carries usage and has no choice: what a caller who did not ask for
    /// usage must not see.
    pub usage_only: bool,
}

/// What a whole answer says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ResponseFacts {
    /// Usage, when reported.
    pub usage: Option<Usage>,
    /// Where the model's JSON string stands in the body, quotes included.
    pub model_span: Option<Range<usize>>,
}

/// Reads one event. `name` is its `event:` field, empty when there is none; `data` its data.
/// Never fails: what is not understood says nothing. Text without escapes is borrowed.
#[must_use]
pub fn event_facts<'a>(api: Api, name: &str, data: &'a [u8]) -> EventFacts<'a> {
    match api {
        Api::Responses => responses_facts(name, data),
        Api::Messages => messages_facts(name, data),
        Api::ChatCompletions | Api::Embeddings | Api::Models | Api::Other => chat_facts(data),
    }
}

/// Reads usage and model of an answer that is not a stream. Never fails.
#[must_use]
pub fn response_facts(api: Api, body: &[u8]) -> ResponseFacts {
    let Answer { model_span, usage } = Answer::read(body, 0);
    let usage = usage.map(|usage| match api {
        Api::Responses => usage.responses(),
        Api::Messages => usage.messages(),
        Api::ChatCompletions | Api::Embeddings | Api::Models | Api::Other => usage.chat(),
    });
    ResponseFacts { usage, model_span }
}

/// Where the `response` object stands in the data of the event that ends a stream of responses;
/// `None` for other events. An event that does not tell its `type` in its data is taken for the
/// last: ask of those whose facts are `terminal`.
#[must_use]
pub fn terminal_response(data: &[u8]) -> Option<Range<usize>> {
    let event: TerminalEvent<'_> = serde_json::from_slice(data).ok()?;
    let kind = event.kind.0.as_ref();
    let span = span_of(data, event.response?)?;
    let is_object = data.get(span.start) == Some(&b'{');
    (is_object && (kind.is_empty() || ends_responses(kind))).then_some(span)
}

fn chat_facts(data: &[u8]) -> EventFacts<'_> {
    if data.trim_ascii() == b"[DONE]" {
        return EventFacts {
            terminal: true,
            ..EventFacts::default()
        };
    }
    let mut facts = EventFacts::default();
    let (mut usage, mut groq, mut choices) = (None, None, None);
    Cursor::new(data, 0).members(|name, cursor| match name {
        b"\"model\"" => facts.model_span = cursor.string_span(),
        b"\"choices\"" => {
            let mut count = 0;
            let listed = cursor.items(|cursor| {
                count += 1;
                add_choice(&mut facts, cursor);
            });
            choices = listed.then_some(count);
        }
        b"\"usage\"" => usage = RawUsage::read(cursor.raw()),
        b"\"x_groq\"" => {
            cursor.members(|name, cursor| {
                if name == b"\"usage\"" {
                    groq = RawUsage::read(cursor.raw());
                }
            });
        }
        b"\"error\"" => facts.is_error = is_some(cursor.raw()),
        _ => {}
    });
    facts.usage = usage.or(groq).map(|usage| usage.chat());
    facts.usage_only = choices == Some(0) && facts.usage.is_some() && !facts.is_error;
    facts
}

fn add_choice<'a>(facts: &mut EventFacts<'a>, cursor: &mut Cursor<'a>) {
    cursor.members(|name, cursor| match name {
        b"\"delta\"" => add_delta(facts, cursor),
        b"\"finish_reason\"" => facts.finish |= is_some(cursor.raw()),
        _ => {}
    });
}

fn add_delta<'a>(facts: &mut EventFacts<'a>, cursor: &mut Cursor<'a>) {
    let mut reasoning = 0;
    cursor.members(|name, cursor| match name {
        b"\"content\"" => append(&mut facts.delta, Text::read(cursor.raw())),
        // Some providers send the same reasoning under both names.
        b"\"reasoning_content\"" | b"\"reasoning\"" => {
            reasoning = Text::read(cursor.raw()).len().max(reasoning);
        }
        b"\"refusal\"" => facts.hidden_bytes += Text::read(cursor.raw()).len(),
        b"\"tool_calls\"" => {
            cursor.items(|cursor| add_tool_call(facts, cursor));
        }
        _ => {}
    });
    facts.hidden_bytes += reasoning;
}

fn add_tool_call(facts: &mut EventFacts<'_>, cursor: &mut Cursor<'_>) {
    cursor.members(|name, cursor| {
        if name != b"\"function\"" {
            return;
        }
        cursor.members(|name, cursor| {
            if name == b"\"arguments\"" {
                facts.hidden_bytes += Text::read(cursor.raw()).len();
            }
        });
    });
}

fn responses_facts<'a>(name: &str, data: &'a [u8]) -> EventFacts<'a> {
    if name.starts_with("response.")
        && !name.ends_with(".delta")
        && !RESPONSE_STATES.contains(&name)
        && !ends_responses(name)
    {
        return EventFacts::default();
    }
    let event = Event::read(data);
    let kind = event.kind(name);
    let mut facts = EventFacts::default();
    match &*kind {
        "response.output_text.delta" => facts.delta = Text::read(event.delta),
        _ if ends_responses(&kind) => {
            facts.finish = true;
            facts.terminal = true;
            facts.is_error = kind == "response.failed";
        }
        "error" => facts.is_error = true,
        other if other.ends_with(".delta") => {
            facts.hidden_bytes = Text::read(event.delta).len();
        }
        _ => {}
    }
    facts.model_span = event.answer.model_span;
    facts.usage = event.answer.usage.map(|usage| usage.responses());
    facts
}

fn messages_facts<'a>(name: &str, data: &'a [u8]) -> EventFacts<'a> {
    match name {
        "ping" | "content_block_start" | "content_block_stop" => return EventFacts::default(),
        "message_stop" => {
            return EventFacts {
                terminal: true,
                ..EventFacts::default()
            };
        }
        _ => {}
    }
    let event = Event::read(data);
    let kind = event.kind(name);
    let mut facts = EventFacts::default();
    match &*kind {
        "content_block_delta" => {
            Cursor::new(event.delta, 0).members(|name, cursor| match name {
                b"\"text\"" => facts.delta = Text::read(cursor.raw()),
                b"\"partial_json\"" | b"\"thinking\"" => {
                    facts.hidden_bytes += Text::read(cursor.raw()).len();
                }
                _ => {}
            });
        }
        "message_start" => {
            facts.model_span = event.answer.model_span;
            facts.usage = event.answer.usage.map(|usage| usage.messages());
        }
        "message_delta" => {
            Cursor::new(event.delta, 0).members(|name, cursor| {
                if name == b"\"stop_reason\"" {
                    facts.finish = is_some(cursor.raw());
                }
            });
            facts.usage = event.usage.map(|usage| usage.messages());
        }
        "message_stop" => facts.terminal = true,
        "error" => facts.is_error = true,
        _ => {}
    }
    facts
}

/// What events of responses and messages have in common.
#[derive(Default)]
struct Event<'a> {
    /// The value of `type`.
    kind: &'a [u8],
    /// The value of `delta`.
    delta: &'a [u8],
    usage: Option<RawUsage>,
    /// `response` or `message`: the answer, as far as it has come.
    answer: Answer,
}

impl<'a> Event<'a> {
    fn read(data: &'a [u8]) -> Self {
        let mut event = Self::default();
        Cursor::new(data, 0).members(|name, cursor| match name {
            b"\"type\"" => event.kind = cursor.raw(),
            b"\"delta\"" => event.delta = cursor.raw(),
            b"\"usage\"" => event.usage = RawUsage::read(cursor.raw()),
            b"\"response\"" | b"\"message\"" => event.answer = Answer::read(data, cursor.at()),
            _ => {}
        });
        event
    }

    /// Providers name an event twice, or only in its data.
    fn kind(&self, name: &'a str) -> Cow<'a, str> {
        if name.is_empty() {
            Text::read(self.kind)
        } else {
            Cow::Borrowed(name)
        }
    }
}

#[derive(Default)]
struct Answer {
    model_span: Option<Range<usize>>,
    usage: Option<RawUsage>,
}

impl Answer {
    /// Of the answer that begins at `at`, two members count; of the others, most of it, only the
    /// end is looked for.
    fn read(data: &[u8], at: usize) -> Self {
        let mut answer = Self::default();
        Cursor::new(data, at).members(|name, cursor| match name {
            b"\"model\"" => answer.model_span = cursor.string_span(),
            b"\"usage\"" => answer.usage = RawUsage::read(cursor.raw()),
            _ => {}
        });
        answer
    }
}

fn is_some(raw: &[u8]) -> bool {
    !matches!(raw, b"" | b"null")
}

fn ends_responses(kind: &str) -> bool {
    matches!(
        kind,
        "response.completed" | "response.incomplete" | "response.failed"
    )
}

/// Where the borrowed value stands in what it was read from.
fn span_of(data: &[u8], value: &RawValue) -> Option<Range<usize>> {
    let text = value.get();
    let start = text.as_ptr().addr().checked_sub(data.as_ptr().addr())?;
    let span = start..start.checked_add(text.len())?;
    (span.end <= data.len()).then_some(span)
}

/// Events before the last that tell of the answer as a whole.
const RESPONSE_STATES: [&str; 3] = [
    "response.created",
    "response.queued",
    "response.in_progress",
];

#[derive(serde::Deserialize)]
struct TerminalEvent<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#[path = "event_tests.rs"]
mod tests;
