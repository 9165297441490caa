//! Agents under test: the binary beside a model server, dialling gateways.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a kit for tests: what goes wrong here ends the test that asked"
)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;

use crate::gateway::{DEADLINE, program};
use crate::process::{Process, free_port};

/// The token every config of [`workers`] knows; its workers serve the function `demo`.
pub const TOKEN: &str = "worker-token";

/// Tables for a gateway that workers dial at `listen`, with a heartbeat fit for tests.
pub fn workers(listen: SocketAddr) -> String {
    format!(
        "[workers]\nlisten = \"{listen}\"\nheartbeat_ms = 100\nsilence_timeout_ms = 2000\n\
         [[workers.tokens]]\nid = \"team\"\nfunction = \"demo\"\ntoken = \"{TOKEN}\"\n"
    )
}

/// An address on loopback on whose UDP port nobody listens.
pub fn free_udp() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap()
}

/// A running agent. Dropping it kills the process.
pub struct Agent {
    process: Process,
    admin: SocketAddr,
}

impl Agent {
    /// Starts `weir-agent` as worker `id` beside a model server that serves `sim`. Not waited for.
    pub fn start(id: &str, upstream: SocketAddr, gateways: &[SocketAddr]) -> Self {
        Self::with(id, upstream, gateways, &["--token", TOKEN])
    }

    /// The same with these arguments in the place of the token.
    pub fn with(
        id: &str,
        upstream: SocketAddr,
        gateways: &[SocketAddr],
        arguments: &[&str],
    ) -> Self {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let mut command = Command::new(program("weir-agent", "WEIR_AGENT_BIN"));
        command
            .args(["--upstream", &format!("http://{upstream}")])
            .args(["--worker-id", id, "--model", "sim", "--quic-insecure"])
            .args(["--initial-input-tps", "100000"])
            .args(["--admin-address", &admin.to_string()])
            .args(arguments);
        for gateway in gateways {
            command.args(["--gateway", &gateway.to_string()]);
        }
        let process = Process::spawn(&mut command).unwrap();
        Self { process, admin }
    }

    /// Where it tells of itself.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// CPU time it has used, in microseconds.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_us(&self) -> std::io::Result<u64> {
        self.process.cpu_us()
    }

    /// The process, to signal it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until the agent writes `text` into its log.
    ///
    /// # Panics
    /// When it does not within the deadline.
    pub async fn wait_for_log(&mut self, text: &str) {
        let waited = self.process.wait_for_log(text, DEADLINE).await;
        waited.unwrap_or_else(|error| panic!("{error}"));
    }
}
