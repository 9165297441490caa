//! The form of a token: three parts in base64url, the first two of them JSON (RFC 7515).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

/// A token taken apart; nothing about it is known to be true.
pub(super) struct Token<'a> {
    /// What is signed.
    pub(super) signed: &'a [u8],
    /// How, and by which key.
    pub(super) header: Header,
    /// What it says.
    pub(super) claims: Value,
    /// The signature.
    pub(super) signature: Vec<u8>,
}

/// The members of the header that matter here.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    /// Extensions that must be understood. None is, here.
    crit: Option<Value>,
}

impl<'a> Token<'a> {
    /// Takes a token apart, given whole and in its parts.
    pub(super) fn read(whole: &'a [u8], [header, claims, signature]: [&[u8]; 3]) -> Option<Self> {
        let decoded = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Header = serde_json::from_slice(&decoded(header)?).ok()?;
        let token = Self {
            signed: whole.get(..whole.len().checked_sub(signature.len() + 1)?)?,
            claims: serde_json::from_slice(&decoded(claims)?).ok()?,
            signature: decoded(signature)?,
            header,
        };
        (token.header.crit.is_none() && token.claims.is_object()).then_some(token)
    }
}
