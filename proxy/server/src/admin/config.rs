//! `GET /config` and `GET /config/history`.

use serde_json::{Value, json};

use crate::runtime::Runtime;
use crate::snapshot::Snapshot;

/// The live configuration with secrets masked, and what was refused since.
pub(crate) fn live(runtime: &Runtime, snapshot: &Snapshot) -> Value {
    let history = runtime.history.lock();
    json!({
        "number": snapshot.number,
        "config": weir_config::masked(&snapshot.config),
        "needs_restart": history.needs_restart,
        "rejected": history.rejected,
    })
}

/// Newest first.
pub(crate) fn history(runtime: &Runtime) -> Value {
    let live = runtime.snapshot().number;
    let history = runtime.history.lock();
    let past: Vec<Value> = history
        .past()
        .rev()
        .map(|past| {
            json!({
                "number": past.snapshot.number,
                "live": past.snapshot.number == live,
                "since_unix_ms": past.since_unix_ms,
                "why": past.why,
                "changes": past.changes,
            })
        })
        .collect();
    json!({ "history": past, "rejected": history.rejected })
}
