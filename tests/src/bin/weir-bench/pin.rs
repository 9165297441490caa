//! Which processor runs what: the proxies have one for themselves, everything else shares another.

use std::ffi::OsStr;
use std::io;
use std::process::{Command, Stdio};

/// Whether processors could be assigned.
pub(crate) struct Pins {
    pinned: bool,
}

impl Pins {
    /// Puts this process, and what it starts later, beside the proxies' processor, where the
    /// machine has two and `taskset`.
    ///
    /// # Errors
    /// When `taskset` works but not on this process.
    pub(crate) fn take() -> io::Result<Self> {
        let pinned = [PROXY_CPU, OTHER_CPU].into_iter().all(|cpu| {
            let mut probe = Command::new("taskset");
            probe
                .args(["-c", cpu, "true"])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            probe.status().is_ok_and(|status| status.success())
        });
        if pinned {
            let own = std::process::id().to_string();
            let mut own_pin = Command::new("taskset");
            let status = own_pin
                .args(["-cp", OTHER_CPU, &own])
                .stdout(Stdio::null())
                .status()?;
            if !status.success() {
                return Err(io::Error::other("taskset cannot pin the bench itself"));
            }
        }
        Ok(Self { pinned })
    }

    /// A command on the processor of the proxies.
    pub(crate) fn proxy(&self, program: impl AsRef<OsStr>) -> Command {
        if !self.pinned {
            return Command::new(program);
        }
        let mut command = Command::new("taskset");
        command.args(["-c", PROXY_CPU]).arg(program);
        command
    }

    /// Whether processors are assigned.
    pub(crate) fn pinned(&self) -> bool {
        self.pinned
    }

    pub(crate) fn describe(&self) -> &'static str {
        if self.pinned {
            "proxies on one processor, client and model server on another"
        } else {
            "processors not assigned: expect noise"
        }
    }
}

const PROXY_CPU: &str = "0";
const OTHER_CPU: &str = "1";
