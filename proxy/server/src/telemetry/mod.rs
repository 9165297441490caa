//! What the gateway tells operators in numbers, and in spans.
//!
//! [`metrics`] is all of the numbers, [`genai`] the part per function, model and tenant,
//! [`workers`] that of model servers that dial in; [`otlp`]
//! sends them, and spans, to a collector.

mod metrics;

mod genai;

mod workers;

mod otlp;

pub(crate) use genai::KnownSets;
pub(crate) use metrics::{Active, Metrics};
pub(crate) use otlp::{Exporter, Exporting, Spans};
