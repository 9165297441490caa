//! The `export!` macro: turns a filter type into the exports of a Wasm module.

/// The one value of a filter in its instance. Implemented by [`export!`](crate::export).
#[doc(hidden)]
pub trait Instance: crate::Filter {
    /// Keeps the value; fails on the second call.
    fn install(self) -> Result<(), String>;
    /// Runs a phase on it.
    fn with<R>(phase: impl FnOnce(&Self) -> R) -> R;
}

/// Exports a filter with exactly the phases named.
///
/// `weir_sdk::export!(MyFilter: Authorize, OnRequest);` once per crate. The phases are the names
/// of the traits: `OnRequestHeaders`, `Authorize`, `OnRequest`, `Affinity`, `Route`,
/// `OnResponseHeaders`, `OnEvents`, `OnComplete`, `OnTick`. The host never calls into the filter
/// for a phase that is not named here, so an unused phase costs nothing.
///
/// On other targets than Wasm it only checks that the traits are implemented.
#[macro_export]
macro_rules! export {
    ($filter:ident: $($phase:ident),* $(,)?) => {
        const _: () = {
            const fn is_filter<F: $crate::Filter $(+ $crate::$phase)*>() {}
            is_filter::<$filter>();
        };

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: ::std::cell::OnceCell<$filter> =
                    const { ::std::cell::OnceCell::new() };
            }

            impl $crate::Instance for $filter {
                fn install(self) -> ::std::result::Result<(), ::std::string::String> {
                    INSTANCE.with(|cell| cell.set(self))
                        .map_err(|_| ::std::string::String::from("initialised twice"))
                }

                fn with<R>(phase: impl FnOnce(&Self) -> R) -> R {
                    INSTANCE.with(|cell| match cell.get() {
                        Some(filter) => phase(filter),
                        None => ::std::panic!("phase called before init"),
                    })
                }
            }

            $crate::__export_interface!(lifecycle, export_lifecycle, $filter);
            $($crate::__export_phase!($phase, $filter);)*
        };
    };
}

/// A trait's name to its interface.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_phase {
    (OnRequestHeaders, $filter:ident) => {
        $crate::__export_interface!(request_headers, export_request_headers, $filter);
    };
    (Authorize, $filter:ident) => {
        $crate::__export_interface!(authorize, export_authorize, $filter);
    };
    (OnRequest, $filter:ident) => {
        $crate::__export_interface!(request, export_request, $filter);
    };
    (Affinity, $filter:ident) => {
        $crate::__export_interface!(affinity, export_affinity, $filter);
    };
    (Route, $filter:ident) => {
        $crate::__export_interface!(route, export_route, $filter);
    };
    (OnResponseHeaders, $filter:ident) => {
        $crate::__export_interface!(response_headers, export_response_headers, $filter);
    };
    (OnEvents, $filter:ident) => {
        $crate::__export_interface!(events, export_events, $filter);
    };
    (OnComplete, $filter:ident) => {
        $crate::__export_interface!(complete, export_complete, $filter);
    };
    (OnTick, $filter:ident) => {
        $crate::__export_interface!(tick, export_tick, $filter);
    };
}

/// Exports one interface of the filter.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_interface {
    ($module:ident, $export:ident, $filter:ident) => {
        $crate::bindings::$module::$export!($filter with_types_in $crate::bindings::$module);
    };
}
