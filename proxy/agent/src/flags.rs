//! Flags and the TOML file, made into settings; everything wrong with them is told at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use weir_tunnel::{Trust, certificates};

use crate::error::ConfigError;
use crate::settings::{Health, STATS_PATH, Settings, StartRate, StatsStream, Token};
use crate::upstream::Upstream;

/// The command line.
#[derive(Debug, Default, clap::Parser)]
#[command(
    name = "weir-agent",
    version,
    about = "Brings the model server beside it into a Weir fleet"
)]
pub struct Flags {
    /// A TOML file with the same keys, `_` for `-`; flags win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What the file may hold too.
    #[command(flatten)]
    pub given: Given,
}

/// What flags and the file may say; nothing of it is checked yet.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Given {
    /// The model server: http://host:port or unix:path
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// A gateway to dial; repeatable. Those that gateways announce are dialled too
    #[arg(long, value_name = "HOST:PORT")]
    pub gateway: Vec<String>,
    /// The name of this worker, unique in its function
    #[arg(long, value_name = "ID")]
    pub worker_id: Option<String>,
    /// The capacity domain [default: the worker id]
    #[arg(long, value_name = "ID")]
    pub cluster_id: Option<String>,
    /// Where the worker is
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// A model; repeatable. Without any, the model server is asked
    #[arg(long, value_name = "NAME")]
    pub model: Vec<String>,
    /// How often it is asked [default: 5000]
    #[arg(long, value_name = "MS")]
    pub discover_interval_ms: Option<u64>,
    /// The worker token; better in a file or in WEIR_AGENT_TOKEN, which other users cannot see
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// A file with the worker token, read again for every connection
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file of certificates to trust: authorities, or the gateway's own [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The name in the gateways' certificates [default: the host dialled]
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// Trust any gateway; whoever is in between can take the token and read the requests
    #[arg(long)]
    pub quic_insecure: bool,
    /// A path for health; repeatable, the first that the server knows is kept
    /// [default: /health, /v1/health/ready]
    #[arg(long, value_name = "PATH")]
    pub health_path: Vec<String>,
    /// From one question for health to the next [default: 2000]
    #[arg(long, value_name = "MS")]
    pub health_interval_ms: Option<u64>,
    /// How long its answer may take [default: 5000]
    #[arg(long, value_name = "MS")]
    pub health_timeout_ms: Option<u64>,
    /// Find the first input rate out by a few requests to the model server
    #[arg(long)]
    pub calibrate: bool,
    /// Or take this input rate until it is measured, in tokens per second
    #[arg(long, value_name = "N")]
    pub initial_input_tps: Option<f64>,
    /// Requests the engine works on at once
    #[arg(long, value_name = "N")]
    pub max_concurrency: Option<u64>,
    /// Path of the engine's Prometheus metrics (vLLM or SGLang), /metrics for instance
    #[arg(long, value_name = "PATH")]
    pub metrics_path: Option<String>,
    /// How often they are read [default: 1000]
    #[arg(long, value_name = "MS")]
    pub metrics_interval_ms: Option<u64>,
    /// Whether the engine's own stream of figures is read: auto, required or off [default: auto]
    #[arg(long, value_name = "WHEN")]
    pub stats_stream: Option<String>,
    /// Where it is [default: /pylon/v1/stats/stream]
    #[arg(long, value_name = "PATH")]
    pub stats_path: Option<String>,
    /// The pace of heartbeats for gateways that ask for none [default: 1000]
    #[arg(long, value_name = "MS")]
    pub heartbeat_ms: Option<u64>,
    /// How long running streams may take to end when the agent does [default: 30000]
    #[arg(long, value_name = "MS")]
    pub drain_timeout_ms: Option<u64>,
    /// How long the model server may take to accept a connection [default: 5000]
    #[arg(long, value_name = "MS")]
    pub connect_timeout_ms: Option<u64>,
    /// Streams carried at once, over all tunnels [default: 4096]
    #[arg(long, value_name = "N")]
    pub streams_max: Option<u64>,
    /// Where to serve /metrics, /healthz and /readyz [default: nowhere]
    #[arg(long, value_name = "IP:PORT")]
    pub admin_address: Option<String>,
}

impl Given {
    /// These values, and for what they leave open those of `file`.
    fn over(self, file: Self) -> Self {
        let list = |ours: Vec<String>, theirs| if ours.is_empty() { theirs } else { ours };
        // Of two ways to say one thing, a flag for either overrides both of the file.
        let start = self.calibrate || self.initial_input_tps.is_some();
        let secret = self.token.is_some() || self.token_file.is_some();
        let trust = self.quic_insecure || self.ca.is_some();
        Self {
            upstream: self.upstream.or(file.upstream),
            gateway: list(self.gateway, file.gateway),
            worker_id: self.worker_id.or(file.worker_id),
            cluster_id: self.cluster_id.or(file.cluster_id),
            region: self.region.or(file.region),
            model: list(self.model, file.model),
            discover_interval_ms: self.discover_interval_ms.or(file.discover_interval_ms),
            token: self.token.or(file.token.filter(|_| !secret)),
            token_file: self.token_file.or(file.token_file.filter(|_| !secret)),
            ca: self.ca.or(file.ca.filter(|_| !trust)),
            server_name: self.server_name.or(file.server_name),
            quic_insecure: self.quic_insecure || (file.quic_insecure && !trust),
            health_path: list(self.health_path, file.health_path),
            health_interval_ms: self.health_interval_ms.or(file.health_interval_ms),
            health_timeout_ms: self.health_timeout_ms.or(file.health_timeout_ms),
            calibrate: self.calibrate || (file.calibrate && !start),
            initial_input_tps: self
                .initial_input_tps
                .or(file.initial_input_tps.filter(|_| !start)),
            max_concurrency: self.max_concurrency.or(file.max_concurrency),
            metrics_path: self.metrics_path.or(file.metrics_path),
            metrics_interval_ms: self.metrics_interval_ms.or(file.metrics_interval_ms),
            stats_stream: self.stats_stream.or(file.stats_stream),
            stats_path: self.stats_path.or(file.stats_path),
            heartbeat_ms: self.heartbeat_ms.or(file.heartbeat_ms),
            drain_timeout_ms: self.drain_timeout_ms.or(file.drain_timeout_ms),
            connect_timeout_ms: self.connect_timeout_ms.or(file.connect_timeout_ms),
            streams_max: self.streams_max.or(file.streams_max),
            admin_address: self.admin_address.or(file.admin_address),
        }
    }
}

/// Makes settings of the flags and the file they name. `environment` looks a variable up.
///
/// # Errors
/// All that is wrong, each with its key and what to do about it.
pub fn read(
    flags: Flags,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Settings, Vec<ConfigError>> {
    let mut findings = Findings::default();
    let file = match &flags.config {
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => parse(&text, &mut findings),
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                findings.add("config", message, "name a TOML file that can be read");
                Given::default()
            }
        },
        None => Given::default(),
    };
    let mut given = flags.given.over(file);
    if given.token.is_none() && given.token_file.is_none() {
        given.token = environment("WEIR_AGENT_TOKEN").filter(|token| !token.is_empty());
        given.token_file = environment("WEIR_AGENT_TOKEN_FILE").map(PathBuf::from);
    }
    let settings = check(given, &mut findings);
    if findings.0.is_empty() {
        Ok(settings)
    } else {
        Err(findings.0)
    }
}

#[derive(Default)]
struct Findings(Vec<ConfigError>);

impl Findings {
    fn add(&mut self, key: &str, message: impl Into<String>, remedy: &str) {
        self.0.push(ConfigError {
            key: key.to_owned(),
            message: message.into(),
            remedy: remedy.to_owned(),
        });
    }

    /// Milliseconds within `least..=most`.
    fn time(
        &mut self,
        key: &str,
        given: Option<u64>,
        default: u64,
        least: u64,
        most: u64,
    ) -> Duration {
        let ms = given.unwrap_or(default);
        if !(least..=most).contains(&ms) {
            let remedy = format!("give {least} to {most} milliseconds");
            self.add(key, format!("{ms} is out of bounds"), &remedy);
        }
        Duration::from_millis(ms)
    }

    fn path(&mut self, key: &str, path: &str) {
        if path.parse::<http::uri::PathAndQuery>().is_err() || !path.starts_with('/') {
            self.add(key, format!("`{path}` is no path"), "begin it with `/`");
        }
    }
}

/// Reads each key of the file by itself, so that one that is wrong hides none of the others.
fn parse(text: &str, findings: &mut Findings) -> Given {
    let table: toml::Table = match toml::from_str(text) {
        Ok(table) => table,
        Err(error) => {
            findings.add("config", error.message(), "write TOML");
            return Given::default();
        }
    };
    let mut good = toml::Table::new();
    for (key, value) in table {
        let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
        match alone.try_into::<Given>() {
            Ok(_) => {
                good.insert(key, value);
            }
            Err(error) => findings.add(&key, error.message(), "see `weir-agent --help`"),
        }
    }
    good.try_into().unwrap_or_default()
}

/// What is found wrong is replaced by something, so that all else is looked at too.
fn check(given: Given, findings: &mut Findings) -> Settings {
    let upstream = upstream(given.upstream.as_deref(), findings);
    let upstream = upstream.unwrap_or(Upstream::Tcp(String::new()));
    let worker_id = given.worker_id.clone().unwrap_or_default();
    let good_id =
        (1..=256).contains(&worker_id.len()) && worker_id.bytes().all(|b| b.is_ascii_graphic());
    if !good_id {
        let remedy = "give 1 to 256 printable ASCII characters without spaces";
        findings.add(
            "worker_id",
            format!("`{worker_id}` names no worker"),
            remedy,
        );
    }
    gateways(&given.gateway, findings);
    for path in &given.health_path {
        findings.path("health_path", path);
    }
    for (key, path) in [
        ("metrics_path", &given.metrics_path),
        ("stats_path", &given.stats_path),
    ] {
        if let Some(path) = path {
            findings.path(key, path);
        }
    }
    let trust = trust(&given, findings).unwrap_or(Trust::Certificates(Vec::new()));
    let start_rate = start_rate(&given, findings).unwrap_or(StartRate::Calibrate);
    let mut settings = Settings::new(upstream, &worker_id, trust, start_rate);
    settings.gateways = given.gateway.clone();
    settings.cluster_id = given.cluster_id.clone().unwrap_or_default();
    settings.region = given.region.clone().unwrap_or_default();
    settings.models = given.model.clone();
    settings.token = token(&given, findings);
    settings.server_name = given.server_name.clone();
    settings.slots = given.max_concurrency.unwrap_or_default();
    settings.metrics_path = given.metrics_path.clone();
    settings.stats_stream = stats_stream(given.stats_stream.as_deref(), findings);
    settings.stats_path = given.stats_path.clone().unwrap_or(STATS_PATH.to_owned());
    settings.admin = admin(given.admin_address.as_deref(), findings);
    times(&given, &mut settings, findings);
    settings
}

fn times(given: &Given, settings: &mut Settings, findings: &mut Findings) {
    const HOUR: u64 = 3_600_000;
    let health = Health::default();
    settings.health = Health {
        paths: if given.health_path.is_empty() {
            health.paths
        } else {
            given.health_path.clone()
        },
        interval: findings.time(
            "health_interval_ms",
            given.health_interval_ms,
            2000,
            10,
            HOUR,
        ),
        timeout: findings.time("health_timeout_ms", given.health_timeout_ms, 5000, 10, HOUR),
    };
    settings.discover_interval = findings.time(
        "discover_interval_ms",
        given.discover_interval_ms,
        5000,
        10,
        HOUR,
    );
    settings.metrics_interval = findings.time(
        "metrics_interval_ms",
        given.metrics_interval_ms,
        1000,
        10,
        HOUR,
    );
    settings.heartbeat = findings.time("heartbeat_ms", given.heartbeat_ms, 1000, 10, 60_000);
    settings.drain_timeout = findings.time(
        "drain_timeout_ms",
        given.drain_timeout_ms,
        30_000,
        0,
        24 * HOUR,
    );
    settings.connect_timeout = findings.time(
        "connect_timeout_ms",
        given.connect_timeout_ms,
        5000,
        10,
        HOUR,
    );
    let streams = given.streams_max.unwrap_or(4096);
    if !(1..=65_536).contains(&streams) {
        findings.add(
            "streams_max",
            format!("{streams} is out of bounds"),
            "give 1 to 65536",
        );
    }
    settings.streams_max = usize::try_from(streams).unwrap_or(usize::MAX);
    settings.tunnel.streams_max = u32::try_from(streams).unwrap_or(u32::MAX);
}

fn upstream(url: Option<&str>, findings: &mut Findings) -> Option<Upstream> {
    let remedy = "give http://host:port or unix:path of the model server";
    let Some(url) = url else {
        findings.add("upstream", "it is missing", remedy);
        return None;
    };
    match Upstream::parse(url) {
        Ok(upstream) => Some(upstream),
        Err(message) => {
            findings.add("upstream", message, remedy);
            None
        }
    }
}

fn gateways(given: &[String], findings: &mut Findings) {
    if given.is_empty() {
        findings.add(
            "gateway",
            "there is none",
            "give host:port of at least one gateway",
        );
    }
    for gateway in given {
        if split_address(gateway).is_none() {
            let message = format!("`{gateway}` is no address");
            findings.add("gateway", message, "give host:port");
        }
    }
}

/// Host and port of `host:port` or `[address]:port`.
pub(crate) fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty() && host.len() <= 255).then_some((host, port))
}

fn token(given: &Given, findings: &mut Findings) -> Token {
    match (&given.token, &given.token_file) {
        (Some(_), Some(_)) => {
            findings.add("token", "token_file is given too", "keep one of the two");
            Token::None
        }
        (Some(token), None) => Token::Text(token.clone()),
        (None, Some(path)) => Token::File(path.clone()),
        (None, None) => Token::None,
    }
}

fn trust(given: &Given, findings: &mut Findings) -> Option<Trust> {
    if given.quic_insecure {
        if given.ca.is_some() {
            findings.add("quic_insecure", "ca is given too", "keep one of the two");
        }
        return Some(Trust::Anyone);
    }
    let system = || {
        SYSTEM_CAS
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
    };
    let Some(path) = given.ca.clone().or_else(system) else {
        let remedy = "name a PEM file of certificates to trust";
        findings.add(
            "ca",
            "it is missing, and the system has none where they usually are",
            remedy,
        );
        return None;
    };
    let read = std::fs::read(&path).map_err(|error| error.to_string());
    match read.and_then(|pem| certificates(&pem).map_err(|error| error.to_string())) {
        Ok(certificates) => Some(Trust::Certificates(certificates)),
        Err(error) => {
            let message = format!("{}: {error}", path.display());
            findings.add("ca", message, "name a PEM file of certificates to trust");
            None
        }
    }
}

fn start_rate(given: &Given, findings: &mut Findings) -> Option<StartRate> {
    let remedy = "give one of calibrate and initial_input_tps";
    match (given.calibrate, given.initial_input_tps) {
        (true, None) => Some(StartRate::Calibrate),
        (false, Some(rate)) if rate.is_finite() && rate > 0.0 => Some(StartRate::Given(rate)),
        (false, Some(rate)) => {
            let message = format!("{rate} is no rate");
            findings.add(
                "initial_input_tps",
                message,
                "give tokens per second above 0",
            );
            None
        }
        (true, Some(_)) => {
            findings.add("calibrate", "initial_input_tps is given too", remedy);
            None
        }
        (false, None) => {
            findings.add(
                "calibrate",
                "neither it nor initial_input_tps is given",
                remedy,
            );
            None
        }
    }
}

fn stats_stream(given: Option<&str>, findings: &mut Findings) -> StatsStream {
    match given {
        None | Some("auto") => StatsStream::Auto,
        Some("required") => StatsStream::Required,
        Some("off") => StatsStream::Off,
        Some(other) => {
            let message = format!("`{other}` is none of its values");
            findings.add("stats_stream", message, "give auto, required or off");
            StatsStream::Off
        }
    }
}

fn admin(given: Option<&str>, findings: &mut Findings) -> Option<SocketAddr> {
    let address = given?;
    match address.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let message = format!("`{address}` is no address");
            findings.add("admin_address", message, "give ip:port");
            None
        }
    }
}

/// Where systems keep the certificates that they trust.
const SYSTEM_CAS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[cfg(test)]
#[path = "flags_tests.rs"]
mod tests;
