//! The table of cases of `weir filter test`, a TOML file:
//!
//! ```toml
//! # As in [filters.NAME] of a configuration. Where `limits` says nothing the limits of time are
//! # wide, so that a busy machine fails no test.
//! grants = { read_headers = ["x-tier"], key_tables = ["demo"] }
//! config = { spill_at = 4 }
//! #limits = { memory_bytes = 1048576 }
//!
//! [[keys]]                              # for filters that look keys up
//! table = "demo"
//! key = "weir-demo-key"
//! subject = "a"                         # also: tenant, plan, models, priority
//!
//! [key_sets]                            # for filters that check tokens: the text of each file
//! #idp = '{"keys": []}'
//!
//! [[case]]
//! name = "the first backend is full"
//! phase = "route"                       # request_headers, authorize, request, affinity, route,
//!                                       # response_headers, events
//! fresh = true                          # forget what earlier cases left; by default state stays
//! # All keys have defaults: a short chat completion. `body` is a table or `body_text` a text;
//! # also: method, query, routing_method, token_rate_limit (input_token_rate_limit,
//! # output_token_rate_limit, request_rate_limit), attributes.
//! request = { path = "/v1/chat/completions", model = "demo/sim", headers = { x-tier = "gold" } }
//! principal = { subject = "a", tenant = "t", plan = "p" }     # also: scopes, models, priority
//! # For `route`; also: queued, queued_input_tokens, kv_free_tokens, input_tps, output_tps.
//! candidates = [ { address = "a:1", running = 4, weight = 1 }, { address = "b:1" } ]
//! #max_concurrency = 0                  # of each candidate
//! excluded = []                         # positions tried before
//! affinity = "a key"                    # as an affinity filter derived it
//! #response = { status = 200, headers = { x-a = "1" } }       # for `response_headers`
//! #events = [ { data = "{}", name = "", delta = "", finish = false } ]    # for `events`
//!
//! # Only what is named is compared.
//! expect = { outcome = "pick", address = "b:1" }
//! ```
//!
//! What `expect` may name: `outcome` (`pass`, `respond`, `allow`, `deny`, `abstain`, `key`, `none`,
//! `pick`, `ranked`, `wait`, `reject`, `events`, `error`); of an answer `status`, `code`, `message_contains`;
//! `headers` and `body_contains`: those of the answer, else those of the exchange after the call,
//! where `false` is a header that must be absent; `attributes` the filter left, without its name;
//! `pick` or `address`, `ranked`, `wait_ms`; `key`, `ttl_ms`, `strict`; `subject`, `tenant`, `plan`;
//! `verdicts`, one per event: `pass`, `drop`, `replace:DATA`, `stop:DATA`. With `error`
//! `message_contains` is about the failure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::cli::filter::expect::Expect;

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CaseFile {
    /// `[filters.NAME.grants]`.
    pub(crate) grants: toml::Table,
    /// `[filters.NAME.limits]`.
    pub(crate) limits: toml::Table,
    /// `[filters.NAME.config]`.
    pub(crate) config: toml::Table,
    /// `[[keys]]`.
    pub(crate) keys: Vec<KeyRow>,
    /// `[key_sets]`: their text.
    pub(crate) key_sets: BTreeMap<String, Arc<str>>,
    /// `[[case]]`, in order.
    #[serde(rename = "case")]
    pub(crate) cases: Vec<Case>,
}

/// A key of a key table.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRow {
    pub(crate) table: String,
    pub(crate) key: String,
    pub(crate) subject: String,
    pub(crate) tenant: Option<String>,
    pub(crate) plan: Option<String>,
    #[serde(default)]
    pub(crate) models: Vec<String>,
    pub(crate) priority: Option<u32>,
}

/// A call of one phase.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) phase: Phase,
    #[serde(default)]
    pub(crate) fresh: bool,
    #[serde(default)]
    pub(crate) request: RequestRow,
    pub(crate) principal: Option<PrincipalRow>,
    #[serde(default)]
    pub(crate) candidates: Vec<CandidateRow>,
    #[serde(default)]
    pub(crate) max_concurrency: u32,
    #[serde(default)]
    pub(crate) excluded: Vec<u32>,
    pub(crate) affinity: Option<String>,
    pub(crate) response: Option<ResponseRow>,
    #[serde(default)]
    pub(crate) events: Vec<EventRow>,
    pub(crate) expect: Expect,
}

/// The phases that can be called by themselves.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    RequestHeaders,
    Authorize,
    Request,
    Affinity,
    Route,
    ResponseHeaders,
    Events,
}

impl Phase {
    /// All of them, in the order in which an exchange meets them.
    pub(crate) const ALL: [Self; 7] = [
        Self::RequestHeaders,
        Self::Authorize,
        Self::Request,
        Self::Affinity,
        Self::Route,
        Self::ResponseHeaders,
        Self::Events,
    ];

    /// Its name in the configuration's words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::RequestHeaders => "request_headers",
            Self::Authorize => "authorize",
            Self::Request => "request",
            Self::Affinity => "affinity",
            Self::Route => "route",
            Self::ResponseHeaders => "response_headers",
            Self::Events => "events",
        }
    }

    /// Whether a filter takes part in it.
    pub(crate) fn is_in(self, phases: &weir_pipeline::filter::Phases) -> bool {
        match self {
            Self::RequestHeaders => phases.request_headers,
            Self::Authorize => phases.authorize,
            Self::Request => phases.request,
            Self::Affinity => phases.affinity,
            Self::Route => phases.route,
            Self::ResponseHeaders => phases.response_headers,
            Self::Events => phases.events || phases.first_event,
        }
    }
}

/// The request as the caller sent it.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RequestRow {
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) query: Option<String>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) model: Option<String>,
    pub(crate) body: Option<toml::Table>,
    pub(crate) body_text: Option<String>,
    pub(crate) routing_method: Option<String>,
    pub(crate) token_rate_limit: Option<String>,
    pub(crate) input_token_rate_limit: Option<String>,
    pub(crate) output_token_rate_limit: Option<String>,
    pub(crate) request_rate_limit: Option<String>,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Who was let in.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrincipalRow {
    pub(crate) subject: String,
    pub(crate) tenant: Option<String>,
    #[serde(default)]
    pub(crate) plan: String,
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
    #[serde(default)]
    pub(crate) models: Vec<String>,
    pub(crate) priority: Option<u32>,
}

/// A backend and its load.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CandidateRow {
    pub(crate) address: String,
    #[serde(default = "one")]
    pub(crate) weight: u32,
    #[serde(default)]
    pub(crate) running: u32,
    #[serde(default)]
    pub(crate) queued: u32,
    #[serde(default)]
    pub(crate) queued_input_tokens: u64,
    #[serde(default)]
    pub(crate) kv_free_tokens: u64,
    #[serde(default)]
    pub(crate) input_tps: f32,
    #[serde(default)]
    pub(crate) output_tps: f32,
}

fn one() -> u32 {
    1
}

/// The head of the upstream's answer.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponseRow {
    #[serde(default = "good")]
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
}

fn good() -> u16 {
    200
}

/// One event of a stream.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventRow {
    pub(crate) data: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) delta: String,
    #[serde(default)]
    pub(crate) finish: bool,
}

impl CaseFile {
    /// Reads a table of cases; the error says where it is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    /// The block in the documentation above.
    fn documented() -> String {
        let lines = include_str!("cases.rs")
            .lines()
            .skip_while(|line| !line.contains("```toml"));
        let lines = lines.skip(1).take_while(|line| !line.contains("```"));
        lines
            .map(|line| line.trim_start_matches("//!").to_owned() + "\n")
            .collect()
    }

    #[test]
    fn the_documented_table_parses() {
        let file = CaseFile::parse(&documented()).unwrap();
        assert_eq!(file.config["spill_at"].as_integer(), Some(4));
        assert_eq!(file.keys[0].subject, "a");
        let case = &file.cases[0];
        assert_eq!(
            (case.phase, case.fresh, case.candidates[0].running),
            (Phase::Route, true, 4)
        );
        assert_eq!(case.request.headers["x-tier"], "gold");
        assert_eq!(case.expect.address.as_deref(), Some("b:1"));
    }

    #[test]
    fn mistakes_are_found_where_they_are() {
        let table = [
            (
                "[[case]]\nname = \"a\"\nphase = \"rout\"\nexpect = {}",
                "line 3",
            ),
            (
                "[[case]]\nname = \"a\"\nphase = \"route\"\nexpect = { pik = 1 }",
                "pik",
            ),
            ("[[case]]\nname = \"a\"\nphase = \"route\"", "expect"),
            ("grant = {}", "grant"),
            ("config = 1", "line 1"),
        ];
        for (text, expected) in table {
            let error = CaseFile::parse(text).err().unwrap();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
