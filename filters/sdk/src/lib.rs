//! The SDK for Weir filters in Rust: typed configuration, one trait per phase, the host's
//! services as plain functions, and a fake host for native unit tests.
//!
//! A filter is a type that implements [`Filter`] and the traits of the phases it wants, and one
//! line that exports it:
//!
//! ```
//! use weir_sdk::{Filter, Manifest, OnRequestHeaders, Outcome, LocalResponse};
//!
//! pub struct Closed {
//!     message: String,
//! }
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! pub struct Config {
//!     message: String,
//! }
//!
//! impl Filter for Closed {
//!     type Config = Config;
//!     const NAME: &'static str = "closed";
//!
//!     fn manifest() -> Manifest {
//!         Manifest::new(env!("CARGO_PKG_VERSION"), "Refuses every request.")
//!     }
//!
//!     fn new(config: Config) -> Result<Self, String> {
//!         Ok(Self { message: config.message })
//!     }
//! }
//!
//! impl OnRequestHeaders for Closed {
//!     fn on_request_headers(&self) -> Outcome {
//!         LocalResponse::error(503, "unavailable_error", "closed", &self.message).into()
//!     }
//! }
//!
//! weir_sdk::export!(Closed: OnRequestHeaders);
//! ```
//!
//! Build it with `cargo build --release --target wasm32-unknown-unknown` as a `cdylib`; unit
//! tests run natively, see [`testing`].
//!
//! # What a filter may count on
//!
//! * An instance serves one call at a time, and many exchanges one after another. Which instance
//!   serves which call is the host's choice: guest memory is a cache, and what must be kept goes
//!   into [`state`] (across exchanges) or [`exchange::set_scratch`] (across phases).
//! * Nothing is granted that the configuration does not grant: reads answer "absent", calls
//!   answer [`Failure::Denied`], and edits are refused as a whole.
//! * Calls are metered in wall-clock time (5 ms a request phase, 1 ms for events, 50 ms for
//!   `validate`, `new` and ticks unless configured otherwise). A call that overruns, panics or
//!   grows past the memory limit ends this instance, and the exchange as the filter's `on_error`
//!   says.
//!
//! # What things cost
//!
//! Measured with Rust guests on one core of a 2.5 GHz Xeon: entering a phase 0.22 µs; a call
//! into the host 0.09 µs, and 0.25 to 0.35 µs when a short string comes back. Costs in this
//! documentation are of that machine.

pub mod bindings;
pub mod candidates;
pub mod exchange;
mod export;
pub mod host;
pub mod http_client;
pub mod lifecycle;
pub mod metrics;
pub mod phases;
pub mod secrets;
pub mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod types;

pub use export::*;
pub use lifecycle::{ConfigError, EventNeed, Filter, Manifest};
pub use phases::*;
pub use types::*;

#[cfg(target_arch = "wasm32")]
use bindings::imports::weir::filter as raw;
#[cfg(not(target_arch = "wasm32"))]
use testing::raw;
