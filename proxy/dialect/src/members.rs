//! The members each api's bodies are read for, and how to tell them by name.

use std::borrow::Cow;

use crate::Api;
use crate::refusal::PeekError;

/// A top-level member that means something here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    Model,
    Stream,
    StreamOptions,
    Messages,
    Input,
    System,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    MaxToolCalls,
    Temperature,
    TopP,
    TopLogprobs,
    Logprobs,
    Truncation,
    ServiceTier,
    PromptCacheKey,
    Conversation,
    PreviousResponse,
    Tools,
    ResponseFormat,
    Text,
    Modalities,
    User,
    ExtraHeaders,
    Unknown,
}

/// Tells members apart and remembers which were there. Whatever is read here may decide whether
/// and how a request is admitted, so a second copy, or one in other letter case, is refused: it
/// would let a caller show one value to us and another to the model server.
#[derive(Default)]
pub(crate) struct Names {
    api: Api,
    /// One bit for each of the api's [`members`] that was there.
    seen: u32,
}

impl Names {
    pub(crate) fn new(api: Api) -> Self {
        Self { api, seen: 0 }
    }

    pub(crate) fn identify(&mut self, name: Option<Cow<'_, str>>) -> Result<Member, PeekError> {
        // A name with a lone surrogate has no text and is none of ours.
        let Some(name) = name else {
            return Ok(Member::Unknown);
        };
        for (bit, (known, member)) in members(self.api).iter().enumerate() {
            if name == *known {
                if self.seen & (1 << bit) != 0 {
                    return Err(PeekError::Duplicate { member: known });
                }
                self.seen |= 1 << bit;
                return Ok(*member);
            }
            if folds_to(&name, known) {
                return Err(PeekError::Miscased { member: known });
            }
        }
        if self.api == Api::Messages && is_extra_headers(&name) {
            return Ok(Member::ExtraHeaders);
        }
        Ok(Member::Unknown)
    }
}

/// Members by which client libraries carry headers in a body; no model server is to see them.
pub(crate) fn is_extra_headers(name: &str) -> bool {
    ["extra-headers", "extra_headers"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// Equal but for case, the way Go's decoder compares names: it also folds the long s and the
/// Kelvin sign.
pub(crate) fn folds_to(name: &str, known: &str) -> bool {
    if name.is_ascii() {
        return name.eq_ignore_ascii_case(known);
    }
    // Each folded character takes at most three bytes, so other lengths cannot match.
    let plausible = name.len() >= known.len() && name.len() <= known.len() * 3;
    plausible
        && name
            .chars()
            .map(|letter| match letter {
                '\u{17f}' => 's',
                '\u{212a}' => 'k',
                other => other.to_ascii_lowercase(),
            })
            .eq(known.chars())
}

const fn members(api: Api) -> &'static [(&'static str, Member)] {
    match api {
        Api::ChatCompletions => &CHAT,
        Api::Responses => &RESPONSES,
        Api::Embeddings => &EMBEDDINGS,
        Api::Messages => &MESSAGES,
        Api::Models | Api::Other => &[],
    }
}

const CHAT: [(&str, Member); 15] = [
    ("model", Member::Model),
    ("messages", Member::Messages),
    ("stream", Member::Stream),
    ("stream_options", Member::StreamOptions),
    ("max_tokens", Member::MaxTokens),
    ("max_completion_tokens", Member::MaxCompletionTokens),
    ("service_tier", Member::ServiceTier),
    ("prompt_cache_key", Member::PromptCacheKey),
    ("tools", Member::Tools),
    ("functions", Member::Tools),
    ("response_format", Member::ResponseFormat),
    ("logprobs", Member::Logprobs),
    ("top_logprobs", Member::Logprobs),
    ("modalities", Member::Modalities),
    ("user", Member::User),
];

const RESPONSES: [(&str, Member); 17] = [
    ("model", Member::Model),
    ("input", Member::Input),
    ("instructions", Member::System),
    ("stream", Member::Stream),
    ("max_output_tokens", Member::MaxOutputTokens),
    ("max_tool_calls", Member::MaxToolCalls),
    ("temperature", Member::Temperature),
    ("top_p", Member::TopP),
    ("top_logprobs", Member::TopLogprobs),
    ("truncation", Member::Truncation),
    ("service_tier", Member::ServiceTier),
    ("prompt_cache_key", Member::PromptCacheKey),
    ("conversation", Member::Conversation),
    ("previous_response_id", Member::PreviousResponse),
    ("tools", Member::Tools),
    ("text", Member::Text),
    ("user", Member::User),
];

const EMBEDDINGS: [(&str, Member); 4] = [
    ("model", Member::Model),
    ("input", Member::Input),
    ("stream", Member::Stream),
    ("user", Member::User),
];

const MESSAGES: [(&str, Member); 6] = [
    ("model", Member::Model),
    ("messages", Member::Messages),
    ("system", Member::System),
    ("stream", Member::Stream),
    ("max_tokens", Member::MaxTokens),
    ("tools", Member::Tools),
];
