//! Values of single members: their types, and the bounds an api sets them.

use crate::refusal::PeekError;
use crate::scan::unquoted;

/// A number that the api bounds.
pub(crate) struct Bounded {
    member: &'static str,
    min: f64,
    max: f64,
    whole: bool,
    reason: &'static str,
}

impl Bounded {
    pub(crate) fn check(&self, raw: &[u8]) -> Result<(), PeekError> {
        let Some(number) = number(raw) else {
            return Err(PeekError::InvalidType {
                member: self.member,
                reason: "must be a number",
            });
        };
        if self.whole && !is_whole(number) {
            return Err(PeekError::InvalidType {
                member: self.member,
                reason: "must be an integer",
            });
        }
        if number < self.min || number > self.max {
            return Err(PeekError::InvalidValue {
                member: self.member,
                reason: self.reason,
            });
        }
        Ok(())
    }
}

/// A word that the api knows.
pub(crate) struct Choice {
    member: &'static str,
    words: &'static [&'static str],
    reason: &'static str,
}

impl Choice {
    pub(crate) fn check(&self, raw: &[u8]) -> Result<(), PeekError> {
        if self.words.iter().any(|word| is_string(raw, word)) {
            return Ok(());
        }
        Err(PeekError::InvalidValue {
            member: self.member,
            reason: self.reason,
        })
    }
}

pub(crate) fn boolean(raw: &[u8], member: &'static str) -> Result<bool, PeekError> {
    match raw {
        b"true" => Ok(true),
        b"false" => Ok(false),
        _ => Err(PeekError::InvalidType {
            member,
            reason: "must be a boolean",
        }),
    }
}

/// Whole numbers beyond `u32` are held to its limit: no budget reaches so far.
pub(crate) fn count(raw: &[u8], member: &'static str) -> Result<u32, PeekError> {
    number(raw)
        .filter(|number| *number >= 0.0 && is_whole(*number))
        // The cast saturates.
        .map(|number| number as u32)
        .ok_or(PeekError::InvalidType {
            member,
            reason: "must be a non-negative integer",
        })
}

/// `None` for other values than numbers; beyond the range of `f64` it is infinite.
pub(crate) fn number(raw: &[u8]) -> Option<f64> {
    let is_number = matches!(raw.first(), Some(b'-' | b'0'..=b'9'));
    std::str::from_utf8(raw)
        .ok()
        .filter(|_| is_number)?
        .parse()
        .ok()
}

/// Infinity too: a number beyond the range of `f64` has no fraction left.
fn is_whole(number: f64) -> bool {
    number.trunc() == number
}

/// A JSON string that says `text`, however it is escaped.
pub(crate) fn is_string(raw: &[u8], text: &str) -> bool {
    unquoted(raw).is_some_and(|given| given == text)
}

pub(crate) const TEMPERATURE: Bounded = Bounded {
    member: "temperature",
    min: 0.0,
    max: 2.0,
    whole: false,
    reason: "must be between 0 and 2",
};
pub(crate) const TOP_P: Bounded = Bounded {
    member: "top_p",
    min: 0.0,
    max: 1.0,
    whole: false,
    reason: "must be between 0 and 1",
};
pub(crate) const MAX_TOOL_CALLS: Bounded = Bounded {
    member: "max_tool_calls",
    min: 1.0,
    max: 100.0,
    whole: true,
    reason: "must be between 1 and 100",
};
pub(crate) const TOP_LOGPROBS: Bounded = Bounded {
    member: "top_logprobs",
    min: 0.0,
    max: 20.0,
    whole: true,
    reason: "must be between 0 and 20",
};
pub(crate) const RESPONSES_TIERS: Choice = Choice {
    member: "service_tier",
    words: &["auto", "default", "flex"],
    reason: "must be one of: auto, default, flex",
};
pub(crate) const TRUNCATION: Choice = Choice {
    member: "truncation",
    words: &["auto", "disabled"],
    reason: "must be one of: auto, disabled",
};
/// Every tier that OpenAI has for this api.
pub(crate) const CHAT_TIERS: [&str; 5] = ["auto", "default", "flex", "priority", "scale"];
