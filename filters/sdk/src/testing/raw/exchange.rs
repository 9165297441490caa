//! Fake of `exchange`: answers from the scripted exchange.

use crate::exchange::ExchangeMeta;
use crate::testing::world::{name_of, with};
use crate::types::{Failure, Principal, SessionKey};

type Headers = [(String, Vec<u8>)];

fn first(headers: &Headers, name: &str) -> Option<Vec<u8>> {
    let found = headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.clone())
}

pub(crate) fn meta() -> ExchangeMeta {
    with(|world| world.meta.clone())
}

pub(crate) fn get_header(name: &str) -> Option<Vec<u8>> {
    with(|world| first(&world.headers, name))
}

pub(crate) fn header_by_id(id: u32) -> Option<Vec<u8>> {
    get_header(&name_of(id))
}

pub(crate) fn headers_by_id(ids: &[u32]) -> Vec<Option<Vec<u8>>> {
    ids.iter().map(|id| header_by_id(*id)).collect()
}

pub(crate) fn header_values(name: &str) -> Vec<Vec<u8>> {
    with(|world| {
        let all = world
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        all.map(|(_, value)| value.clone()).collect()
    })
}

pub(crate) fn header_list() -> Vec<(String, Vec<u8>)> {
    with(|world| world.headers.clone())
}

pub(crate) fn method() -> String {
    with(|world| world.method.clone())
}

pub(crate) fn path() -> String {
    with(|world| world.path.clone())
}

pub(crate) fn query() -> Option<String> {
    with(|world| world.query.clone())
}

pub(crate) fn peer_addr() -> String {
    "127.0.0.1:50000".to_owned()
}

pub(crate) fn tls_sni() -> Option<String> {
    None
}

pub(crate) fn session_keys() -> Vec<SessionKey> {
    with(|world| world.session_keys.clone())
}

pub(crate) fn json(pointer: &str) -> Option<String> {
    with(|world| {
        let body: serde_json::Value = serde_json::from_slice(&world.body).ok()?;
        body.pointer(pointer).map(ToString::to_string)
    })
}

pub(crate) fn body(offset: u32, max: u32) -> Result<Vec<u8>, Failure> {
    with(|world| {
        Ok(world
            .body
            .iter()
            .skip(offset as usize)
            .take(max as usize)
            .copied()
            .collect())
    })
}

pub(crate) fn attribute(name: &str) -> Option<String> {
    with(|world| world.attributes.get(name).cloned())
}

pub(crate) fn caller() -> Option<Principal> {
    with(|world| world.principal.clone())
}

pub(crate) fn response_status() -> Option<u16> {
    with(|world| world.response.as_ref().map(|(status, _)| *status))
}

pub(crate) fn response_header(name: &str) -> Option<Vec<u8>> {
    with(|world| {
        world
            .response
            .as_ref()
            .and_then(|(_, headers)| first(headers, name))
    })
}

pub(crate) fn scratch() -> Vec<u8> {
    with(|world| world.scratch.clone())
}

pub(crate) fn set_scratch(value: &[u8]) -> Result<(), Failure> {
    if value.len() > SCRATCH_BYTES_MAX {
        return Err(Failure::TooLarge);
    }
    with(|world| world.scratch = value.to_vec());
    Ok(())
}

const SCRATCH_BYTES_MAX: usize = 4_096;
