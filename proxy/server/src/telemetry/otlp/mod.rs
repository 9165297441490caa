//! Metrics and spans for an OpenTelemetry collector, off the callers' path.
//!
//! [`exporter`] decides when something is sent, [`collector`] sends it, [`points`] and [`span`]
//! say it in OTLP's words; [`spans`] is where exchanges leave theirs.

mod exporter;

mod collector;

mod points;
mod span;

mod spans;

pub(crate) use exporter::{Exporter, Exporting};
pub(crate) use spans::Spans;
