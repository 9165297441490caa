//! The gateway: alone knows pingora, and the order of things. Rooms in reading order: `cli` (the
//! commands), `boot` (a process from a configuration), `gateway` (where pingora hands over),
//! `request` (the steps of a model call), `passthrough` (everything else), `snapshot` and `compile`
//! (the configuration ready to serve), `members` and `workers` (who serves it, and who dials in to),
//! `runtime` (what outlives it), `reload`, `admin`.

mod cli;

mod boot;
mod runtime;
mod tls;

mod gateway;
mod passthrough;
mod request;

mod builtin;
mod compile;
mod complete;
mod health_check;
mod key_sets;
mod key_tables;
mod members;
mod names;
mod outbound;
mod reload;
mod snapshot;
mod upstream;

mod admin;
mod telemetry;
mod workers;

pub use cli::main;
