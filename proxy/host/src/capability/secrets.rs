//! The interface `secrets`: hashes and lookups of keys that the filter never sees.

use sha2::{Digest, Sha256};
use weir_signature::KeyError;

use crate::bindings::weir::filter::secrets::{Host, KeyMatch};
use crate::bindings::weir::filter::types::{Failure, Principal};
use crate::capability::types;
use crate::guest_state::GuestState;

impl Host for GuestState {
    fn sha256(&mut self, data: Vec<u8>) -> Vec<u8> {
        Sha256::digest(&data).to_vec()
    }

    fn lookup_key(
        &mut self,
        table: String,
        presented: Vec<u8>,
    ) -> Result<Option<KeyMatch>, Failure> {
        if self.pure || !self.filter.grants.key_tables.contains(&table) {
            return Err(Failure::Denied);
        }
        if self.current.is_none() {
            return Err(Failure::Invalid);
        }
        if self.found.len() >= FOUND_MAX {
            return Err(Failure::TooLarge);
        }
        let tables = self.services.key_tables.load();
        let known = tables.find(&table).ok_or(Failure::NotFound)?;
        let Some(principal) = known.lookup(&presented) else {
            return Ok(None);
        };
        let who = u32::try_from(self.found.len()).unwrap_or(u32::MAX);
        let restricted = !principal.models.is_empty();
        self.found.push(principal);
        Ok(Some(KeyMatch { who, restricted }))
    }

    fn verify_signature(
        &mut self,
        jwk: String,
        alg: String,
        message: Vec<u8>,
        signature: Vec<u8>,
    ) -> Result<bool, Failure> {
        weir_signature::verify(&jwk, &alg, &message, &signature).map_err(|error| match error {
            KeyError::Algorithm | KeyError::Key => Failure::Invalid,
            KeyError::TooLong => Failure::TooLarge,
        })
    }

    fn key_set(&mut self, name: String) -> Option<String> {
        if self.pure || !self.filter.grants.key_sets.contains(&name) {
            return None;
        }
        let sets = self.services.key_sets.load();
        sets.find(&name).map(ToString::to_string)
    }

    fn principal_of(&mut self, who: u32) -> Option<Principal> {
        self.found
            .get(who as usize)
            .map(|principal| types::principal(principal))
    }
}

/// Most principals one phase call may find.
const FOUND_MAX: usize = 16;
