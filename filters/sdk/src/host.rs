//! Services every filter has without a grant: log, interned names, clocks, randomness, hashing.

use std::cell::Cell;

pub use crate::bindings::imports::weir::filter::host::Level;
use crate::raw::host as raw;
use crate::types::InternId;

/// Writes one line to the gateway's log with the filter's name, if anyone listens to `level`.
///
/// Cut at `limits.log_bytes` and rate-limited by the host. The macros [`error!`](crate::error),
/// [`warn!`](crate::warn), [`info!`](crate::info), [`debug!`](crate::debug) and
/// [`trace!`](crate::trace) format only when it is heard.
pub fn log(level: Level, message: &str) {
    if enabled(level) {
        raw::log(level, message);
    }
}

/// Whether anyone listens to `level`. The host is asked once per instance.
#[must_use]
pub fn enabled(level: Level) -> bool {
    thread_local! {
        static LEAST: Cell<Option<Level>> = const { Cell::new(None) };
    }
    // Tests change the level within one thread; an instance never sees it change.
    let known = if cfg!(target_arch = "wasm32") {
        LEAST.get()
    } else {
        None
    };
    let least = known.unwrap_or_else(|| {
        let asked = raw::log_level();
        LEAST.set(Some(asked));
        asked
    });
    level as u8 >= least as u8
}

/// Id of a string for as long as the process lives; equal strings have equal ids. 0 when the
/// process has no room for more names. Ask once and keep it: 0.13 µs.
#[must_use]
pub fn intern(value: &str) -> InternId {
    raw::intern(value)
}

/// Text of an id; empty for 0 and for unknown ones. Copies: about 0.25 µs.
#[must_use]
pub fn name_of(id: InternId) -> String {
    raw::name_of(id)
}

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn now_unix_ms() -> u64 {
    raw::now_unix_ms()
}

/// Nanoseconds of a clock that never goes back; only differences mean something.
#[must_use]
pub fn monotonic_ns() -> u64 {
    raw::monotonic_ns()
}

/// 53 random bits. 0.09 µs.
#[must_use]
pub fn random() -> u64 {
    raw::random_u64()
}

/// A uniform number below `bound`; 0 when `bound` is 0.
#[must_use]
pub fn random_below(bound: u32) -> u32 {
    // Of 53 bits, a 32-bit bound takes the bias below 2^-21.
    u32::try_from(random().checked_rem(u64::from(bound)).unwrap_or(0)).unwrap_or(0)
}

/// xxh3 of `data`, run by the host, cut to 53 bits.
#[must_use]
pub fn hash(data: &[u8], seed: u64) -> u64 {
    raw::hash64(data, seed)
}

/// Sends the text of a panic to the log before the trap: a guest has no stderr.
pub(crate) fn install_panic_hook() {
    #[cfg(target_arch = "wasm32")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            std::panic::set_hook(Box::new(|info| raw::log(Level::Error, &info.to_string())));
        });
    }
}

/// Logs at a level, formatting only if anyone listens.
#[macro_export]
macro_rules! log {
    ($level:expr, $($message:tt)+) => {
        if $crate::host::enabled($level) {
            $crate::host::log($level, &::std::format!($($message)+));
        }
    };
}

/// Logs what needs someone's attention.
#[macro_export]
macro_rules! error {
    ($($message:tt)+) => { $crate::log!($crate::host::Level::Error, $($message)+) };
}

/// Logs what is wrong but handled.
#[macro_export]
macro_rules! warn {
    ($($message:tt)+) => { $crate::log!($crate::host::Level::Warn, $($message)+) };
}

/// Logs what an operator wants to know in normal times.
#[macro_export]
macro_rules! info {
    ($($message:tt)+) => { $crate::log!($crate::host::Level::Info, $($message)+) };
}

/// Logs what helps to find a fault.
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => { $crate::log!($crate::host::Level::Debug, $($message)+) };
}

/// Logs every step.
#[macro_export]
macro_rules! trace {
    ($($message:tt)+) => { $crate::log!($crate::host::Level::Trace, $($message)+) };
}
