//! Names of our own: a hosts file that one program sees in the place of the machine's.

#![allow(
    clippy::unwrap_used,
    reason = "a kit for tests: what goes wrong here ends the test that asked"
)]

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// The names a program sees, which may come to point elsewhere while it runs.
pub struct Hosts {
    folder: TempDir,
}

impl Hosts {
    /// No names but these, each with its address.
    ///
    /// # Errors
    /// When a program cannot be given a file system of its own here: not root, or a sandbox that
    /// forbids it.
    pub fn new(names: &[(&str, IpAddr)]) -> io::Result<Self> {
        let hosts = Self {
            folder: TempDir::new()?,
        };
        hosts.point(names);
        let output = hosts.command(&Command::new("true")).output()?;
        if output.status.success() {
            return Ok(hosts);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(said.trim().to_owned()))
    }

    /// From now on there are no names but these.
    pub fn point(&self, names: &[(&str, IpAddr)]) {
        let lines = names
            .iter()
            .map(|(name, address)| format!("{address} {name}\n"));
        // Written over: the program sees this very file.
        fs::write(self.file(), lines.collect::<String>()).unwrap();
    }

    /// A command as it is run where only these names are known.
    #[must_use]
    pub fn command(&self, command: &Command) -> Command {
        let mut within = Command::new("unshare");
        within
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
            .arg(self.file())
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => within.env(name, value),
                None => within.env_remove(name),
            };
        }
        within
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }
}
