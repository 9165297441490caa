//! What recorded requests teach about estimates: the folder named by `WEIR_CASES`, else skipped.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use serde_json::Value;
use weir_dialect::{Api, peek};
use weir_pipeline::correction::Corrections;

/// One recorded request: its model, what is estimated of it and what its provider counted.
struct Pair {
    api: Api,
    model: String,
    has_tools: bool,
    estimate: u32,
    actual: u64,
}

fn pairs() -> Vec<Pair> {
    let Some(folder) = std::env::var_os("WEIR_CASES") else {
        // Not `eprintln!`: the test harness would swallow it.
        let mut stderr = std::io::stderr();
        writeln!(
            stderr,
            "SKIPPED: set WEIR_CASES to a folder of recorded cases"
        )
        .unwrap();
        return Vec::new();
    };
    let mut files: Vec<_> = std::fs::read_dir(Path::new(&folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut pairs = Vec::new();
    for file in files {
        let file: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        pairs.extend(file["cases"].as_array().unwrap().iter().filter_map(pair));
    }
    assert!(!pairs.is_empty(), "no case in the folder");
    pairs
}

fn pair(case: &Value) -> Option<Pair> {
    let api = match case["provider_api"].as_str()? {
        "openai.chat" => Api::ChatCompletions,
        "openai.responses" => Api::Responses,
        "anthropic.messages" => Api::Messages,
        _ => return None,
    };
    if case["client_request"].is_null() {
        return None;
    }
    let usage = &case["semantic"]["usage"];
    let number = |name: &str| usage[name].as_u64().unwrap_or(0);
    let parts = number("input_uncached") + number("cache_read") + number("cache_write");
    let peek = peek(api, &serde_json::to_vec(&case["client_request"]).unwrap()).unwrap();
    Some(Pair {
        api,
        model: peek.model,
        has_tools: peek.has_tools,
        estimate: peek.est_input_tokens,
        actual: usage["input_total"].as_u64().unwrap_or(parts),
    })
}

/// How far off: 0 is right, 1 is by a factor of e.
fn error(estimate: u32, actual: u64) -> f64 {
    (f64::from(estimate) / actual as f64).ln().abs()
}

fn median(mut errors: Vec<f64>) -> f64 {
    errors.sort_by(f64::total_cmp);
    errors[errors.len() / 2]
}

#[test]
fn recorded_requests_make_estimates_better() {
    let pairs: Vec<Pair> = pairs().into_iter().filter(|pair| pair.actual > 0).collect();
    if pairs.is_empty() {
        return;
    }
    let mut models: HashMap<&str, Corrections> = HashMap::new();
    // Each is estimated before it is learned from, as a gateway does it.
    let mut round = || {
        let mut errors = Vec::new();
        for pair in &pairs {
            let corrections = models.entry(&pair.model).or_default();
            let correction = corrections.of(pair.api, pair.has_tools).unwrap();
            errors.push(error(correction.apply(pair.estimate), pair.actual));
            correction.learn(pair.estimate, pair.actual);
        }
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        (mean, median(errors))
    };
    let plain: Vec<f64> = pairs
        .iter()
        .map(|pair| error(pair.estimate, pair.actual))
        .collect();
    let mean_before = plain.iter().sum::<f64>() / plain.len() as f64;
    let median_before = median(plain);
    let (first, second) = (round(), round());
    writeln!(
        std::io::stderr(),
        "{} recorded requests: mean error {mean_before:.2}, then {:.2} and {:.2}; median {median_before:.2}, then {:.2} and {:.2}",
        pairs.len(),
        first.0,
        second.0,
        first.1,
        second.1,
    )
    .unwrap();
    assert!(
        first.0 < mean_before,
        "better from the first requests on: {first:?}"
    );
    assert!(second.0 < first.0 * 0.9, "and better still: {second:?}");
    assert!(second.1 < median_before, "{second:?}");
}
