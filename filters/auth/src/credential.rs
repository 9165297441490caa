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

const SCHEME: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::bearer;

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
