//! Filter `session-affinity`: derives the key that keeps a conversation on one backend.

mod config;
mod filter;
mod key;

pub use config::{Config, Source};
pub use filter::SessionAffinity;

weir_sdk::export!(SessionAffinity: Affinity);
