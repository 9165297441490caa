//! Signatures checked by the public key of a JSON web key: in the host for filters, and in the fake
//! host of the SDK for their tests.

pub use verify::{KeyError, verify};

mod verify;
