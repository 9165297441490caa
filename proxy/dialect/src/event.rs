//! Facts of one stream event or one whole answer, read without building a tree.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
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
    let mut facts = ResponseFacts::default();
    // Two members count; of the others, most of the answer, only the end is looked for.
    let mut cursor = Cursor::new(body, 0);
    if !cursor.eat(b'{') {
        return facts;
    }
    while let Some(name) = cursor.next_key() {
        let value = cursor.value();
        match cursor.slice(&name) {
            b"\"model\"" => {
                facts.model_span = Some(value).filter(|span| body.get(span.start) == Some(&b'"'));
            }
            b"\"usage\"" => {
                let usage: Option<RawUsage> =
                    serde_json::from_slice(cursor.slice(&value)).unwrap_or_default();
                facts.usage = usage.map(|usage| match api {
                    Api::Responses => usage.responses(),
                    Api::Messages => usage.messages(),
                    Api::ChatCompletions | Api::Embeddings | Api::Models | Api::Other => {
                        usage.chat()
                    }
                });
            }
            _ => {}
        }
    }
    facts
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
    let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
        return EventFacts::default();
    };
    let usage = chunk
        .usage
        .or_else(|| chunk.x_groq?.usage)
        .map(|usage| usage.chat());
    let is_error = chunk.error.is_some();
    let no_choice = chunk
        .choices
        .as_ref()
        .is_some_and(|choices| choices.count == 0);
    let choices = chunk.choices.unwrap_or_default();
    EventFacts {
        delta: choices.delta,
        hidden_bytes: choices.hidden_bytes,
        finish: choices.finish,
        usage,
        model_span: string_span(data, chunk.model),
        terminal: false,
        is_error,
        usage_only: no_choice && usage.is_some() && !is_error,
    }
}

fn responses_facts<'a>(name: &str, data: &'a [u8]) -> EventFacts<'a> {
    if name.starts_with("response.")
        && !name.ends_with(".delta")
        && !RESPONSE_STATES.contains(&name)
        && !ends_responses(name)
    {
        return EventFacts::default();
    }
    let Ok(event) = serde_json::from_slice::<ResponsesEvent<'_>>(data) else {
        return EventFacts::default();
    };
    let kind = kind_of(name, &event.kind);
    let mut facts = EventFacts::default();
    match kind {
        "response.output_text.delta" => facts.delta = event.delta.0,
        _ if ends_responses(kind) => {
            facts.finish = true;
            facts.terminal = true;
            facts.is_error = kind == "response.failed";
        }
        "error" => facts.is_error = true,
        other if other.ends_with(".delta") => facts.hidden_bytes = event.delta.0.len(),
        _ => {}
    }
    if let Some(answer) = event.response {
        facts.usage = answer.usage.map(|usage| usage.responses());
        facts.model_span = string_span(data, answer.model);
    }
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
    let Ok(event) = serde_json::from_slice::<MessagesEvent<'_>>(data) else {
        return EventFacts::default();
    };
    let kind = kind_of(name, &event.kind);
    let mut facts = EventFacts::default();
    match kind {
        "content_block_delta" => {
            let delta = event.delta.unwrap_or_default();
            facts.hidden_bytes = delta.partial_json.0.len() + delta.thinking.0.len();
            facts.delta = delta.text.0;
        }
        "message_start" => {
            if let Some(answer) = event.message {
                facts.usage = answer.usage.map(|usage| usage.messages());
                facts.model_span = string_span(data, answer.model);
            }
        }
        "message_delta" => {
            facts.finish = event.delta.is_some_and(|delta| delta.stop_reason.is_some());
            facts.usage = event.usage.map(|usage| usage.messages());
        }
        "message_stop" => facts.terminal = true,
        "error" => facts.is_error = true,
        _ => {}
    }
    facts
}

/// Providers name an event twice, or only in its data.
fn kind_of<'a>(name: &'a str, told: &'a Text<'_>) -> &'a str {
    if name.is_empty() { &told.0 } else { name }
}

fn ends_responses(kind: &str) -> bool {
    matches!(
        kind,
        "response.completed" | "response.incomplete" | "response.failed"
    )
}

/// Where the borrowed value stands in what it was read from, if it is a string.
fn string_span(data: &[u8], value: Option<&RawValue>) -> Option<Range<usize>> {
    span_of(data, value?).filter(|span| data.get(span.start) == Some(&b'"'))
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
struct Answer<'a> {
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
    #[serde(default)]
    usage: Option<RawUsage>,
}

#[derive(serde::Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    choices: Option<Choices<'a>>,
    #[serde(default)]
    usage: Option<RawUsage>,
    #[serde(default)]
    x_groq: Option<Groq>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(serde::Deserialize)]
struct Groq {
    #[serde(default)]
    usage: Option<RawUsage>,
}

#[derive(serde::Deserialize)]
struct ResponsesEvent<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    delta: Text<'a>,
    #[serde(borrow, default)]
    response: Option<Answer<'a>>,
}

#[derive(serde::Deserialize)]
struct TerminalEvent<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
struct MessagesEvent<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    delta: Option<MessagesDelta<'a>>,
    #[serde(borrow, default)]
    message: Option<Answer<'a>>,
    #[serde(default)]
    usage: Option<RawUsage>,
}

#[derive(Default, serde::Deserialize)]
struct MessagesDelta<'a> {
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(borrow, default)]
    partial_json: Text<'a>,
    #[serde(borrow, default)]
    thinking: Text<'a>,
    #[serde(default)]
    stop_reason: Option<IgnoredAny>,
}

#[derive(serde::Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<ChatDelta<'a>>,
    #[serde(default)]
    finish_reason: Option<IgnoredAny>,
}

#[derive(serde::Deserialize)]
struct ChatDelta<'a> {
    #[serde(borrow, default)]
    content: Text<'a>,
    #[serde(borrow, default)]
    reasoning_content: Text<'a>,
    #[serde(borrow, default)]
    reasoning: Text<'a>,
    #[serde(borrow, default)]
    refusal: Text<'a>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
}

#[derive(serde::Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow, default)]
    function: Option<Function<'a>>,
}

#[derive(serde::Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    arguments: Text<'a>,
}

/// `choices` folded while it is read, because nearly always there is exactly one.
#[derive(Default)]
struct Choices<'a> {
    count: usize,
    delta: Cow<'a, str>,
    hidden_bytes: usize,
    finish: bool,
}

impl<'a> Choices<'a> {
    fn add(&mut self, choice: Choice<'a>) {
        self.count += 1;
        self.finish |= choice.finish_reason.is_some();
        let Some(delta) = choice.delta else {
            return;
        };
        append(&mut self.delta, delta.content.0);
        // Some providers send the same reasoning under both names.
        self.hidden_bytes +=
            delta.reasoning_content.0.len().max(delta.reasoning.0.len()) + delta.refusal.0.len();
        for call in delta.tool_calls.into_iter().flatten() {
            self.hidden_bytes += call
                .function
                .map_or(0, |function| function.arguments.0.len());
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Choices<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ChoicesVisitor)
    }
}

struct ChoicesVisitor;

impl<'de> Visitor<'de> for ChoicesVisitor {
    type Value = Choices<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array of choices")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Choices<'de>, A::Error> {
        let mut choices = Choices::default();
        while let Some(choice) = seq.next_element()? {
            choices.add(choice);
        }
        Ok(choices)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#[path = "event_tests.rs"]
mod tests;
