//! The affinity key: `mt:v1:session:HEX`, `mt:v1:prefix:HEX` or `mt:v1:payload:HEX`.

use weir_sdk::secrets;

use crate::config::Source;

/// A key, and what the caller is told to send back to keep it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) key: String,
    pub(crate) session: String,
}

impl Key {
    /// The key of a fact; `None` when the caller's value is not a usable session id.
    pub(crate) fn of(source: Source, value: &str) -> Option<Self> {
        match source {
            Source::PrefixChain => Some(Self::generated("mt:v1:prefix:", value)),
            Source::InputHash | Source::ClientHash => {
                Some(Self::generated("mt:v1:payload:", value))
            }
            Source::SessionHeader if is_key(value.trim()) => {
                let key = value.trim().to_owned();
                Some(Self {
                    session: key.clone(),
                    key,
                })
            }
            Source::PromptCacheKey | Source::ConversationId | Source::SessionHeader => {
                let session = value.trim();
                is_session_id(session).then(|| Self {
                    key: ["mt:v1:session:", &hex_of(session)].concat(),
                    session: session.to_owned(),
                })
            }
        }
    }

    /// A key that no caller named: sending it back in the header is what keeps it.
    fn generated(kind: &str, value: &str) -> Self {
        let digest = if is_digest(value) {
            value.to_owned()
        } else {
            hex_of(value)
        };
        let key = [kind, &digest].concat();
        Self {
            session: key.clone(),
            key,
        }
    }
}

fn is_session_id(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= SESSION_BYTES_MAX
        && !value.bytes().any(|byte| byte.is_ascii_control())
}

/// A key as this filter makes them, sent back by a caller.
fn is_key(value: &str) -> bool {
    let mut parts = value.split(':');
    let head = (parts.next(), parts.next());
    let (kind, digest) = (parts.next(), parts.next());
    head == (Some("mt"), Some("v1"))
        && kind.is_some_and(|kind| !kind.is_empty() && kind.len() <= 16 && is_session_id(kind))
        && digest.is_some_and(is_digest)
        && parts.next().is_none()
}

fn is_digest(value: &str) -> bool {
    value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn hex_of(value: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in secrets::sha256(value.as_bytes()) {
        for digit in [byte >> 4, byte & 15] {
            hex.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    hex
}

const SESSION_BYTES_MAX: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn keys_of_facts() {
        let (session, prefix, payload) = (
            format!("mt:v1:session:{ABC}"),
            format!("mt:v1:prefix:{ABC}"),
            format!("mt:v1:payload:{ABC}"),
        );
        let long = "x".repeat(257);
        let table: [(Source, &str, Option<(&str, &str)>); 14] = [
            (Source::PromptCacheKey, "abc", Some((&session, "abc"))),
            (Source::ConversationId, "abc", Some((&session, "abc"))),
            (Source::SessionHeader, " abc ", Some((&session, "abc"))),
            (Source::SessionHeader, &payload, Some((&payload, &payload))),
            (Source::SessionHeader, &session, Some((&session, &session))),
            (Source::PrefixChain, ABC, Some((&prefix, &prefix))),
            (Source::InputHash, "abc", Some((&payload, &payload))),
            (Source::InputHash, ABC, Some((&payload, &payload))),
            (Source::ClientHash, "abc", Some((&payload, &payload))),
            (Source::SessionHeader, "", None),
            (Source::SessionHeader, "  ", None),
            (Source::SessionHeader, "a\u{7f}b", None),
            (Source::PromptCacheKey, "a\nb", None),
            (Source::PromptCacheKey, &long, None),
        ];
        for (source, value, expected) in table {
            let found = Key::of(source, value);
            let found = found
                .as_ref()
                .map(|key| (key.key.as_str(), key.session.as_str()));
            assert_eq!(found, expected, "{source:?} {value:?}");
        }
    }

    #[test]
    fn body_values_that_look_like_keys_are_hashed() {
        let key = format!("mt:v1:payload:{ABC}");
        assert_ne!(Key::of(Source::PromptCacheKey, &key).unwrap().key, key);
    }

    #[test]
    fn shapes_that_are_no_keys() {
        let table = [
            ("mt:v1:session:abc".to_owned(), false),
            (format!("mt:v1:session:{ABC}"), true),
            (format!("mt:v1:other:{ABC}"), true),
            (format!("mt:v2:session:{ABC}"), false),
            (format!("mt:v1::{ABC}"), false),
            (format!("mt:v1:session:{ABC}:x"), false),
        ];
        for (value, expected) in table {
            assert_eq!(is_key(&value), expected, "{value}");
        }
    }
}
