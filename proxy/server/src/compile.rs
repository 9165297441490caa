//! A config made into a snapshot: off the request path, all errors at once, nothing changed on failure.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use pingora::protocols::ALPN;
use pingora::upstreams::peer::PeerOptions;
use weir_config::{
    ClusterTable, Config, ConfigError, DnsTable, Endpoint, FilterTable, ModelTable, ModuleRef,
    OnError,
};
use weir_host::{Host, KeySets, KeyTables, PrepareError, WasmFilter};
use weir_pipeline::chain::Chain;
use weir_pipeline::correction::Corrections;
use weir_pipeline::filter::Filter;
use weir_pipeline::intern::NameId;
use weir_pipeline::settings::ModelSettings;
use weir_routing::{ClusterSpec, EjectionPolicy, Fleet};

use crate::builtin;
use crate::key_sets;
use crate::key_tables;
use crate::members::{self, Declared, Membership, Place};
use crate::names::Names;
use crate::snapshot::{Functions, ModelTarget, Route, Snapshot, Upstream};
use crate::telemetry::KnownSets;
use crate::upstream::IdleByAddress;
use crate::workers::listen;
use crate::workers::registry::Workers;

/// Streams on one HTTP/2 connection to a backend: enough for all that a model server takes;
/// pingora's default of one would open a connection for each.
const H2_STREAMS_MAX: u32 = 128;
/// What a backend may send on one of them before it is read.
const H2_STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// Where a config comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// Shown in errors.
    pub(crate) file: String,
    /// Relative paths in the config start here.
    pub(crate) folder: PathBuf,
}

impl Origin {
    /// The config compiled into the binary.
    pub(crate) fn embedded() -> Self {
        Self {
            file: "embedded config".into(),
            folder: PathBuf::from("."),
        }
    }

    /// A file.
    pub(crate) fn of(path: &std::path::Path) -> Self {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        Self {
            file: path.display().to_string(),
            folder: folder.map_or_else(|| PathBuf::from("."), PathBuf::from),
        }
    }
}

/// What a snapshot is compiled with.
pub(crate) struct Compiler<'a> {
    /// Runs the filters.
    pub(crate) host: &'a Arc<Host>,
    /// Keeps the state of backends.
    pub(crate) fleet: &'a Fleet,
    /// Model servers that dial in.
    pub(crate) workers: &'a Workers,
    /// Where names point.
    pub(crate) names: &'a Names,
    /// Connections that wait for the next request.
    pub(crate) idle: &'a Arc<IdleByAddress>,
    /// Where the config comes from.
    pub(crate) origin: &'a Origin,
    /// Filters that have not changed keep their instances.
    pub(crate) previous: Option<&'a Snapshot>,
}

impl Compiler<'_> {
    /// Compiles a config.
    ///
    /// # Errors
    /// Everything that is wrong with it beyond its form: modules that cannot be loaded, filters
    /// that refuse their table, addresses that do not resolve, key files.
    pub(crate) fn compile(
        &self,
        config: Config,
        text: Arc<str>,
        number: u64,
    ) -> Result<Snapshot, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let filters = self.filters(&config, &text, &mut errors);
        let upstreams = self.upstreams(&config, &text, &mut errors);
        let key_tables =
            key_tables::read(&config, &text, self.origin, &self.host.services().interner);
        let key_tables = key_tables.unwrap_or_else(|more| {
            errors.extend(more);
            KeyTables::default()
        });
        let key_sets = key_sets::read(&config, &text, self.origin).unwrap_or_else(|more| {
            errors.extend(more);
            KeySets::default()
        });
        self.check_workers(&config, &text, &mut errors);
        if !errors.is_empty() {
            errors.sort_by_key(|error| (error.line, error.column));
            return Err(errors);
        }
        let chains: HashMap<String, Arc<Chain>> = config
            .pipelines
            .iter()
            .map(|(name, table)| {
                let members = table
                    .filters
                    .iter()
                    .filter_map(|filter| filters.get(filter));
                let members = members
                    .map(|filter| Arc::clone(filter) as Arc<dyn Filter>)
                    .collect();
                (name.clone(), Arc::new(Chain::new(name, members)))
            })
            .collect();
        let no_room = || {
            let message = "the process has no room for more names of models and settings";
            vec![self.error(
                &text,
                "functions",
                message.to_owned(),
                "restart the gateway: names of earlier configurations are kept",
            )]
        };
        let functions = self
            .functions(&config, &chains, &upstreams)
            .ok_or_else(no_room)?;
        let routes = self.routes(&config, &chains, &upstreams);
        let worker_tokens =
            key_tables::worker_tokens(&config.workers, &self.host.services().interner);
        let default_chain = chains
            .get("default")
            .or_else(|| chains.values().next().filter(|_| chains.len() == 1))
            .cloned();
        Ok(Snapshot {
            number,
            functions,
            routes,
            config,
            text,
            filters,
            default_chain,
            upstreams,
            key_tables: Arc::new(key_tables),
            key_sets: Arc::new(key_sets),
            worker_tokens,
        })
    }

    /// The certificate that agents are shown.
    fn check_workers(&self, config: &Config, text: &str, errors: &mut Vec<ConfigError>) {
        let given = config.workers.tls.is_some();
        if given && let Err(error) = listen::tls(&config.workers, self.origin) {
            errors.push(self.error(
                text,
                "workers.tls",
                error.to_string(),
                "give the PEM files of a certificate chain and its key",
            ));
        }
    }

    fn filters(
        &self,
        config: &Config,
        text: &str,
        errors: &mut Vec<ConfigError>,
    ) -> BTreeMap<String, Arc<WasmFilter>> {
        let mut filters = BTreeMap::new();
        for (name, table) in &config.filters {
            match self.filter(name, table, text) {
                Ok(filter) => drop(filters.insert(name.clone(), filter)),
                Err(more) => errors.extend(more),
            }
        }
        filters
    }

    fn filter(
        &self,
        name: &str,
        table: &FilterTable,
        text: &str,
    ) -> Result<Arc<WasmFilter>, Vec<ConfigError>> {
        let at_module = |message: String, remedy: &str| {
            vec![self.error(text, &format!("filters.{name}.module"), message, remedy)]
        };
        let bytes: std::borrow::Cow<'static, [u8]> = match &table.module {
            ModuleRef::Builtin(builtin) => match builtin::module(builtin) {
                Some(bytes) => bytes.into(),
                None => {
                    return Err(at_module(
                        format!("no built-in filter `{builtin}`"),
                        "use one of the names in the message of `weir check`",
                    ));
                }
            },
            ModuleRef::Path(path) => {
                let path = weir_config::resolve(&self.origin.folder, path);
                match std::fs::read(&path) {
                    Ok(bytes) => bytes.into(),
                    Err(error) => {
                        let message = format!("cannot read {}: {error}", path.display());
                        return Err(at_module(
                            message,
                            "build the filter (`weir filter build`) or correct the path",
                        ));
                    }
                }
            }
        };
        let module = self.host.load(&bytes).map_err(|error| {
            at_module(error.to_string(), "a filter is a component, or a core module with component type information (`weir filter build`)")
        })?;
        if let Some(kept) = self.unchanged(name, table, &module.sha256) {
            return Ok(kept);
        }
        let filter = self
            .host
            .prepare(name, &module, table)
            .map_err(|error| match error {
                PrepareError::Config(found) => found
                    .into_iter()
                    .map(|fault| {
                        weir_config::filter_error(
                            text,
                            &self.origin.file,
                            name,
                            &fault.pointer,
                            fault.message,
                        )
                    })
                    .collect(),
                other => vec![self.error(
                    text,
                    &format!("filters.{name}"),
                    other.to_string(),
                    "`weir filter inspect` shows what the module needs",
                )],
            })?;
        let takes_part = filter.phases();
        if takes_part.authorize && table.on_error == OnError::Allow {
            let message = "a filter that authorizes may not be skipped when it fails".to_owned();
            return Err(vec![self.error(
                text,
                &format!("filters.{name}.on_error"),
                message,
                "use on_error = \"deny\" or \"retry-fresh\"",
            )]);
        }
        Ok(filter)
    }

    /// The filter of the previous snapshot, when neither module nor table has changed.
    fn unchanged(&self, name: &str, table: &FilterTable, sha256: &str) -> Option<Arc<WasmFilter>> {
        let previous = self.previous?;
        let filter = previous.filters.get(name)?;
        let same =
            previous.config.filters.get(name) == Some(table) && filter.module_sha256() == sha256;
        same.then(|| Arc::clone(filter))
    }

    fn upstreams(
        &self,
        config: &Config,
        text: &str,
        errors: &mut Vec<ConfigError>,
    ) -> BTreeMap<String, Arc<Upstream>> {
        let mut upstreams = BTreeMap::new();
        for (name, table) in &config.clusters {
            let mut endpoints = Vec::with_capacity(table.endpoints.len());
            for (place, endpoint) in table.endpoints.iter().enumerate() {
                match self.endpoint(table, endpoint, &config.dns) {
                    Ok(endpoint) => endpoints.push(endpoint),
                    Err(message) => {
                        let key = format!("clusters.{name}.endpoints[{place}]");
                        errors.push(self.error(
                            text,
                            &key,
                            message,
                            "check the name, or write an IP address",
                        ));
                    }
                }
            }
            let credential = match credential(table).transpose() {
                Ok(credential) => credential,
                Err(_) => {
                    let key = format!("clusters.{name}.api_key");
                    errors.push(self.error(
                        text,
                        &key,
                        "the key holds characters that no header may".into(),
                        "remove control characters",
                    ));
                    None
                }
            };
            let membership = Membership::new(Declared {
                spec: cluster_spec(name, table),
                endpoints,
                prefer: config.dns.prefer,
                max_concurrency: table.max_concurrency,
                sni: table.tls.as_ref().map(|tls| tls.sni.clone()),
                options: peer_options(table),
                idle: Arc::clone(self.idle),
            });
            // Now, while the backends of the configuration before it live.
            membership.now(self.fleet, weir_host::Services::now_ms());
            upstreams.insert(
                name.clone(),
                Arc::new(upstream(name, table, membership, credential)),
            );
        }
        upstreams
    }

    fn endpoint(
        &self,
        table: &ClusterTable,
        endpoint: &Endpoint,
        dns: &DnsTable,
    ) -> Result<members::Endpoint, String> {
        let text = &endpoint.address;
        let place = match text.parse::<SocketAddr>() {
            Ok(address) => Place::Fixed(address),
            Err(_) => Place::Named(self.names.get(text, dns.refresh_ms > 0)?),
        };
        let authority = table.tls.as_ref().map_or(text, |tls| &tls.sni);
        let authority = HeaderValue::from_str(authority)
            .map_err(|_| format!("`{authority}` cannot be a host name"))?;
        Ok(members::Endpoint {
            text: text.clone(),
            place,
            weight: endpoint.weight,
            authority,
        })
    }

    /// `None` when there is no room for another name.
    fn functions(
        &self,
        config: &Config,
        chains: &HashMap<String, Arc<Chain>>,
        upstreams: &BTreeMap<String, Arc<Upstream>>,
    ) -> Option<Functions> {
        let interner = &self.host.services().interner;
        let mut functions = HashMap::new();
        for (id, function) in &config.functions {
            let Some(chain) = chains.get(&function.pipeline) else {
                continue;
            };
            let priority = function.priority.clone().map(Arc::new);
            let mut models = HashMap::new();
            for (name, model) in &function.models {
                let Some(upstream) = upstreams.get(&model.cluster) else {
                    continue;
                };
                let upstream = if upstream.table.workers {
                    Arc::new(self.with_workers(upstream, id, name))
                } else {
                    Arc::clone(upstream)
                };
                let upstream_model = model.upstream_model.as_deref().unwrap_or(name);
                let settings = settings(model);
                let settings_id = settings.id(interner)?;
                let target = ModelTarget {
                    settings: (settings_id != NameId::NONE).then(|| Arc::new(settings)),
                    settings_id,
                    priority: priority.clone(),
                    routing_key: Arc::from(id.as_str()),
                    routing_key_id: interner.intern(id),
                    model: Arc::from(name.as_str()),
                    model_id: interner.intern(name),
                    full_name: Arc::from(format!("{id}/{name}")),
                    upstream_model_json: weir_dialect::quote(upstream_model),
                    uris: model.uris.clone(),
                    corrections: self.corrections(id, name),
                    chain: Arc::clone(chain),
                    upstream,
                    series: KnownSets::default(),
                };
                models.insert(name.as_str().into(), Arc::new(target));
            }
            let id = weir_dialect::normal_routing_key(id);
            functions.insert(id.as_ref().into(), models);
        }
        Some(functions)
    }

    /// Each with its cluster, as that serves the model whose workers it reaches.
    fn routes(
        &self,
        config: &Config,
        chains: &HashMap<String, Arc<Chain>>,
        upstreams: &BTreeMap<String, Arc<Upstream>>,
    ) -> Vec<Route> {
        let mut routes = Vec::with_capacity(config.routes.len());
        for table in &config.routes {
            let Some(upstream) = upstreams.get(&table.cluster) else {
                continue;
            };
            let upstream = match &table.workers_of {
                Some(served) => {
                    Arc::new(self.with_workers(upstream, &served.function, &served.model))
                }
                None => Arc::clone(upstream),
            };
            let chain = table.pipeline.as_ref().and_then(|name| chains.get(name));
            routes.push(Route {
                table: table.clone(),
                chain: chain.cloned(),
                upstream,
            });
        }
        // Longest prefix first; of equal ones those that name a host.
        routes.sort_by_key(|route| {
            std::cmp::Reverse((route.table.path_prefix.len(), route.table.host.is_some()))
        });
        routes
    }

    /// A cluster as it serves one model: by its endpoints and whoever has dialled in for that model.
    fn with_workers(&self, base: &Upstream, function: &str, model: &str) -> Upstream {
        let function = weir_dialect::normal_routing_key(function);
        let pool = self.workers.pool(&function, model);
        let serving = format!("{function}/{model}");
        let membership = base.membership.and_workers(pool, &serving);
        upstream(&base.name, &base.table, membership, base.credential.clone())
    }

    /// What was learned of a model outlives its configuration.
    fn corrections(&self, function: &str, model: &str) -> Arc<Corrections> {
        let function = weir_dialect::normal_routing_key(function);
        let known = self
            .previous
            .and_then(|previous| previous.model(&function, model));
        known.map_or_else(Arc::default, |target| Arc::clone(&target.corrections))
    }

    fn error(&self, text: &str, key: &str, message: String, remedy: &str) -> ConfigError {
        located(text, &self.origin.file, key, message, remedy)
    }
}

/// What filters read of a model's table.
fn settings(model: &ModelTable) -> ModelSettings {
    let text = |value: &Option<String>| value.as_deref().map(Arc::from);
    ModelSettings {
        routing_method: text(&model.routing_method),
        token_rate_limit: text(&model.token_rate_limit),
        input_token_rate_limit: text(&model.input_token_rate_limit),
        output_token_rate_limit: text(&model.output_token_rate_limit),
        request_rate_limit: text(&model.request_rate_limit),
    }
}

/// A cluster's own key as a header.
fn credential(table: &ClusterTable) -> Option<Result<(HeaderName, HeaderValue), http::Error>> {
    let key = table.api_key.as_ref()?.reveal();
    let header = || {
        let name = HeaderName::try_from(&table.api_key_header)?;
        let mut value = if name == AUTHORIZATION {
            HeaderValue::try_from(format!("Bearer {key}"))?
        } else {
            HeaderValue::try_from(key)?
        };
        value.set_sensitive(true);
        Ok((name, value))
    };
    Some(header())
}

/// An error placed in the file.
pub(crate) fn located(
    text: &str,
    file: &str,
    key: &str,
    message: String,
    remedy: &str,
) -> ConfigError {
    let (line, column) = weir_config::locate(text, key).unwrap_or((1, 1));
    ConfigError {
        file: file.to_owned(),
        line,
        column,
        key: key.to_owned(),
        message,
        remedy: remedy.to_owned(),
    }
}

/// How pingora's connector treats connections to a cluster.
fn peer_options(table: &ClusterTable) -> PeerOptions {
    let mut options = PeerOptions::new();
    options.connection_timeout = Some(Duration::from_millis(table.connect_timeout_ms));
    options.total_connection_timeout = Some(Duration::from_millis(table.connect_timeout_ms));
    options.idle_timeout = Some(Duration::from_millis(table.idle_timeout_ms));
    options.alpn = if table.http2 { ALPN::H2 } else { ALPN::H1 };
    options.max_h2_streams = H2_STREAMS_MAX as usize;
    // What callers have not read waits in the windows of their streams. The connection has room
    // for all of them: callers that read nothing must not keep the others' answers out.
    options.h2_stream_window_size = Some(H2_STREAM_WINDOW_BYTES);
    options.h2_connection_window_size = Some(H2_STREAM_WINDOW_BYTES * H2_STREAMS_MAX);
    if let Some(tls) = &table.tls {
        options.verify_cert = tls.verify;
        options.verify_hostname = tls.verify;
    }
    options
}

fn ejection(table: &ClusterTable) -> EjectionPolicy {
    EjectionPolicy {
        consecutive_failures: table.ejection.consecutive_failures,
        base_ms: table.ejection.base_ms,
        max_percent: table.ejection.max_percent,
    }
}

/// A cluster without its members.
fn cluster_spec(name: &str, table: &ClusterTable) -> ClusterSpec {
    ClusterSpec {
        name: name.to_owned(),
        members: Vec::new(),
        ejection: ejection(table),
        health: table.health.is_some(),
        slow_start_ms: table.slow_start_ms,
    }
}

fn upstream(
    name: &str,
    table: &ClusterTable,
    membership: Membership,
    credential: Option<(HeaderName, HeaderValue)>,
) -> Upstream {
    Upstream {
        name: Arc::from(name),
        membership,
        credential,
        pass_authorization: table.pass_authorization,
        retries: table.retries,
        max_wait: Duration::from_millis(table.max_wait_ms),
        ejection: ejection(table),
        connect_timeout: Duration::from_millis(table.connect_timeout_ms),
        first_byte_timeout: Duration::from_millis(table.first_byte_timeout_ms),
        between_bytes_timeout: Duration::from_millis(table.between_bytes_timeout_ms),
        write_timeout: Duration::from_millis(table.write_timeout_ms),
        idle_timeout: Duration::from_millis(table.idle_timeout_ms),
        table: table.clone(),
    }
}
