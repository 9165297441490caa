//! The tables `[filters.NAME]`: a Wasm module, what it may do, and its own configuration.

use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::field::{BYTES, Field, TIME_MS};
use crate::key;
use crate::reader::Table;

/// The filters inside the binary, as `builtin:NAME`.
pub const BUILTINS: [&str; 4] = ["auth", "token-limit", "session-affinity", "routing-method"];

/// One filter. Live.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilterTable {
    /// Its code.
    pub module: ModuleRef,
    /// What it is there for; `builtin:auth` has [`FilterRole::Auth`] without saying so.
    pub role: Option<FilterRole>,
    /// What happens to the exchange when it fails.
    pub on_error: OnError,
    /// What it may read, write and call.
    pub grants: Grants,
    /// What it may use up.
    pub limits: FilterLimits,
    /// Its own configuration, opaque here; always an object.
    pub config: serde_json::Value,
}

/// Where the code of a filter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleRef {
    /// `builtin:NAME`: inside the binary; the name is one of [`BUILTINS`].
    Builtin(String),
    /// A `.wasm` file, looked at live. Relative to the folder of the config file.
    Path(PathBuf),
}

/// What a filter is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FilterRole {
    /// It decides who may call: its failure is never an admission.
    Auth,
    /// It limits.
    Limit,
    /// It keeps conversations on one endpoint.
    Affinity,
    /// It ranks endpoints.
    Routing,
}

/// What happens to an exchange when a filter fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// It is refused.
    #[default]
    Deny,
    /// It goes on as if the filter were not there. Not for the role auth.
    Allow,
    /// The phase is called once more on a fresh instance, then it is refused.
    RetryFresh,
}

/// What a filter may read, write and call. Nothing that is not named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Grants {
    /// Header fields it sees, in lower case; `*` is all.
    pub read_headers: Vec<String>,
    /// Header fields it may set or remove, in lower case; `*` is all.
    pub write_headers: Vec<String>,
    /// Whether it sees the body.
    pub read_body: bool,
    /// JSON pointers of the body it may change, each with what is below it; `*` is all.
    pub write_json: Vec<String>,
    /// Whether it may set attributes, in the name space of its own name, and replace settings of
    /// the model for the exchange at hand.
    pub attributes: bool,
    /// Key tables it may look keys up in.
    pub key_tables: Vec<String>,
    /// Key sets it may read.
    pub key_sets: Vec<String>,
    /// Clusters it may send requests of its own to.
    pub clusters: Vec<String>,
    /// Whether it may reserve from token budgets.
    pub limiters: bool,
    /// Whether it may use the shared store.
    pub stores: bool,
    /// Whether it may see and reserve slots of endpoints.
    pub slots: bool,
    /// Whether it may answer or refuse the exchange itself.
    pub respond: bool,
    /// How much of WASI it gets.
    pub wasi: WasiGrant,
}

/// How much of WASI a filter gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WasiGrant {
    /// Nothing: a module that imports it is refused.
    #[default]
    None,
    /// Clocks, randomness and an empty environment; never files or sockets.
    Minimal,
}

/// What a filter may use up. Beyond it, its call fails (times, memory, calls, edits) or what it
/// says is dropped (log, metrics).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilterLimits {
    /// Time of one request phase, in milliseconds.
    pub request_ms: u64,
    /// Time of one stream event, in milliseconds.
    pub event_ms: u64,
    /// Time to start an instance, in milliseconds.
    pub init_ms: u64,
    /// Memory of one instance, in bytes.
    pub memory_bytes: u64,
    /// Instances at once.
    pub instances_max: u32,
    /// Calls after which an instance is replaced.
    pub calls_max: u64,
    /// Log text of one call, in bytes.
    pub log_bytes: u32,
    /// Log lines of all instances together, per second.
    pub log_lines_per_second: u32,
    /// What it may keep per exchange between phases, in bytes.
    pub scratch_bytes: u32,
    /// Edits one call may return.
    pub edits_max: u32,
    /// Requests of its own under way at once; a further one fails.
    pub sends_max: u32,
    /// Series its metrics may have.
    pub metric_series_max: u32,
}

impl Serialize for ModuleRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Builtin(name) => serializer.collect_str(&format_args!("builtin:{name}")),
            Self::Path(path) => path.serialize(serializer),
        }
    }
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            read_headers: Vec::new(),
            write_headers: Vec::new(),
            read_body: false,
            write_json: Vec::new(),
            attributes: false,
            key_tables: Vec::new(),
            key_sets: Vec::new(),
            clusters: Vec::new(),
            limiters: false,
            stores: false,
            slots: false,
            respond: true,
            wasi: WasiGrant::None,
        }
    }
}

impl Default for FilterLimits {
    fn default() -> Self {
        Self {
            request_ms: 5,
            event_ms: 1,
            init_ms: 50,
            memory_bytes: 16 << 20,
            instances_max: 64,
            calls_max: 100_000,
            log_bytes: 8_192,
            log_lines_per_second: 100,
            scratch_bytes: 4_096,
            edits_max: 64,
            sends_max: 32,
            metric_series_max: 1_000,
        }
    }
}

impl FilterTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let module = table.required(
            "module",
            ModuleRef::Path(PathBuf::new()),
            "add module = \"builtin:NAME\" or the path of a .wasm file",
            module,
        );
        let role = table.optional("role", role);
        let is_auth = module == ModuleRef::Builtin("auth".into());
        if is_auth && role.is_some_and(|role| role != FilterRole::Auth) {
            let message = "`builtin:auth` has the role auth".into();
            table.error("role", message, "remove `role`");
        }
        let role = if is_auth {
            Some(FilterRole::Auth)
        } else {
            role
        };
        let on_error = table.or("on_error", OnError::default(), on_error);
        if on_error == OnError::Allow && role == Some(FilterRole::Auth) {
            let message = "a filter with the role auth must not allow what it failed to check";
            table.error("on_error", message.into(), "use deny or retry-fresh");
        }
        let read = Self {
            module,
            role,
            on_error,
            grants: table.below("grants", Grants::default(), Grants::read),
            limits: table.below("limits", FilterLimits::default(), FilterLimits::read),
            config: table.or("config", serde_json::json!({}), |f| {
                f.table()?;
                f.json()
            }),
        };
        table.finish();
        read
    }
}

fn module(field: &Field<'_>) -> Option<ModuleRef> {
    let text = field.name()?;
    let Some(name) = text.strip_prefix("builtin:") else {
        return Some(ModuleRef::Path(PathBuf::from(text)));
    };
    if BUILTINS.contains(&name) {
        return Some(ModuleRef::Builtin(name.to_owned()));
    }
    let remedy = match key::nearest(name, &BUILTINS) {
        Some(known) => format!("did you mean `builtin:{known}`?"),
        None => format!(
            "use one of: {}; or the path of a .wasm file",
            BUILTINS.join(", ")
        ),
    };
    field.error(format!("no built-in filter named `{name}`"), remedy)
}

fn role(field: &Field<'_>) -> Option<FilterRole> {
    field.choice(&[
        ("auth", FilterRole::Auth),
        ("limit", FilterRole::Limit),
        ("affinity", FilterRole::Affinity),
        ("routing", FilterRole::Routing),
    ])
}

fn on_error(field: &Field<'_>) -> Option<OnError> {
    field.choice(&[
        ("deny", OnError::Deny),
        ("allow", OnError::Allow),
        ("retry-fresh", OnError::RetryFresh),
    ])
}

impl Grants {
    fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let wasi = [("none", WasiGrant::None), ("minimal", WasiGrant::Minimal)];
        let read = Self {
            read_headers: table.or("read_headers", default.read_headers, |f| f.list(header)),
            write_headers: table.or("write_headers", default.write_headers, |f| f.list(header)),
            read_body: table.or("read_body", default.read_body, Field::flag),
            write_json: table.or("write_json", default.write_json, |f| f.list(pointer)),
            attributes: table.or("attributes", default.attributes, Field::flag),
            key_tables: table.or("key_tables", default.key_tables, Field::names),
            key_sets: table.or("key_sets", default.key_sets, Field::names),
            clusters: table.or("clusters", default.clusters, Field::names),
            limiters: table.or("limiters", default.limiters, Field::flag),
            stores: table.or("stores", default.stores, Field::flag),
            slots: table.or("slots", default.slots, Field::flag),
            respond: table.or("respond", default.respond, Field::flag),
            wasi: table.or("wasi", default.wasi, |f| f.choice(&wasi)),
        };
        table.finish();
        read
    }
}

/// A header field name (RFC 9110 5.6.2), in lower case, or `*`.
pub(crate) fn header(field: &Field<'_>) -> Option<String> {
    let text = field.name()?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.bytes().all(token) && (text == "*" || !text.contains('*')) {
        return Some(text.to_ascii_lowercase());
    }
    field.error(
        format!("`{text}` is not a header name"),
        "write one name per element, or \"*\" for all",
    )
}

/// A JSON pointer (RFC 6901), or `*`.
fn pointer(field: &Field<'_>) -> Option<String> {
    let text = field.name()?;
    if text == "*" || text.starts_with('/') {
        return Some(text);
    }
    field.error(
        format!("`{text}` is not a JSON pointer"),
        "write for example \"/temperature\", or \"*\" for all",
    )
}

impl FilterLimits {
    fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let log_lines = default.log_lines_per_second;
        let read = Self {
            request_ms: table.or("request_ms", default.request_ms, |f| f.integer(1..=60_000)),
            event_ms: table.or("event_ms", default.event_ms, |f| f.integer(1..=60_000)),
            init_ms: table.or("init_ms", default.init_ms, |f| f.integer(TIME_MS)),
            memory_bytes: table.or("memory_bytes", default.memory_bytes, |f| {
                f.integer(65_536..=*BYTES.end())
            }),
            instances_max: table.or("instances_max", default.instances_max, |f| {
                f.integer(1..=10_000)
            }),
            calls_max: table.or("calls_max", default.calls_max, |f| f.integer(1..=1 << 40)),
            log_bytes: table.or("log_bytes", default.log_bytes, |f| f.integer(0..=1 << 20)),
            log_lines_per_second: table.or("log_lines_per_second", log_lines, |f| {
                f.integer(0..=1_000_000)
            }),
            scratch_bytes: table.or("scratch_bytes", default.scratch_bytes, |f| {
                f.integer(0..=1 << 20)
            }),
            edits_max: table.or("edits_max", default.edits_max, |f| f.integer(0..=10_000)),
            sends_max: table.or("sends_max", default.sends_max, |f| f.integer(1..=10_000)),
            metric_series_max: table.or("metric_series_max", default.metric_series_max, |f| {
                f.integer(0..=100_000)
            }),
        };
        table.finish();
        read
    }
}
