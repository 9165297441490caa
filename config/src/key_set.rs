//! The tables `[key_sets.NAME]`: public keys of those who sign tokens.

use std::path::PathBuf;

use serde::Serialize;

use crate::field::Field;
use crate::reader::Table;

/// A set of public keys which filters with the grant may read and check signatures by. Live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeySet {
    /// A JSON web key set (RFC 7517), looked at live.
    pub file: PathBuf,
}

impl KeySet {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let file = table.required(
            "file",
            PathBuf::new(),
            "add file = \"jwks.json\"",
            Field::file_path,
        );
        table.finish();
        Self { file }
    }
}
