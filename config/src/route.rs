//! The tables `[[routes]]`: paths passed through as they are.

use serde::Serialize;

use crate::field::Field;
use crate::reader::Table;

/// A pass-through route; among those that match, the longest prefix wins. Live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteTable {
    /// What the path starts with.
    pub path_prefix: String,
    /// The host it is for, in lower case; without it all.
    pub host: Option<String>,
    /// The cluster it goes to.
    pub cluster: String,
    /// The pipeline whose header phases decide; without it none.
    pub pipeline: Option<String>,
    /// Whether the prefix is taken off before the request goes upstream.
    pub strip_prefix: bool,
}

impl RouteTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let read = Self {
            path_prefix: table.required(
                "path_prefix",
                String::new(),
                "add path_prefix = \"/\"",
                Field::url_path,
            ),
            host: table.optional("host", |f| f.name().map(|host| host.to_ascii_lowercase())),
            cluster: table.required(
                "cluster",
                String::new(),
                "add cluster = \"NAME\"",
                Field::name,
            ),
            pipeline: table.optional("pipeline", Field::name),
            strip_prefix: table.or("strip_prefix", false, Field::flag),
        };
        table.finish();
        read
    }
}
