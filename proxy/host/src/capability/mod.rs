//! What filters may call, one file per interface of `wit/`; each checks grants and bounds itself.

pub(crate) mod candidates;
pub(crate) mod exchange;
pub(crate) mod host;
pub(crate) mod http_client;
mod link;
pub(crate) mod metrics;
pub(crate) mod secrets;
pub(crate) mod state;
pub(crate) mod state_key;
mod types;
pub(crate) mod wasi;
mod wasi_immediate;

pub(crate) use link::add_to_linker;
