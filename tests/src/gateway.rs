//! The gateway under test: the binary in a process of its own, with its config in a folder of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a kit for tests: what goes wrong here ends the test that asked"
)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::caller::{self, Answer};
use crate::hosts::Hosts;
use crate::process::Process;

/// How long anything may take that a test waits for. Generous: machines are shared.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A running gateway. Dropping it kills the process and removes its folder.
pub struct Gateway {
    process: Process,
    folder: TempDir,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Gateway {
    /// Starts `weir run` with a config, see [`Gateway::start_in`].
    pub async fn start(config: &str) -> Self {
        Self::start_in(TempDir::new().unwrap(), config).await
    }

    /// The same where only the names of `hosts` are known.
    pub async fn start_with(hosts: &Hosts, config: &str) -> Self {
        Self::start_by(TempDir::new().unwrap(), config, |run| hosts.command(&run)).await
    }

    /// Starts `weir run` with `config` as `weir.toml` of `folder` and waits until it serves.
    /// `{listen}` and `{admin}` in the config stand for addresses on free ports, `{folder}` for the
    /// folder's path. Compiled filters are kept beside the binary, so that they are compiled once.
    ///
    /// # Panics
    /// When the gateway does not get ready; the message carries its log.
    pub async fn start_in(folder: TempDir, config: &str) -> Self {
        Self::start_by(folder, config, |run| run).await
    }

    async fn start_by(folder: TempDir, config: &str, by: impl Fn(Command) -> Command) -> Self {
        // The first start compiles the filters: alone, so that they are not compiled many times.
        static FIRST: OnceCell<()> = OnceCell::const_new();
        let mut started = None;
        FIRST
            .get_or_init(async || started = Some(Self::launch(&folder, config, &by).await))
            .await;
        let (process, listen, admin) = match started {
            Some(started) => started,
            None => Self::launch(&folder, config, &by).await,
        };
        Self {
            process,
            folder,
            listen,
            admin,
        }
    }

    async fn launch(
        folder: &TempDir,
        config: &str,
        by: impl Fn(Command) -> Command,
    ) -> (Process, SocketAddr, SocketAddr) {
        let listen = free_address();
        let admin = free_address();
        let config = config
            .replace("{listen}", &listen.to_string())
            .replace("{admin}", &admin.to_string())
            .replace("{folder}", &folder.path().display().to_string());
        let file = folder.path().join(CONFIG_FILE);
        fs::write(&file, config).unwrap();
        let mut process = Process::spawn(&mut by(run_command(&file))).unwrap();
        wait_until_serving(&mut process, listen, admin).await;
        (process, listen, admin)
    }

    /// Starts a second process on this one's config file, for example with `--upgrade`. It is not
    /// waited for.
    pub fn sibling(&self, arguments: &[&str]) -> Process {
        Process::spawn(run_command(&self.config_file()).args(arguments)).unwrap()
    }

    /// Where callers connect.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Where operators connect.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// `http://` and [`Gateway::address`].
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// The folder of the config; files beside it are removed with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The config file.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join(CONFIG_FILE)
    }

    /// What the process has logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process, to measure it or to signal it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// `GET` of an admin path, which must be answered.
    pub async fn admin(&self, path: &str) -> Answer {
        caller::send(self.admin, caller::get(path)).await
    }

    /// `POST` of an admin path, which must be answered.
    pub async fn admin_post(&self, path: &str, body: &str) -> Answer {
        caller::send(self.admin, caller::post(path, body.to_owned())).await
    }

    /// `GET` of an admin path as JSON.
    pub async fn admin_json(&self, path: &str) -> Value {
        self.admin(path).await.json()
    }

    /// The sum of all series of a metric whose labels contain all of `labels`, written as
    /// `name="value"`; 0 without any.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin("/metrics").await.text();
        sum_of_series(&text, name, labels)
    }

    /// Changes the config file as careful editors do: a new file in the old one's place.
    pub fn edit(&self, change: impl FnOnce(&str) -> String) {
        let text = change(&fs::read_to_string(self.config_file()).unwrap());
        self.replace(CONFIG_FILE, &text);
    }

    /// Changes the config file by writing over it.
    pub fn edit_in_place(&self, change: impl FnOnce(&str) -> String) {
        let text = change(&fs::read_to_string(self.config_file()).unwrap());
        fs::write(self.config_file(), text).unwrap();
    }

    /// Puts a new file in the place of one in the folder, atomically.
    pub fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let aside = self.folder.path().join(format!(".{name}.new"));
        fs::write(&aside, content).unwrap();
        fs::rename(aside, self.folder.path().join(name)).unwrap();
    }

    /// The number of the live configuration.
    pub async fn config_number(&self) -> u64 {
        let config = self.admin_json("/config").await;
        config.get("number").and_then(Value::as_u64).unwrap()
    }

    /// Waits until a condition holds.
    ///
    /// # Panics
    /// When it does not within [`DEADLINE`]; the message carries the log.
    pub async fn wait_for(&self, what: &str, condition: impl AsyncFn(&Self) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !condition(self).await {
            if Instant::now() >= end {
                panic!("timed out waiting for {what}; the log:\n{}", self.log());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Waits until a condition holds that is not about a gateway.
///
/// # Panics
/// When it does not within [`DEADLINE`].
pub async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < end, "timed out waiting for {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The `weir` binary: `WEIR_BIN`, else the one in the target folder of this test.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    program("weir", "WEIR_BIN")
}

/// A program of ours under test, or the one that a variable of the environment names.
///
/// # Panics
/// When it has not been built.
pub fn program(name: &str, variable: &str) -> PathBuf {
    let binary = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => beside_tests().join(name),
    };
    assert!(
        binary.exists(),
        "no program to test at {}; run `cargo build --release --workspace --bins`, or name one in {variable}",
        binary.display()
    );
    binary
}

/// An address of the loopback interface that nobody listens on, outside the range from which the
/// system takes ports for outgoing connections.
///
/// # Panics
/// When there is none.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test binaries run at the same time: each begins elsewhere.
    let begin = std::process::id().wrapping_mul(7_919);
    for _ in 0..PORTS {
        let place = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = PORT_MIN + u16::try_from(place).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port");
}

/// Everything a metrics text says of a metric, added up; see [`Gateway::metric`].
pub fn sum_of_series(text: &str, name: &str, labels: &[&str]) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (series, value) = rest.rsplit_once(' ')?;
        let is_name_whole = series.is_empty() || series.starts_with('{');
        let matches = is_name_whole && labels.iter().all(|label| series.contains(label));
        matches.then(|| value.parse::<f64>().unwrap())
    };
    text.lines().filter_map(value).sum()
}

/// The folder of the profile, such as `target/release`.
fn beside_tests() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap();
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap()
    } else {
        folder
    };
    folder.to_owned()
}

fn run_command(config: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("run").arg("--config").arg(config);
    // The default place of compiled filters is below the cache folder of the user.
    let cache = beside_tests().join("test-cache");
    command.env("XDG_CACHE_HOME", cache);
    command
}

async fn wait_until_serving(process: &mut Process, listen: SocketAddr, admin: SocketAddr) {
    let ready = process
        .wait_until_answers(admin, "/readyz", START_DEADLINE)
        .await;
    ready.unwrap_or_else(|error| panic!("the gateway does not get ready: {error}"));
    let end = Instant::now() + DEADLINE;
    while tokio::net::TcpStream::connect(listen).await.is_err() {
        if Instant::now() >= end {
            panic!("nothing listens on {listen}; the log:\n{}", process.log());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

const CONFIG_FILE: &str = "weir.toml";
/// Filters may have to be compiled first, on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const PORT_MIN: u16 = 12_000;
const PORTS: u32 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_added_up() {
        let text = "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nab{x=\"1\"} 9\nc 5\n";
        for (name, labels, expected) in [
            ("a", &[][..], 7.0),
            ("a", &[r#"y="3""#], 4.0),
            ("a", &[r#"y="4""#], 0.0),
            ("c", &[], 5.0),
        ] {
            assert_eq!(
                sum_of_series(text, name, labels),
                expected,
                "{name} {labels:?}"
            );
        }
    }

    #[test]
    fn addresses_differ() {
        assert_ne!(free_address(), free_address());
    }
}
