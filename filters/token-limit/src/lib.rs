//! Filter `token-limit`: keeps callers within token budgets per time window.

mod config;
mod duration;
mod filter;
mod limit;
mod limiters;
mod refusal;

pub use config::{Config, OnStoreFailure};
pub use filter::TokenLimit;

weir_sdk::export!(TokenLimit: OnRequest);
