//! A configuration as it may be shown.

use serde_json::Value;

use crate::config::Config;
use crate::secret::MASK;

/// Names of keys in a filter's own table which are taken for secrets, at the end of the name.
const SECRET_NAMES: [&str; 5] = [
    "secret",
    "password",
    "api_key",
    "private_key",
    "access_token",
];

/// The whole configuration as JSON, secrets as `***`: those the product knows, and in the tables
/// of filters and in what the functions API keeps every string whose key ends in `secret`, `password`, `api_key`, `private_key` or
/// `access_token`.
#[must_use]
pub fn masked(config: &Config) -> Value {
    // Every type here is made of strings, numbers and string-keyed maps; a path that is not
    // UTF-8 cannot come from a TOML text.
    let mut shown = serde_json::to_value(config).unwrap_or_default();
    if let Some(Value::Object(filters)) = shown.get_mut("filters") {
        for filter in filters.values_mut() {
            if let Some(own) = filter.get_mut("config") {
                mask(own);
            }
        }
    }
    if let Some(Value::Object(functions)) = shown.get_mut("functions") {
        let versions = functions
            .values_mut()
            .filter_map(|function| function.get_mut("versions"));
        versions.for_each(mask);
    }
    shown
}

fn mask(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(mask),
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                let name = name.to_ascii_lowercase().replace('-', "_");
                if member.is_string() && SECRET_NAMES.iter().any(|secret| name.ends_with(secret)) {
                    *member = Value::from(MASK);
                } else {
                    mask(member);
                }
            }
        }
        _ => {}
    }
}
