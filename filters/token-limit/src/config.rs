//! The filter's table.

use serde::Deserialize;
use weir_sdk::ConfigError;
use weir_sdk::lifecycle::config_error;
use weir_sdk::state::{Scope, Subject, Unit};

use crate::limit::Limit;

/// `[filters.NAME.config]` of the filter `token-limit`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Limit of models that have none of their own; none: unlimited.
    pub default: Option<String>,
    /// Whose budget it is: each combination has its own.
    pub per: Vec<Per>,
    /// What is counted.
    pub unit: Counted,
    /// Output tokens assumed of requests that do not say how many they allow.
    pub default_output_tokens: u32,
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

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// Input and output tokens.
    TotalTokens,
    /// Input tokens.
    InputTokens,
    /// Output tokens.
    OutputTokens,
    /// Requests.
    Requests,
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
            per: vec![Per::Tenant, Per::Function, Per::Model],
            unit: Counted::TotalTokens,
            default_output_tokens: 256,
            scope: Shared::Local,
            on_store_failure: OnStoreFailure::Deny,
        }
    }
}

impl Config {
    pub(crate) fn errors(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if let Some(Err(message)) = self.default.as_deref().map(Limit::parse) {
            errors.push(config_error("/default", message));
        }
        for (at, part) in self.per.iter().enumerate() {
            if self.per.iter().take(at).any(|earlier| earlier == part) {
                errors.push(config_error(format!("/per/{at}"), "is given twice"));
            }
        }
        errors
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
}

impl Counted {
    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::TotalTokens => Unit::TotalTokens,
            Self::InputTokens => Unit::InputTokens,
            Self::OutputTokens => Unit::OutputTokens,
            Self::Requests => Unit::Requests,
        }
    }

    /// Name of the limiter: what is counted in one unit does not count in another.
    pub(crate) fn limiter_name(self) -> &'static str {
        match self {
            Self::TotalTokens => "total_tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Requests => "requests",
        }
    }

    /// In a message.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::TotalTokens => "tokens",
            Self::InputTokens => "input tokens",
            Self::OutputTokens => "output tokens",
            Self::Requests => "requests",
        }
    }

    /// In the name of a `x-ratelimit-*` header.
    pub(crate) fn header_part(self) -> &'static str {
        match self {
            Self::TotalTokens | Self::InputTokens | Self::OutputTokens => "tokens",
            Self::Requests => "requests",
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
