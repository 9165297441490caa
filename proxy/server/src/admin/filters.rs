//! `GET /filters`.

use serde_json::{Value, json};
use weir_pipeline::filter::Filter;

use crate::snapshot::Snapshot;

/// Every filter: its module, and what its calls have cost.
pub(crate) fn all(snapshot: &Snapshot) -> Value {
    let filters = snapshot.filters.iter().map(|(name, filter)| {
        let manifest = filter.manifest();
        let value = json!({
            "module_sha256": filter.module_sha256(),
            "version": manifest.version,
            "about": manifest.about,
            "on_error": format!("{:?}", filter.on_error()).to_lowercase(),
            "stats": filter.stats(),
        });
        (name.clone(), value)
    });
    Value::Object(filters.collect())
}
