//! Fake of `secrets`: key tables in the clear.

use sha2::{Digest as _, Sha256};

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
