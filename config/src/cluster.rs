//! The tables `[clusters.NAME]`: equal endpoints serving models.

use serde::Serialize;

use crate::field::{Field, TIME_MS};
use crate::filter::header;
use crate::reader::Table;
use crate::secret::Secret;

/// A set of equal endpoints, and how they are spoken to. Live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterTable {
    /// Where the model servers are; at least one, unless workers serve it.
    pub endpoints: Vec<Endpoint>,
    /// Whether workers that dial in serve its models, besides the endpoints.
    pub workers: bool,
    /// TLS to the endpoints; without it plain.
    pub tls: Option<UpstreamTls>,
    /// Whether the endpoints speak HTTP/2 (without TLS: with prior knowledge).
    pub http2: bool,
    /// Time to connect, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Time from the request to the first byte of the answer, in milliseconds.
    pub first_byte_timeout_ms: u64,
    /// Time between two reads of the answer, in milliseconds. A stream may last any time.
    pub between_bytes_timeout_ms: u64,
    /// Time for one write, in milliseconds.
    pub write_timeout_ms: u64,
    /// How long an unused connection is kept, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Further candidates tried while nothing has reached the caller.
    pub retries: u32,
    /// Which failures a further candidate may be tried after.
    pub resend: Resend,
    /// How long a request waits for an endpoint with room before it is refused, in milliseconds.
    pub max_wait_ms: u64,
    /// Sent upstream in the place of the caller's key.
    pub api_key: Option<Secret>,
    /// The header it is sent in: as `Bearer` in `authorization`, alone in any other.
    pub api_key_header: String,
    /// Whether the caller's `Authorization` goes upstream. Not together with `api_key`.
    pub pass_authorization: bool,
    /// Whether the endpoints are request routers of NVCF's kind, which are told the model, the
    /// routing method, the affinity key, the estimate and the priority in headers.
    pub router_headers: bool,
    /// Callers' headers that go upstream beside those that APIs use; `*`: all.
    pub forward_headers: Vec<String>,
    /// Active health checks; without them only failures of requests count.
    pub health: Option<HealthTable>,
    /// When an endpoint that fails is left out for a time.
    pub ejection: EjectionTable,
    /// Requests at once per endpoint; 0: no limit.
    pub max_concurrency: u32,
    /// How long an endpoint that joins a serving cluster takes to its full weight, in
    /// milliseconds; 0: none.
    pub slow_start_ms: u32,
}

/// Which failures of an endpoint may be followed by sending the request again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resend {
    /// Those after which the endpoint cannot have begun: it was not reached, did not receive the
    /// whole request, or said itself that it does not serve it.
    #[default]
    Undelivered,
    /// Also those before an answer has begun: for endpoints where running a request twice is better
    /// than failing it.
    Unanswered,
}

/// One endpoint; in TOML also a plain `"host:port"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// `host:port` with an IP address or a DNS name.
    pub address: String,
    /// Its share of the requests relative to the others.
    pub weight: u32,
}

/// `tls` of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UpstreamTls {
    /// The name asked for and expected in the certificate.
    pub sni: String,
    /// Whether the certificate is verified.
    pub verify: bool,
}

/// `health` of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthTable {
    /// What is asked for; any 2xx is healthy.
    pub path: String,
    /// Time between two checks, in milliseconds.
    pub interval_ms: u64,
    /// Time one check may take, in milliseconds.
    pub timeout_ms: u64,
    /// Good checks in a row after which an endpoint is used again.
    pub healthy_after: u32,
    /// Bad checks in a row after which an endpoint is no longer used.
    pub unhealthy_after: u32,
}

/// `ejection` of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EjectionTable {
    /// Failed requests in a row after which an endpoint is left out; 0: never.
    pub consecutive_failures: u32,
    /// For how long the first time, in milliseconds; longer each further time.
    pub base_ms: u64,
    /// How many of the endpoints may be left out at once, in percent.
    pub max_percent: u32,
}

impl Default for HealthTable {
    fn default() -> Self {
        Self {
            path: "/health".into(),
            interval_ms: 2_000,
            timeout_ms: 1_000,
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }
}

impl Default for EjectionTable {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ms: 5_000,
            max_percent: 50,
        }
    }
}

impl ClusterTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let workers = table.or("workers", false, Field::flag);
        let endpoints = if workers {
            table.or("endpoints", Vec::new(), Endpoint::read_any)
        } else {
            table.required(
                "endpoints",
                Vec::new(),
                "add endpoints = [\"127.0.0.1:8000\"], or workers = true",
                Endpoint::read_all,
            )
        };
        let mut time = |name, default| table.or(name, default, |f| f.integer(TIME_MS));
        let connect_timeout_ms = time("connect_timeout_ms", 2_000);
        let first_byte_timeout_ms = time("first_byte_timeout_ms", 60_000);
        let between_bytes_timeout_ms = time("between_bytes_timeout_ms", 60_000);
        let write_timeout_ms = time("write_timeout_ms", 30_000);
        let idle_timeout_ms = time("idle_timeout_ms", 60_000);
        let read = Self {
            endpoints,
            workers,
            tls: table.optional("tls", |f| f.table().map(UpstreamTls::read)),
            http2: table.or("http2", false, Field::flag),
            connect_timeout_ms,
            first_byte_timeout_ms,
            between_bytes_timeout_ms,
            write_timeout_ms,
            idle_timeout_ms,
            retries: table.or("retries", 2, |f| f.integer(0..=16)),
            resend: table.or("resend", Resend::default(), resend),
            max_wait_ms: table.or("max_wait_ms", 0, |f| f.integer(0..=60_000)),
            api_key: table.optional("api_key", Field::secret),
            api_key_header: table.or("api_key_header", "authorization".into(), one_header),
            pass_authorization: table.or("pass_authorization", false, Field::flag),
            router_headers: table.or("router_headers", false, Field::flag),
            forward_headers: table.or("forward_headers", Vec::new(), |f| f.list(header)),
            health: table.optional("health", |f| f.table().map(HealthTable::read)),
            ejection: table.below("ejection", EjectionTable::default(), EjectionTable::read),
            max_concurrency: table.or("max_concurrency", 0, |f| f.integer(0..=1_000_000)),
            slow_start_ms: table.or("slow_start_ms", 10_000, |f| f.integer(0..=3_600_000)),
        };
        if read.api_key.is_some() && read.pass_authorization {
            let message = "the caller's key and `api_key` cannot both be sent".into();
            table.error(
                "pass_authorization",
                message,
                "remove `pass_authorization` or `api_key`",
            );
        }
        table.finish();
        read
    }
}

fn resend(field: &Field<'_>) -> Option<Resend> {
    field.choice(&[
        ("undelivered", Resend::Undelivered),
        ("unanswered", Resend::Unanswered),
    ])
}

/// One header name; `*` names none.
fn one_header(field: &Field<'_>) -> Option<String> {
    match header(field)?.as_str() {
        "*" => field.error("`*` is not a header name".into(), "name one header"),
        name => Some(name.to_owned()),
    }
}

impl Endpoint {
    fn read_all(field: &Field<'_>) -> Option<Vec<Self>> {
        if field.is_empty_array() {
            return field.error("is empty".into(), "name at least one endpoint");
        }
        Self::read_any(field)
    }

    /// None will do where workers serve.
    fn read_any(field: &Field<'_>) -> Option<Vec<Self>> {
        let endpoints = field.list(Self::read)?;
        for (index, endpoint) in endpoints.iter().enumerate() {
            if endpoints
                .iter()
                .take(index)
                .any(|other| other.address == endpoint.address)
            {
                let message = format!("names `{}` twice", endpoint.address);
                return field.error(message, "remove one; use `weight` for a larger share");
            }
        }
        Some(endpoints)
    }

    fn read(field: &Field<'_>) -> Option<Self> {
        if field.is_string() {
            return address(field).map(|address| Self { address, weight: 1 });
        }
        let mut table = field.table()?;
        let read = Self {
            address: table.required(
                "address",
                String::new(),
                "add address = \"127.0.0.1:8000\"",
                address,
            ),
            weight: table.or("weight", 1, |f| f.integer(1..=1_000)),
        };
        table.finish();
        Some(read).filter(|endpoint| !endpoint.address.is_empty())
    }
}

/// `host:port`.
pub(crate) fn address(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    let host_ok = |host: &str| match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !host.is_empty() && host.chars().all(plain)
        }
    };
    let port_ok = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match text.rsplit_once(':') {
        Some((host, port)) if host_ok(host) && port_ok(port) => Some(text),
        _ => field.error(
            format!("`{text}` is not host:port"),
            "write host:port without a scheme or path; TLS is the key `tls` of the cluster",
        ),
    }
}

impl UpstreamTls {
    fn read(mut table: Table<'_>) -> Self {
        let read = Self {
            sni: table.required(
                "sni",
                String::new(),
                "add sni = \"api.example.com\"",
                Field::name,
            ),
            verify: table.or("verify", true, Field::flag),
        };
        table.finish();
        read
    }
}

impl HealthTable {
    fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let read = Self {
            path: table.or("path", default.path, Field::url_path),
            interval_ms: table.or("interval_ms", default.interval_ms, |f| f.integer(TIME_MS)),
            timeout_ms: table.or("timeout_ms", default.timeout_ms, |f| f.integer(TIME_MS)),
            healthy_after: table.or("healthy_after", default.healthy_after, |f| {
                f.integer(1..=100)
            }),
            unhealthy_after: table.or("unhealthy_after", default.unhealthy_after, |f| {
                f.integer(1..=100)
            }),
        };
        table.finish();
        read
    }
}

impl EjectionTable {
    fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let read = Self {
            consecutive_failures: table.or(
                "consecutive_failures",
                default.consecutive_failures,
                |f| f.integer(0..=10_000),
            ),
            base_ms: table.or("base_ms", default.base_ms, |f| f.integer(TIME_MS)),
            max_percent: table.or("max_percent", default.max_percent, |f| f.integer(0..=100)),
        };
        table.finish();
        read
    }
}
