//! Tokens an exchange used, read from the providers' own words.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};

/// Tokens in and out. Input includes cached tokens and output includes reasoning, whatever the
/// provider's own custom is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// All input tokens, cached ones included.
    pub input_tokens: u64,
    /// All output tokens the provider counts as such.
    pub output_tokens: u64,
    /// Input tokens read from the provider's cache.
    pub cached_input_tokens: u64,
    /// Output tokens spent on reasoning.
    pub reasoning_tokens: u64,
    /// The provider said so; false for an estimate.
    pub reported: bool,
}

impl Usage {
    /// Takes in a later report of the same exchange; an estimate gives way to a report. Reports in
    /// a stream are cumulative: the last output counts. They may leave out what has not changed,
    /// and of input repeat only the part that was not cached, so input keeps its largest total.
    pub fn absorb(&mut self, later: Self) {
        if later.reported && !self.reported {
            *self = later;
            return;
        }
        if self.reported && !later.reported {
            return;
        }
        self.input_tokens = self.input_tokens.max(later.input_tokens);
        self.cached_input_tokens = self.cached_input_tokens.max(later.cached_input_tokens);
        if later.output_tokens > 0 {
            self.output_tokens = later.output_tokens;
        }
        if later.reasoning_tokens > 0 {
            self.reasoning_tokens = later.reasoning_tokens;
        }
    }
}

/// `usage` as any of the three families writes it; their member names do not collide.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct RawUsage {
    prompt_tokens: Count,
    completion_tokens: Count,
    prompt_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    prompt_cache_hit_tokens: Count,
    input_tokens: Count,
    output_tokens: Count,
    input_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
    reasoning_tokens: Count,
    thinking_tokens: Count,
}

impl RawUsage {
    pub(crate) fn chat(&self) -> Usage {
        let cached = self
            .prompt_tokens_details
            .as_ref()
            .map_or(0, |details| details.cached_tokens.0);
        Usage {
            input_tokens: self.prompt_tokens.0,
            output_tokens: self.completion_tokens.0,
            cached_input_tokens: cached.max(self.prompt_cache_hit_tokens.0),
            reasoning_tokens: self
                .completion_tokens_details
                .as_ref()
                .map_or(0, |details| details.reasoning_tokens.0),
            reported: true,
        }
    }

    pub(crate) fn responses(&self) -> Usage {
        Usage {
            input_tokens: self.input_tokens.0,
            output_tokens: self.output_tokens.0,
            cached_input_tokens: self
                .input_tokens_details
                .as_ref()
                .map_or(0, |details| details.cached_tokens.0),
            reasoning_tokens: self
                .output_tokens_details
                .as_ref()
                .map_or(0, |details| details.reasoning_tokens.0),
            reported: true,
        }
    }

    /// Here `input_tokens` leaves out what was read from or written to the cache.
    pub(crate) fn messages(&self) -> Usage {
        let cached = self.cache_read_input_tokens.0;
        let written = self.cache_creation_input_tokens.0;
        Usage {
            input_tokens: self
                .input_tokens
                .0
                .saturating_add(cached)
                .saturating_add(written),
            output_tokens: self.output_tokens.0,
            cached_input_tokens: cached,
            reasoning_tokens: self
                .output_tokens_details
                .as_ref()
                .map_or(0, |details| details.thinking_tokens.0),
            reported: true,
        }
    }
}

/// A count that is 0 when it is null, negative or no number at all.
#[derive(Debug, Default, Clone, Copy)]
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl<'de> Visitor<'de> for CountVisitor {
    type Value = Count;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a count")
    }

    fn visit_u64<E>(self, value: u64) -> Result<Count, E> {
        Ok(Count(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Count, E> {
        Ok(Count(u64::try_from(value).unwrap_or(0)))
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, negative and NaN become 0"
    )]
    fn visit_f64<E>(self, value: f64) -> Result<Count, E> {
        Ok(Count(value as u64))
    }

    fn visit_unit<E>(self) -> Result<Count, E> {
        Ok(Count(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
        Ok(Count(0))
    }

    fn visit_str<E>(self, _: &str) -> Result<Count, E> {
        Ok(Count(0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn later_reports_count_and_replace_estimates() {
        let usage = |input, output, reported| Usage {
            input_tokens: input,
            output_tokens: output,
            reported,
            ..Usage::default()
        };
        let table = [
            (usage(5, 1, true), usage(0, 9, true), usage(5, 9, true)),
            (usage(9, 7, true), usage(4, 5, true), usage(9, 5, true)),
            (usage(5, 99, false), usage(4, 9, true), usage(4, 9, true)),
            (usage(5, 9, true), usage(50, 90, false), usage(5, 9, true)),
            (usage(1, 2, false), usage(2, 1, false), usage(2, 1, false)),
        ];
        for (mut first, later, expected) in table {
            first.absorb(later);
            assert_eq!(first, expected);
        }
    }

    #[test]
    fn odd_counts_are_zero() {
        let raw: RawUsage = serde_json::from_str(
            r#"{"prompt_tokens":12.0,"completion_tokens":null,"input_tokens":-4,"output_tokens":"7","total":{},"prompt_tokens_details":null}"#,
        )
        .unwrap();
        assert_eq!((raw.chat().input_tokens, raw.chat().output_tokens), (12, 0));
        assert_eq!(
            (raw.messages().input_tokens, raw.responses().output_tokens),
            (0, 0)
        );
    }
}
