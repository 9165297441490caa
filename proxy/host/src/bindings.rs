//! Types and host traits generated from `wit/`; the only file that knows the generator.
//!
//! Imports become `Host` traits (`weir::filter::*::Host`, implemented by the guest state);
//! `http-client.send` is the only asynchronous one. Of the exports only the types are used
//! (`exports::weir::filter::on_*`): the functions are looked up as [`TypedFunc`]s once per
//! instance (see `phase`), which can be called with and without a fiber.
//!
//! [`TypedFunc`]: wasmtime::component::TypedFunc
#![allow(
    unsafe_code,
    unreachable_pub,
    missing_docs,
    unused,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "full",
    imports: { "weir:filter/http-client.send": async },
});
