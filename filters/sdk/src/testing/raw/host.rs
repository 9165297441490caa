//! Fake of `host`: names, a clock that stands still, scripted randomness, captured log.

use crate::host::Level;
use crate::testing::world::{self, with};

pub(crate) fn log(level: Level, message: &str) {
    with(|world| world.logs.push((level, message.to_owned())));
}

pub(crate) fn log_level() -> Level {
    with(|world| world.log_level)
}

pub(crate) fn intern(value: &str) -> u32 {
    world::intern(value)
}

pub(crate) fn name_of(id: u32) -> String {
    world::name_of(id)
}

pub(crate) fn header_id(name: &str) -> u32 {
    world::intern(&name.to_ascii_lowercase())
}

pub(crate) fn now_unix_ms() -> u64 {
    with(|world| world.now_ms)
}

pub(crate) fn monotonic_ns() -> u64 {
    with(|world| world.now_ms * 1_000_000)
}

pub(crate) fn random_u64() -> u64 {
    with(|world| {
        world.random.pop_front().unwrap_or_else(|| {
            world.cursor += 1;
            world::hash53(b"random", world.cursor)
        })
    })
}

pub(crate) fn hash64(data: &[u8], seed: u64) -> u64 {
    world::hash53(data, seed)
}
