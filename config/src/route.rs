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
    /// Whose workers serve it, where the cluster has workers.
    pub workers_of: Option<Served>,
    /// The pipeline whose header phases decide; without it none.
    pub pipeline: Option<String>,
    /// Whether the prefix is taken off before the request goes upstream.
    pub strip_prefix: bool,
}

/// What workers have registered for; in TOML `"function/model"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Served {
    /// The function of their token.
    pub function: String,
    /// The name they serve it under.
    pub model: String,
}

impl Served {
    fn read(field: &Field<'_>) -> Option<Self> {
        let text = field.name()?;
        match text.split_once('/') {
            Some((function, model)) if !function.is_empty() && !model.is_empty() => Some(Self {
                function: function.to_owned(),
                model: model.to_owned(),
            }),
            _ => field.error(
                format!("`{text}` does not name a model of a function"),
                "write \"function/model\": the function of the workers' token and a model they register",
            ),
        }
    }
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
            workers_of: table.optional("workers_of", Served::read),
            pipeline: table.optional("pipeline", Field::name),
            strip_prefix: table.or("strip_prefix", false, Field::flag),
        };
        table.finish();
        read
    }
}
