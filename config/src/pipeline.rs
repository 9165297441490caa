//! The tables `[pipelines.NAME]`: filters in their order.

use serde::Serialize;

use crate::field::Field;
use crate::reader::Table;

/// An ordered list of filters. Live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PipelineTable {
    /// Names of `[filters.NAME]`, first to last; each at most once.
    pub filters: Vec<String>,
}

impl PipelineTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let filters = table.required("filters", Vec::new(), "add filters = []", Field::names);
        table.finish();
        Self { filters }
    }
}
