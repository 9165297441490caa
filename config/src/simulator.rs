//! The tables `[[simulators]]`: model servers inside the process, to try things out with.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Serialize;

use crate::field::Field;
use crate::reader::Table;

/// A simulated model server. A change needs a restart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SimulatorTable {
    /// Where it listens; port 0 takes any free port.
    pub listen: SocketAddr,
    /// What its pseudo-random decisions start from: equal seeds behave alike.
    pub seed: u64,
    /// Time to the first token, in milliseconds.
    pub ttft_ms: u64,
    /// Speed of one answer.
    pub tokens_per_second: f64,
    /// The name of its model.
    pub model: String,
    /// Requests answered at once; more wait.
    pub slots: u32,
    /// How far times vary, as a share of themselves: 0 to 1.
    pub jitter: f64,
    /// Share of requests answered with a server error: 0 to 1.
    pub error_rate: f64,
    /// Share of answers cut off in the middle: 0 to 1.
    pub disconnect_rate: f64,
    /// Tokens its key-value cache holds.
    pub kv_tokens: u64,
}

impl SimulatorTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let read = Self {
            listen: table.required(
                "listen",
                nowhere,
                "add listen = \"127.0.0.1:18081\"",
                Field::socket_addr,
            ),
            seed: table.or("seed", 1, |f| f.integer(0..=u64::MAX.into())),
            ttft_ms: table.or("ttft_ms", 20, |f| f.integer(0..=3_600_000)),
            tokens_per_second: table.or("tokens_per_second", 200.0, |f| {
                f.number(0.001..=1_000_000.0)
            }),
            model: table.or("model", "sim".into(), Field::name),
            slots: table.or("slots", 64, |f| f.integer(1..=1_000_000)),
            jitter: table.or("jitter", 0.0, |f| f.number(0.0..=1.0)),
            error_rate: table.or("error_rate", 0.0, |f| f.number(0.0..=1.0)),
            disconnect_rate: table.or("disconnect_rate", 0.0, |f| f.number(0.0..=1.0)),
            kv_tokens: table.or("kv_tokens", 262_144, |f| f.integer(1..=1 << 40)),
        };
        table.finish();
        read
    }
}
