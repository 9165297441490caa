//! The tables `[telemetry]` and `[telemetry.otlp]`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::field::{Field, TIME_MS};
use crate::reader::Table;
use crate::secret::Secret;

/// `[telemetry]`: what is measured per model, function and tenant. `series_max` is live; the
/// export needs a restart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TelemetryTable {
    /// Sets of function, model, API and tenant with series of their own, as a number.
    pub series_max: usize,
    /// `[telemetry.otlp]`.
    pub otlp: OtlpTable,
}

impl Default for TelemetryTable {
    fn default() -> Self {
        Self {
            series_max: 1_000,
            otlp: OtlpTable::default(),
        }
    }
}

impl TelemetryTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let read = Self {
            series_max: table.or("series_max", default.series_max, |f| f.integer(1..=10_000)),
            otlp: table.below("otlp", default.otlp, OtlpTable::read),
        };
        table.finish();
        read
    }
}

/// `[telemetry.otlp]`: metrics and traces sent to an OpenTelemetry collector. A change needs a
/// restart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OtlpTable {
    /// The collector; absent: nothing is sent.
    pub endpoint: Option<OtlpEndpoint>,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// Sent with every export, such as a credential.
    pub headers: BTreeMap<String, Secret>,
    /// Attributes of the resource beside `service.*`.
    pub resource: BTreeMap<String, String>,
    /// How often metrics are sent, and for how long a span waits for others, in milliseconds.
    pub interval_ms: u64,
    /// How long one export may take, in milliseconds.
    pub timeout_ms: u64,
    /// Whether metrics are sent.
    pub metrics: bool,
    /// Whether spans are sent.
    pub traces: bool,
    /// Share of the traces that begin here which are recorded. A caller's own decision is kept.
    pub sample_ratio: f64,
    /// Spans that may wait to be sent, as a number; more are dropped and counted.
    pub queue_max: usize,
}

impl Default for OtlpTable {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: OtlpProtocol::HttpProtobuf,
            headers: BTreeMap::new(),
            resource: BTreeMap::new(),
            interval_ms: 10_000,
            timeout_ms: 10_000,
            metrics: true,
            traces: true,
            sample_ratio: 1.0,
            queue_max: 8_192,
        }
    }
}

impl OtlpTable {
    fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let protocols = [
            ("http/protobuf", OtlpProtocol::HttpProtobuf),
            ("grpc", OtlpProtocol::Grpc),
        ];
        let read = Self {
            endpoint: table.or("endpoint", default.endpoint, OtlpEndpoint::read),
            protocol: table.or("protocol", default.protocol, |f| f.choice(&protocols)),
            headers: table.or("headers", default.headers, |f| f.values(Field::secret)),
            resource: table.or("resource", default.resource, |f| f.values(Field::text)),
            interval_ms: table.or("interval_ms", default.interval_ms, |f| {
                f.integer(100..=*TIME_MS.end())
            }),
            timeout_ms: table.or("timeout_ms", default.timeout_ms, |f| f.integer(TIME_MS)),
            metrics: table.or("metrics", default.metrics, Field::flag),
            traces: table.or("traces", default.traces, Field::flag),
            sample_ratio: table.or("sample_ratio", default.sample_ratio, |f| {
                f.number(0.0..=1.0)
            }),
            queue_max: table.or("queue_max", default.queue_max, |f| f.integer(1..=1_000_000)),
        };
        table.finish();
        read
    }
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum OtlpProtocol {
    /// Protobuf in the bodies of HTTP requests.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// gRPC over HTTP/2.
    #[serde(rename = "grpc")]
    Grpc,
}

/// Where a collector is: `http://host:4318/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// DNS name or IP address; that of IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What stands before the paths of OTLP; empty, or with `/` at its start and none at its end.
    pub path: String,
}

impl OtlpEndpoint {
    /// The outer `None` is an error that was reported, the inner one an empty text.
    fn read(field: &Field<'_>) -> Option<Option<Self>> {
        let text = field.text()?;
        if text.is_empty() {
            return Some(None);
        }
        Self::parse(&text).map(Some).or_else(|| {
            field.error(
                format!("`{text}` is not the URL of a collector"),
                "write http://host:port or https://host:port; empty: nothing is sent",
            )
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (tls, default_port) = match scheme {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return None,
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at_checked(at)?,
            None => (rest, ""),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                let port = match port {
                    "" => None,
                    port => Some(port.strip_prefix(':')?),
                };
                (host, port)
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let plain = |c: char| c.is_ascii_graphic() && !"@?#\"<>\\".contains(c);
        let valid = !host.is_empty() && text.chars().all(plain);
        valid.then_some(Self {
            tls,
            host: host.to_owned(),
            port: port.map_or(Some(default_port), |port| port.parse().ok())?,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// Host and port as they stand in a URL.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl Serialize for OtlpEndpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls() {
        for (text, expected) in [
            ("http://127.0.0.1:4318", Some("http://127.0.0.1:4318")),
            (
                "http://collector.example:4318/",
                Some("http://collector.example:4318"),
            ),
            (
                "https://otlp.example/tenants/a/",
                Some("https://otlp.example:443/tenants/a"),
            ),
            ("http://[::1]:4318", Some("http://[::1]:4318")),
            ("http://[::1]", Some("http://[::1]:80")),
            ("127.0.0.1:4318", None),
            ("grpc://127.0.0.1:4317", None),
            ("http://", None),
            ("http://:4318", None),
            ("http://host:port", None),
            ("http://host:70000", None),
            ("http://user@host:1", None),
            ("http://[::1]4318", None),
            ("http://host/a b", None),
            ("http://host/?a=b", None),
        ] {
            let parsed = OtlpEndpoint::parse(text).map(|endpoint| endpoint.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
    }
}
