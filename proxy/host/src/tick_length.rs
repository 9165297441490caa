//! How finely deadlines are counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// For request phases: a wake-up of the clock's thread costs the exchanges on its core more than
/// the wake-up itself, so there are no more of them than deadlines need.
const COARSE_US: u64 = 2_500;
/// Once a filter has a shorter deadline, as those of stream events are.
const FINE_US: u64 = 1_000;
/// Shortest deadline that the coarse length serves, in milliseconds.
const COARSE_DEADLINE_MS: u64 = 5;

/// One unit of every deadline; becomes finer, never coarser again.
#[derive(Debug)]
pub(crate) struct TickLength {
    us: AtomicU64,
}

impl Default for TickLength {
    fn default() -> Self {
        Self {
            us: AtomicU64::new(COARSE_US),
        }
    }
}

impl TickLength {
    /// A filter with a deadline of this many milliseconds will be called.
    pub(crate) fn serve(&self, deadline_ms: u64) {
        if deadline_ms < COARSE_DEADLINE_MS {
            self.us.store(FINE_US, Relaxed);
        }
    }

    /// How long the clock's thread sleeps.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_micros(self.us.load(Relaxed))
    }

    /// A deadline in ticks. One more, for the tick that is under way.
    pub(crate) fn count(&self, ms: u64) -> u64 {
        let us = ms.saturating_mul(1_000);
        us.div_ceil(self.us.load(Relaxed)).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_counted_in_whole_ticks() {
        let tick = TickLength::default();
        assert_eq!([0, 1, 5, 50].map(|ms| tick.count(ms)), [1, 2, 3, 21]);
        tick.serve(5);
        assert_eq!(tick.duration(), Duration::from_micros(2_500));
        tick.serve(1);
        assert_eq!([0, 1, 5, 50].map(|ms| tick.count(ms)), [1, 2, 6, 51]);
    }
}
