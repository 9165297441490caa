//! A value that is never printed.

use serde::{Serialize, Serializer};

/// What stands in the place of a secret wherever a configuration is shown.
pub(crate) const MASK: &str = "***";

/// A secret from the configuration. `Debug` and `Serialize` give `***`; only
/// [`Secret::reveal`] gives the value, so that each use can be found by its name.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself. Not for logs, errors or metrics.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// Serializes a hash of a key as a mask: a weak key can be guessed from its hash.
pub(crate) fn mask_hash<S: Serializer>(
    hash: &Option<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match hash {
        Some(_) => serializer.serialize_some(MASK),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_never_printed() {
        let secret = Secret::new("hunter2".into());
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::json!(secret), serde_json::json!("***"));
        assert_eq!(secret.reveal(), "hunter2");
    }
}
