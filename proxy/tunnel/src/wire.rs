//! The messages of the control stream, as values. The schema is `proto/tunnel.proto`.

use std::collections::BTreeMap;
use std::fmt;

/// The newest version of the wire that this program speaks.
pub const VERSION: u32 = 1;

/// The oldest version that it still speaks.
pub const VERSION_MIN: u32 = 1;

/// The longest worker id in bytes.
pub(crate) const WORKER_ID_BYTES_MAX: usize = 256;

/// What the agent may send.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ToGateway {
    #[prost(oneof = "AgentSays", tags = "1, 2, 3")]
    pub(crate) body: Option<AgentSays>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum AgentSays {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Heartbeat(Heartbeat),
    #[prost(message, tag = "3")]
    Draining(Draining),
}

/// What the gateway may send.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ToAgent {
    #[prost(oneof = "GatewaySays", tags = "1, 2, 3, 4, 5")]
    pub(crate) body: Option<GatewaySays>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum GatewaySays {
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    #[prost(message, tag = "2")]
    Refused(Refused),
    #[prost(message, tag = "3")]
    Peers(Peers),
    #[prost(message, tag = "4")]
    Observed(Observed),
    #[prost(message, tag = "5")]
    Draining(Draining),
}

/// The agent's first message: who it is. Its token does not show in debug output.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Hello {
    /// The newest version the agent speaks.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The oldest version it speaks.
    #[prost(uint32, tag = "2")]
    pub oldest_version: u32,
    /// The worker: 1 to 256 printable ASCII characters without spaces, unique in its function.
    #[prost(string, tag = "3")]
    pub worker_id: String,
    /// Grows with every connection of the same worker: of two, the one with the greater is newer.
    #[prost(fixed64, tag = "4")]
    pub epoch: u64,
    /// The worker token. What the worker serves follows from it, never from the worker's claim.
    #[prost(string, tag = "5")]
    pub token: String,
    /// Name of the program, for logs.
    #[prost(string, tag = "6")]
    pub agent: String,
    /// Version of the program, for logs.
    #[prost(string, tag = "7")]
    pub agent_version: String,
    /// Ids of the gateways that the agent has a tunnel to: one of them that is reached by another
    /// address refuses, so that the tunnel that is there stays.
    #[prost(string, repeated, tag = "8")]
    pub connected_gateways: Vec<String>,
}

impl Hello {
    /// A hello in the versions of this program.
    #[must_use]
    pub fn new(worker_id: &str, epoch: u64, token: &str) -> Self {
        Self {
            version: VERSION,
            oldest_version: VERSION_MIN,
            worker_id: worker_id.to_owned(),
            epoch,
            token: token.to_owned(),
            agent: String::new(),
            agent_version: String::new(),
            connected_gateways: Vec::new(),
        }
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("version", &self.version)
            .field("oldest_version", &self.oldest_version)
            .field("worker_id", &self.worker_id)
            .field("epoch", &self.epoch)
            .field("agent", &self.agent)
            .field("agent_version", &self.agent_version)
            .finish_non_exhaustive()
    }
}

/// The gateway accepts the worker.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Welcome {
    /// The version both speak from now on: the lower of the two. [`crate::gateway::Pending`] sets it.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The gateway process, so that an agent that reaches it by two addresses keeps one tunnel.
    #[prost(string, tag = "2")]
    pub gateway_id: String,
    /// The pace of heartbeats the gateway asks for.
    #[prost(uint32, tag = "3")]
    pub heartbeat_ms: u32,
    /// `host:port` of other gateways that the agent should dial too.
    #[prost(string, repeated, tag = "4")]
    pub peers: Vec<String>,
}

/// The gateway does not accept the worker.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    /// Why, for programs; read by [`Refused::code`].
    #[prost(enumeration = "RefusalCode", tag = "1")]
    pub code: i32,
    /// Why, for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// The agent should not dial again before; 0 leaves it to its own back-off.
    #[prost(uint64, tag = "3")]
    pub retry_after_ms: u64,
    /// The gateway that refuses, if it says so.
    #[prost(string, tag = "4")]
    pub gateway_id: String,
}

impl Refused {
    /// A refusal without a wish for the time of the next try.
    #[must_use]
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            retry_after_ms: 0,
            gateway_id: String::new(),
        }
    }
}

/// Why a worker is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum RefusalCode {
    /// A code of a newer version.
    Unspecified = 0,
    /// There is no version that both speak.
    UnsupportedVersion = 1,
    /// The token is missing, wrong or expired.
    Unauthenticated = 2,
    /// The token is good, but not for this worker or gateway.
    Unauthorized = 3,
    /// The worker id is empty, too long or has other characters than it may.
    InvalidWorkerId = 4,
    /// A newer connection of this worker is already there.
    Superseded = 5,
    /// The gateway is about to end.
    Draining = 6,
    /// The gateway has as many workers as it may.
    Overloaded = 7,
    /// The gateway cannot decide now, for instance because its control plane does not answer.
    Unavailable = 8,
    /// The agent has a tunnel to this gateway already, by another address.
    AlreadyConnected = 9,
}

impl RefusalCode {
    /// The code as logs and metrics name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::UnsupportedVersion => "unsupported_version",
            Self::Unauthenticated => "unauthenticated",
            Self::Unauthorized => "unauthorized",
            Self::InvalidWorkerId => "invalid_worker_id",
            Self::Superseded => "superseded",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::AlreadyConnected => "already_connected",
        }
    }
}

/// The whole state of the worker; a model that is not in it is gone.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Heartbeat {
    /// The capacity domain; empty means the worker id.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    /// Where the worker is; may be empty.
    #[prost(string, tag = "2")]
    pub region: String,
    /// The models by name.
    #[prost(btree_map = "string, message", tag = "3")]
    pub models: BTreeMap<String, Model>,
}

/// One model of a worker.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Model {
    /// Whether it takes requests; read by [`Model::status`].
    #[prost(enumeration = "Status", tag = "1")]
    pub status: i32,
    /// Its load.
    #[prost(message, optional, tag = "2")]
    pub stats: Option<ModelStats>,
}

/// Whether a model takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    /// Not known yet; counts as not taking any.
    Unknown = 0,
    /// It does.
    Active = 1,
    /// It does not.
    Inactive = 2,
}

/// The load of one model at a worker. What is absent is not known, which is not zero.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelStats {
    /// Prompt tokens processed per second, a mean of the last samples.
    #[prost(double, optional, tag = "1")]
    pub last_mean_input_tps: Option<f64>,
    /// Tokens generated per second by the whole engine.
    #[prost(double, optional, tag = "2")]
    pub output_tps: Option<f64>,
    /// Requests without any output yet.
    #[prost(uint64, optional, tag = "3")]
    pub queue_size: Option<u64>,
    /// Prompt tokens of those.
    #[prost(uint64, optional, tag = "4")]
    pub queued_input_size: Option<u64>,
    /// The greatest output rate seen.
    #[prost(double, optional, tag = "5")]
    pub max_output_tps: Option<f64>,
    /// Tokens the KV cache can hold.
    #[prost(uint64, optional, tag = "6")]
    pub kv_cache_capacity_tokens: Option<u64>,
    /// Tokens of it that are in use.
    #[prost(uint64, optional, tag = "7")]
    pub kv_cache_used_tokens: Option<u64>,
    /// Tokens of it that are free.
    #[prost(uint64, optional, tag = "8")]
    pub kv_cache_free_tokens: Option<u64>,
    /// Requests the engine works on.
    #[prost(uint64, optional, tag = "9")]
    pub num_running_queries: Option<u64>,
    /// Requests the engine can work on at once; 0 means not known.
    #[prost(uint64, tag = "10")]
    pub max_engine_concurrency: u64,
    /// Prompt tokens of all requests in flight.
    #[prost(uint64, optional, tag = "11")]
    pub total_query_input_size: Option<u64>,
    /// By priority: how long a new request of it would wait for its prompt to be begun. 0 is the
    /// highest priority.
    #[prost(btree_map = "uint32, uint64", tag = "12")]
    pub queue_time_estimate_ms_by_priority: BTreeMap<u32, u64>,
    /// Requests whose prompt is being processed.
    #[prost(uint64, optional, tag = "13")]
    pub input_processing_queries: Option<u64>,
    /// Requests that generate.
    #[prost(uint64, optional, tag = "14")]
    pub output_generation_queries: Option<u64>,
    /// When these figures were taken, by the worker's clock; 0 means not known.
    #[prost(uint64, tag = "15")]
    pub stats_observed_at_unix_ms: u64,
    /// What the figures can say: `input_tps`, `output_tps`, `queue`, `kv_cache`.
    #[prost(string, repeated, tag = "16")]
    pub stats_capabilities: Vec<String>,
    /// Where they come from: `configured`, `calibration`, `gateway`, `metrics`, `stream`.
    #[prost(string, repeated, tag = "17")]
    pub stats_sources: Vec<String>,
    /// The greatest input rate seen.
    #[prost(double, optional, tag = "18")]
    pub max_input_tps: Option<f64>,
}

/// The sender takes nothing new and ends when what runs has ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Draining {
    /// Why, for people.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// When it ends at the latest; 0 means not bounded.
    #[prost(uint64, tag = "2")]
    pub timeout_ms: u64,
}

/// The other gateways, all of them: an agent forgets those that nobody names any more.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Peers {
    /// `host:port` of each.
    #[prost(string, repeated, tag = "1")]
    pub peers: Vec<String>,
}

/// What the gateway sees of this worker through this tunnel.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Observed {
    /// By model; a model that is not in it has nothing in flight.
    #[prost(btree_map = "string, message", tag = "1")]
    pub models: BTreeMap<String, ObservedModel>,
}

/// One model as a gateway sees it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ObservedModel {
    /// Requests in flight now, those that wait among them.
    #[prost(uint64, tag = "1")]
    pub running: u64,
    /// Requests of those without any output yet.
    #[prost(uint64, tag = "2")]
    pub waiting: u64,
    /// Prompt tokens of those that wait.
    #[prost(uint64, tag = "3")]
    pub waiting_input_tokens: u64,
    /// The same by priority.
    #[prost(btree_map = "uint32, uint64", tag = "4")]
    pub waiting_tokens_by_priority: BTreeMap<u32, u64>,
    /// Prompt tokens of all in flight.
    #[prost(uint64, tag = "5")]
    pub running_input_tokens: u64,
    /// What was measured since the last message.
    #[prost(message, optional, tag = "6")]
    pub samples: Option<Samples>,
}

/// Measurements of requests that came to an end of their prompt or of their answer.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Samples {
    /// Requests whose first output was seen.
    #[prost(uint64, tag = "1")]
    pub count: u64,
    /// Prompt tokens of those.
    #[prost(uint64, tag = "2")]
    pub input_tokens: u64,
    /// Time until the first output, summed over those, in microseconds: since the request was sent,
    /// or since the first output before it (of the same model and worker, as this gateway sees it),
    /// whichever was later.
    #[prost(uint64, tag = "3")]
    pub prefill_us: u64,
    /// Tokens generated.
    #[prost(uint64, tag = "4")]
    pub output_tokens: u64,
    /// Time they took, summed over the requests, in microseconds.
    #[prost(uint64, tag = "5")]
    pub decode_us: u64,
}

/// Whether `id` may name a worker.
pub(crate) fn is_worker_id(id: &str) -> bool {
    (1..=WORKER_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

/// The version two programs speak: the lower of their newest, if both still speak it.
pub(crate) fn agreed_version(hello: &Hello) -> Option<u32> {
    let version = hello.version.min(VERSION);
    (version >= VERSION_MIN && version >= hello.oldest_version).then_some(version)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `message.field type number` of the schema.
    fn schema_fields(text: &str) -> BTreeSet<String> {
        let mut fields = BTreeSet::new();
        let mut message = "";
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("message ").or(line.strip_prefix("enum ")) {
                message = name.trim_end_matches(" {");
            } else if let Some((left, number)) = line
                .strip_suffix(';')
                .filter(|_| !message.is_empty())
                .and_then(|line| line.split_once(" = "))
            {
                let (kind, name) = left.rsplit_once(' ').unwrap_or(("", left));
                let name = if kind.is_empty() || message.starts_with("To") {
                    name.to_lowercase().replace('_', "")
                } else {
                    name.to_owned()
                };
                fields.insert(format!("{message}.{name} {number} {kind}"));
            }
        }
        fields
    }

    /// The same of the types in this file.
    fn type_fields(text: &str) -> BTreeSet<String> {
        let mut fields = BTreeSet::new();
        let (mut message, mut attribute, mut kept) = (String::new(), "", false);
        for line in text.lines().map(str::trim) {
            let head = line
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub ");
            if let Some(name) = head.strip_prefix("struct ").or(head.strip_prefix("enum ")) {
                message = match name.trim_end_matches(" {") {
                    "AgentSays" => "ToGateway".to_owned(),
                    "GatewaySays" => "ToAgent".to_owned(),
                    name => name.to_owned(),
                };
            } else if let Some(rest) = line.strip_prefix("#[prost(") {
                attribute = rest.trim_end_matches(")]");
                kept = attribute.contains("tag = ");
            } else if kept && !line.starts_with('#') {
                kept = false;
                let number = attribute.rsplit('"').nth(1).unwrap();
                let (name, rest) = line.split_once([':', '(']).unwrap();
                let name = name.trim_start_matches("pub ");
                let inner = rest.trim().trim_end_matches(',').trim_end_matches(')');
                let kind = kind(attribute, inner);
                let name = if message.starts_with("To") {
                    name.to_lowercase()
                } else {
                    name.to_owned()
                };
                fields.insert(format!("{message}.{name} {number} {kind}"));
            } else if let Some((name, number)) = line
                .strip_suffix(',')
                .and_then(|line| line.split_once(" = "))
                && (message == "Status" || message == "RefusalCode")
            {
                fields.insert(format!("{message}.{} {number} ", name.to_lowercase()));
            }
        }
        fields
    }

    fn kind(attribute: &str, inner: &str) -> String {
        let bare = inner.trim_start_matches("Option<").trim_end_matches('>');
        if let Some(rest) = attribute.split("btree_map = \"").nth(1) {
            let (key, value) = rest.split('"').next().unwrap().split_once(", ").unwrap();
            let value = match value {
                "message" => bare.rsplit(", ").next().unwrap(),
                scalar => scalar,
            };
            return format!("map<{key}, {value}>");
        }
        if let Some(rest) = attribute.split("enumeration = \"").nth(1) {
            return rest.split('"').next().unwrap().to_owned();
        }
        let scalar = attribute.split(',').next().unwrap();
        match (scalar, attribute) {
            ("message", _) => bare.to_owned(),
            (_, a) if a.contains("optional") => format!("optional {scalar}"),
            (_, a) if a.contains("repeated") => format!("repeated {scalar}"),
            _ => scalar.to_owned(),
        }
    }

    #[test]
    fn the_types_are_those_of_the_schema() {
        let schema = schema_fields(include_str!("../proto/tunnel.proto"));
        let code = include_str!("wire.rs")
            .split("#[cfg(test)]")
            .next()
            .unwrap();
        let types = type_fields(code);
        assert!(schema.len() > 60, "only {} fields found", schema.len());
        let missing: Vec<_> = schema.symmetric_difference(&types).collect();
        assert!(missing.is_empty(), "in one of the two only: {missing:#?}");
    }

    #[test]
    fn versions_meet_at_the_lower() {
        let hello = |version, oldest_version| Hello {
            version,
            oldest_version,
            ..Hello::new("w", 1, "t")
        };
        for (hello, agreed) in [
            (hello(VERSION, VERSION_MIN), Some(VERSION)),
            (hello(VERSION + 7, VERSION), Some(VERSION)),
            (hello(VERSION + 7, VERSION + 1), None),
            (hello(0, 0), None),
        ] {
            assert_eq!(agreed_version(&hello), agreed, "{hello:?}");
        }
    }

    #[test]
    fn worker_ids_are_short_and_printable() {
        for (id, good) in [
            ("gpu-7.zone_b:1", true),
            ("", false),
            ("a b", false),
            ("a\n", false),
            ("gerät", false),
        ] {
            assert_eq!(is_worker_id(id), good, "{id:?}");
        }
        assert!(is_worker_id(&"w".repeat(WORKER_ID_BYTES_MAX)));
        assert!(!is_worker_id(&"w".repeat(WORKER_ID_BYTES_MAX + 1)));
    }

    #[test]
    fn debug_output_has_no_token() {
        let hello = Hello::new("w", 1, "secret-token");
        assert!(!format!("{hello:?}").contains("secret"));
        let wrapped = ToGateway {
            body: Some(AgentSays::Hello(hello)),
        };
        assert!(!format!("{wrapped:?}").contains("secret"));
    }
}
