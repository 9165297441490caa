//! Both ends of the wire against each other over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod rig;

mod hello;

mod control;

mod streams;

mod ends;

mod pressure;

mod loss;
