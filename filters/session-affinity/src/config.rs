//! The filter's table.

use serde::Deserialize;
use weir_sdk::lifecycle::config_error;
use weir_sdk::{ConfigError, SessionSource};

/// `[filters.NAME.config]` of the filter `session-affinity`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long a conversation is remembered, in milliseconds.
    pub ttl_ms: u32,
    /// `true`: rather refuse than move a conversation to another backend.
    pub strict: bool,
    /// Which facts of a request may identify its conversation; the host's order decides.
    pub sources: Vec<Source>,
    /// Response header that tells the caller its session; empty: none.
    pub response_header: String,
}

/// A fact that may identify a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Body member `prompt_cache_key`.
    PromptCacheKey,
    /// Body member `conversation.id`.
    ConversationId,
    /// The session header.
    SessionHeader,
    /// How the conversation began.
    PrefixChain,
    /// All messages or the whole input.
    InputHash,
    /// Where the caller connects from.
    ClientHash,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ttl_ms: 3_600_000,
            strict: false,
            sources: vec![
                Source::PromptCacheKey,
                Source::ConversationId,
                Source::SessionHeader,
                Source::PrefixChain,
                Source::InputHash,
            ],
            response_header: "x-multi-turn-session-id".to_owned(),
        }
    }
}

impl Config {
    pub(crate) fn errors(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if self.ttl_ms == 0 {
            errors.push(config_error("/ttl_ms", "must be positive"));
        }
        if self.sources.is_empty() {
            errors.push(config_error(
                "/sources",
                "is empty: no request would have a key",
            ));
        }
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !self.response_header.bytes().all(is_token) {
            errors.push(config_error("/response_header", "is not a header name"));
        }
        errors
    }
}

impl Source {
    pub(crate) fn of(source: SessionSource) -> Self {
        match source {
            SessionSource::PromptCacheKey => Self::PromptCacheKey,
            SessionSource::ConversationId => Self::ConversationId,
            SessionSource::SessionHeader => Self::SessionHeader,
            SessionSource::PrefixChain => Self::PrefixChain,
            SessionSource::InputHash => Self::InputHash,
            SessionSource::ClientHash => Self::ClientHash,
        }
    }
}
