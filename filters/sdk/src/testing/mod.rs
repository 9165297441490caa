//! A fake host for native unit tests: script an exchange, run a phase in it, look at the result.
//!
//! ```
//! use weir_sdk::testing::Exchange;
//! use weir_sdk::{exchange, host, Principal};
//!
//! let mut exchange = Exchange::new()
//!     .model("demo", "sim")
//!     .header("authorization", "Bearer weir-demo-key")
//!     .key("demo", "weir-demo-key", Principal::new("alice", "acme"));
//! let seen = exchange.run(|| exchange::header("authorization"));
//! assert_eq!(seen.as_deref(), Some(&b"Bearer weir-demo-key"[..]));
//! ```
//!
//! Each test thread has a host of its own. Limiters and stores live in the [`Exchange`], so
//! several runs of one share them, and time stands still unless [`Exchange::advance_ms`] moves it.

pub(crate) mod raw;

mod buckets;
mod exchange;
mod world;

pub use exchange::{Exchange, backend, filter, load};
