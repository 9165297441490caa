//! JSON web tokens of one issuer.
//!
//! Rooms in reading order: `check` (from a token to a principal), `token` (its form), `claims` (what
//! it says), `fault` (why it does not count), `source` (where keys come from), `keys` (which of them fits), `verified` (tokens that
//! were good a moment ago).

mod check;
mod claims;
mod fault;
mod keys;
mod source;
#[cfg(test)]
mod tests;
mod token;
mod verified;

pub(crate) use check::{Checked, Jwt};
