//! What changed between two configurations, in words.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::cluster::ClusterTable;
use crate::config::Config;
use crate::function::FunctionTable;
use crate::key;
use crate::key_table::KeyTable;
use crate::listener::Listener;
use crate::pipeline::PipelineTable;
use crate::route::RouteTable;
use crate::simulator::SimulatorTable;

/// What changed between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigDiff {
    /// One line per change, `clusters.sim: endpoint 127.0.0.1:9002 added`. Never a secret.
    pub lines: Vec<String>,
    /// Keys that changed but need a restart to take effect.
    pub boot: Vec<String>,
}

/// Says what changes when `new` takes the place of `old`.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> ConfigDiff {
    let mut diff = ConfigDiff::default();
    diff.process(old, new);
    diff.tables(
        "key_tables",
        &old.key_tables,
        &new.key_tables,
        ConfigDiff::key_table,
    );
    diff.tables(
        "key_sets",
        &old.key_sets,
        &new.key_sets,
        ConfigDiff::changed,
    );
    diff.tables("filters", &old.filters, &new.filters, ConfigDiff::changed);
    diff.tables(
        "pipelines",
        &old.pipelines,
        &new.pipelines,
        ConfigDiff::pipeline,
    );
    diff.tables(
        "clusters",
        &old.clusters,
        &new.clusters,
        ConfigDiff::cluster,
    );
    diff.tables(
        "functions",
        &old.functions,
        &new.functions,
        ConfigDiff::function,
    );
    let by_prefix = |routes: &[RouteTable]| {
        let name = |r: &RouteTable| r.host.clone().unwrap_or_default() + &r.path_prefix;
        routes
            .iter()
            .map(|route| (name(route), route.clone()))
            .collect()
    };
    diff.tables(
        "routes",
        &by_prefix(&old.routes),
        &by_prefix(&new.routes),
        ConfigDiff::changed,
    );
    if old.functions_file != new.functions_file {
        let (old, new) = (old.functions_file.display(), new.functions_file.display());
        diff.lines
            .push(format!("functions_file: changed from {old} to {new}"));
    }
    diff.fields("functions_api", &old.functions_api, &new.functions_api);
    diff.fields("dns", &old.dns, &new.dns);
    diff.fields("hints", &old.hints, &new.hints);
    diff.fields("limits", &old.limits, &new.limits);
    diff.fields("streams", &old.streams, &new.streams);
    diff.fields("reload", &old.reload, &new.reload);
    diff
}

impl ConfigDiff {
    /// The tables which for the most part need a restart.
    fn process(&mut self, old: &Config, new: &Config) {
        let server = self.fields("server", &old.server, &new.server);
        let admin = self.fields("admin", &old.admin, &new.admin);
        let mut log = self.fields("log", &old.log, &new.log);
        log.retain(|field| field != "access");
        for (table, fields) in [("server", server), ("admin", admin), ("log", log)] {
            self.boot
                .extend(fields.iter().map(|field| key::join(table, field)));
        }
        self.fields("telemetry", &old.telemetry, &new.telemetry);
        if old.telemetry.otlp != new.telemetry.otlp {
            self.boot.push("telemetry.otlp".into());
        }
        let mut workers = self.fields("workers", &old.workers, &new.workers);
        workers.retain(|field| matches!(&**field, "listen" | "silence_timeout_ms"));
        self.boot
            .extend(workers.iter().map(|field| key::join("workers", field)));
        self.listeners(&old.listeners, &new.listeners);
        let by_address = |simulators: &[SimulatorTable]| {
            let pairs = simulators.iter().map(|s| (s.listen.to_string(), s.clone()));
            pairs.collect()
        };
        let (old, new) = (by_address(&old.simulators), by_address(&new.simulators));
        let simulators = self.tables("simulators", &old, &new, Self::changed);
        self.boot.extend(simulators);
    }

    fn pipeline(&mut self, path: &str, old: &PipelineTable, new: &PipelineTable) {
        let (old, new) = (old.filters.join(", "), new.filters.join(", "));
        self.lines
            .push(format!("{path}: filters changed from [{old}] to [{new}]"));
    }

    /// Compares two sets of named tables; returns the keys of those that differ.
    fn tables<T: PartialEq>(
        &mut self,
        parent: &str,
        old: &BTreeMap<String, T>,
        new: &BTreeMap<String, T>,
        changed: impl Fn(&mut Self, &str, &T, &T),
    ) -> Vec<String> {
        let mut differ = Vec::new();
        for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            let path = key::join(parent, name);
            match (old.get(name), new.get(name)) {
                (None, Some(_)) => self.lines.push(format!("{path}: added")),
                (Some(_), None) => self.lines.push(format!("{path}: removed")),
                (Some(old), Some(new)) if old != new => changed(self, &path, old, new),
                _ => continue,
            }
            differ.push(path);
        }
        differ
    }

    /// Compares two tables field by field; returns the fields that differ.
    fn fields<T: Serialize + PartialEq>(&mut self, path: &str, old: &T, new: &T) -> Vec<String> {
        if old == new {
            return Vec::new();
        }
        let (old, new) = (members(old), members(new));
        let mut differ = Vec::new();
        for (name, new) in &new {
            let old = old.get(name).unwrap_or(&Value::Null);
            if old == new {
                continue;
            }
            // Tables and lists are named only: a filter's own table may hold secrets.
            let simple =
                |value: &Value| !value.is_array() && !value.is_object() && !value.is_null();
            self.lines.push(if simple(old) && simple(new) {
                format!("{path}: {name} changed from {old} to {new}")
            } else {
                format!("{path}: {name} changed")
            });
            differ.push(name.clone());
        }
        if differ.is_empty() {
            self.lines.push(format!("{path}: a secret changed"));
        }
        differ
    }

    fn changed<T: Serialize + PartialEq>(&mut self, path: &str, old: &T, new: &T) {
        self.fields(path, old, new);
    }

    fn listeners(&mut self, old: &[Listener], new: &[Listener]) {
        let by_name = |listeners: &[Listener]| {
            listeners
                .iter()
                .map(|l| (l.name.clone(), l.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        let (old, new) = (by_name(old), by_name(new));
        // The files of a certificate may change while it is served; the rest may not.
        let served = |listener: Option<&Listener>| {
            let tls = listener.map(|l| l.tls.is_some());
            listener
                .map(|l| (l.listen, l.h2c, l.idle_timeout_ms))
                .zip(tls)
        };
        for path in self.tables("listeners", &old, &new, Self::changed) {
            let name = old
                .keys()
                .chain(new.keys())
                .find(|name| key::join("listeners", name) == path);
            let name = name.map(String::as_str).unwrap_or_default();
            if served(old.get(name)) != served(new.get(name)) {
                self.boot.push(path);
            }
        }
    }

    fn key_table(&mut self, path: &str, old: &KeyTable, new: &KeyTable) {
        let by_id = |table: &KeyTable| {
            table
                .keys
                .iter()
                .map(|k| (k.id.clone(), k.clone()))
                .collect()
        };
        let before = self.lines.len();
        self.tables(
            &format!("{path}.keys"),
            &by_id(old),
            &by_id(new),
            Self::changed,
        );
        if old.file != new.file {
            self.lines.push(format!("{path}: file changed"));
        }
        if self.lines.len() == before {
            self.lines.push(format!("{path}: order of keys changed"));
        }
    }

    fn cluster(&mut self, path: &str, old: &ClusterTable, new: &ClusterTable) {
        let before = self.lines.len();
        let by_address = |cluster: &ClusterTable| -> BTreeMap<String, u32> {
            cluster
                .endpoints
                .iter()
                .map(|e| (e.address.clone(), e.weight))
                .collect()
        };
        let (was, is) = (by_address(old), by_address(new));
        for address in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
            let change = match (was.get(address), is.get(address)) {
                (None, _) => "added".into(),
                (_, None) => "removed".into(),
                (Some(old), Some(new)) if old != new => {
                    format!("weight changed from {old} to {new}")
                }
                _ => continue,
            };
            self.lines
                .push(format!("{path}: endpoint {address} {change}"));
        }
        let same_endpoints = ClusterTable {
            endpoints: old.endpoints.clone(),
            ..new.clone()
        };
        self.fields(path, old, &same_endpoints);
        if self.lines.len() == before {
            self.lines
                .push(format!("{path}: order of endpoints changed"));
        }
    }

    fn function(&mut self, path: &str, old: &FunctionTable, new: &FunctionTable) {
        self.tables(
            &format!("{path}.models"),
            &old.models,
            &new.models,
            Self::changed,
        );
        let same_models = FunctionTable {
            models: old.models.clone(),
            ..new.clone()
        };
        self.fields(path, old, &same_models);
    }
}

/// The fields of a table as JSON by name, its secrets masked.
fn members<T: Serialize>(table: &T) -> BTreeMap<String, Value> {
    match serde_json::to_value(table) {
        Ok(Value::Object(members)) => members.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}
