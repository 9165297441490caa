//! The caller's model string: `<routing-key>/<model>`.

use std::borrow::Cow;

use thiserror::Error;

/// Why a model string names no function. The texts are what callers of this format expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ModelError {
    /// There is no `/`.
    #[error("model prefix is required")]
    NoPrefix,
    /// Nothing before the first `/`.
    #[error("routing key is required before model")]
    NoRoutingKey,
    /// Nothing after the first `/`.
    #[error("model suffix is required after routing key")]
    NoSuffix,
}

impl ModelError {
    /// Stable machine code for the caller.
    #[must_use]
    pub const fn code(self) -> &'static str {
        "invalid_model"
    }
}

/// Splits at the first `/` into routing key and routed model, which may itself hold slashes.
///
/// # Errors
/// When either side is missing.
pub fn split_model(model: &str) -> Result<(&str, &str), ModelError> {
    let (key, routed) = model.split_once('/').ok_or(ModelError::NoPrefix)?;
    if key.is_empty() {
        return Err(ModelError::NoRoutingKey);
    }
    if routed.is_empty() {
        return Err(ModelError::NoSuffix);
    }
    Ok((key, routed))
}

/// A routing key in the form used for lookups: a UUID in lower case, anything else as it is.
#[must_use]
pub fn normal_routing_key(key: &str) -> Cow<'_, str> {
    if is_uuid(key) && key.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(key.to_ascii_lowercase())
    } else {
        Cow::Borrowed(key)
    }
}

fn is_uuid(key: &str) -> bool {
    key.len() == 36
        && key.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn model_strings() {
        let table = [
            ("demo/sim", Ok(("demo", "sim"))),
            ("f/meta/llama", Ok(("f", "meta/llama"))),
            ("f//x", Ok(("f", "/x"))),
            ("gpt-5", Err("model prefix is required")),
            ("", Err("model prefix is required")),
            ("/sim", Err("routing key is required before model")),
            ("/", Err("routing key is required before model")),
            ("demo/", Err("model suffix is required after routing key")),
        ];
        for (model, expected) in table {
            let got = split_model(model).map_err(|error| error.to_string());
            assert_eq!(got, expected.map_err(str::to_owned), "{model}");
        }
    }

    #[test]
    fn routing_keys() {
        let upper = "6F9619FF-8B86-D011-B42D-00C04FC964FF";
        assert_eq!(normal_routing_key(upper), upper.to_ascii_lowercase());
        for same in [
            "Demo",
            "6F9619FF-8B86-D011-B42D-00C04FC964FG",
            "6f9619ff-8b86-d011-b42d-00c04fc964ff",
            "",
        ] {
            assert!(
                matches!(normal_routing_key(same), Cow::Borrowed(text) if text == same),
                "{same}"
            );
        }
    }
}
