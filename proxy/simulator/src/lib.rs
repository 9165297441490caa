//! weir-simulator: a model server without a model, deterministic by seed, for demos, tests and benches.

mod hardware;
mod settings;

mod server;

mod engine;

mod ask;
mod controls;
mod plan;

mod chat;
mod embeddings;
mod messages;
mod responses;
mod script;
mod tool;
mod words;

mod answer;
mod exchange;
mod fault;

mod prefill;
mod prefix_cache;
mod speed;

mod metrics;
mod stats;
mod stats_stream;

mod echo;
mod websocket;

pub use hardware::Hardware;
pub use server::Simulator;
pub use settings::Settings;
