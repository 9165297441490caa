//! What is measured: the three proxies, and the model server behind all of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use weir_tests::process::{Process, Signal, free_port};

use crate::pin::Pins;

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
    /// Resident memory before any load, in bytes.
    pub(crate) rss_idle: u64,
}

/// The contestants: pingora-proxy, the gateway without filters, and with all four.
pub(crate) const NAMES: [&str; 3] = ["bare proxy", "empty chain", "four filters"];

impl Stage {
    /// Starts everything and waits until it answers.
    ///
    /// # Errors
    /// When a program is missing or does not get ready; the message carries its log.
    pub(crate) async fn set(pins: &Pins) -> io::Result<Self> {
        let programs = programs()?;
        let files = TempDir::new()?;
        let (upstream, upstream_address) = start_upstream(&programs).await?;
        let [bare, empty, full] = NAMES;
        let gateway = Gateway {
            pins,
            programs: &programs,
            files: files.path(),
            upstream_address,
        };
        // The first start fills the cache of compiled filters, as on a machine that never ran them.
        let cold = gateway.start(full, FOUR_FILTERS).await?;
        let rss_cold = cold.rss_idle;
        stop(cold).await?;
        let contestants = vec![
            start_bare(bare, pins, &programs, upstream_address).await?,
            gateway.start(empty, "").await?,
            gateway.start(full, FOUR_FILTERS).await?,
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
    async fn start(&self, name: &'static str, filters: &str) -> io::Result<Contestant> {
        let (address, admin) = (free_address()?, free_address()?);
        let config = self.config(address, admin, filters);
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
            rss_idle,
        })
    }

    fn config(&self, address: SocketAddr, admin: SocketAddr, filters: &str) -> String {
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
             [clusters.sim]\nendpoints = [\"{upstream}\"]\n\
             [functions.demo.models.sim]\ncluster = \"sim\"\n",
            upstream = self.upstream_address,
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
