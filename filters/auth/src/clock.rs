//! The clock by which what is kept grows old.

use weir_sdk::host;

/// Milliseconds of a clock that never goes back, and is the same for all instances of the process,
/// as the stores are.
pub(crate) fn clock_ms() -> u64 {
    host::monotonic_ns() / 1_000_000
}
