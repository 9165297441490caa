//! The tables `[functions.ID]`: what callers name before the `/` of a model.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::field::Field;
use crate::rate_limit::parse_token_rate_limit;
use crate::reader::Table;

/// A function and its models. Live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FunctionTable {
    /// The pipeline its calls go through.
    pub pipeline: String,
    /// Its models by name; callers write `ID/NAME`.
    pub models: BTreeMap<String, ModelTable>,
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

impl FunctionTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let read = Self {
            pipeline: table.or("pipeline", "default".into(), Field::name),
            models: table.or("models", BTreeMap::new(), |f| {
                f.map(model_name, ModelTable::read)
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
pub(crate) fn function_id(name: &str) -> Result<(), &'static str> {
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
