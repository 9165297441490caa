//! The filter's table.

use serde::Deserialize;
use weir_sdk::ConfigError;
use weir_sdk::lifecycle::config_error;

/// `[filters.NAME.config]` of the filter `auth`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Key table of the configuration in which presented keys are looked up.
    pub key_table: String,
    /// Header with `Bearer KEY`.
    #[serde(default = "default_header")]
    pub header: String,
    /// Headers whose whole value is the key, asked in this order when `header` has none.
    #[serde(default)]
    pub also: Vec<String>,
    /// `true`: a request without a key is left to the next authorizer.
    #[serde(default)]
    pub optional: bool,
}

impl Config {
    pub(crate) fn errors(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if self.key_table.is_empty() {
            errors.push(config_error("/key_table", "is empty; name a key table"));
        }
        if !is_header_name(&self.header) {
            errors.push(config_error("/header", "is not a header name"));
        }
        for (at, name) in self.also.iter().enumerate() {
            if !is_header_name(name) {
                errors.push(config_error(format!("/also/{at}"), "is not a header name"));
            }
        }
        if self.also.len() > ALSO_MAX {
            errors.push(config_error("/also", "has more than 8 headers"));
        }
        errors
    }
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn default_header() -> String {
    "authorization".to_owned()
}

const ALSO_MAX: usize = 8;
