//! The table `[hints]`: who may say how long a request waits.

use serde::Serialize;

use crate::field::Field;
use crate::reader::Table;

/// `[hints]`: callers that are trusted to say in `x-max-wait-ms` and `x-stargate-max-wait-ms` how
/// long their requests wait and are retried. Live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HintsTable {
    /// The scope that their keys have; empty: nobody is.
    pub scope: String,
}

impl Default for HintsTable {
    fn default() -> Self {
        Self {
            scope: "routing".into(),
        }
    }
}

impl HintsTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let scope = table.or("scope", Self::default().scope, Field::text);
        table.finish();
        Self { scope }
    }
}
