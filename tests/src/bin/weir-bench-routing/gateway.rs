//! A gateway under test: the real binary, its config with one way of routing, changed while it runs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use weir_tests::process::{Process, free_port};

use crate::contestants::Contestant;
use crate::fleet::Machine;

/// A running gateway; it ends when dropped.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    config: Config,
}

/// Everything its config is made of.
struct Config {
    contestant: Contestant,
    time_scale: f64,
    address: SocketAddr,
    admin: SocketAddr,
    endpoints: Vec<(SocketAddr, u32)>,
    /// By place: whether it is in the config now.
    present: Vec<bool>,
    folder: TempDir,
}

impl Gateway {
    /// Starts one before the model servers at `upstreams` and waits until it serves.
    ///
    /// # Errors
    /// When it does not get ready; the message carries its log.
    pub(crate) async fn start(
        contestant: Contestant,
        machines: &[Machine],
        upstreams: &[SocketAddr],
        time_scale: f64,
    ) -> io::Result<Self> {
        let weights = machines.iter().map(|machine| machine.weight);
        let config = Config {
            contestant,
            time_scale,
            address: free_address()?,
            admin: free_address()?,
            endpoints: upstreams.iter().copied().zip(weights).collect(),
            present: vec![true; upstreams.len()],
            folder: TempDir::new()?,
        };
        config.write()?;
        let mut command = Command::new(binary()?);
        command.arg("run").arg("--config").arg(config.file());
        let mut process = Process::spawn(&mut command)?;
        process
            .wait_until_answers(config.admin, "/readyz", START_DEADLINE)
            .await?;
        Ok(Self {
            address: config.address,
            process,
            config,
        })
    }

    /// Why the gateway would not take this contestant's config; `None` when it does.
    ///
    /// # Errors
    /// When the gateway cannot be asked.
    pub(crate) fn objection(contestant: Contestant) -> io::Result<Option<String>> {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let config = Config {
            contestant,
            time_scale: 1.0,
            address: nowhere,
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 2)),
            endpoints: vec![(nowhere, 1)],
            present: vec![true],
            folder: TempDir::new()?,
        };
        config.write()?;
        let mut command = Command::new(binary()?);
        command.arg("check").arg("--config").arg(config.file());
        let output = command.output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((!output.status.success()).then(|| String::from_utf8_lossy(&text).trim().to_owned()))
    }

    /// Takes a model server out of the config, or puts it back, by writing the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn set_present(&mut self, place: usize, is_present: bool) -> io::Result<()> {
        if let Some(present) = self.config.present.get_mut(place) {
            *present = is_present;
        }
        self.config.write()
    }
}

impl Config {
    fn file(&self) -> PathBuf {
        self.folder.path().join("weir.toml")
    }

    /// A new file in the place of the old one, so that nobody reads half of it.
    fn write(&self) -> io::Result<()> {
        let aside = self.folder.path().join("weir.toml.new");
        std::fs::write(&aside, self.text()?)?;
        std::fs::rename(aside, self.file())
    }

    fn text(&self) -> io::Result<String> {
        let endpoints: Vec<String> = self
            .endpoints
            .iter()
            .zip(&self.present)
            .filter(|(_, present)| **present)
            .map(|((address, weight), _)| {
                format!("{{ address = \"{address}\", weight = {weight} }}")
            })
            .collect();
        Ok(format!(
            "[server]\nthreads = 1\ncache_dir = {cache:?}\n\
             [admin]\nlisten = \"{admin}\"\n\
             [reload]\npoll_ms = {POLL_MS}\n\
             [streams]\ncomment_interval_ms = 0\n\
             [log]\nlevel = \"warn\"\naccess = false\n\
             [[listeners]]\nname = \"main\"\nlisten = \"{address}\"\n\
             {FILTERS}\
             [filters.routing-method.config]\ndefault = \"{method}\"\n{routing}\n\
             [pipelines.default]\nfilters = [\"session-affinity\", \"routing-method\"]\n\
             [clusters.sim]\nendpoints = [{endpoints}]\nslow_start_ms = {slow_start:.0}\n\
             [functions.bench.models.sim]\ncluster = \"sim\"\n",
            cache = cache()?,
            admin = self.admin,
            address = self.address,
            routing = self.contestant.config_at(self.time_scale),
            method = self.contestant.method,
            slow_start = SLOW_START_SIMULATED_MS / self.time_scale,
            endpoints = endpoints.join(", "),
        ))
    }
}

fn free_address() -> io::Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

fn binary() -> io::Result<PathBuf> {
    Ok(programs()?.join("weir"))
}

/// The folder of this program, where its siblings are.
pub(crate) fn programs() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().map(Path::to_owned);
    folder.ok_or_else(|| io::Error::other("this program has no folder"))
}

/// Compiled filters are kept beside the build: all gateways use the same ones.
fn cache() -> io::Result<PathBuf> {
    Ok(programs()?.join("bench-cache"))
}

/// What all have in common. Conversations are those that callers name, for everybody; the filters'
/// time is measured by the clock on the wall, so they have plenty.
const FILTERS: &str = r#"
[filters.session-affinity]
module = "builtin:session-affinity"
limits = { request_ms = 2000, event_ms = 2000, init_ms = 10000 }
config = { sources = ["prompt_cache_key", "conversation_id", "session_header"] }
grants = { read_headers = ["x-multi-turn-session-id"], write_headers = ["x-multi-turn-session-id"] }
[filters.routing-method]
module = "builtin:routing-method"
limits = { request_ms = 2000, event_ms = 2000, init_ms = 10000 }
"#;
const SLOW_START_SIMULATED_MS: f64 = 10_000.0;
const POLL_MS: u32 = 50;
const START_DEADLINE: Duration = Duration::from_secs(120);
