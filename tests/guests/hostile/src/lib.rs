//! A filter that misbehaves where its config says, when a request asks for it.

mod filter;

pub use filter::Guest;
