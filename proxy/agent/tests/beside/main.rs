//! An agent between a gateway's end of the wire and a small model server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod rig;

mod register;

mod gateways;

mod streams;

mod sources;
