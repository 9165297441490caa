//! The admin listener: health, metrics, the live configuration and what it is made of.

mod answer;
mod app;
mod clusters;
mod config;
mod filters;
mod functions;
mod workers;

pub(crate) use app::Admin;
pub(crate) use functions::PATH as FUNCTIONS_PATH;
