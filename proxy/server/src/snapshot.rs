//! The live configuration compiled: immutable, pinned by an exchange from start to end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use weir_config::{ClusterTable, Config, PriorityTable, RouteTable};
use weir_host::{KeySets, KeyTable, KeyTables, WasmFilter};
use weir_pipeline::chain::Chain;
use weir_pipeline::correction::Corrections;
use weir_pipeline::intern::NameId;
use weir_pipeline::settings::ModelSettings;
use weir_routing::EjectionPolicy;

use crate::members::{Members, Membership};
use crate::runtime::Runtime;
use crate::telemetry::KnownSets;

/// Models by function id and model name.
pub(crate) type Functions = HashMap<Box<str>, HashMap<Box<str>, Arc<ModelTarget>>>;

/// Everything a request needs that the config decides.
pub(crate) struct Snapshot {
    /// Counts the configurations this process has served, from 1.
    pub(crate) number: u64,
    /// The config it was compiled from.
    pub(crate) config: Config,
    /// Its text, for the history.
    pub(crate) text: Arc<str>,
    /// All filters by their name in the config.
    pub(crate) filters: BTreeMap<String, Arc<WasmFilter>>,
    /// The chain that decides about callers whose function is not known: pipeline `default`, or
    /// the only one there is.
    pub(crate) default_chain: Option<Arc<Chain>>,
    /// Models by function id and model name.
    pub(crate) functions: Functions,
    /// All clusters by name.
    pub(crate) upstreams: BTreeMap<String, Arc<Upstream>>,
    /// Pass-through routes, longest prefix first.
    pub(crate) routes: Vec<Route>,
    /// Who may call; made live together with the snapshot.
    pub(crate) key_tables: Arc<KeyTables>,
    /// Whose tokens count; made live together with the snapshot.
    pub(crate) key_sets: Arc<KeySets>,
    /// Tokens of workers; the tenant of each is the function it serves.
    pub(crate) worker_tokens: KeyTable,
}

impl Snapshot {
    /// What the config says of `function/model`.
    pub(crate) fn model(&self, function: &str, model: &str) -> Option<&Arc<ModelTarget>> {
        self.functions.get(function)?.get(model)
    }

    /// Everybody who answers: clusters, and clusters as they serve one model.
    pub(crate) fn all_upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        let models = self.functions.values().flat_map(HashMap::values);
        let models = models.map(|model| &model.upstream);
        let routes = self.routes.iter().map(|route| &route.upstream);
        self.upstreams.values().chain(models).chain(routes)
    }

    /// The pass-through route of a path, the longest prefix first.
    pub(crate) fn route(&self, host: Option<&str>, path: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.matches(host, path))
    }
}

/// One model of one function.
pub(crate) struct ModelTarget {
    /// Function id.
    pub(crate) routing_key: Arc<str>,
    /// The same interned.
    pub(crate) routing_key_id: NameId,
    /// Model name.
    pub(crate) model: Arc<str>,
    /// The same interned.
    pub(crate) model_id: NameId,
    /// `function/model`, what callers write.
    pub(crate) full_name: Arc<str>,
    /// The model name for the upstream as a JSON string.
    pub(crate) upstream_model_json: Vec<u8>,
    /// Paths it answers on; empty = all.
    pub(crate) uris: Vec<String>,
    /// What the config says of it to filters; none: nothing.
    pub(crate) settings: Option<Arc<ModelSettings>>,
    /// The same as one id.
    pub(crate) settings_id: NameId,
    /// Whose calls come first, where keys do not say.
    pub(crate) priority: Option<Arc<PriorityTable>>,
    /// What estimates of its input have been wrong by; goes over to the next snapshot.
    pub(crate) corrections: Arc<Corrections>,
    /// Who decides.
    pub(crate) chain: Arc<Chain>,
    /// Who answers.
    pub(crate) upstream: Arc<Upstream>,
    /// What is measured of it.
    pub(crate) series: KnownSets,
}

impl ModelTarget {
    /// Whether the model answers on `path`; lenient about case and slashes at the end.
    pub(crate) fn supports(&self, path: &str) -> bool {
        let plain = |uri: &str| format!("/{}", uri.trim().trim_matches('/')).to_ascii_lowercase();
        self.uris.is_empty()
            || self
                .uris
                .iter()
                .any(|uri| uri == path || plain(uri) == plain(path))
    }
}

/// A cluster with what is needed to talk to its backends.
pub(crate) struct Upstream {
    /// Name in the config.
    pub(crate) name: Arc<str>,
    /// Its backends, their state and how each is dialled.
    pub(crate) membership: Membership,
    /// The cluster's own credential, and the header it goes in.
    pub(crate) credential: Option<(HeaderName, HeaderValue)>,
    /// Whether the caller's credential goes upstream.
    pub(crate) pass_authorization: bool,
    /// Further candidates tried.
    pub(crate) retries: u32,
    /// How long an exchange waits for a backend with room.
    pub(crate) max_wait: Duration,
    /// When a backend is taken out.
    pub(crate) ejection: EjectionPolicy,
    /// To a new connection.
    pub(crate) connect_timeout: Duration,
    /// To the first byte of the answer.
    pub(crate) first_byte_timeout: Duration,
    /// Between two pieces of an answer.
    pub(crate) between_bytes_timeout: Duration,
    /// For one write, upstream and to the caller.
    pub(crate) write_timeout: Duration,
    /// How long an unused connection is kept.
    pub(crate) idle_timeout: Duration,
    /// The table it was made from.
    pub(crate) table: ClusterTable,
}

impl Upstream {
    /// The members of now. An exchange takes them once: what it has tried are positions in them.
    pub(crate) fn members(&self, runtime: &Runtime) -> Arc<Members> {
        self.membership.now(&runtime.fleet, runtime.now_ms())
    }
}

/// A pass-through route.
pub(crate) struct Route {
    /// The table it was made from.
    pub(crate) table: RouteTable,
    /// Whose header phases decide.
    pub(crate) chain: Option<Arc<Chain>>,
    /// Who answers.
    pub(crate) upstream: Arc<Upstream>,
}

impl Route {
    fn matches(&self, host: Option<&str>, path: &str) -> bool {
        let host_matches = match &self.table.host {
            None => true,
            Some(wanted) => host.is_some_and(|host| host.eq_ignore_ascii_case(wanted)),
        };
        host_matches && path.starts_with(&self.table.path_prefix)
    }
}
