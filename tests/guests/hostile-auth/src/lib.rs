//! A filter that lets everyone in, unless a request asks it to misbehave.

mod filter;

pub use filter::Guest;
