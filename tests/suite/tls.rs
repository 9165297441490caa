//! Placeholder of tls.
