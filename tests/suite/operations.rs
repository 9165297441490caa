//! The suite of what operators do and suffer: reload, drain, upgrade, hostile filters, commands.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod stage;

mod reload;
mod reload_under_load;

mod hostile;

mod lifecycle;

mod accounting;

mod cli;
mod examples;
mod functions;
