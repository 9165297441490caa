//! What the gateway tells operators in numbers.

mod metrics;

pub(crate) use metrics::{Active, Metrics};
