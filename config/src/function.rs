//! The tables `[functions.ID]`: what callers name before the `/` of a model.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::field::Field;
use crate::rate_limit::parse_token_rate_limit;
use crate::reader::Table;

/// `[functions_api]`: what functions made through the API have in common. Live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FunctionsApiTable {
    /// The cluster of models that name none; without it the only one there is.
    pub cluster: Option<String>,
}

impl FunctionsApiTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let cluster = table.optional("cluster", Field::name);
        table.finish();
        Self { cluster }
    }
}

/// A function and its models. Live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FunctionTable {
    /// The pipeline its calls go through.
    pub pipeline: String,
    /// Whose calls are served first, where the caller's key does not say.
    pub priority: Option<PriorityTable>,
    /// Its models by name; callers write `ID/NAME`.
    pub models: BTreeMap<String, ModelTable>,
    /// What the functions API keeps about it, oldest first; none of it steers a call.
    pub versions: Vec<VersionTable>,
}

/// `[functions.ID.priority]`: lower is served first. Live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PriorityTable {
    /// Of callers that `per_tenant` does not name.
    pub default: Option<u32>,
    /// By tenant.
    pub per_tenant: BTreeMap<String, u32>,
}

impl PriorityTable {
    /// The priority of a tenant's calls; none when nothing is said about it.
    #[must_use]
    pub fn of(&self, tenant: &str) -> Option<u32> {
        self.per_tenant.get(tenant).copied().or(self.default)
    }
}

/// `[[functions.ID.versions]]`: one version as the functions API was sent it. Live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VersionTable {
    /// Its id.
    pub id: String,
    /// When it was made, as RFC 3339 writes it.
    pub created_at: Option<String>,
    /// What it was made from, but for what the tables of the function and of its models say.
    pub nvcf: Value,
}

/// `[functions.ID.models.NAME]`. Live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelTable {
    /// The cluster serving it.
    pub cluster: String,
    /// What the endpoints call it; its own name by default.
    pub upstream_model: Option<String>,
    /// The paths it may be called on; empty: all that take models.
    pub uris: Vec<String>,
    /// How the routing filter ranks the endpoints; without it the filter's default.
    pub routing_method: Option<String>,
    /// Budgets of input and output tokens together, per tenant and span, `1000-S,50000-M`; see
    /// [`parse_token_rate_limit`].
    pub token_rate_limit: Option<String>,
    /// Budgets of input tokens, in the same grammar.
    pub input_token_rate_limit: Option<String>,
    /// Budgets of output tokens.
    pub output_token_rate_limit: Option<String>,
    /// Budgets of requests.
    pub request_rate_limit: Option<String>,
}

/// The table `functions` of a file.
pub(crate) fn read_functions(table: &mut Table<'_>) -> BTreeMap<String, FunctionTable> {
    table.or("functions", BTreeMap::new(), |f| {
        f.map(function_id, FunctionTable::read)
    })
}

impl FunctionTable {
    fn read(mut table: Table<'_>) -> Self {
        let read = Self {
            pipeline: table.or("pipeline", "default".into(), Field::name),
            priority: table
                .optional("priority", Field::table)
                .map(PriorityTable::read),
            models: table.or("models", BTreeMap::new(), |f| {
                f.map(model_name, ModelTable::read)
            }),
            versions: read_versions(&mut table),
        };
        table.finish();
        read
    }
}

fn read_versions(table: &mut Table<'_>) -> Vec<VersionTable> {
    let versions = table.or("versions", Vec::new(), |f| {
        f.list(|f| f.table().map(VersionTable::read))
    });
    for (index, version) in versions.iter().enumerate() {
        let same = |other: &VersionTable| !version.id.is_empty() && other.id == version.id;
        if versions.iter().take(index).any(same) {
            let message = format!("two versions have the id `{}`", version.id);
            table.element_error("versions", index, message, "remove one");
        }
    }
    versions
}

impl PriorityTable {
    fn read(mut table: Table<'_>) -> Self {
        let read = Self {
            default: table.optional("default", priority),
            per_tenant: table.or("per_tenant", BTreeMap::new(), |f| f.values(priority)),
        };
        table.finish();
        read
    }
}

pub(crate) fn priority(field: &Field<'_>) -> Option<u32> {
    field.integer(0..=u32::MAX.into())
}

impl VersionTable {
    fn read(mut table: Table<'_>) -> Self {
        let read = Self {
            id: table.required("id", String::new(), "add id = \"a UUID\"", Field::name),
            created_at: table.optional("created_at", Field::name),
            nvcf: table.or("nvcf", Value::Object(serde_json::Map::new()), |f| {
                f.table().and_then(|_| f.json())
            }),
        };
        table.finish();
        read
    }
}

impl ModelTable {
    fn read(mut table: Table<'_>) -> Self {
        let read = Self {
            cluster: table.required(
                "cluster",
                String::new(),
                "add cluster = \"NAME\"",
                Field::name,
            ),
            upstream_model: table.optional("upstream_model", Field::name),
            uris: table.or("uris", Vec::new(), |f| f.list(Field::url_path)),
            routing_method: table.optional("routing_method", Field::name),
            token_rate_limit: table.optional("token_rate_limit", rate_limit),
            input_token_rate_limit: table.optional("input_token_rate_limit", rate_limit),
            output_token_rate_limit: table.optional("output_token_rate_limit", rate_limit),
            request_rate_limit: table.optional("request_rate_limit", rate_limit),
        };
        table.finish();
        read
    }
}

fn rate_limit(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    match parse_token_rate_limit(&text) {
        Ok(_) => Some(text),
        Err(message) => field.error(message, "write for example \"1000-S,50000-M\""),
    }
}

/// A function id ends at the first `/` of what the caller names.
fn function_id(name: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_graphic() && c != '/';
    if !name.is_empty() && name.chars().all(plain) {
        Ok(())
    } else {
        Err("use printable characters without spaces and without `/`")
    }
}

fn model_name(name: &str) -> Result<(), &'static str> {
    if !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("use printable characters without spaces")
    }
}
