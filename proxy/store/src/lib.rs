//! Shared counters and small state of one process: limits, key-value entries, slots.
//!
//! Everything here outlives configuration generations and filter instances: users open a
//! thing by name and find it as they left it. Each operation is atomic under one short lock
//! and never suspends. Nothing reads a clock: times are milliseconds of one monotonic clock
//! of the caller's choice.

mod limiters;

mod limiter;

mod bucket;

mod kv;

mod slots;

mod error;
mod sharded;

pub use bucket::{Granted, Limited, Why, Window};
pub use error::StoreError;
pub use kv::{Kv, KvLimits, Stores, Versioned};
pub use limiter::{Hold, Limiter};
pub use limiters::{LimiterStats, Limiters};
pub use slots::{SlotGuard, Slots};
