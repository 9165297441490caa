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
