//! The reference file, bad configurations line by line, masking and differences.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod bad;
mod difference;
mod functions_file;
mod reference;
