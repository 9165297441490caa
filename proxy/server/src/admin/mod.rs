//! The admin listener: health, metrics, the live configuration and what it is made of.

mod app;
mod clusters;
mod config;
mod filters;

pub(crate) use app::Admin;
