//! What a filter's phases cost: many calls of each, in the real host.

use std::time::Instant;

use serde::Serialize;
use weir_pipeline::filter::Filter;

use crate::builtin;
use crate::cli::filter::case_run::Call;
use crate::cli::filter::cases::{Case, CaseFile, Phase};
use crate::cli::filter::prepared::Prepared;

/// The cost of one phase.
#[derive(Serialize)]
pub(crate) struct Cost {
    /// The phase.
    pub(crate) phase: &'static str,
    /// Half of the calls were quicker, in nanoseconds.
    pub(crate) median_ns: u64,
    /// One in a hundred was slower, in nanoseconds.
    pub(crate) p99_ns: u64,
    /// Calls measured.
    pub(crate) calls: usize,
}

/// Measures each phase the filter has with the first case for it in the table.
pub(crate) async fn costs(prepared: &mut Prepared, file: &CaseFile) -> Result<Vec<Cost>, String> {
    let phases = prepared.filter.phases();
    let mut costs = Vec::new();
    for phase in Phase::ALL.into_iter().filter(|phase| phase.is_in(&phases)) {
        if let Some(case) = file.cases.iter().find(|case| case.phase == phase) {
            costs.push(cost(prepared, case).await?);
        }
    }
    Ok(costs)
}

async fn cost(prepared: &mut Prepared, case: &Case) -> Result<Cost, String> {
    let mut samples = Vec::with_capacity(CALLS);
    for nth in 0..WARM_UP + CALLS {
        // A new exchange each time: what a filter claims and keeps belongs to one.
        let call = Call::of(case, prepared)?;
        let began = Instant::now();
        let (facts, result) = call.make(&prepared.filter).await;
        let took = began.elapsed();
        facts
            .ledger
            .settle(&weir_pipeline::ledger::Settlement::Refund);
        result.map_err(|failure| failure.to_string())?;
        if nth >= WARM_UP {
            samples.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }
    samples.sort_unstable();
    let at = |share: usize| {
        samples
            .get(samples.len() * share / 100)
            .copied()
            .unwrap_or(0)
    };
    Ok(Cost {
        phase: case.phase.as_str(),
        median_ns: at(50),
        p99_ns: at(99),
        calls: samples.len(),
    })
}

/// A table with one case per phase for a filter that came without: every grant, and for the
/// built-in ones a configuration.
pub(crate) fn sample(name: &str) -> Result<CaseFile, String> {
    let config = match name
        .strip_prefix("builtin:")
        .filter(|name| builtin::module(name).is_some())
    {
        Some("auth") => "config = { key_table = 'demo' }\n",
        Some("token-limit") => "config = { default = '1000000000-M' }\n",
        Some("routing-method") => "config = { default = 'power_of_two' }\n",
        _ => "",
    };
    CaseFile::parse(&format!("{config}{SAMPLE}"))
}

const SAMPLE: &str = r#"
grants = { read_headers = ["*", "authorization"], write_headers = ["*"], read_body = true, write_json = ["*"], attributes = true, key_tables = ["demo"], limiters = true, stores = true, slots = true, wasi = "minimal" }

[[keys]]
table = "demo"
key = "weir-demo-key"
subject = "demo"

[[case]]
name = "sample"
phase = "request_headers"
request = { headers = { authorization = "Bearer weir-demo-key" } }
expect = {}

[[case]]
name = "sample"
phase = "authorize"
request = { headers = { authorization = "Bearer weir-demo-key" } }
expect = {}

[[case]]
name = "sample"
phase = "request"
principal = { subject = "demo" }
expect = {}

[[case]]
name = "sample"
phase = "affinity"
request = { headers = { x-multi-turn-session-id = "conversation-1" } }
principal = { subject = "demo" }
expect = {}

[[case]]
name = "sample"
phase = "route"
principal = { subject = "demo" }
candidates = [ { address = "a:1", running = 2 }, { address = "b:1", running = 1 }, { address = "c:1" }, { address = "d:1" } ]
expect = {}

[[case]]
name = "sample"
phase = "response_headers"
response = { status = 200, headers = { content-type = "application/json" } }
expect = {}

[[case]]
name = "sample"
phase = "events"
events = [ { data = '{"choices":[{"index":0,"delta":{"content":"hello"}}]}', delta = "hello" } ]
expect = {}
"#;

const WARM_UP: usize = 200;
const CALLS: usize = 2_000;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_sample_has_every_phase() {
        for name in ["builtin:auth", "builtin:token-limit", "x.wasm"] {
            let file = sample(name).unwrap();
            for phase in Phase::ALL {
                assert!(
                    file.cases.iter().any(|case| case.phase == phase),
                    "{name} {phase:?}"
                );
            }
        }
    }
}
