//! `GET /clusters`.

use serde_json::{Map, Value, json};

use crate::names::Name;
use crate::runtime::Runtime;
use crate::snapshot::Snapshot;

/// Every backend of every cluster: health, load, counters; how many requests wait for one, and where
/// the names of endpoints point.
pub(crate) fn all(runtime: &Runtime, snapshot: &Snapshot) -> Value {
    let now_ms = runtime.now_ms();
    let clusters = snapshot.upstreams.iter().map(|(name, upstream)| {
        let members = upstream.members(runtime);
        let backends: Vec<Value> = members
            .cluster
            .backends()
            .iter()
            .map(|candidate| {
                let backend = &candidate.backend;
                let load = backend.load(now_ms);
                json!({
                    "address": &**backend.id(),
                    "weight": candidate.weight,
                    "eligible": backend.eligible(now_ms),
                    "health": format!("{:?}", backend.health()).to_lowercase(),
                    "ejected_for_ms": backend.ejected_for_ms(now_ms),
                    "running": load.running,
                    "queued_input_tokens": load.queued_input_tokens,
                    "ewma_ttft_us": load.ewma_ttft_us,
                    "error_permille": load.error_permille,
                    "successes": backend.successes(),
                    "failures": backend.failures(),
                })
            })
            .collect();
        let names: Map<String, Value> = upstream
            .membership
            .names()
            .map(|name| (name.text().to_owned(), said(name)))
            .collect();
        (
            name.clone(),
            json!({
                "backends": backends,
                "waiting": members.cluster.waiting(),
                "names": names,
            }),
        )
    });
    Value::Object(clusters.collect())
}

/// Where a name points, and why the last lookup failed if it did.
fn said(name: &Name) -> Value {
    let addresses = name.addresses();
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    json!({ "addresses": addresses, "error": name.fault() })
}
