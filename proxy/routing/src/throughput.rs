//! How fast input is worked through, as observed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Tokens over the time they took, both sums of which a sixteenth fades with each sample. The first
/// samples count alike, so that a first answer out of an empty cache is no burden for long.
///
/// Not a mean of rates: one answer out of a cache, a hundred times faster than the others, would
/// outweigh them all, where it has next to none of the time.
#[derive(Debug, Default)]
pub(crate) struct Throughput(AtomicU64);

impl Throughput {
    /// So many tokens took so many microseconds. Concurrent samples may overwrite each other:
    /// losing one of them does not hurt an average.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn sample(&self, tokens: u64, us: u64) {
        let (tokens, seconds) = (tokens as f32, us.max(1) as f32 / 1e6);
        let (old_tokens, old_seconds) = self.sums();
        let tokens = old_tokens * KEPT + tokens;
        let seconds = old_seconds * KEPT + seconds;
        let word = u64::from(tokens.to_bits()) << 32 | u64::from(seconds.to_bits());
        self.0.store(word, Relaxed);
    }

    /// Tokens per second; 0 = unknown.
    pub(crate) fn per_second(&self) -> f32 {
        let (tokens, seconds) = self.sums();
        if seconds > 0.0 { tokens / seconds } else { 0.0 }
    }

    #[allow(clippy::cast_possible_truncation, reason = "the halves of a pair")]
    fn sums(&self) -> (f32, f32) {
        let word = self.0.load(Relaxed);
        (
            f32::from_bits((word >> 32) as u32),
            f32::from_bits(word as u32),
        )
    }
}

/// What a sample leaves of those before.
const KEPT: f32 = 15.0 / 16.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(samples: impl IntoIterator<Item = (u64, u64)>) -> f32 {
        let rate = Throughput::default();
        for (tokens, us) in samples {
            rate.sample(tokens, us);
        }
        rate.per_second()
    }

    #[test]
    fn a_rate_is_of_all_the_time() {
        let near = |found: f32, expected: f32| {
            let off = (found / expected - 1.0).abs();
            assert!(off < 0.01, "{found} {expected}");
        };
        assert!(after([]) == 0.0);
        near(after([(500, 250_000)]), 2_000.0);
        near(after([(500, 250_000), (500, 50_000)]), 3_407.0);
        let steady = || std::iter::repeat_n((4_000, 1_000_000), 50);
        near(after(steady()), 4_000.0);
        // Out of a cache: a mean of rates would say 28,750.
        near(after(steady().chain([(4_000, 10_000)])), 4_264.0);
        near(after(steady().chain([(4_000, 4_000_000); 30])), 1_121.0);
        assert!(after([(u64::MAX, 0), (1, u64::MAX)]).is_finite());
    }
}
