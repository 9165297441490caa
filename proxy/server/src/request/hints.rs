//! How long a caller that is trusted would wait: what routers in front of this one say of the requests
//! they send. Of anybody else it is not looked at.

use std::time::Duration;

use http::HeaderName;
use weir_pipeline::facts::Facts;

use crate::request::exchange::Exchange;
use crate::request::headers::{X_MAX_WAIT_MS, X_STARGATE_MAX_WAIT_MS};
use crate::request::refuse::Refusal;

/// Longest wait that can be asked for.
const WAIT_MAX_MS: u64 = 60_000;

/// What is said; nothing where it says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hints {
    /// How long it waits for a backend with room, in the place of the cluster's `max_wait_ms`.
    pub(crate) max_wait: Option<Duration>,
    /// Since it arrived: no other backend is tried after that.
    pub(crate) retry_budget: Option<Duration>,
}

impl Hints {
    /// Reads the headers of a caller that has been let in.
    ///
    /// # Errors
    /// When a trusted one writes something else than milliseconds.
    pub(crate) fn read(exchange: &Exchange) -> Result<Self, Refusal> {
        let Some(facts) = &exchange.facts else {
            return Ok(Self::default());
        };
        let said = [X_MAX_WAIT_MS, X_STARGATE_MAX_WAIT_MS];
        let says = said.iter().any(|name| facts.headers.contains_key(name));
        if !says || !is_trusted(exchange, facts) {
            return Ok(Self::default());
        }
        Ok(Self {
            max_wait: duration(facts, &X_MAX_WAIT_MS)?,
            retry_budget: duration(facts, &X_STARGATE_MAX_WAIT_MS)?,
        })
    }
}

fn is_trusted(exchange: &Exchange, facts: &Facts) -> bool {
    let scope = &exchange.snapshot.config.hints.scope;
    let granted = |scopes: &[String]| scopes.iter().any(|granted| granted == scope);
    let who = facts.principal.as_ref();
    !scope.is_empty() && who.is_some_and(|who| granted(&who.scopes))
}

fn duration(facts: &Facts, name: &HeaderName) -> Result<Option<Duration>, Refusal> {
    let Some(value) = facts.headers.get(name) else {
        return Ok(None);
    };
    let ms = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let ms = ms.ok_or_else(|| Refusal::bad_header(name.as_str(), "a number of milliseconds"))?;
    Ok(Some(Duration::from_millis(ms.min(WAIT_MAX_MS))))
}
