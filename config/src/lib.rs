//! Weir's configuration: a TOML file and its functions file, read and checked whole, before
//! anything acts on it.
//!
//! [`parse`] turns a text into a [`Config`] that cannot be wrong in itself, or into every error
//! at once. Nothing here does I/O except [`Sources::read`], and nothing waits.

mod cluster;
mod config;
mod diff;
mod dns;
mod error;
mod field;
mod filter;
mod function;
mod functions_file;
mod hints;
mod key;
mod key_set;
mod key_table;
mod listener;
mod pipeline;
mod rate_limit;
mod reader;
mod references;
mod report;
mod route;
mod secret;
mod server;
mod show;
mod simulator;
mod sources;
mod telemetry;
#[cfg(test)]
mod tests;
mod workers;

pub use cluster::{ClusterTable, EjectionTable, Endpoint, HealthTable, Resend, UpstreamTls};
pub use config::{Config, REFERENCE, parse, parse_keys, resolve};
pub use diff::{ConfigDiff, diff};
pub use dns::{DnsTable, IpFamily};
pub use error::ConfigError;
pub use filter::{
    BUILTINS, FilterLimits, FilterRole, FilterTable, Grants, ModuleRef, OnError, WasiGrant,
};
pub use function::{FunctionTable, FunctionsApiTable, ModelTable, PriorityTable, VersionTable};
pub use hints::HintsTable;
pub use key::{filter_error, locate};
pub use key_set::KeySet;
pub use key_table::{KeyEntry, KeyTable};
pub use listener::{Listener, TlsTable};
pub use pipeline::PipelineTable;
pub use rate_limit::{RATE_LIMIT_BUDGET_MAX, parse_token_rate_limit};
pub use route::{RouteTable, Served};
pub use secret::Secret;
pub use server::{
    AdminTable, LimitsTable, LogFormat, LogTable, ReloadTable, ServerTable, StreamsTable,
};
pub use show::masked;
pub use simulator::SimulatorTable;
pub use sources::{Sources, load};
pub use telemetry::{OtlpEndpoint, OtlpProtocol, OtlpTable, TelemetryTable};
pub use workers::{WorkerToken, WorkersTable};
