//! The key that a caller presents.

/// The key of `Bearer KEY`; the scheme in any case (RFC 9110 section 11.1).
pub(crate) fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    whole(rest)
}

/// A header that is nothing but the key.
pub(crate) fn whole(value: &[u8]) -> Option<&[u8]> {
    let key = value.trim_ascii();
    (!key.is_empty()).then_some(key)
}

/// The three parts of what has the form of a signed JSON web token (RFC 7515, 3.1), still encoded.
pub(crate) fn token_parts(key: &[u8]) -> Option<[&[u8]; 3]> {
    let mut parts = key.split(|byte| *byte == b'.');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    let encoded = |part: &&[u8]| {
        let base64url = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        !part.is_empty() && part.iter().all(base64url)
    };
    (parts.next().is_none() && three.iter().all(encoded)).then_some(three)
}

const SCHEME: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::{bearer, token_parts};

    #[test]
    fn what_looks_like_a_token() {
        let table = [
            ("eyJh.eyJz.c2ln", true),
            ("a-_.b.c", true),
            ("a.b", false),
            ("a.b.", false),
            ("a.b.c.d", false),
            ("a.b+.c", false),
            ("nvapi-abc", false),
            ("", false),
        ];
        for (key, expected) in table {
            assert_eq!(token_parts(key.as_bytes()).is_some(), expected, "{key}");
        }
    }

    #[test]
    fn bearer_keys() {
        let table: [(&str, Option<&str>); 8] = [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER   abc ", Some("abc")),
            ("Bearer ", None),
            ("Bearer", None),
            ("Bearerabc", None),
            ("Basic abc", None),
            ("", None),
        ];
        for (value, expected) in table {
            assert_eq!(
                bearer(value.as_bytes()),
                expected.map(str::as_bytes),
                "{value:?}"
            );
        }
    }
}
