//! What wit-bindgen makes of `wit/`: the imports once, each export in a module of its own.
//!
//! One `generate!` per export, because the component type section that names an export is
//! emitted where its `export!` macro is used: a filter then carries the sections of the phases
//! it implements and of no others, which is how the host knows what to call.

#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "imports",
        generate_unused_types: true,
        additional_derives: [PartialEq],
    });
}

/// The export of one interface, with the types it shares taken from `imports`.
macro_rules! export_of {
    ($module:ident, $world:literal, $macro_name:literal, $path:literal, { $($with:tt)* }) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                world: $world,
                generate_unused_types: true,
                additional_derives: [PartialEq],
                pub_export_macro: true,
                export_macro_name: $macro_name,
                default_bindings_module: $path,
                with: { $($with)* },
            });
        }
    };
    ($module:ident, $world:literal, $macro_name:literal, $path:literal) => {
        export_of!($module, $world, $macro_name, $path, {
            "weir:filter/types@0.1.0": crate::bindings::imports::weir::filter::types,
        });
    };
}

export_of!(
    lifecycle,
    "lifecycle-only",
    "export_lifecycle",
    "weir_sdk::bindings::lifecycle",
    {}
);
export_of!(
    request_headers,
    "request-headers-only",
    "export_request_headers",
    "weir_sdk::bindings::request_headers"
);
export_of!(
    authorize,
    "authorize-only",
    "export_authorize",
    "weir_sdk::bindings::authorize"
);
export_of!(
    request,
    "request-only",
    "export_request",
    "weir_sdk::bindings::request"
);
export_of!(
    affinity,
    "affinity-only",
    "export_affinity",
    "weir_sdk::bindings::affinity"
);
export_of!(
    route,
    "route-only",
    "export_route",
    "weir_sdk::bindings::route"
);
export_of!(
    response_headers,
    "response-headers-only",
    "export_response_headers",
    "weir_sdk::bindings::response_headers"
);
export_of!(
    events,
    "events-only",
    "export_events",
    "weir_sdk::bindings::events"
);
export_of!(
    complete,
    "complete-only",
    "export_complete",
    "weir_sdk::bindings::complete"
);
export_of!(
    tick,
    "tick-only",
    "export_tick",
    "weir_sdk::bindings::tick",
    {}
);
