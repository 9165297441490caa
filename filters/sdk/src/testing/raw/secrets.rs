//! Fake of `secrets`: key tables in the clear. Signatures are checked as the real host does it.

use sha2::{Digest as _, Sha256};
use weir_signature::KeyError;

use crate::bindings::imports::weir::filter::secrets::KeyMatch;
use crate::testing::world::with;
use crate::types::{Failure, Principal};

pub(crate) fn sha256(data: &[u8]) -> Vec<u8> {
    Sha256::digest(data).to_vec()
}

pub(crate) fn lookup_key(table: &str, presented: &[u8]) -> Result<Option<KeyMatch>, Failure> {
    with(|world| {
        if !world.keys.iter().any(|(known, ..)| known == table) {
            return Err(Failure::NotFound);
        }
        let at = world
            .keys
            .iter()
            .position(|(known, key, _)| known == table && key == presented);
        Ok(at.and_then(|at| {
            let (.., principal) = world.keys.get(at)?;
            let who = u32::try_from(at).ok()?;
            Some(KeyMatch {
                who,
                restricted: !principal.models.is_empty(),
            })
        }))
    })
}

pub(crate) fn principal_of(who: u32) -> Option<Principal> {
    with(|world| {
        world
            .keys
            .get(who as usize)
            .map(|(.., principal)| principal.clone())
    })
}

pub(crate) fn verify_signature(
    jwk: &str,
    alg: &str,
    message: &[u8],
    signature: &[u8],
) -> Result<bool, Failure> {
    weir_signature::verify(jwk, alg, message, signature).map_err(|error| match error {
        KeyError::Algorithm | KeyError::Key => Failure::Invalid,
        KeyError::TooLong => Failure::TooLarge,
    })
}

pub(crate) fn key_set(name: &str) -> Option<String> {
    with(|world| world.key_sets.get(name).cloned())
}
