//! Reads the top-level members of a request body one by one into a peek.

use std::ops::Range;

use crate::Api;
use crate::bounds::{
    CHAT_TIERS, MAX_TOOL_CALLS, RESPONSES_TIERS, TEMPERATURE, TOP_LOGPROBS, TOP_P, TRUNCATION,
    boolean, count, is_string, number,
};
use crate::edit::locate;
use crate::embedding::{EmbeddingInput, embedding_input, wrong_input};
use crate::measure::Measure;
use crate::members::{Member, Names, folds_to};
use crate::peek::{Peek, SessionKey, SessionSource};
use crate::refusal::{MODEL_BYTES_MAX, PeekError};
use crate::scan::{Cursor, unquoted};

/// What has been read of one body so far.
#[derive(Default)]
pub(crate) struct Reader {
    api: Api,
    peek: Peek,
    names: Names,
    max_tokens: u32,
    max_completion_tokens: u32,
    max_output_tokens: u32,
    embedding_tokens: u32,
    conversation: Option<String>,
    text_bytes: usize,
    binary_bytes: usize,
    tools_bytes: usize,
    images: u32,
}

impl Reader {
    pub(crate) fn new(api: Api) -> Self {
        Self {
            api,
            names: Names::new(api),
            ..Self::default()
        }
    }

    /// Counts a member and names it; its name comes with the quotes.
    pub(crate) fn identify(&mut self, raw: &[u8]) -> Result<Member, PeekError> {
        self.peek.n_members = self.peek.n_members.saturating_add(1);
        self.names.identify(unquoted(raw))
    }

    /// Takes in one member's value; `raw` is its text, `span` where that stands.
    pub(crate) fn read(
        &mut self,
        member: Member,
        raw: &[u8],
        span: &Range<usize>,
        size: &Measure,
    ) -> Result<(), PeekError> {
        // Even a null is something the edits for the upstream replace.
        match member {
            Member::Stream => self.peek.spans.stream = Some(span.clone()),
            Member::StreamOptions => self.peek.spans.stream_options = Some(span.clone()),
            Member::ExtraHeaders => self.peek.spans.has_extra_headers = true,
            _ => {}
        }
        if raw == b"null" {
            return Ok(());
        }
        match member {
            Member::Model => self.model(raw, span)?,
            Member::Stream => self.peek.stream = boolean(raw, "stream")?,
            Member::StreamOptions => self.stream_options(raw)?,
            Member::Messages => self.messages(raw, span, size)?,
            Member::Input => self.input(raw, span, size)?,
            Member::System => {
                self.text_bytes += size.text;
                self.peek.spans.system = Some(span.clone());
            }
            Member::MaxTokens => self.max_tokens = self.max_tokens(raw)?,
            Member::MaxCompletionTokens => {
                self.max_completion_tokens = count(raw, "max_completion_tokens")?
            }
            Member::MaxOutputTokens => self.max_output_tokens = count(raw, "max_output_tokens")?,
            Member::MaxToolCalls => MAX_TOOL_CALLS.check(raw)?,
            Member::Temperature => TEMPERATURE.check(raw)?,
            Member::TopP => TOP_P.check(raw)?,
            Member::TopLogprobs => {
                TOP_LOGPROBS.check(raw)?;
                self.peek.logprobs |= number(raw) != Some(0.0);
            }
            Member::Logprobs => self.peek.logprobs |= !matches!(raw, b"false" | b"0"),
            Member::Truncation => TRUNCATION.check(raw)?,
            Member::ServiceTier => self.service_tier(raw, span)?,
            Member::PromptCacheKey => self.prompt_cache_key(raw)?,
            Member::Conversation => {
                self.conversation = conversation(raw);
                self.peek.spans.is_tail |= self.conversation.is_some();
            }
            Member::PreviousResponse => self.peek.spans.is_tail |= !is_string(raw, ""),
            Member::Tools => {
                self.peek.has_tools |= size.elements > 0;
                self.tools_bytes += raw.len();
            }
            Member::ResponseFormat => self.peek.json_mode |= asks_json(raw, "/type"),
            Member::Text => self.peek.json_mode |= asks_json(raw, "/format/type"),
            Member::Modalities => {
                self.peek.has_audio |= memchr::memmem::find(raw, b"\"audio\"").is_some()
            }
            Member::User | Member::ExtraHeaders | Member::Unknown => {}
        }
        Ok(())
    }

    fn model(&mut self, raw: &[u8], span: &Range<usize>) -> Result<(), PeekError> {
        let model = unquoted(raw).ok_or(PeekError::InvalidType {
            member: "model",
            reason: "must be a string",
        })?;
        if model.len() > MODEL_BYTES_MAX || model.chars().any(char::is_control) {
            return Err(PeekError::InvalidModel);
        }
        self.peek.model = model.into_owned();
        self.peek.model_span = span.clone();
        Ok(())
    }

    fn messages(
        &mut self,
        raw: &[u8],
        span: &Range<usize>,
        size: &Measure,
    ) -> Result<(), PeekError> {
        if !raw.starts_with(b"[") {
            return Err(match self.api {
                Api::Messages => PeekError::NoMessages,
                _ => PeekError::InvalidType {
                    member: "messages",
                    reason: "must be an array",
                },
            });
        }
        self.peek.messages = size.elements;
        self.content(span, size);
        Ok(())
    }

    fn input(&mut self, raw: &[u8], span: &Range<usize>, size: &Measure) -> Result<(), PeekError> {
        if self.api == Api::Embeddings {
            let EmbeddingInput { inputs, tokens } = embedding_input(raw, size)?;
            self.peek.inputs = inputs;
            self.embedding_tokens = tokens;
            return Ok(());
        }
        self.peek.inputs = match raw.first() {
            Some(b'"') => 1,
            Some(b'[') if size.objects == size.elements => size.elements,
            _ => {
                return Err(PeekError::InvalidType {
                    member: "input",
                    reason: "must be string or array of input items",
                });
            }
        };
        self.content(span, size);
        Ok(())
    }

    fn max_tokens(&self, raw: &[u8]) -> Result<u32, PeekError> {
        if self.api == Api::Messages && number(raw).is_some_and(|number| number <= 0.0) {
            return Err(PeekError::NotPositive {
                member: "max_tokens",
            });
        }
        count(raw, "max_tokens")
    }

    /// Chat completions do not fail over a tier nobody knows: the upstream gets another instead.
    fn service_tier(&mut self, raw: &[u8], span: &Range<usize>) -> Result<(), PeekError> {
        if self.api == Api::Responses {
            return RESPONSES_TIERS.check(raw);
        }
        if !CHAT_TIERS.iter().any(|tier| is_string(raw, tier)) {
            self.peek.spans.unknown_tier = Some(span.clone());
        }
        Ok(())
    }

    fn prompt_cache_key(&mut self, raw: &[u8]) -> Result<(), PeekError> {
        let value = unquoted(raw).ok_or(PeekError::InvalidType {
            member: "prompt_cache_key",
            reason: "must be a string",
        })?;
        if !value.is_empty() {
            self.peek.session.push(SessionKey {
                source: SessionSource::PromptCacheKey,
                value: value.into_owned(),
            });
        }
        Ok(())
    }

    fn stream_options(&mut self, raw: &[u8]) -> Result<(), PeekError> {
        const MEMBER: &str = "stream_options.include_usage";
        let mut cursor = Cursor::new(raw, 0);
        if !cursor.eat(b'{') {
            return Err(PeekError::InvalidType {
                member: "stream_options",
                reason: "must be an object",
            });
        }
        let mut seen = false;
        while let Some(name) = cursor.next_key() {
            let name = unquoted(cursor.slice(&name)).unwrap_or_default();
            let value = cursor.value();
            if name != "include_usage" {
                if folds_to(&name, "include_usage") {
                    return Err(PeekError::Miscased { member: MEMBER });
                }
                continue;
            }
            if std::mem::replace(&mut seen, true) {
                return Err(PeekError::Duplicate { member: MEMBER });
            }
            let value = cursor.slice(&value);
            if value != b"null" {
                self.peek.include_usage = Some(boolean(value, MEMBER)?);
            }
        }
        Ok(())
    }

    /// What the exchange is about.
    fn content(&mut self, span: &Range<usize>, size: &Measure) {
        self.text_bytes += size.text;
        self.binary_bytes += size.binary;
        self.images = self.images.saturating_add(size.images);
        self.peek.has_audio |= size.audio;
        self.peek.spans.content = Some(span.clone());
    }

    /// Checks what must be there and estimates, once all members are read.
    pub(crate) fn finish(mut self, body: &[u8]) -> Result<Peek, PeekError> {
        self.check_presence()?;
        if let Some(value) = self.conversation.take() {
            self.peek.session.push(SessionKey {
                source: SessionSource::ConversationId,
                value,
            });
        }
        self.peek.max_output_tokens = match self.api {
            Api::Responses => self.max_output_tokens,
            Api::ChatCompletions if self.max_completion_tokens > 0 => self.max_completion_tokens,
            Api::ChatCompletions | Api::Messages => self.max_tokens,
            Api::Embeddings | Api::Models | Api::Other => 0,
        };
        self.peek.has_images = self.images > 0;
        self.peek.est_input_tokens = self.estimate(body.len());
        Ok(self.peek)
    }

    fn check_presence(&self) -> Result<(), PeekError> {
        let peek = &self.peek;
        match self.api {
            Api::Responses if peek.model.is_empty() => Err(PeekError::NoModel),
            _ if peek.model.is_empty() => Err(PeekError::Missing { member: "model" }),
            Api::ChatCompletions if peek.messages == 0 => {
                Err(PeekError::Missing { member: "messages" })
            }
            Api::Messages if self.max_tokens == 0 => Err(PeekError::NotPositive {
                member: "max_tokens",
            }),
            Api::Messages if peek.messages == 0 => Err(PeekError::NoMessages),
            Api::Embeddings if peek.inputs == 0 => Err(wrong_input()),
            _ => Ok(()),
        }
    }

    fn estimate(&self, body_bytes: usize) -> u32 {
        if self.api == Api::Embeddings {
            return self.embedding_tokens.max(1);
        }
        let images = u64::from(self.images) * IMAGE_TOKENS;
        let bytes = match self.api {
            Api::Messages => self.text_bytes + self.tools_bytes,
            _ => body_bytes.saturating_sub(self.binary_bytes),
        };
        let hidden = if self.api == Api::Messages && self.peek.has_tools {
            TOOL_PROMPT_TOKENS
        } else {
            0
        };
        let tokens = u64::try_from(bytes / BYTES_PER_TOKEN)
            .unwrap_or(u64::MAX)
            .saturating_add(images + hidden);
        u32::try_from(tokens).unwrap_or(u32::MAX).max(1)
    }
}

/// `conversation` is an id or an object that holds one.
fn conversation(raw: &[u8]) -> Option<String> {
    let span = if raw.starts_with(b"{") {
        locate(raw, "/id")?
    } else {
        0..raw.len()
    };
    let id = unquoted(raw.get(span)?)?;
    (!id.is_empty()).then(|| id.into_owned())
}

fn asks_json(raw: &[u8], pointer: &str) -> bool {
    let named = locate(raw, pointer).and_then(|span| raw.get(span));
    matches!(named, Some(b"\"json_object\"" | b"\"json_schema\""))
}

const BYTES_PER_TOKEN: usize = 4;
/// 85 and four tiles of 170: a large image in high detail.
const IMAGE_TOKENS: u64 = 765;
/// Median measured over recorded requests with tools.
const TOOL_PROMPT_TOKENS: u64 = 550;
