//! The filter's table.

use serde::Deserialize;
use weir_sdk::ConfigError;
use weir_sdk::lifecycle::config_error;
use weir_sdk::state::{HeaderForms, Scope, Subject};

use crate::dimension::Dimension;
use crate::limit::Limit;

/// `[filters.NAME.config]` of the filter `token-limit`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Limit of input and output tokens together, for models without a `token_rate_limit`; none:
    /// unlimited.
    pub default: Option<String>,
    /// Limit of input tokens for models without an `input_token_rate_limit`.
    pub default_input: Option<String>,
    /// Limit of output tokens for models without an `output_token_rate_limit`.
    pub default_output: Option<String>,
    /// Limit of requests for models without a `request_rate_limit`.
    pub default_requests: Option<String>,
    /// Whose budget it is: each combination has its own.
    pub per: Vec<Per>,
    /// Output tokens assumed of requests that do not say how many they allow.
    pub assumed_output_tokens: u32,
    /// How callers are told where they stand.
    pub headers: Vec<Headers>,
    /// Which gateways share the budget.
    pub scope: Shared,
    /// What happens when the store cannot be asked.
    pub on_store_failure: OnStoreFailure,
}

/// A part of whose budget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// The account that pays.
    Tenant,
    /// The caller.
    Principal,
    /// The function before the `/` of the model string.
    Function,
    /// The model behind it.
    Model,
}

/// Headers of every answer that tell where the caller stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Headers {
    /// `x-ratelimit-*`; `anthropic-ratelimit-*` for callers of Anthropic's API.
    XRatelimit,
    /// `RateLimit-Policy` and `RateLimit`.
    Ratelimit,
}

/// Which gateways share the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shared {
    /// None: each process has its own.
    Local,
    /// All, reconciled in the background.
    ClusterEventual,
    /// All, asked for every request.
    ClusterExact,
}

/// What happens when the store cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreFailure {
    /// The request is refused with 503.
    Deny,
    /// The request passes uncounted.
    Allow,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default: None,
            default_input: None,
            default_output: None,
            default_requests: None,
            per: vec![Per::Tenant, Per::Function, Per::Model],
            assumed_output_tokens: 256,
            headers: vec![Headers::XRatelimit, Headers::Ratelimit],
            scope: Shared::Local,
            on_store_failure: OnStoreFailure::Deny,
        }
    }
}

impl Config {
    pub(crate) fn errors(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        for (pointer, dimension) in [
            ("/default", Dimension::Total),
            ("/default_input", Dimension::Input),
            ("/default_output", Dimension::Output),
            ("/default_requests", Dimension::Requests),
        ] {
            if let Some(Err(message)) = self.default_of(dimension).map(Limit::parse) {
                errors.push(config_error(pointer, message));
            }
        }
        for (at, part) in self.per.iter().enumerate() {
            if self.per.iter().take(at).any(|earlier| earlier == part) {
                errors.push(config_error(format!("/per/{at}"), "is given twice"));
            }
        }
        errors
    }

    pub(crate) fn default_of(&self, dimension: Dimension) -> Option<&str> {
        match dimension {
            Dimension::Requests => self.default_requests.as_deref(),
            Dimension::Total => self.default.as_deref(),
            Dimension::Input => self.default_input.as_deref(),
            Dimension::Output => self.default_output.as_deref(),
        }
    }

    pub(crate) fn subject(&self) -> Subject {
        self.per.iter().fold(Subject::empty(), |subject, part| {
            subject
                | match part {
                    Per::Tenant => Subject::TENANT,
                    Per::Principal => Subject::PRINCIPAL,
                    Per::Function => Subject::FUNCTION,
                    Per::Model => Subject::MODEL,
                }
        })
    }

    pub(crate) fn header_forms(&self) -> HeaderForms {
        self.headers
            .iter()
            .fold(HeaderForms::empty(), |forms, form| {
                forms
                    | match form {
                        Headers::XRatelimit => HeaderForms::X_RATELIMIT,
                        Headers::Ratelimit => HeaderForms::RATELIMIT,
                    }
            })
    }
}

impl OnStoreFailure {
    /// As the config says it, for the metric.
    pub(crate) fn verdict(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

impl Shared {
    pub(crate) fn scope(self) -> Scope {
        match self {
            Self::Local => Scope::Local,
            Self::ClusterEventual => Scope::ClusterEventual,
            Self::ClusterExact => Scope::ClusterExact,
        }
    }
}
