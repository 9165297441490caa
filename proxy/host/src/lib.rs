//! The host of Wasm filters: engine, module cache, instance pools and the phase calls of the
//! contract in `wit/`.
//!
//! Rooms in reading order: [`Host`] (one per process), [`Module`] (a compiled component),
//! [`WasmFilter`] (a module with its configuration, behind the chain's trait), `phase` (one file
//! per phase: lower, call, lift), `pool` and `instance` (warm stores), `breaker` (quarantine),
//! `capability` (what guests may call).

pub use capability::http_client::{
    OUTBOUND_BODY_BYTES_MAX, Outbound, OutboundAnswer, OutboundError, OutboundRequest,
    OutboundResponse,
};
pub use engine::{EngineError, Host, HostOptions};
pub use failure::Fault;
pub use filter::WasmFilter;
pub use guest_state::FilterIdentity;
pub use hash::hash53;
pub use key_set::KeySets;
pub use key_table::{KeyEntry, KeyTable, KeyTables, PRESENTED_BYTES_MAX};
pub use manifest::{EventNeed, Manifest, MissingGrant};
pub use metrics::{FilterStats, PhaseStats};
pub use module::{LoadError, Module};
pub use prepare::{ConfigFault, PrepareError};
pub use services::Services;

mod bindings;
mod breaker;
mod cache;
mod call;
mod capability;
mod engine;
mod failure;
mod filter;
mod flights;
mod guest_state;
mod hash;
mod instance;
mod key_set;
mod key_table;
mod limit_metrics;
mod manifest;
mod metrics;
mod module;
mod phase;
mod pool;
mod prepare;
mod services;
mod tick_length;

#[cfg(test)]
mod cache_tests;
#[cfg(test)]
mod guest_tests;
#[cfg(test)]
mod test_guest;
