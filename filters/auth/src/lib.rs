//! Filter `auth`: lets in callers whose key is in a key table, whose token an issuer has signed, or
//! whose credential an NVCF control plane knows.
//!
//! Rooms in reading order: `filter` (the order in which the ways are tried), `credential` (what a
//! caller presents), `jwt` and `nvcf` (one way each), `models` (lists of models), `refusal`.

mod clock;
mod config;
mod credential;
mod filter;
mod jwt;
mod models;
mod nvcf;
mod refusal;

use clock::clock_ms;
pub use config::{ClaimsTable, Config, JwtTable, NvcfTable, Texts};
pub use filter::Auth;

weir_sdk::export!(Auth: Authorize, OnTick);
