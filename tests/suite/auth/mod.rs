//! Callers known by tokens and by a control plane, against a real gateway.

mod jwt;
mod kit;
mod nvcf;
