//! Reads the top-level members of a request body one by one into a peek.

use std::ops::Range;

use crate::Api;
use crate::edit::locate;
use crate::measure::Measure;
use crate::peek::{Peek, SessionKey, SessionSource};
use crate::refusal::{MODEL_BYTES_MAX, PeekError};
use crate::scan::{Cursor, unquoted};

/// The top-level members that mean something here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    Model,
    Stream,
    Messages,
    Input,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    StreamOptions,
    PromptCacheKey,
    User,
    System,
    Conversation,
    Tools,
    ResponseFormat,
    Text,
    Logprobs,
    Modalities,
    Unknown,
}

/// What has been read of one body so far.
#[derive(Default)]
pub(crate) struct Reader {
    api: Api,
    peek: Peek,
    /// One bit for each of [`ADMISSION`] that was there.
    seen: u16,
    max_tokens: u32,
    max_completion_tokens: u32,
    max_response_tokens: u32,
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
            ..Self::default()
        }
    }

    /// Counts a member and names it; its name comes with the quotes.
    pub(crate) fn identify(&mut self, raw: &[u8]) -> Result<Member, PeekError> {
        self.peek.n_members = self.peek.n_members.saturating_add(1);
        let Some(name) = unquoted(raw) else {
            return Ok(Member::Unknown);
        };
        for (bit, (known, member)) in ADMISSION.iter().enumerate() {
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
        Ok(match name.as_ref() {
            "system" => Member::System,
            "conversation" => Member::Conversation,
            "tools" | "functions" => Member::Tools,
            "response_format" => Member::ResponseFormat,
            "text" => Member::Text,
            "logprobs" | "top_logprobs" => Member::Logprobs,
            "modalities" => Member::Modalities,
            _ => Member::Unknown,
        })
    }

    /// Takes in one member's value; `raw` is its text, `span` where that stands.
    pub(crate) fn read(
        &mut self,
        member: Member,
        raw: &[u8],
        span: &Range<usize>,
        size: &Measure,
    ) -> Result<(), PeekError> {
        if raw == b"null" {
            return Ok(());
        }
        let kind = raw.first().copied().unwrap_or_default();
        match member {
            Member::Model => self.model(raw, span)?,
            Member::Stream => self.peek.stream = boolean(raw, "stream")?,
            Member::StreamOptions => self.stream_options(raw, span)?,
            Member::Messages => {
                expect(kind == b'[', "messages", "an array")?;
                self.peek.messages = size.elements;
                self.content(span, size, true);
            }
            Member::Input => {
                expect(matches!(kind, b'[' | b'"'), "input", "a string or an array")?;
                let single = kind == b'"' || size.first.is_ascii_digit();
                self.peek.inputs = if single { 1 } else { size.elements };
                self.content(span, size, false);
            }
            Member::System => self.text_bytes += size.text,
            Member::MaxTokens => self.max_tokens = count(raw, "max_tokens")?,
            Member::MaxCompletionTokens => {
                self.max_completion_tokens = count(raw, "max_completion_tokens")?
            }
            Member::MaxOutputTokens => self.max_response_tokens = count(raw, "max_output_tokens")?,
            Member::PromptCacheKey => {
                let value = unquoted(raw).filter(|_| kind == b'"');
                let value = value.ok_or(PeekError::InvalidType {
                    member: "prompt_cache_key",
                    expected: "a string",
                })?;
                if !value.is_empty() {
                    let value = value.into_owned();
                    self.peek.session.push(SessionKey {
                        source: SessionSource::PromptCacheKey,
                        value,
                    });
                }
            }
            Member::Conversation => self.conversation = conversation(raw),
            Member::Tools => {
                self.peek.has_tools |= size.elements > 0;
                self.tools_bytes += raw.len();
            }
            Member::ResponseFormat => self.peek.json_mode |= asks_json(raw, "/type"),
            Member::Text => self.peek.json_mode |= asks_json(raw, "/format/type"),
            Member::Logprobs => self.peek.logprobs |= !matches!(raw, b"false" | b"0"),
            Member::Modalities => {
                self.peek.has_audio |= memchr::memmem::find(raw, b"\"audio\"").is_some()
            }
            Member::User | Member::Unknown => {}
        }
        Ok(())
    }

    fn model(&mut self, raw: &[u8], span: &Range<usize>) -> Result<(), PeekError> {
        let model = unquoted(raw).ok_or(PeekError::InvalidType {
            member: "model",
            expected: "a string",
        })?;
        if model.len() > MODEL_BYTES_MAX || model.chars().any(char::is_control) {
            return Err(PeekError::InvalidModel);
        }
        self.peek.model = model.into_owned();
        self.peek.model_span = span.clone();
        Ok(())
    }

    fn stream_options(&mut self, raw: &[u8], span: &Range<usize>) -> Result<(), PeekError> {
        expect(raw.starts_with(b"{"), "stream_options", "an object")?;
        self.peek.stream_options_span = Some(span.clone());
        let mut cursor = Cursor::new(raw, 0);
        cursor.eat(b'{');
        while let Some(name) = cursor.next_key() {
            let name = unquoted(cursor.slice(&name));
            let value = cursor.value();
            if name.as_deref() != Some("include_usage") {
                continue;
            }
            if self.peek.include_usage.is_some() {
                return Err(PeekError::Duplicate {
                    member: "stream_options.include_usage",
                });
            }
            match cursor.slice(&value) {
                b"null" => {}
                given => {
                    self.peek.include_usage = Some(boolean(given, "stream_options.include_usage")?)
                }
            }
        }
        Ok(())
    }

    /// `messages` wins over `input` as what the exchange is about.
    fn content(&mut self, span: &Range<usize>, size: &Measure, wins: bool) {
        self.text_bytes += size.text;
        self.binary_bytes += size.binary;
        self.images = self.images.saturating_add(size.images);
        self.peek.has_audio |= size.audio;
        if wins || self.peek.input_span.is_none() {
            self.peek.input_span = Some(span.clone());
        }
    }

    /// Checks what must be there and estimates, once all members are read.
    pub(crate) fn finish(mut self, body: &[u8]) -> Result<Peek, PeekError> {
        if self.peek.model.is_empty() {
            return Err(PeekError::Missing { member: "model" });
        }
        let wants_messages = matches!(self.api, Api::ChatCompletions | Api::Messages);
        if wants_messages && self.peek.messages == 0 {
            return Err(PeekError::Missing { member: "messages" });
        }
        if let Some(value) = self
            .conversation
            .take()
            .filter(|_| self.api == Api::Responses)
        {
            self.peek.session.push(SessionKey {
                source: SessionSource::ConversationId,
                value,
            });
        }
        self.peek.max_output_tokens = match self.api {
            Api::Responses => self.max_response_tokens,
            Api::ChatCompletions if self.max_completion_tokens > 0 => self.max_completion_tokens,
            Api::ChatCompletions | Api::Messages => self.max_tokens,
            Api::Embeddings | Api::Models | Api::Other => 0,
        };
        self.peek.has_images = self.images > 0;
        self.peek.est_input_tokens = self.estimate(body.len());
        Ok(self.peek)
    }

    fn estimate(&self, body_bytes: usize) -> u32 {
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

fn expect(holds: bool, member: &'static str, expected: &'static str) -> Result<(), PeekError> {
    if holds {
        Ok(())
    } else {
        Err(PeekError::InvalidType { member, expected })
    }
}

fn boolean(raw: &[u8], member: &'static str) -> Result<bool, PeekError> {
    match raw {
        b"true" => Ok(true),
        b"false" => Ok(false),
        _ => Err(PeekError::InvalidType {
            member,
            expected: "a boolean",
        }),
    }
}

/// Whole numbers beyond `u32` are held to its limit: no budget reaches so far.
fn count(raw: &[u8], member: &'static str) -> Result<u32, PeekError> {
    if raw.is_empty() || !raw.iter().all(u8::is_ascii_digit) {
        return Err(PeekError::InvalidType {
            member,
            expected: "a non-negative integer",
        });
    }
    let digit = |total: u32, byte: &u8| {
        total
            .saturating_mul(10)
            .saturating_add(u32::from(byte - b'0'))
    };
    Ok(raw.iter().fold(0, digit))
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

/// Equal but for case, the way Go's decoder compares names: it also folds the long s and the
/// Kelvin sign.
fn folds_to(name: &str, known: &str) -> bool {
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

/// Members that decide whether and how a request is admitted: a second copy would let a caller
/// show one value to us and another to the model server.
const ADMISSION: [(&str, Member); 10] = [
    ("model", Member::Model),
    ("stream", Member::Stream),
    ("messages", Member::Messages),
    ("input", Member::Input),
    ("max_tokens", Member::MaxTokens),
    ("max_completion_tokens", Member::MaxCompletionTokens),
    ("max_output_tokens", Member::MaxOutputTokens),
    ("stream_options", Member::StreamOptions),
    ("prompt_cache_key", Member::PromptCacheKey),
    ("user", Member::User),
];
const BYTES_PER_TOKEN: usize = 4;
/// 85 and four tiles of 170: a large image in high detail.
const IMAGE_TOKENS: u64 = 765;
/// Median measured over recorded requests with tools.
const TOOL_PROMPT_TOKENS: u64 = 550;
