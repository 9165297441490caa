//! Where a hostile filter misbehaves, and whether a request asks for it.

use std::cell::Cell;

use serde::Deserialize;
use weir_sdk::exchange::Header;

use crate::deed::Deed;

/// The table of a hostile filter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The phase in which it misbehaves.
    #[serde(default)]
    pub phase: Phase,
    /// It does this deed only; all without it.
    #[serde(default)]
    pub only: Option<Deed>,
    /// What it does before it serves.
    #[serde(default)]
    pub at_start: Deed,
    /// What it does in every request, unless the request names something else.
    #[serde(default)]
    pub always: Deed,
    /// Says which filter answered in the response header `x-guest`.
    #[serde(default)]
    pub sign: bool,
}

/// A phase.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names are those of the phases")]
pub enum Phase {
    RequestHeaders,
    Authorize,
    #[default]
    Request,
    Affinity,
    Route,
    ResponseHeaders,
    Events,
}

impl Phase {
    /// The deed that `DEED` or `PHASE/DEED` asks of this phase.
    fn asked(self, text: &str) -> Option<Deed> {
        match text.split_once('/') {
            None => Deed::named(text),
            Some((phase, deed)) => Deed::named(deed).filter(|_| phase == self.name()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::RequestHeaders => "request-headers",
            Self::Authorize => "authorize",
            Self::Request => "request",
            Self::Affinity => "affinity",
            Self::Route => "route",
            Self::ResponseHeaders => "response-headers",
            Self::Events => "events",
        }
    }
}

/// An instance.
pub struct Hostile {
    config: Config,
    evil: Header,
    calls: Cell<u64>,
}

impl Hostile {
    /// Begins, if it is not asked to fail here already.
    ///
    /// # Errors
    /// None; it traps or loops where it is asked to.
    pub fn new(config: Config) -> Result<Self, String> {
        config.at_start.commit(false);
        Ok(Self {
            config,
            evil: Header::new("x-evil"),
            calls: Cell::new(0),
        })
    }

    /// What this phase of this exchange is to do. Deeds that end the call do so in here.
    pub fn deed(&self, phase: Phase) -> Deed {
        if phase != self.config.phase {
            return Deed::Ok;
        }
        let calls = self.calls.get() + 1;
        self.calls.set(calls);
        let asked = self.evil.value();
        let asked = asked
            .as_deref()
            .and_then(|text| phase.asked(std::str::from_utf8(text).ok()?));
        let deed = asked.unwrap_or(self.config.always);
        if self.config.only.is_some_and(|only| only != deed) {
            return Deed::Ok;
        }
        deed.commit(calls > 1);
        deed
    }

    /// Whether it signs answers.
    pub fn signs(&self) -> bool {
        self.config.sign
    }
}
