//! What a request body asks for, read once: model, stream, limits, estimate, session.

use std::ops::Range;

use serde_json::value::RawValue;

use crate::Api;
use crate::edit::set_member;
use crate::measure::{TooDeep, measure};
use crate::reader::Reader;
use crate::refusal::PeekError;
use crate::scan::Cursor;

/// What the body of a request asks for. All ranges are byte offsets into the body peeked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peek {
    /// The caller's model string, as given; not empty, at most 1,024 bytes, no control characters.
    pub model: String,
    /// Where the model's JSON string stands, quotes included.
    pub model_span: Range<usize>,
    /// The caller wants server-sent events.
    pub stream: bool,
    /// `stream_options.include_usage`, when given.
    pub include_usage: Option<bool>,
    /// Where the value of `stream_options` stands, when it is an object.
    pub stream_options_span: Option<Range<usize>>,
    /// Elements of `messages`.
    pub messages: u32,
    /// Things in `input`: 1 for a string or one list of token ids, else the elements.
    pub inputs: u32,
    /// Where `messages`, else `input`, stands: what a payload hash for affinity covers.
    pub input_span: Option<Range<usize>>,
    /// The limit the caller set on output tokens; 0 when there is none.
    pub max_output_tokens: u32,
    /// Input tokens guessed from sizes, at least 1; see [`peek`].
    pub est_input_tokens: u32,
    /// What the body says about the conversation it belongs to, best first.
    pub session: Vec<SessionKey>,
    /// `tools` or `functions` with at least one element.
    pub has_tools: bool,
    /// An image part, inline or by URL.
    pub has_images: bool,
    /// Audio goes in, or is asked for as output.
    pub has_audio: bool,
    /// The answer must be JSON (`json_object` or `json_schema`).
    pub json_mode: bool,
    /// Log probabilities are asked for.
    pub logprobs: bool,
    /// Top-level members.
    pub n_members: u32,
}

/// A name for the conversation, found in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionKey {
    /// Where it was found.
    pub source: SessionSource,
    /// The value as given, unchecked; never empty.
    pub value: String,
}

/// Where in the body a [`SessionKey`] was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionSource {
    /// `prompt_cache_key` of chat completions and responses.
    PromptCacheKey,
    /// `conversation` or `conversation.id` of responses.
    ConversationId,
}

/// Reads what a body of `api` asks for. Values are skipped, not decoded: one validating pass and
/// one measuring pass, and no allocation but for the strings in [`Peek`].
///
/// `est_input_tokens` is a quarter of the body's bytes, inline base64 left out, plus 765 per
/// image; for messages a quarter of the text and of the tools, plus 550 with tools, because
/// that provider adds a hidden prompt then.
///
/// # Errors
/// When the body is not a JSON object, or a member that decides admission is missing, doubled,
/// in other letter case or of the wrong type.
pub fn peek(api: Api, body: &[u8]) -> Result<Peek, PeekError> {
    serde_json::from_slice::<&RawValue>(body).map_err(|error| PeekError::InvalidJson {
        detail: error.to_string(),
    })?;
    let mut cursor = Cursor::new(body, 0);
    if !cursor.eat(b'{') {
        return Err(PeekError::NotObject);
    }
    let mut reader = Reader::new(api);
    while let Some(name) = cursor.next_key() {
        let member = reader.identify(cursor.slice(&name))?;
        let start = cursor.at();
        let size = measure(&mut cursor, 1).map_err(|TooDeep| PeekError::TooDeep)?;
        let span = start..cursor.at();
        reader.read(member, cursor.slice(&span), &span, &size)?;
    }
    reader.finish(body)
}

impl Peek {
    /// The edit that makes an upstream of the same dialect report usage in a stream; `None` when
    /// it is asked for already, or there is no stream. `body` is the body peeked at, `self` what
    /// [`peek`] said of it for chat completions. Give the edit to [`crate::splice`].
    #[must_use]
    pub fn include_usage_edit(&self, body: &[u8]) -> Option<(Range<usize>, Vec<u8>)> {
        if !self.stream || self.include_usage == Some(true) {
            return None;
        }
        if let Some(span) = &self.stream_options_span {
            let options = body.get(span.clone())?;
            let (range, text) = set_member(options, "include_usage", b"true")?;
            return Some((range.start + span.start..range.end + span.start, text));
        }
        set_member(body, "stream_options", br#"{"include_usage":true}"#)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]
#[path = "peek_tests.rs"]
mod tests;
