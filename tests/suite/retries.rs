//! Placeholder of retries.
