//! Host-side cryptography on keys the filter never sees.

use crate::raw::secrets as raw;
use crate::types::{Failure, Principal};

/// A principal found by the host, valid for the current exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    id: u32,
    restricted: bool,
}

impl Found {
    /// Whether the principal may call only some models: then look at [`Found::principal`]
    /// before letting it in.
    #[must_use]
    pub fn is_restricted(self) -> bool {
        self.restricted
    }

    /// Who it is. Copies the strings: about 1 µs, so ask only when needed.
    #[must_use]
    pub fn principal(self) -> Option<Principal> {
        raw::principal_of(self.id)
    }

    pub(crate) fn id(self) -> u32 {
        self.id
    }
}

/// Looks a presented credential up in a key table of the configuration: hashed, reloaded live,
/// compared in constant time. Needs the `key_tables` grant.
///
/// # Errors
/// [`Failure::Denied`] without the grant, [`Failure::NotFound`] when there is no such table.
pub fn lookup_key(table: &str, presented: &[u8]) -> Result<Option<Found>, Failure> {
    let found = raw::lookup_key(table, presented)?;
    Ok(found.map(|hit| Found {
        id: hit.who,
        restricted: hit.restricted,
    }))
}

/// SHA-256, run by the host: 32 bytes.
#[must_use]
pub fn sha256(data: &[u8]) -> Vec<u8> {
    raw::sha256(data)
}

/// Whether `signature` is the one of `message` by a public key, run by the host: some 50 µs.
///
/// `jwk` is the JSON text of one key (RFC 7517), `algorithm` one of RS256, RS384, RS512, PS256,
/// PS384, PS512, ES256, ES384 and EdDSA. Never compare tokens in the filter itself: code that must
/// take the same time for all inputs is hard to write, in WebAssembly above all.
///
/// # Errors
/// [`Failure::Invalid`] for another algorithm, or a key that does not go with it;
/// [`Failure::TooLarge`] beyond 64 KiB of message.
pub fn verify_signature(
    jwk: &str,
    algorithm: &str,
    message: &[u8],
    signature: &[u8],
) -> Result<bool, Failure> {
    raw::verify_signature(jwk, algorithm, message, signature)
}

/// JSON text of a key set of the configuration (RFC 7517), as its file says now: the host looks at
/// it live. None without the `key_sets` grant, or when there is no such set.
#[must_use]
pub fn key_set(name: &str) -> Option<String> {
    raw::key_set(name)
}
