//! The table `[workers]`: model servers that dial in.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::Serialize;

use crate::field::{Field, TIME_MS};
use crate::key_table::sha256;
use crate::listener::TlsTable;
use crate::reader::Table;
use crate::secret::{Secret, mask_hash};

/// Where agents dial in, and which of them count. `listen` and `silence_timeout_ms` need a restart;
/// the rest is live, the certificate files too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkersTable {
    /// UDP address for agents; without it nobody can dial in.
    pub listen: Option<SocketAddr>,
    /// Certificate and key; without them the gateway makes a certificate of its own at every start,
    /// which agents accept only when told to (`--quic-insecure`).
    pub tls: Option<TlsTable>,
    /// Other gateways, `host:port`, that agents are to dial as well.
    pub peers: Vec<String>,
    /// How often agents tell their load, in milliseconds.
    pub heartbeat_ms: u64,
    /// Silence after which an agent counts as lost, in milliseconds. A connection that is closed is
    /// noticed at once.
    pub silence_timeout_ms: u64,
    /// Whose agents count.
    pub tokens: Vec<WorkerToken>,
}

/// `[[workers.tokens]]`: a token that agents show. Exactly one of `sha256` and `token` is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerToken {
    /// What logs call it; unique.
    pub id: String,
    /// SHA-256 of the token, 64 lower-case hex digits. Shown as `***`.
    #[serde(serialize_with = "mask_hash")]
    pub sha256: Option<String>,
    /// The token itself.
    pub token: Option<Secret>,
    /// The function that workers with this token serve, whatever they claim.
    pub function: String,
}

impl Default for WorkersTable {
    fn default() -> Self {
        Self {
            listen: None,
            tls: None,
            peers: Vec::new(),
            heartbeat_ms: 1_000,
            silence_timeout_ms: 4_000,
            tokens: Vec::new(),
        }
    }
}

impl WorkersTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let read = Self {
            listen: table.optional("listen", Field::socket_addr),
            tls: table.optional("tls", |f| f.table().map(TlsTable::read)),
            peers: table.or("peers", default.peers, |f| f.list(crate::cluster::address)),
            heartbeat_ms: table.or("heartbeat_ms", default.heartbeat_ms, |f| {
                f.integer(HEARTBEAT_MS)
            }),
            silence_timeout_ms: table.or("silence_timeout_ms", default.silence_timeout_ms, |f| {
                f.integer(TIME_MS)
            }),
            tokens: read_tokens(&mut table),
        };
        table.finish();
        read
    }
}

fn read_tokens(table: &mut Table<'_>) -> Vec<WorkerToken> {
    let tokens = table.or("tokens", Vec::new(), |f| {
        f.list(|f| f.table().map(WorkerToken::read))
    });
    let mut ids = BTreeSet::new();
    let mut values = BTreeSet::new();
    for (index, token) in tokens.iter().enumerate() {
        if !token.id.is_empty() && !ids.insert(token.id.as_str()) {
            let message = format!("two tokens have the id `{}`", token.id);
            table.element_error("tokens", index, message, "rename one");
        }
        let value = token.sha256.as_deref();
        let value = value.or(token.token.as_ref().map(Secret::reveal));
        if value.is_some_and(|value| !values.insert(value)) {
            let message = format!("the token `{}` is the same as one before it", token.id);
            table.element_error("tokens", index, message, "remove it or make a new token");
        }
    }
    tokens
}

impl WorkerToken {
    fn read(mut table: Table<'_>) -> Self {
        let sha256 = table.optional("sha256", sha256);
        let token = table.optional("token", Field::secret);
        let remedy = "write one of the two: printf %s TOKEN | sha256sum gives the sha256";
        match (table.has("sha256"), table.has("token")) {
            (false, false) => table.missing(
                "sha256",
                "`sha256` and `token` are both missing".into(),
                remedy,
            ),
            (true, true) => table.error(
                "sha256",
                "`sha256` and `token` are both there".into(),
                remedy,
            ),
            _ => {}
        }
        let read = Self {
            id: table.required(
                "id",
                String::new(),
                "add id = \"whose-workers\"",
                Field::name,
            ),
            function: table.required(
                "function",
                String::new(),
                "add function = \"the function they serve\"",
                Field::name,
            ),
            sha256,
            token,
        };
        table.finish();
        read
    }
}

/// Agents that report more often cost more than their reports are worth; after the longest, loads
/// are no loads any more.
const HEARTBEAT_MS: std::ops::RangeInclusive<i128> = 50..=60_000;
