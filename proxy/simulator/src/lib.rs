//! weir-simulator: a model server without a model, deterministic by seed, for demos, tests and benches.

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

mod prefix_cache;
mod stats;

mod echo;
mod websocket;

pub use server::Simulator;
pub use settings::Settings;
