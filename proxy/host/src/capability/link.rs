//! Puts all interfaces into a linker.

use wasmtime::component::{HasSelf, Linker};

use crate::bindings::weir::filter as wit;
use crate::capability::http_client;
use crate::guest_state::GuestState;

/// Adds everything of `weir:filter`. With `suspending` false `http-client.send` answers
/// `would-block`, and instances may be called without a fiber.
///
/// # Errors
/// When a name is in the linker already.
pub(crate) fn add_to_linker(
    linker: &mut Linker<GuestState>,
    suspending: bool,
) -> wasmtime::Result<()> {
    wit::types::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    wit::exchange::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    wit::host::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    wit::metrics::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    wit::state::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    wit::secrets::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    wit::candidates::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    if suspending {
        wit::http_client::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)
    } else {
        http_client::add_refusing(linker)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use wasmtime::component::{Component, Linker};
    use wasmtime::{Engine, Store};
    use weir_config::{FilterLimits, Grants, WasiGrant};

    use crate::capability::{add_to_linker, wasi};
    use crate::guest_state::{FilterIdentity, GuestState};
    use crate::services::Services;

    /// Writes to the standard output as libc does, asks for a random number, closes its stream.
    const WRITER: &str = r#"(component
        (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
        (alias export $error "error" (type $error-type))
        (import "wasi:io/streams@0.2.0" (instance $streams
            (export "output-stream" (type $output (sub resource)))
            (alias outer 1 $error-type (type $error-outer))
            (export "error" (type $error-in (eq $error-outer)))
            (type $stream-error (variant (case "last-operation-failed" (own $error-in)) (case "closed")))
            (export "stream-error" (type $stream-error-in (eq $stream-error)))
            (export "[method]output-stream.blocking-write-and-flush" (func
                (param "self" (borrow $output)) (param "contents" (list u8))
                (result (result (error $stream-error-in)))))))
        (alias export $streams "output-stream" (type $output-stream))
        (import "wasi:cli/stdout@0.2.0" (instance $stdout
            (alias outer 1 $output-stream (type $outer))
            (export "output-stream" (type $output (eq $outer)))
            (export "get-stdout" (func (result (own $output))))))
        (import "weir:filter/host@0.1.0" (instance $host
            (export "random-u64" (func (result u64)))))
        (core module $libc (memory (export "memory") 1) (data (i32.const 0) "hi\n")
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024))
        (core instance $libc (instantiate $libc))
        (core func $get (canon lower (func $stdout "get-stdout")))
        (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
            (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
        (core func $close (canon resource.drop $output-stream))
        (core func $random (canon lower (func $host "random-u64")))
        (core module $main
            (import "i" "get" (func $get (result i32)))
            (import "i" "write" (func $write (param i32 i32 i32 i32)))
            (import "i" "close" (func $close (param i32)))
            (import "i" "random" (func $random (result i64)))
            (func (export "run") (result i64) (local $stream i32)
                (local.set $stream (call $get))
                (call $write (local.get $stream) (i32.const 0) (i32.const 3) (i32.const 16))
                (call $close (local.get $stream))
                (call $random)))
        (core instance $main (instantiate $main (with "i" (instance
            (export "get" (func $get)) (export "write" (func $write))
            (export "close" (func $close)) (export "random" (func $random))))))
        (func (export "run") (result u64) (canon lift (core func $main "run"))))"#;

    fn store(engine: &Engine) -> Store<GuestState> {
        let grants = Grants {
            wasi: WasiGrant::Minimal,
            ..Grants::default()
        };
        let filter = Arc::new(FilterIdentity::new("f", grants, FilterLimits::default()));
        let services = Arc::new(Services::new(prometheus::Registry::new()));
        Store::new(engine, GuestState::new(filter, services))
    }

    #[tokio::test]
    async fn a_guest_writes_and_asks_with_and_without_a_fiber() {
        let engine = Engine::default();
        let component = Component::new(&engine, wat::parse_str(WRITER).unwrap()).unwrap();
        for suspending in [false, true] {
            let mut linker = Linker::new(&engine);
            add_to_linker(&mut linker, suspending).unwrap();
            wasi::add_to_linker(&mut linker, suspending).unwrap();
            let mut store = store(&engine);
            if suspending {
                let instance = linker
                    .instantiate_async(&mut store, &component)
                    .await
                    .unwrap();
                let run = instance
                    .get_typed_func::<(), (u64,)>(&mut store, "run")
                    .unwrap();
                assert!(run.call_async(&mut store, ()).await.unwrap().0 < 1 << 53);
            } else {
                let instance = linker.instantiate(&mut store, &component).unwrap();
                let run = instance
                    .get_typed_func::<(), (u64,)>(&mut store, "run")
                    .unwrap();
                assert!(run.call(&mut store, ()).unwrap().0 < 1 << 53);
            }
        }
    }

    #[test]
    fn sockets_and_http_are_not_there() {
        let engine = Engine::default();
        let mut linker = Linker::new(&engine);
        add_to_linker(&mut linker, false).unwrap();
        wasi::add_to_linker(&mut linker, false).unwrap();
        for name in [
            "wasi:sockets/instance-network@0.2.0",
            "wasi:http/types@0.2.0",
        ] {
            let text = format!(r#"(component (import "{name}" (instance (export "f" (func)))))"#);
            let component = Component::new(&engine, wat::parse_str(text).unwrap()).unwrap();
            assert!(linker.instantiate_pre(&component).is_err(), "{name}");
        }
    }
}
