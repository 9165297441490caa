//! Filter `auth`: lets in callers whose key is in a key table.

mod config;
mod credential;
mod filter;
mod refusal;

pub use config::Config;
pub use filter::Auth;

weir_sdk::export!(Auth: Authorize);
