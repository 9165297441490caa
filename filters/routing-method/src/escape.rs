//! Leaving the candidate that has a conversation's cache for another that would answer much earlier.

use std::cell::OnceCell;

use weir_sdk::candidates::{self, Figure};

/// How much later than the best of all a candidate may be predicted to answer.
pub(crate) struct Escape {
    penalty_us: f64,
    least_us: OnceCell<f64>,
}

impl Escape {
    /// Of so many milliseconds; 0: no matter how much.
    pub(crate) fn new(penalty_ms: f64) -> Self {
        Self {
            penalty_us: penalty_ms * 1e3,
            least_us: OnceCell::new(),
        }
    }

    /// Whether a candidate stays that is predicted to answer in so many microseconds.
    pub(crate) fn admits(&self, ttft_us: impl FnOnce() -> Option<f64>) -> bool {
        if self.penalty_us <= 0.0 {
            return true;
        }
        // Nobody answers before now: whoever is within the penalty of that is within it of the
        // best, and the others need not be looked at.
        ttft_us().is_some_and(|us| us <= self.penalty_us || us <= self.penalty_us + self.least_us())
    }

    /// Those of a list (empty = all) that stay, by the best of it; none: it makes no difference.
    pub(crate) fn within(&self, among: &[u32]) -> Option<Vec<u32>> {
        (self.penalty_us > 0.0).then(|| {
            let least_us = if among.is_empty() {
                self.least_us()
            } else {
                least_us(among)
            };
            candidates::at_most(Figure::TtftUs, self.penalty_us + least_us, among)
        })
    }

    fn least_us(&self) -> f64 {
        *self.least_us.get_or_init(|| least_us(&[]))
    }
}

fn least_us(among: &[u32]) -> f64 {
    let least = candidates::least(Figure::TtftUs, among);
    let least = least.and_then(|position| candidates::figure(position, Figure::TtftUs));
    least.unwrap_or(f64::INFINITY)
}
