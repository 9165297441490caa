//! Key sets from their files, checked: what filters get of them is a JWKS with public keys only.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use weir_config::{Config, ConfigError};
use weir_host::KeySets;

use crate::compile::{Origin, located};

/// Reads all sets.
///
/// # Errors
/// Files that cannot be read, are no JSON web key sets, or hold keys that are not public.
pub(crate) fn read(
    config: &Config,
    text: &str,
    origin: &Origin,
) -> Result<KeySets, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut sets = BTreeMap::new();
    for (name, set) in &config.key_sets {
        let path = weir_config::resolve(&origin.folder, &set.file);
        match checked(&path) {
            Ok(set) => drop(sets.insert(name.clone(), Arc::from(set))),
            Err((message, remedy)) => errors.push(located(
                text,
                &origin.file,
                &format!("key_sets.{name}.file"),
                message,
                remedy,
            )),
        }
    }
    if errors.is_empty() {
        Ok(KeySets::new(sets))
    } else {
        Err(errors)
    }
}

/// The text of a file, or what is wrong with it and what to do.
fn checked(path: &Path) -> Result<String, (String, &'static str)> {
    let file = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let remedy =
            "save the issuer's key set there (its `jwks_uri` serves it), or correct the path";
        (format!("cannot read {file}: {error}"), remedy)
    })?;
    if text.len() > BYTES_MAX {
        let message = format!("{file} has more than {BYTES_MAX} bytes");
        return Err((message, "leave out the keys that are no longer in use"));
    }
    let remedy = "write a JSON web key set (RFC 7517): {\"keys\": [ ... ]}";
    let set: Value = serde_json::from_str(&text)
        .map_err(|error| (format!("{file} is not JSON: {error}"), remedy))?;
    let keys = set.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or_else(|| (format!("{file} has no list `keys`"), remedy))?;
    for (place, key) in keys.iter().enumerate() {
        if key.get("kty").and_then(Value::as_str).is_none() {
            return Err((format!("{file}: keys[{place}] has no `kty`"), remedy));
        }
        if let Some(member) = SECRET.iter().find(|member| key.get(**member).is_some()) {
            let message = format!("{file}: keys[{place}] holds a secret, `{member}`");
            return Err((
                message,
                "give the public keys only, and make new ones: these were seen",
            ));
        }
    }
    if keys.is_empty() {
        return Err((format!("{file} has no key"), remedy));
    }
    Ok(text)
}

/// What a set may be long: a filter gets it whole.
const BYTES_MAX: usize = 64 << 10;

/// Members of private and symmetric keys (RFC 7518, 6.2.2, 6.3.2 and 6.4).
const SECRET: [&str; 2] = ["d", "k"];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_sets_of_public_keys_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        let table = [
            (r#"{"keys":[{"kty":"RSA","n":"a"},{"kty":"new"}]}"#, None),
            ("{", Some("is not JSON")),
            ("[]", Some("has no list `keys`")),
            (r#"{"keys":{}}"#, Some("has no list `keys`")),
            (r#"{"keys":[]}"#, Some("has no key")),
            (r#"{"keys":[{"n":"a"}]}"#, Some("keys[0] has no `kty`")),
            (
                r#"{"keys":[{"kty":"RSA"},{"kty":"RSA","d":"a"}]}"#,
                Some("keys[1] holds a secret, `d`"),
            ),
            (
                r#"{"keys":[{"kty":"oct","k":"a"}]}"#,
                Some("keys[0] holds a secret, `k`"),
            ),
        ];
        for (text, expected) in table {
            std::fs::write(&path, text).unwrap();
            let said = checked(&path).err().map(|(message, _)| message);
            match (said, expected) {
                (None, None) => assert_eq!(checked(&path).unwrap(), text),
                (Some(said), Some(expected)) => assert!(said.contains(expected), "{said}"),
                (said, _) => assert_eq!(said.as_deref(), expected, "{text}"),
            }
        }
        std::fs::write(&path, " ".repeat(BYTES_MAX + 1)).unwrap();
        assert!(checked(&path).unwrap_err().0.contains("more than 65536"));
        std::fs::remove_file(&path).unwrap();
        assert!(checked(&path).unwrap_err().0.contains("cannot read"));
    }
}
