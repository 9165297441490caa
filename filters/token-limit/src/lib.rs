//! Filter `token-limit`: keeps callers within budgets of tokens and requests per time window.

mod config;
mod dimension;
mod filter;
mod limit;
mod limiters;
mod refusal;

pub use config::{Config, OnStoreFailure};
pub use filter::TokenLimit;

weir_sdk::export!(TokenLimit: OnRequest);
