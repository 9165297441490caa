//! What NVCF's LLM gateway is documented to do, a table a topic, and where Weir does better.
//!
//! Rows name the section of the documentation they hold the gateway to: 1.2 the model string, 1.3
//! authorization, 1.4 headers, 1.5 limits, 1.6 chat completions, 1.7 responses, 1.8 embeddings,
//! 1.9 stickiness, 1.10 messages, 1.11 models, 1.12 timeouts and bounds; 9 its weaknesses. Where
//! Weir departs from it on purpose, the row says `departs:`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod recorder;
mod row;

mod model_string;

mod authorization;

mod headers;

mod chat;
mod embeddings;
mod messages;
mod models;
mod responses;

mod sessions;

mod limits;

mod lifecycle;
mod streams;

mod weaknesses;
