//! What the gateway tells operators in numbers.
//!
//! [`metrics`] is all of it, [`genai`] the part per function, model and tenant.

mod metrics;

mod genai;

pub(crate) use genai::KnownSets;
pub(crate) use metrics::{Active, Metrics};
