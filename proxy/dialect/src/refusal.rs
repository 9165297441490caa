//! Why a request body cannot be admitted, in words for the caller.

use thiserror::Error;

/// Why a body cannot be admitted. The texts are written for the caller.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeekError {
    /// Not JSON, or more than one value.
    #[error("request body is not valid JSON: {detail}")]
    InvalidJson {
        /// What is wrong and where; holds nothing of the body itself.
        detail: String,
    },
    /// JSON, but not an object.
    #[error("request body must be a JSON object")]
    NotObject,
    /// Nested deeper than 128 levels.
    #[error("request body is nested too deeply, use at most 128 levels")]
    TooDeep,
    /// A required member is absent, null or empty.
    #[error("{member} is required")]
    Missing {
        /// The member's name.
        member: &'static str,
    },
    /// The model is absent, null or empty, in the words of responses.
    #[error("`model`: is required")]
    NoModel,
    /// Messages are no array or have no element, in the words of messages.
    #[error("messages must be a non-empty array")]
    NoMessages,
    /// A number that must be above zero is not, or is not there.
    #[error("{member} must be positive")]
    NotPositive {
        /// The member's name.
        member: &'static str,
    },
    /// A member has a value of the wrong type.
    #[error("`{member}`: {reason}")]
    InvalidType {
        /// The member's name.
        member: &'static str,
        /// What it has to be.
        reason: &'static str,
    },
    /// A member has a value of the right type that the api does not allow.
    #[error("`{member}`: {reason}")]
    InvalidValue {
        /// The member's name.
        member: &'static str,
        /// What is allowed.
        reason: &'static str,
    },
    /// There is nothing to embed.
    #[error("'input' array must not be empty")]
    EmptyInput,
    /// One of the things to embed is empty.
    #[error("'input.{index}' must not be empty")]
    EmptyInputElement {
        /// Which one, counted from 0.
        index: u32,
    },
    /// More to embed than one request may ask for.
    #[error("'input' array is too large, must be less than {INPUTS_MAX} elements")]
    TooManyInputs,
    /// The model string is too long or holds control characters.
    #[error("`model` must be at most {MODEL_BYTES_MAX} bytes without control characters")]
    InvalidModel,
    /// A member that decides admission is there twice; readers would not agree which one counts.
    #[error("`{member}` is given more than once")]
    Duplicate {
        /// The member's name.
        member: &'static str,
    },
    /// The same in another case, which some model servers take for the member itself.
    #[error("`{member}` is given in other letter case, write it exactly as `{member}`")]
    Miscased {
        /// The member's right name.
        member: &'static str,
    },
}

impl PeekError {
    /// Stable machine code for the caller.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson { .. } | Self::NotObject => "invalid_json",
            Self::TooDeep => "too_deep",
            Self::Missing { member: "model" } | Self::NoModel => "missing_model",
            Self::Missing { .. } | Self::NoMessages => "missing_messages",
            Self::InvalidType { .. } => "invalid_type",
            Self::InvalidValue { .. } | Self::NotPositive { .. } => "invalid_value",
            Self::EmptyInput | Self::EmptyInputElement { .. } => "empty_input",
            Self::TooManyInputs => "too_many_inputs",
            Self::InvalidModel => "invalid_model",
            Self::Duplicate { .. } | Self::Miscased { .. } => "duplicate_member",
        }
    }

    /// The member at fault, if it is one.
    #[must_use]
    pub const fn param(&self) -> Option<&'static str> {
        match self {
            Self::InvalidJson { .. } | Self::NotObject | Self::TooDeep => None,
            Self::Missing { member }
            | Self::NotPositive { member }
            | Self::InvalidType { member, .. }
            | Self::InvalidValue { member, .. }
            | Self::Duplicate { member }
            | Self::Miscased { member } => Some(member),
            Self::NoModel | Self::InvalidModel => Some("model"),
            Self::NoMessages => Some("messages"),
            Self::EmptyInput | Self::EmptyInputElement { .. } | Self::TooManyInputs => {
                Some("input")
            }
        }
    }
}

/// The model string travels in headers, logs and labels.
pub(crate) const MODEL_BYTES_MAX: usize = 1024;
/// Things to embed in one request.
pub(crate) const INPUTS_MAX: u32 = 2048;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "refusal_tests.rs"]
mod tests;
