//! The suite: a real gateway, real sockets, and model servers that can misbehave.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod demo;

mod exchange;
mod requests;

mod streams;

mod retries;

mod auth;

mod limits;

mod otlp;
mod telemetry;

mod passthrough;

mod tls;

mod conversations;
mod fleet;
mod names;
mod workers;

mod clients;

mod filters_guide;
