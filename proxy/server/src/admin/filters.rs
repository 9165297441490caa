//! `GET /filters`.

use serde_json::{Value, json};

use crate::snapshot::Snapshot;

/// Every filter: its module, and what its calls have cost.
pub(crate) fn all(snapshot: &Snapshot) -> Value {
    let filters = snapshot.filters.iter().map(|(name, filter)| {
        let manifest = filter.manifest();
        let value = json!({
            "module_sha256": filter.module_sha256(),
            "version": manifest.version,
            "about": manifest.about,
            // As configured: the chain knows `retry-fresh` as `deny`.
            "on_error": snapshot.config.filters.get(name).map(|table| table.on_error),
            "stats": filter.stats(),
        });
        (name.clone(), value)
    });
    Value::Object(filters.collect())
}
