//! Simulated model servers within a test, asked for what they have seen.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a kit for tests: what goes wrong here ends the test that asked"
)]

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;
use tokio::task::JoinSet;
pub use weir_simulator::Settings;
use weir_simulator::Simulator;

use crate::caller;
use crate::gateway::wait_until;

/// A model server on a free port. Dropping it cuts its connections.
pub struct Simulated {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Simulated {
    /// One without delays and faults.
    pub async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    /// One with these settings.
    pub async fn with(settings: Settings) -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), settings).await
    }

    /// One at an address, for example where another one was before.
    pub async fn at(address: SocketAddr, settings: Settings) -> Self {
        let simulator = Simulator::bind(address, settings).await.unwrap();
        let address = simulator.local_addr();
        let mut serving = JoinSet::new();
        serving.spawn(simulator.serve(std::future::pending()));
        Self {
            address,
            _serving: serving,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its `/sim/stats`.
    pub async fn stats(&self) -> Value {
        caller::send(self.address, caller::get("/sim/stats"))
            .await
            .json()
    }

    /// A number of its `/sim/stats` by its JSON pointer, such as `/client_aborts`.
    pub async fn count(&self, pointer: &str) -> u64 {
        let stats = self.stats().await;
        let found = stats.pointer(pointer).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("no number at {pointer} of {stats}"))
    }

    /// How many chat completions it was asked for.
    pub async fn chats(&self) -> u64 {
        self.count("/requests/~1v1~1chat~1completions").await
    }

    /// The last request it got: `method`, `path`, `headers`, `body`.
    pub async fn last_request(&self) -> Value {
        self.stats().await.get("last_request").cloned().unwrap()
    }

    /// Waits until a number of its statistics is what is expected.
    ///
    /// # Panics
    /// When it is not within the deadline.
    pub async fn wait_for(&self, pointer: &str, expected: u64) {
        let what = format!("{pointer} of {} to be {expected}", self.address);
        wait_until(&what, async || self.count(pointer).await == expected).await;
    }
}
