//! Hosts of our own: network namespaces behind one bridge, made and removed by the test.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a kit for tests: what goes wrong here ends the test that asked"
)]

use std::ffi::OsStr;
use std::io;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// Some hosts and this one, on a network that nothing else is on. Dropping it removes them.
pub struct Network {
    name: String,
    hosts: Vec<Host>,
}

/// One host.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Network {
    /// Makes so many hosts.
    ///
    /// # Errors
    /// When namespaces cannot be made here: not root, no `ip`, or a sandbox that forbids it.
    pub fn new(hosts: u8) -> io::Result<Self> {
        // Names of interfaces are at most 15 characters long.
        let name = format!("w{}", std::process::id());
        let mut network = Self {
            name,
            hosts: Vec::new(),
        };
        let bridge = network.bridge();
        ip(["link", "add", &bridge, "type", "bridge"])?;
        let own = format!("{}/24", network.own_address());
        ip(["address", "add", &own, "dev", &bridge])?;
        ip(["link", "set", &bridge, "up"])?;
        for number in 0..hosts {
            network.add(number)?;
        }
        Ok(network)
    }

    /// Where the hosts reach the test itself.
    pub fn own_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, 77, 1)
    }

    /// A host by its number.
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    fn add(&mut self, number: u8) -> io::Result<()> {
        let host = Host {
            name: format!("{}h{number}", self.name),
            address: Ipv4Addr::new(10, 213, 77, 10 + number),
        };
        let inner = format!("{}i{number}", self.name);
        let bridge = self.bridge();
        ip(["netns", "add", &host.name])?;
        self.hosts.push(host.clone());
        ip([
            "link",
            "add",
            &host.outer(),
            "type",
            "veth",
            "peer",
            "name",
            &inner,
        ])?;
        ip(["link", "set", &inner, "netns", &host.name])?;
        ip(["link", "set", &host.outer(), "master", &bridge])?;
        host.link(true)?;
        let address = format!("{}/24", host.address);
        host.ip(["address", "add", &address, "dev", &inner])?;
        host.ip(["link", "set", &inner, "up"])?;
        host.ip(["link", "set", "lo", "up"])
    }
}

impl Host {
    /// A command to be run on this host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Plugs its cable in, or pulls it.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn link(&self, up: bool) -> io::Result<()> {
        ip(["link", "set", &self.outer(), if up { "up" } else { "down" }])
    }

    fn outer(&self) -> String {
        self.name.replace('h', "o")
    }

    fn ip<const N: usize>(&self, arguments: [&str; N]) -> io::Result<()> {
        run(self.command("ip").args(arguments))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &self.hosts {
            _ = ip(["netns", "delete", &host.name]);
            _ = ip(["link", "delete", &host.outer()]);
        }
        _ = ip(["link", "delete", &self.bridge()]);
    }
}

fn ip<const N: usize>(arguments: [&str; N]) -> io::Result<()> {
    run(Command::new("ip").args(arguments))
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}", said.trim())))
}
