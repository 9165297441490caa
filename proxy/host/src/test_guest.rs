//! A guest for tests, written by hand: what it does in a phase is chosen by the request's
//! `body_bytes`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "tests"
)]

use std::sync::Arc;

use http::{HeaderMap, Method};
use weir_config::{FilterLimits, FilterTable, Grants, ModuleRef, OnError};
use weir_dialect::Api;
use weir_pipeline::facts::{Facts, Transport};
use weir_pipeline::ledger::Ledger;
use weir_pipeline::view::RequestView;
use wit_component::StringEncoding;

use crate::engine::{Host, HostOptions};

/// What `on-request` is told to do.
#[derive(Clone, Copy)]
pub(crate) enum Deed {
    Pass = 0,
    Loop = 1,
    /// By 256 MiB.
    Grow = 2,
    Trap = 3,
    /// With status 42.
    RespondBadly = 4,
    /// Of header `x-edit`.
    Edit = 5,
    /// With status 403.
    Respond = 6,
    /// Unless this is the first call of the instance.
    TrapUnlessFresh = 7,
    /// By 7 pages.
    GrowALittle = 8,
    /// Sends a request; passes whatever the answer, responds with 403 when there is none.
    Send = 9,
}

const PARAMS: &str = "i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32";

const BODY: &str = r#"
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 8192))
  (global $calls (mut i32) (i32.const 0))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "weir:filter/lifecycle@0.1.0#describe") (result i32) (i32.const 1024))
  (func (export "weir:filter/lifecycle@0.1.0#validate") (param i32 i32) (result i32) (i32.const 1024))
  (func (export "weir:filter/lifecycle@0.1.0#init") (param i32 i32) (result i32) (i32.const 1024))
  (func (export "weir:filter/on-events@0.1.0#handle") (param i32 i32) (result i32)
    (loop $again (br $again))
    (unreachable))
  (func (export "weir:filter/on-route@0.1.0#route") (param PARAMS i64 i32 i64) (result i32)
    (i32.store8 (i32.const 1536) (i32.const 1))
    (i32.store (i32.const 1540) (i32.const 7))
    (i32.const 1536))
  (func $respond (param i32) (result i32)
    (i32.store8 (i32.const 2048) (i32.const 2))
    (i32.store16 (i32.const 2052) (local.get 0))
    (i32.const 2048))
  (func (export "weir:filter/on-request@0.1.0#handle") (param PARAMS) (result i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (global.set $free (i32.const 8192))
    (if (i32.eq (local.get 8) (i32.const 1)) (then (loop $again (br $again))))
    (if (i32.eq (local.get 8) (i32.const 2)) (then (drop (memory.grow (i32.const 4096)))))
    (if (i32.eq (local.get 8) (i32.const 3)) (then unreachable))
    (if (i32.eq (local.get 8) (i32.const 4)) (then (return (call $respond (i32.const 42)))))
    (if (i32.eq (local.get 8) (i32.const 5)) (then
      (i32.store8 (i32.const 3072) (i32.const 1))
      (i32.store (i32.const 3076) (i32.const 3200))
      (i32.store (i32.const 3080) (i32.const 1))
      (i32.store (i32.const 3204) (i32.const 4096))
      (i32.store (i32.const 3208) (i32.const 6))
      (i32.store (i32.const 3212) (i32.const 4096))
      (i32.store (i32.const 3216) (i32.const 6))
      (return (i32.const 3072))))
    (if (i32.eq (local.get 8) (i32.const 6)) (then (return (call $respond (i32.const 403)))))
    (if (i32.eq (local.get 8) (i32.const 7)) (then
      (if (i32.gt_u (global.get $calls) (i32.const 1)) (then unreachable))))
    (if (i32.eq (local.get 8) (i32.const 8)) (then (drop (memory.grow (i32.const 7)))))
    (if (i32.eq (local.get 8) (i32.const 9)) (then SEND))
    (i32.const 1024))
  (data (i32.const 4096) "x-edit")
  (data (i32.const 4112) "GET/eu")
"#;

const SEND: &str = r"
      (call $send (i32.const 4116) (i32.const 2)
        (i32.const 4112) (i32.const 3) (i32.const 4115) (i32.const 1)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 60000)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5120))
      (if (i32.load8_u (i32.const 5120)) (then (return (call $respond (i32.const 403)))))
";

const SEND_IMPORT: &str = r#"
  (import "weir:filter/http-client@0.1.0" "send"
    (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
"#;

const FOREIGN_IMPORT: &str =
    r#"(import "wasi:random/random@0.2.0" "get-random-u64" (func (result i64)))"#;

/// A core module with component type information. `sending`: it imports `http-client`.
pub(crate) fn guest(sending: bool) -> Vec<u8> {
    let import = if sending { SEND_IMPORT } else { "" };
    let send = if sending { SEND } else { "" };
    encode(
        &format!("(module {import} {BODY})")
            .replace("PARAMS", PARAMS)
            .replace("SEND", send),
        "",
    )
}

/// The same with an import that no grant covers.
pub(crate) fn foreign_guest() -> Vec<u8> {
    let text = format!("(module {FOREIGN_IMPORT} {BODY})")
        .replace("PARAMS", PARAMS)
        .replace("SEND", "");
    encode(&text, "import wasi:random/random@0.2.0;")
}

fn encode(text: &str, more: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    resolve.push_path("../../wit").unwrap();
    let random = "package wasi:random@0.2.0; interface random { get-random-u64: func() -> u64; }";
    resolve.push_str("random.wit", random).unwrap();
    let world = format!(
        "package test:guest;
        world guest {{
            include weir:filter/imports@0.1.0;
            {more}
            export weir:filter/lifecycle@0.1.0;
            export weir:filter/on-request@0.1.0;
            export weir:filter/on-route@0.1.0;
            export weir:filter/on-events@0.1.0;
        }}"
    );
    let package = resolve.push_str("guest.wit", &world).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .unwrap();
    module
}

pub(crate) fn host() -> Arc<Host> {
    Host::new(HostOptions::default()).unwrap()
}

pub(crate) fn table() -> FilterTable {
    FilterTable {
        module: ModuleRef::Builtin("auth".into()),
        role: None,
        on_error: OnError::Deny,
        grants: Grants::default(),
        limits: FilterLimits {
            request_ms: 20,
            event_ms: 1,
            init_ms: 1_000,
            ..FilterLimits::default()
        },
        config: serde_json::json!({}),
    }
}

/// An exchange that tells the guest what to do.
pub(crate) fn facts(deed: Deed) -> Box<Facts> {
    let mut view = RequestView::new(Api::ChatCompletions);
    view.body_bytes = deed as u32;
    Box::new(Facts {
        id: 1,
        request_id: "r".into(),
        transport: Transport::Http1,
        received_unix_ms: 0,
        view,
        method: Method::POST,
        path: String::new(),
        query: None,
        headers: HeaderMap::new(),
        edited_headers: Vec::new(),
        peer: None,
        sni: None,
        body: bytes::Bytes::new(),
        messages: 0,
        inputs: 0,
        session_keys: Vec::new(),
        principal: None,
        routing_key: "".into(),
        model: "".into(),
        settings: None,
        attributes: weir_pipeline::attributes::Attributes::default(),
        scratch: Vec::new(),
        candidates: None,
        affinity: None,
        session: weir_routing::Session::Unknown,
        excluded: Vec::new(),
        response: None,
        ledger: Arc::new(Ledger::default()),
        filter_ns: 0,
        body_edited: false,
    })
}
