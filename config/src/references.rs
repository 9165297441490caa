//! Checks across tables: names that are used are declared, and nothing is declared twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use toml::de::DeTable;

use crate::config::Config;
use crate::filter::{FilterRole, ModuleRef};
use crate::function::FunctionTable;
use crate::key;
use crate::report::Report;

/// The methods `builtin:routing-method` has.
const ROUTING_METHODS: [&str; 6] = [
    "round_robin",
    "random",
    "power_of_two",
    "groq_multiregion",
    "pulsar",
    "pulsar_multiregion",
];
/// Other names it knows them by.
const ROUTING_METHOD_ALIASES: [&str; 3] = ["power_of_n", "wait_and_widen", "pulsar_wait_and_widen"];

/// Reports everything that is wrong between the tables of a configuration.
pub(crate) fn check(config: &Config, root: &DeTable<'_>, report: &Report<'_>) {
    let checks = References {
        config,
        root,
        report,
    };
    checks.addresses();
    checks.listener_names();
    checks.filters();
    checks.pipelines();
    checks.functions(&config.functions);
    checks.functions_api();
    checks.routes();
}

/// Reports what is wrong with functions of another file than the rest of the configuration.
pub(crate) fn check_functions(
    config: &Config,
    functions: &BTreeMap<String, FunctionTable>,
    root: &DeTable<'_>,
    report: &Report<'_>,
) {
    let checks = References {
        config,
        root,
        report,
    };
    checks.functions(functions);
}

struct References<'c> {
    config: &'c Config,
    root: &'c DeTable<'c>,
    report: &'c Report<'c>,
}

impl References<'_> {
    fn addresses(&self) {
        let mut seen: BTreeMap<SocketAddr, String> = BTreeMap::new();
        let listeners = self.config.listeners.iter().map(|listener| listener.listen);
        let simulators = self
            .config
            .simulators
            .iter()
            .map(|simulator| simulator.listen);
        let admin = std::iter::once(("admin.listen".to_owned(), self.config.admin.listen));
        let numbered = |table: &'static str| {
            move |(index, listen)| (format!("{table}[{index}].listen"), listen)
        };
        let all = admin
            .chain(listeners.enumerate().map(numbered("listeners")))
            .chain(simulators.enumerate().map(numbered("simulators")));
        for (key, listen) in all.filter(|(_, listen)| listen.port() != 0) {
            if let Some(other) = seen.get(&listen) {
                let message = format!("`{listen}` is the address of {other} too");
                self.error(&key, message, "choose another port");
            } else {
                seen.insert(listen, key);
            }
        }
    }

    fn listener_names(&self) {
        let listeners = &self.config.listeners;
        for (index, listener) in listeners.iter().enumerate() {
            if listeners
                .iter()
                .take(index)
                .any(|other| other.name == listener.name)
            {
                let message = format!("two listeners are named `{}`", listener.name);
                self.error(&format!("listeners[{index}].name"), message, "rename one");
            }
        }
    }

    fn filters(&self) {
        for (name, filter) in &self.config.filters {
            for (index, table) in filter.grants.key_tables.iter().enumerate() {
                let key = key::join("filters", name) + &format!(".grants.key_tables[{index}]");
                self.declared(
                    &key,
                    "key table",
                    "key_tables",
                    table,
                    &self.config.key_tables,
                );
            }
            for (index, set) in filter.grants.key_sets.iter().enumerate() {
                let key = key::join("filters", name) + &format!(".grants.key_sets[{index}]");
                self.declared(&key, "key set", "key_sets", set, &self.config.key_sets);
            }
            for (index, cluster) in filter.grants.clusters.iter().enumerate() {
                let key = key::join("filters", name) + &format!(".grants.clusters[{index}]");
                self.declared(&key, "cluster", "clusters", cluster, &self.config.clusters);
            }
        }
    }

    fn pipelines(&self) {
        for (name, pipeline) in &self.config.pipelines {
            for (index, filter) in pipeline.filters.iter().enumerate() {
                let key = key::join("pipelines", name) + &format!(".filters[{index}]");
                self.declared(&key, "filter", "filters", filter, &self.config.filters);
                if pipeline
                    .filters
                    .iter()
                    .take(index)
                    .any(|other| other == filter)
                {
                    let message = format!("names the filter `{filter}` twice");
                    let remedy = "remove one, or declare a second filter with the same module";
                    self.error(&key, message, remedy);
                }
            }
        }
    }

    fn functions_api(&self) {
        if let Some(cluster) = &self.config.functions_api.cluster {
            let clusters = &self.config.clusters;
            self.declared(
                "functions_api.cluster",
                "cluster",
                "clusters",
                cluster,
                clusters,
            );
        }
    }

    fn functions(&self, functions: &BTreeMap<String, FunctionTable>) {
        for (id, function) in functions {
            let path = key::join("functions", id);
            let pipelines = &self.config.pipelines;
            self.declared(
                &key::join(&path, "pipeline"),
                "pipeline",
                "pipelines",
                &function.pipeline,
                pipelines,
            );
            for (name, model) in &function.models {
                let path = key::join(&key::join(&path, "models"), name);
                let cluster = key::join(&path, "cluster");
                self.declared(
                    &cluster,
                    "cluster",
                    "clusters",
                    &model.cluster,
                    &self.config.clusters,
                );
                if let Some(method) = &model.routing_method {
                    self.routing_method(
                        &key::join(&path, "routing_method"),
                        &function.pipeline,
                        method,
                    );
                }
            }
        }
    }

    /// A method is checked where the built-in filter alone decides on it.
    fn routing_method(&self, key: &str, pipeline: &str, method: &str) {
        let names = self
            .config
            .pipelines
            .get(pipeline)
            .map(|p| p.filters.as_slice());
        let filters = || {
            names
                .unwrap_or_default()
                .iter()
                .filter_map(|f| self.config.filters.get(f))
        };
        let own_method = ModuleRef::Builtin("routing-method".into());
        let builtin = |module: &ModuleRef| *module == own_method;
        let decides = filters().any(|filter| builtin(&filter.module))
            && !filters().any(|f| f.role == Some(FilterRole::Routing) && !builtin(&f.module));
        let known = ROUTING_METHODS.contains(&method) || ROUTING_METHOD_ALIASES.contains(&method);
        if decides && !known {
            let remedy = format!(
                "use one of: {}; or a routing filter of your own (role = \"routing\")",
                ROUTING_METHODS.join(", ")
            );
            self.error(key, format!("no routing method named `{method}`"), remedy);
        }
    }

    fn routes(&self) {
        let routes = &self.config.routes;
        for (index, route) in routes.iter().enumerate() {
            let path = format!("routes[{index}]");
            self.declared(
                &format!("{path}.cluster"),
                "cluster",
                "clusters",
                &route.cluster,
                &self.config.clusters,
            );
            let cluster = self.config.clusters.get(&route.cluster);
            let workers_only =
                cluster.is_some_and(|cluster| cluster.endpoints.is_empty() && cluster.workers);
            if workers_only && route.workers_of.is_none() {
                let message = format!(
                    "cluster `{}` has workers only, which serve models",
                    route.cluster
                );
                let remedy = "say which in workers_of = \"function/model\", or give it endpoints";
                self.error(&format!("{path}.cluster"), message, remedy);
            }
            if route.workers_of.is_some() && cluster.is_some_and(|cluster| !cluster.workers) {
                self.error(
                    &format!("{path}.workers_of"),
                    format!("cluster `{}` has no workers", route.cluster),
                    "give it workers = true, or remove `workers_of`",
                );
            }
            if let Some(pipeline) = &route.pipeline {
                let pipelines = &self.config.pipelines;
                self.declared(
                    &format!("{path}.pipeline"),
                    "pipeline",
                    "pipelines",
                    pipeline,
                    pipelines,
                );
            }
            let same =
                |o: &&crate::RouteTable| o.path_prefix == route.path_prefix && o.host == route.host;
            if routes.iter().take(index).any(|other| same(&other)) {
                let message = format!("two routes have the prefix `{}`", route.path_prefix);
                self.error(
                    &format!("{path}.path_prefix"),
                    message,
                    "remove one or give it a `host`",
                );
            }
        }
    }

    fn declared<T>(
        &self,
        key: &str,
        what: &str,
        table: &str,
        name: &str,
        declared: &BTreeMap<String, T>,
    ) {
        if declared.contains_key(name) {
            return;
        }
        let known: Vec<&str> = declared.keys().map(String::as_str).collect();
        let mut remedy = format!("declare [{table}.{}]", key::segment(name));
        if !known.is_empty() {
            remedy = format!("{remedy} or use one of: {}", known.join(", "));
        }
        self.error(key, format!("no {what} named `{name}`"), remedy);
    }

    fn error(&self, key: &str, message: String, remedy: impl Into<String>) {
        self.report.add_at(self.root, key, message, remedy);
    }
}
