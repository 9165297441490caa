//! A routing filter: a prompt goes where its beginning was worked through before, unless that
//! backend is much busier than others.

mod filter;
mod index;
mod prompt;

pub use filter::{Config, PrefixCache};

weir_sdk::export!(PrefixCache: Route);
