//! Why a token of the issuer does not count.

use std::borrow::Cow;

use weir_sdk::LocalResponse;

use crate::refusal;

/// The reason.
pub(super) enum Fault {
    /// What is wrong; follows "the token".
    Invalid(Cow<'static, str>),
    /// It was good once.
    Expired,
    /// There is nothing to check it by.
    NoKeys,
}

impl Fault {
    pub(super) const fn invalid(why: &'static str) -> Self {
        Self::Invalid(Cow::Borrowed(why))
    }

    /// The answer to the caller.
    pub(super) fn response(&self) -> LocalResponse {
        match self {
            Self::Invalid(why) => refusal::invalid_token(why),
            Self::Expired => refusal::expired_token(),
            Self::NoKeys => refusal::unavailable(),
        }
    }
}
