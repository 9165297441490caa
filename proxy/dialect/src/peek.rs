//! What a request body asks for, read once: model, stream, limits, estimate, session.

use std::ops::Range;

use serde_json::value::RawValue;

use crate::Api;
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
    /// Elements of `messages`.
    pub messages: u32,
    /// Things in `input`: 1 for a string or one list of token ids, else the elements.
    pub inputs: u32,
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
    /// What the edits for the upstream and the digests start from.
    pub(crate) spans: Spans,
}

/// Where things stand that are read or changed later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spans {
    /// The value of `stream`, a null too.
    pub(crate) stream: Option<Range<usize>>,
    /// The value of `stream_options`, a null too.
    pub(crate) stream_options: Option<Range<usize>>,
    /// A `service_tier` that no upstream knows.
    pub(crate) unknown_tier: Option<Range<usize>>,
    /// `system` of messages, `instructions` of responses.
    pub(crate) system: Option<Range<usize>>,
    /// `messages`, or `input` of responses.
    pub(crate) content: Option<Range<usize>>,
    /// The content is only the end of a conversation that the upstream holds.
    pub(crate) is_tail: bool,
    /// There is a member of messages that the upstream must not get.
    pub(crate) has_extra_headers: bool,
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
/// that provider adds a hidden prompt then; for embeddings a quarter of each text plus 5, or the
/// number of token ids.
///
/// # Errors
/// When the body is not a JSON object, or a member that is read here is missing, doubled, in
/// other letter case, of the wrong type or out of the api's bounds. Texts are those the api's
/// documentation gives.
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

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]
#[path = "peek_tests.rs"]
mod tests;
