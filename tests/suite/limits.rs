//! Placeholder of limits.
