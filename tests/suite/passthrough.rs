//! Placeholder of passthrough.
