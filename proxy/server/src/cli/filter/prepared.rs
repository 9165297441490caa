//! A filter ready to be called outside a gateway: a host, its keys, its grants and its table.

use std::sync::Arc;

use toml::{Table, Value};
use weir_config::{Config, ConfigError};
use weir_host::{Host, KeySets, Module, WasmFilter};
use weir_routing::{Cluster, Fleet};

use crate::cli::filter::cases::{CaseFile, KeyRow};
use crate::cli::module_cache;
use crate::compile::Origin;
use crate::key_tables;

/// A filter and everything its state lives in.
pub(crate) struct Prepared {
    /// The host it runs in.
    pub(crate) host: Arc<Host>,
    /// The filter.
    pub(crate) filter: Arc<WasmFilter>,
    /// What the cursors of candidates live in.
    pub(crate) fleet: Fleet,
    /// Keeps the backends of the last case alive, and with them their cursor.
    pub(crate) cluster: Option<Arc<Cluster>>,
}

impl Prepared {
    /// Checks grants, limits and table as the gateway does, and starts the filter. One line per
    /// error.
    pub(crate) fn new(bytes: &[u8], file: &CaseFile) -> Result<Self, Vec<String>> {
        let host =
            module_cache::host(module_cache::users()).map_err(|error| vec![error.to_string()])?;
        let module = host.load(bytes).map_err(|error| vec![error.to_string()])?;
        let filter = prepare(&host, &module, file)?;
        Ok(Self {
            host,
            filter,
            fleet: Fleet::new(),
            cluster: None,
        })
    }
}

/// Makes the filter of a module and a table of cases.
pub(crate) fn prepare(
    host: &Arc<Host>,
    module: &Arc<Module>,
    file: &CaseFile,
) -> Result<Arc<WasmFilter>, Vec<String>> {
    let (config, text) =
        config(file).map_err(|errors| errors.iter().map(said).collect::<Vec<_>>())?;
    let services = host.services();
    let tables = key_tables::read(&config, &text, &Origin::embedded(), &services.interner);
    services.key_tables.store(Arc::new(
        tables.map_err(|errors| errors.iter().map(said).collect::<Vec<_>>())?,
    ));
    let sets = KeySets::new(file.key_sets.clone());
    services.key_sets.store(Arc::new(sets));
    let table = config
        .filters
        .get(NAME)
        .ok_or_else(|| vec!["no filter".to_owned()])?;
    host.prepare(NAME, module, table)
        .map_err(|error| vec![error.to_string()])
}

/// The cases' tables as a configuration, so that they are checked by the same code.
fn config(file: &CaseFile) -> Result<(Config, String), Vec<ConfigError>> {
    let mut limits = Table::new();
    for (key, ms) in [
        ("request_ms", 1_000),
        ("event_ms", 1_000),
        ("init_ms", 5_000),
    ] {
        limits.insert(key.to_owned(), Value::Integer(ms));
    }
    limits.extend(file.limits.clone());
    let filter = table([
        ("module", Value::String("filter.wasm".to_owned())),
        ("grants", Value::Table(file.grants.clone())),
        ("limits", Value::Table(limits)),
        ("config", Value::Table(file.config.clone())),
    ]);
    let mut key_tables = Table::new();
    let granted = file.grants.get("key_tables").and_then(Value::as_array);
    for name in granted.into_iter().flatten().filter_map(Value::as_str) {
        key_tables.insert(name.to_owned(), Value::Table(Table::new()));
    }
    for row in &file.keys {
        let entry = key_tables
            .entry(row.table.clone())
            .or_insert_with(|| Value::Table(Table::new()));
        let keys = entry.as_table_mut().map(|table| {
            table
                .entry("keys")
                .or_insert_with(|| Value::Array(Vec::new()))
        });
        if let Some(Value::Array(keys)) = keys {
            keys.push(key(row));
        }
    }
    let no_file = || table([("file", Value::String("none".to_owned()))]);
    let key_sets = file.key_sets.keys();
    let key_sets = key_sets.map(|name| (name.clone(), Value::Table(no_file())));
    let whole = table([
        ("key_sets", Value::Table(key_sets.collect())),
        ("key_tables", Value::Table(key_tables)),
        (
            "filters",
            Value::Table(table([(NAME, Value::Table(filter))])),
        ),
    ]);
    let text = whole.to_string();
    weir_config::parse(&text, "").map(|config| (config, text))
}

fn key(row: &KeyRow) -> Value {
    let mut key = table([
        ("id", Value::String(row.subject.clone())),
        ("key", Value::String(row.key.clone())),
        (
            "models",
            Value::Array(row.models.iter().cloned().map(Value::String).collect()),
        ),
    ]);
    if let Some(priority) = row.priority {
        key.insert("priority".to_owned(), Value::Integer(priority.into()));
    }
    for (name, value) in [("tenant", &row.tenant), ("plan", &row.plan)] {
        if let Some(value) = value {
            key.insert(name.to_owned(), Value::String(value.clone()));
        }
    }
    Value::Table(key)
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// An error in the words of the table of cases, which has no `[filters.NAME]`.
fn said(error: &ConfigError) -> String {
    let key = error
        .key
        .strip_prefix("filters.")
        .and_then(|key| key.strip_prefix(NAME))
        .unwrap_or(&error.key);
    format!(
        "{}: {}; {}",
        key.trim_start_matches('.'),
        error.message,
        error.remedy
    )
}

/// The filter's name in the configuration, and so the name space of its attributes.
pub(crate) const NAME: &str = "filter-under-test";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn tables_become_a_configuration() {
        let text = "grants = { read_headers = ['x-a'], key_tables = ['t'], key_sets = ['s'] }\n\
                    config = { a = [1] }\nkey_sets = { s = '{}' }\n\
                    limits = { request_ms = 7 }\n\
                    [[keys]]\ntable = 't'\nkey = 'k'\nsubject = 's'\nplan = 'gold'\n";
        let (config, _) = config(&CaseFile::parse(text).unwrap()).unwrap();
        let filter = &config.filters[NAME];
        assert_eq!(filter.grants.read_headers, ["x-a"]);
        assert_eq!(
            (filter.limits.request_ms, filter.limits.event_ms),
            (7, 1_000)
        );
        assert_eq!(filter.config.to_string(), r#"{"a":[1]}"#);
        let key = &config.key_tables["t"].keys[0];
        assert_eq!((&*key.id, &*key.tenant, &*key.plan), ("s", "s", "gold"));
    }

    #[test]
    fn mistakes_are_named_without_the_made_up_name() {
        let file =
            CaseFile::parse("grants = { read_header = ['x-a'] }\nlimits = { request_ms = 0 }")
                .unwrap();
        let errors = config(&file).unwrap_err();
        let said: Vec<String> = errors.iter().map(said).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said.iter()
                .any(|line| line.starts_with("grants.read_header: ")),
            "{said:?}"
        );
        assert!(
            said.iter()
                .any(|line| line.starts_with("limits.request_ms: ")),
            "{said:?}"
        );
    }
}
