//! What is measured: the proxies, and the model server behind all of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weir_tests::agent::{self, Agent};
use weir_tests::process::{Process, Signal, free_port};

use crate::pin::Pins;
use crate::round;

/// Everything that runs during the bench; ends when dropped.
pub(crate) struct Stage {
    /// In the order of [`NAMES`].
    pub(crate) contestants: Vec<Contestant>,
    /// Resident memory of the full chain started without compiled filters at hand, in bytes.
    pub(crate) rss_cold: u64,
    _upstream: Process,
    _files: TempDir,
}

/// One running proxy.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    /// Beside the model server, for the one that reaches it over a tunnel.
    pub(crate) agent: Option<Agent>,
    /// Resident memory before any load, in bytes.
    pub(crate) rss_idle: u64,
}

impl Contestant {
    /// CPU time of all it takes to reach the model server, in microseconds.
    pub(crate) fn cpu_us(&self) -> io::Result<u64> {
        let agent = self.agent.as_ref().map(Agent::cpu_us).transpose()?;
        Ok(self.process.cpu_us()? + agent.unwrap_or(0))
    }
}

/// The contestants: pingora-proxy, the gateway without filters, with all four, and the same with a
/// worker that dials in.
pub(crate) const NAMES: [&str; 4] = ["bare proxy", "empty chain", "four filters", "over a tunnel"];

impl Stage {
    /// Starts everything and waits until it answers.
    ///
    /// # Errors
    /// When a program is missing or does not get ready; the message carries its log.
    pub(crate) async fn set(pins: &Pins) -> io::Result<Self> {
        let programs = programs()?;
        let files = TempDir::new()?;
        let (upstream, upstream_address) = start_upstream(&programs).await?;
        let [bare, empty, full, tunnel] = NAMES;
        let gateway = Gateway {
            pins,
            programs: &programs,
            files: files.path(),
            upstream_address,
        };
        // The first start fills the cache of compiled filters, as on a machine that never ran them.
        let direct = format!("endpoints = [\"{upstream_address}\"]");
        let cold = gateway.start(full, FOUR_FILTERS, &direct).await?;
        let rss_cold = cold.rss_idle;
        stop(cold).await?;
        let contestants = vec![
            start_bare(bare, pins, &programs, upstream_address).await?,
            gateway.start(empty, "", &direct).await?,
            gateway.start(full, FOUR_FILTERS, &direct).await?,
            gateway.start_with_worker(tunnel, FOUR_FILTERS).await?,
        ];
        Ok(Self {
            contestants,
            rss_cold,
            _upstream: upstream,
            _files: files,
        })
    }
}

/// The folder of this program, where its siblings are.
pub(crate) fn programs() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.parent()
        .map(Path::to_owned)
        .ok_or_else(|| io::Error::other("this program has no folder"))
}

async fn start_upstream(programs: &Path) -> io::Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let mut command = Command::new(programs.join("weir"));
    command
        .arg("simulate")
        .arg("--listen")
        .arg(address.to_string());
    command.args(["--ttft-ms", "0", "--tokens-per-second", "0"]);
    let mut process = Process::spawn(&mut command)?;
    process
        .wait_until_answers(address, "/health", START_DEADLINE)
        .await?;
    Ok((process, address))
}

async fn start_bare(
    name: &'static str,
    pins: &Pins,
    programs: &Path,
    upstream: SocketAddr,
) -> io::Result<Contestant> {
    let address = free_address()?;
    let mut command = pins.proxy(programs.join("bare-proxy"));
    command.arg(address.to_string()).arg(upstream.to_string());
    let mut process = Process::spawn(&mut command)?;
    process
        .wait_until_answers(address, "/health", START_DEADLINE)
        .await?;
    let rss_idle = process.rss_bytes()?;
    Ok(Contestant {
        name,
        address,
        process,
        agent: None,
        rss_idle,
    })
}

/// What the gateways have in common.
struct Gateway<'a> {
    pins: &'a Pins,
    programs: &'a Path,
    files: &'a Path,
    upstream_address: SocketAddr,
}

impl Gateway<'_> {
    /// Its cluster, and whatever else the configuration needs, is `cluster`.
    async fn start(
        &self,
        name: &'static str,
        filters: &str,
        cluster: &str,
    ) -> io::Result<Contestant> {
        let (address, admin) = (free_address()?, free_address()?);
        let config = self.config(address, admin, filters, cluster);
        let path = self.files.join(format!("{}.toml", address.port()));
        std::fs::write(&path, config)?;
        let mut command = self.pins.proxy(self.programs.join("weir"));
        command.arg("run").arg("--config").arg(&path);
        let mut process = Process::spawn(&mut command)?;
        process
            .wait_until_answers(admin, "/readyz", START_DEADLINE)
            .await?;
        let rss_idle = process.rss_bytes()?;
        Ok(Contestant {
            name,
            address,
            process,
            agent: None,
            rss_idle,
        })
    }

    /// The same with a worker in the place of an endpoint.
    async fn start_with_worker(&self, name: &'static str, filters: &str) -> io::Result<Contestant> {
        let listen = agent::free_udp();
        let cluster = format!("workers = true\n{}", agent::workers(listen));
        let mut contestant = self.start(name, filters, &cluster).await?;
        contestant.agent = Some(Agent::start("bench", self.upstream_address, &[listen]));
        let deadline = Instant::now() + START_DEADLINE;
        while !round::serves(contestant.address).await {
            if Instant::now() > deadline {
                return Err(io::Error::other("no worker has dialled in"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(contestant)
    }

    fn config(
        &self,
        address: SocketAddr,
        admin: SocketAddr,
        filters: &str,
        cluster: &str,
    ) -> String {
        let names: Vec<&str> = filters.lines().filter_map(filter_name).collect();
        let cache = self.files.join("cache");
        format!(
            "[server]\nthreads = 1\ncache_dir = {cache:?}\n\
             [admin]\nlisten = \"{admin}\"\n\
             [log]\nlevel = \"warn\"\naccess = false\n\
             [[listeners]]\nname = \"main\"\nlisten = \"{address}\"\n\
             [[key_tables.bench.keys]]\nid = \"bench\"\nkey = \"{KEY}\"\n\
             {filters}\
             [pipelines.default]\nfilters = {names:?}\n\
             [functions.demo.models.sim]\ncluster = \"sim\"\n\
             [clusters.sim]\n{cluster}\n",
        )
    }
}

/// The `NAME` of a line `[filters.NAME]`.
fn filter_name(line: &str) -> Option<&str> {
    line.strip_prefix("[filters.")?
        .strip_suffix(']')
        .filter(|name| !name.contains('.'))
}

async fn stop(mut contestant: Contestant) -> io::Result<()> {
    contestant.process.signal(Signal::TERM)?;
    contestant
        .process
        .wait_for_exit(START_DEADLINE)
        .await
        .map(|_status| ())
}

fn free_address() -> io::Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

/// The key callers use.
pub(crate) const KEY: &str = "bench-key";
/// What the reference configuration has, with a limit that is never reached.
const FOUR_FILTERS: &str = r#"
[filters.auth]
module = "builtin:auth"
config = { key_table = "bench" }
grants = { read_headers = ["authorization"], key_tables = ["bench"] }
[filters.token-limit]
module = "builtin:token-limit"
config = { default = "1000000000-S,100000000000-M" }
grants = { limiters = true }
[filters.session-affinity]
module = "builtin:session-affinity"
grants = { read_headers = ["x-multi-turn-session-id"], write_headers = ["x-multi-turn-session-id"] }
[filters.routing-method]
module = "builtin:routing-method"
config = { default = "round_robin" }
"#;
const START_DEADLINE: Duration = Duration::from_secs(60);
