//! One window of a limiter: a token bucket in exact integer arithmetic.

use crate::state::Window;

/// Tokens left in one window for one key.
pub(crate) struct Bucket {
    value: u64,
    last_ms: u64,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn full(window: &Window, now_ms: u64) -> Self {
        Self {
            value: window.budget,
            last_ms: now_ms,
        }
    }

    /// Refills up to `now_ms`; time that does not make a whole token is kept.
    pub(crate) fn refill(&mut self, window: &Window, now_ms: u64) {
        let period = u128::from(period_ms(window));
        let elapsed = u128::from(now_ms.saturating_sub(self.last_ms));
        let tokens = elapsed * u128::from(window.budget) / period;
        if tokens > 0 {
            self.last_ms += u64::try_from(tokens * period / u128::from(window.budget)).unwrap_or(0);
            self.value = window
                .budget
                .min(self.value + u64::try_from(tokens).unwrap_or(u64::MAX));
        }
        if self.value == window.budget {
            self.last_ms = now_ms;
        }
    }

    /// What is left.
    pub(crate) fn left(&self) -> u64 {
        self.value
    }

    /// Takes or, with a negative amount, gives back; stays within the budget.
    pub(crate) fn add(&mut self, window: &Window, delta: i128) {
        let value = (i128::from(self.value) + delta).clamp(0, i128::from(window.budget));
        self.value = u64::try_from(value).unwrap_or(0);
    }

    /// Milliseconds until `wanted` tokens are there; the most there can be when they never are.
    pub(crate) fn wait_ms(&self, window: &Window, wanted: u64) -> u32 {
        if wanted > window.budget {
            return u32::MAX;
        }
        let missing = u128::from(wanted.saturating_sub(self.value));
        let wait = (missing * u128::from(period_ms(window))).div_ceil(u128::from(window.budget));
        u32::try_from(wait).unwrap_or(u32::MAX)
    }
}

fn period_ms(window: &Window) -> u64 {
    u64::from(window.seconds.max(1)) * 1_000
}
