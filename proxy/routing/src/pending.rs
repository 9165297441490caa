//! Our own claims that the backend's last report cannot know of yet.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A sum that starts over with each report. What was added before the last one is the report's
/// to tell, so taking it back later changes nothing.
///
/// The report's number and the sum share a word, so that both change together.
#[derive(Debug, Default)]
pub(crate) struct Pending(AtomicU64);

/// What [`Pending::add`] has added, to be taken back once.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Added {
    epoch: u64,
    amount: u64,
}

impl Pending {
    /// Adds an amount; all that is pending at once must stay below 2^40.
    pub(crate) fn add(&self, amount: u64) -> Added {
        let amount = amount.min(AMOUNT_MAX);
        let before = self.0.fetch_add(amount, Relaxed);
        Added {
            epoch: before >> AMOUNT_BITS,
            amount,
        }
    }

    /// Takes back what no report has come after; whether that was so.
    pub(crate) fn remove(&self, added: Added) -> bool {
        if added.amount == 0 {
            return false;
        }
        let less = |word: u64| {
            (word >> AMOUNT_BITS == added.epoch).then(|| {
                let sum = (word & AMOUNT_MASK).saturating_sub(added.amount);
                (word & !AMOUNT_MASK) | sum
            })
        };
        // A refusal means that a report came in between: nothing of it is left here.
        self.0.fetch_update(Relaxed, Relaxed, less).is_ok()
    }

    /// A report came: it knows of everything added so far.
    pub(crate) fn reported(&self) {
        let next = |word: u64| Some(((word >> AMOUNT_BITS).wrapping_add(1)) << AMOUNT_BITS);
        let _ = self.0.fetch_update(Relaxed, Relaxed, next);
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0.load(Relaxed) & AMOUNT_MASK
    }
}

const AMOUNT_BITS: u32 = 40;
const AMOUNT_MASK: u64 = (1 << AMOUNT_BITS) - 1;
/// Largest amount of one claim: 2^20 of them fit.
const AMOUNT_MAX: u64 = (1 << 20) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_takes_over_what_was_added_before_it() {
        let pending = Pending::default();
        let (first, second) = (pending.add(5), pending.add(7));
        assert_eq!(pending.sum(), 12);
        pending.remove(first);
        assert_eq!(pending.sum(), 7);
        pending.reported();
        let third = pending.add(3);
        assert!(!pending.remove(second));
        assert_eq!(pending.sum(), 3, "what a report knows is not taken back");
        assert!(pending.remove(third));
        assert_eq!(pending.sum(), 0);
    }

    #[test]
    fn nothing_is_left_over_under_concurrency() {
        let pending = Pending::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..5_000_u64 {
                        let added = pending.add(turn % 9);
                        if turn % 50 == 0 {
                            pending.reported();
                        }
                        pending.remove(added);
                    }
                });
            }
        });
        assert_eq!(pending.sum(), 0);
    }
}
