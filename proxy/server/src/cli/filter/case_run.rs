//! One case: the phase is called in the real host, and what came of it is put into words.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weir_host::{Services, WasmFilter};
use weir_pipeline::facts::Facts;
use weir_pipeline::filter::Filter;
use weir_pipeline::verdict::{
    Affinity, Choice, Decision, EventVerdict, FilterFailure, LocalResponse, Outcome, StreamEvent,
};
use weir_routing::CandidateSet;

use crate::cli::filter::cases::{Case, Phase};
use crate::cli::filter::expect::Got;
use crate::cli::filter::prepared::{NAME, Prepared};
use crate::cli::filter::request;

/// A verdict of any phase.
pub(crate) enum Verdict {
    Outcome(Outcome),
    Decision(Decision),
    Affinity(Option<Affinity>),
    Choice(Choice),
    Events(Vec<EventVerdict>),
}

/// What one call takes.
pub(crate) struct Call {
    pub(crate) phase: Phase,
    pub(crate) facts: Box<Facts>,
    pub(crate) affinity_hash: u64,
    pub(crate) events: Vec<StreamEvent>,
}

impl Call {
    /// The call of a case; the error says what is wrong with the case.
    pub(crate) fn of(case: &Case, prepared: &mut Prepared) -> Result<Self, String> {
        let mut facts = request::facts(case, &prepared.host.services().interner)?;
        if case.phase == Phase::Route {
            let (cluster, set) = request::candidates(case, &prepared.fleet, Services::now_ms());
            prepared.cluster = Some(cluster);
            facts.candidates = Some(set);
        }
        if case.phase == Phase::ResponseHeaders && facts.response.is_none() {
            return Err("the phase response_headers needs `response`".to_owned());
        }
        let affinity_hash = case
            .affinity
            .as_ref()
            .map_or(0, |key| weir_host::hash53(key.as_bytes()));
        Ok(Self {
            phase: case.phase,
            facts,
            affinity_hash,
            events: request::events(&case.events),
        })
    }

    /// Makes it.
    pub(crate) async fn make(
        self,
        filter: &WasmFilter,
    ) -> (Box<Facts>, Result<Verdict, FilterFailure>) {
        let facts = self.facts;
        match self.phase {
            Phase::RequestHeaders => said(
                filter.request_headers(facts).answer().await,
                Verdict::Outcome,
            ),
            Phase::Authorize => said(filter.authorize(facts).answer().await, Verdict::Decision),
            Phase::Request => said(filter.request(facts).answer().await, Verdict::Outcome),
            Phase::Affinity => said(filter.affinity(facts).answer().await, Verdict::Affinity),
            Phase::Route => said(
                filter.route(facts, self.affinity_hash).answer().await,
                Verdict::Choice,
            ),
            Phase::ResponseHeaders => said(
                filter.response_headers(facts).answer().await,
                Verdict::Outcome,
            ),
            Phase::Events => said(filter.events(facts, &self.events), Verdict::Events),
        }
    }
}

fn said<T>(
    (facts, result): (Box<Facts>, Result<T, FilterFailure>),
    verdict: fn(T) -> Verdict,
) -> (Box<Facts>, Result<Verdict, FilterFailure>) {
    (facts, result.map(verdict))
}

/// Runs a case: what does not fit, and how long the call took.
pub(crate) async fn run(case: &Case, prepared: &mut Prepared) -> Result<Duration, Vec<String>> {
    if !case.phase.is_in(&prepared.filter.phases()) {
        return Err(vec![format!(
            "the filter does not take part in the phase {}",
            case.phase.as_str()
        )]);
    }
    let call = Call::of(case, prepared).map_err(|error| vec![error])?;
    let began = Instant::now();
    let (facts, result) = call.make(&prepared.filter).await;
    let took = began.elapsed();
    let lines = case.expect.mismatches(&got(case, &facts, result));
    if lines.is_empty() {
        Ok(took)
    } else {
        Err(lines)
    }
}

/// A result in the words of a case.
fn got(case: &Case, facts: &Facts, result: Result<Verdict, FilterFailure>) -> Got {
    let mut got = Got {
        attributes: attributes(case, facts),
        ..Got::default()
    };
    match &facts.response {
        Some(response) if case.phase == Phase::ResponseHeaders => {
            got.headers = response.headers.clone()
        }
        _ => got.headers = facts.headers.clone(),
    }
    got.body = facts.body.to_vec();
    match result {
        Ok(Verdict::Outcome(Outcome::Pass)) => got.outcome = "pass",
        Ok(Verdict::Outcome(Outcome::Respond(response))) => answer(&mut got, "respond", response),
        Ok(Verdict::Decision(decision)) => decided(&mut got, decision),
        Ok(Verdict::Affinity(None)) => got.outcome = "none",
        Ok(Verdict::Affinity(Some(affinity))) => {
            got.outcome = "key";
            got.key = Some(affinity.key);
            got.ttl_ms = Some(affinity.ttl_ms);
            got.strict = Some(affinity.strict);
        }
        Ok(Verdict::Choice(choice)) => chosen(&mut got, choice, facts.candidates.as_ref()),
        Ok(Verdict::Events(verdicts)) => heard(&mut got, &verdicts),
        Err(failure) => {
            got.outcome = "error";
            got.message = Some(failure.to_string());
        }
    }
    got
}

fn answer(got: &mut Got, outcome: &'static str, response: LocalResponse) {
    got.outcome = outcome;
    got.status = Some(response.status.as_u16());
    got.code = Some(response.error_code);
    got.message = Some(response.message);
    got.headers = response.headers.into_iter().collect();
    got.body = response.body.to_vec();
}

fn decided(got: &mut Got, decision: Decision) {
    match decision {
        Decision::Abstain => got.outcome = "abstain",
        Decision::Allow(principal) => {
            got.outcome = "allow";
            got.subject = Some(principal.subject.to_string());
            got.tenant = Some(principal.tenant.to_string());
            got.plan = Some(principal.plan.to_string());
        }
        Decision::Deny(response) => answer(got, "deny", response),
    }
}

fn chosen(got: &mut Got, choice: Choice, candidates: Option<&CandidateSet>) {
    let address = |position| Some(candidates?.at(position)?.id().to_string());
    match choice {
        Choice::Abstain => got.outcome = "abstain",
        Choice::Pick(position) => {
            got.outcome = "pick";
            got.pick = Some(position);
            got.address = address(position);
        }
        Choice::Ranked(positions) => {
            got.outcome = "ranked";
            got.address = positions.first().copied().and_then(address);
            got.ranked = Some(positions);
        }
        Choice::WaitMs(ms) => {
            got.outcome = "wait";
            got.wait_ms = Some(ms);
        }
        Choice::Reject(response) => answer(got, "reject", response),
    }
}

fn heard(got: &mut Got, verdicts: &[EventVerdict]) {
    let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
    let word = |verdict: &EventVerdict| match verdict {
        EventVerdict::Pass => "pass".to_owned(),
        EventVerdict::Drop => "drop".to_owned(),
        EventVerdict::Replace(data) => format!("replace:{}", text(data)),
        EventVerdict::Stop(data) => format!("stop:{}", text(data)),
    };
    let pass = verdicts
        .iter()
        .all(|verdict| *verdict == EventVerdict::Pass);
    got.outcome = if pass { "pass" } else { "events" };
    got.verdicts = Some(verdicts.iter().map(word).collect());
}

/// Of what is expected, what this filter left.
fn attributes(case: &Case, facts: &Facts) -> BTreeMap<String, String> {
    let own = |name: &String| {
        let value = facts.attributes.find(&format!("{NAME}.{name}"))?;
        Some((name.clone(), value.to_string()))
    };
    case.expect.attributes.keys().filter_map(own).collect()
}
