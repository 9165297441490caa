//! A filter that opens a connection by itself.

mod filter;

pub use filter::Guest;
