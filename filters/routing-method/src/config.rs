//! The filter's table.

use serde::Deserialize;
use weir_sdk::ConfigError;
use weir_sdk::candidates::Figure;
use weir_sdk::lifecycle::config_error;

use crate::method::Method;

/// `[filters.NAME.config]` of the filter `routing-method`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Method of models that name none: `round_robin`, `random` or `power_of_two`.
    pub default: String,
    /// Keep a conversation on its backend while that is a candidate.
    pub sticky: bool,
    /// Of the method `power_of_two`.
    pub power_of_two: PowerOfTwo,
}

/// How `power_of_two` compares.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowerOfTwo {
    /// What is compared.
    pub figure: Compared,
    /// How many are compared.
    pub choices: u32,
}

/// What `power_of_two` compares; the better one is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// Requests being served, by weight: fewer is better.
    Running,
    /// Requests waiting, by weight: fewer is better.
    Queued,
    /// Input tokens waiting, by weight: fewer is better.
    QueuedInputTokens,
    /// Free tokens of the key-value cache: more is better.
    KvFreeTokens,
    /// Recent time to the first token: less is better.
    EwmaTtftUs,
    /// Estimated wait: less is better.
    EstWaitUs,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default: "round_robin".to_owned(),
            sticky: true,
            power_of_two: PowerOfTwo::default(),
        }
    }
}

impl Default for PowerOfTwo {
    fn default() -> Self {
        Self {
            figure: Compared::Running,
            choices: 2,
        }
    }
}

impl Config {
    pub(crate) fn errors(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if Method::parse(&self.default).is_none() {
            let message = format!(
                "`{}` is not a routing method; use {}",
                self.default,
                Method::NAMES
            );
            errors.push(config_error("/default", message));
        }
        if !(2..=CHOICES_MAX).contains(&self.power_of_two.choices) {
            let message = format!("must be between 2 and {CHOICES_MAX}");
            errors.push(config_error("/power_of_two/choices", message));
        }
        errors
    }
}

impl Compared {
    pub(crate) fn figure(self) -> Figure {
        match self {
            Self::Running => Figure::Running,
            Self::Queued => Figure::Queued,
            Self::QueuedInputTokens => Figure::QueuedInputTokens,
            Self::KvFreeTokens => Figure::KvFreeTokens,
            Self::EwmaTtftUs => Figure::EwmaTtftUs,
            Self::EstWaitUs => Figure::EstWaitUs,
        }
    }
}

/// The widest sample of the reference behaviour.
const CHOICES_MAX: u32 = 64;
