//! Tokens an exchange used, read from the providers' own words.

use crate::scan::Cursor;

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

/// `usage` as any of the three families writes it; their member names do not collide. A count that
/// is null, negative or no number at all is 0.
#[derive(Debug, Default)]
pub(crate) struct RawUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    prompt_tokens_details: Details,
    completion_tokens_details: Details,
    prompt_cache_hit_tokens: u64,
    input_tokens: u64,
    output_tokens: u64,
    input_tokens_details: Details,
    output_tokens_details: Details,
    cache_read_input_tokens: u64,
    cache_creation_input_tokens: u64,
}

#[derive(Debug, Default)]
struct Details {
    cached_tokens: u64,
    reasoning_tokens: u64,
    thinking_tokens: u64,
}

impl RawUsage {
    /// Reads the text of a value; `None` when it is no object, or cut off.
    pub(crate) fn read(raw: &[u8]) -> Option<Self> {
        let mut usage = Self::default();
        let is_object = Cursor::new(raw, 0).members(|name, value| match name {
            b"\"prompt_tokens\"" => usage.prompt_tokens = count(value.raw()),
            b"\"completion_tokens\"" => usage.completion_tokens = count(value.raw()),
            b"\"prompt_tokens_details\"" => {
                usage.prompt_tokens_details = Details::read(value.raw())
            }
            b"\"completion_tokens_details\"" => {
                usage.completion_tokens_details = Details::read(value.raw());
            }
            b"\"prompt_cache_hit_tokens\"" => usage.prompt_cache_hit_tokens = count(value.raw()),
            b"\"input_tokens\"" => usage.input_tokens = count(value.raw()),
            b"\"output_tokens\"" => usage.output_tokens = count(value.raw()),
            b"\"input_tokens_details\"" => usage.input_tokens_details = Details::read(value.raw()),
            b"\"output_tokens_details\"" => {
                usage.output_tokens_details = Details::read(value.raw())
            }
            b"\"cache_read_input_tokens\"" => usage.cache_read_input_tokens = count(value.raw()),
            b"\"cache_creation_input_tokens\"" => {
                usage.cache_creation_input_tokens = count(value.raw());
            }
            _ => {}
        });
        (is_object && raw.ends_with(b"}")).then_some(usage)
    }

    pub(crate) fn chat(&self) -> Usage {
        let cached = self.prompt_tokens_details.cached_tokens;
        Usage {
            input_tokens: self.prompt_tokens,
            output_tokens: self.completion_tokens,
            cached_input_tokens: cached.max(self.prompt_cache_hit_tokens),
            reasoning_tokens: self.completion_tokens_details.reasoning_tokens,
            reported: true,
        }
    }

    pub(crate) fn responses(&self) -> Usage {
        Usage {
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            cached_input_tokens: self.input_tokens_details.cached_tokens,
            reasoning_tokens: self.output_tokens_details.reasoning_tokens,
            reported: true,
        }
    }

    /// Here `input_tokens` leaves out what was read from or written to the cache.
    pub(crate) fn messages(&self) -> Usage {
        let cached = self.cache_read_input_tokens;
        let written = self.cache_creation_input_tokens;
        let all = self.input_tokens.saturating_add(cached);
        Usage {
            input_tokens: all.saturating_add(written),
            output_tokens: self.output_tokens,
            cached_input_tokens: cached,
            reasoning_tokens: self.output_tokens_details.thinking_tokens,
            reported: true,
        }
    }
}

impl Details {
    fn read(raw: &[u8]) -> Self {
        let mut details = Self::default();
        Cursor::new(raw, 0).members(|name, value| match name {
            b"\"cached_tokens\"" => details.cached_tokens = count(value.raw()),
            b"\"reasoning_tokens\"" => details.reasoning_tokens = count(value.raw()),
            b"\"thinking_tokens\"" => details.thinking_tokens = count(value.raw()),
            _ => {}
        });
        details
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, negative and NaN become 0"
)]
fn count(raw: &[u8]) -> u64 {
    let text = std::str::from_utf8(raw).unwrap_or_default();
    let fraction = || text.parse::<f64>().map_or(0, |number| number as u64);
    text.parse().unwrap_or_else(|_| fraction())
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
        let raw = RawUsage::read(
            br#"{"prompt_tokens":12.0,"completion_tokens":null,"input_tokens":-4,"output_tokens":"7","total":{},"prompt_tokens_details":null}"#,
        )
        .unwrap();
        assert_eq!((raw.chat().input_tokens, raw.chat().output_tokens), (12, 0));
        assert_eq!(
            (raw.messages().input_tokens, raw.responses().output_tokens),
            (0, 0)
        );
        assert_eq!(count(b"18446744073709551616"), u64::MAX);
        for none in ["null", "[1]", "7", "\"x\"", "", "{\"input_tokens\":1"] {
            assert!(RawUsage::read(none.as_bytes()).is_none(), "{none}");
        }
    }
}
