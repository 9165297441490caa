//! What an agent is told: values that cannot be wrong.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use weir_tunnel::Trust;

use crate::upstream::Upstream;

/// Settings of an agent. [`crate::read`] makes them of flags and a file; a test makes them itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The model server.
    pub upstream: Upstream,
    /// `host:port` of the gateways to dial; those that they announce are dialled too.
    pub gateways: Vec<String>,
    /// The worker: 1 to 256 printable ASCII characters without spaces.
    pub worker_id: String,
    /// The capacity domain; empty means the worker itself.
    pub cluster_id: String,
    /// Where the worker is; may be empty.
    pub region: String,
    /// The models; empty asks the model server.
    pub models: Vec<String>,
    /// How often it is asked.
    pub discover_interval: Duration,
    /// What the worker shows the gateways.
    pub token: Token,
    /// Which gateways it trusts.
    pub trust: Trust,
    /// The name that the gateways' certificates have; `None` means the host dialled.
    pub server_name: Option<String>,
    /// How the health of the model server is found out.
    pub health: Health,
    /// The input rate until it is measured.
    pub start_rate: StartRate,
    /// Requests the engine works on at once; 0 means not known.
    pub slots: u64,
    /// Path of the engine's metrics in the Prometheus text format; `None` leaves them alone.
    pub metrics_path: Option<String>,
    /// How often they are read.
    pub metrics_interval: Duration,
    /// Whether the engine's own stream of figures is read.
    pub stats_stream: StatsStream,
    /// Where it is.
    pub stats_path: String,
    /// The pace of heartbeats for gateways that ask for none.
    pub heartbeat: Duration,
    /// How long running streams may take to end when the agent does.
    pub drain_timeout: Duration,
    /// How long the model server may take to accept a connection.
    pub connect_timeout: Duration,
    /// Streams carried at once, over all tunnels.
    pub streams_max: usize,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None` means nowhere.
    pub admin: Option<SocketAddr>,
    /// The transport.
    pub tunnel: weir_tunnel::Settings,
}

impl Settings {
    /// Settings with the defaults of the program for one upstream, gateway and worker, trusting
    /// `trust`, with `start_rate`.
    #[must_use]
    pub fn new(upstream: Upstream, worker_id: &str, trust: Trust, start_rate: StartRate) -> Self {
        Self {
            upstream,
            gateways: Vec::new(),
            worker_id: worker_id.to_owned(),
            cluster_id: String::new(),
            region: String::new(),
            models: Vec::new(),
            discover_interval: Duration::from_secs(5),
            token: Token::None,
            trust,
            server_name: None,
            health: Health::default(),
            start_rate,
            slots: 0,
            metrics_path: None,
            metrics_interval: Duration::from_secs(1),
            stats_stream: StatsStream::Off,
            stats_path: STATS_PATH.to_owned(),
            heartbeat: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            streams_max: 4096,
            admin: None,
            tunnel: weir_tunnel::Settings::default(),
        }
    }
}

/// What the worker shows the gateways.
#[derive(Clone)]
pub enum Token {
    /// Nothing.
    None,
    /// This text.
    Text(String),
    /// What stands in this file, read again for every connection.
    File(PathBuf),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Text(_) => f.write_str("Text"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// How the health of the model server is found out.
#[derive(Clone, Debug)]
pub struct Health {
    /// Paths; the first that the server knows is kept.
    pub paths: Vec<String>,
    /// From one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            paths: vec!["/health".to_owned(), "/v1/health/ready".to_owned()],
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
        }
    }
}

/// The input rate until it is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StartRate {
    /// A few requests to the model server find it out before any model counts as active.
    Calibrate,
    /// Tokens per second.
    Given(f64),
}

/// Whether the engine's own stream of figures is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsStream {
    /// If it has one.
    Auto,
    /// Yes; an engine without one is an error.
    Required,
    /// No.
    Off,
}

/// Where engines that have such a stream have it.
pub(crate) const STATS_PATH: &str = "/pylon/v1/stats/stream";
