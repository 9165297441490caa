//! The one place where bytes become machine code without a compiler.

use wasmtime::Engine;
use wasmtime::component::Component;

/// Loads compiled code that the caller has authenticated.
#[allow(
    unsafe_code,
    reason = "wasmtime cannot check compiled code; the caller has authenticated it"
)]
pub(super) fn authenticated(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` is what `Component::serialize` returned to this gateway: its HMAC-SHA256,
    // with a key that only our uid can read, was checked over exactly these bytes in memory.
    // wasmtime itself checks that its version and settings match.
    unsafe { Component::deserialize(engine, code) }
}
