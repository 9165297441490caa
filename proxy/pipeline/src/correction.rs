//! How far estimates of input tokens are off, learned for each model from what upstreams report.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use weir_dialect::Api;

/// What one model has taught: tokens per byte differ by API, and tools bring hidden prompts.
#[derive(Debug, Default)]
pub struct Corrections([[Correction; 2]; 4]);

impl Corrections {
    /// That of one kind of request; none for APIs without input.
    #[must_use]
    pub fn of(&self, api: Api, has_tools: bool) -> Option<&Correction> {
        let row = match api {
            Api::ChatCompletions => 0,
            Api::Responses => 1,
            Api::Embeddings => 2,
            Api::Messages => 3,
            Api::Models | Api::Other => return None,
        };
        self.0.get(row)?.get(usize::from(has_tools))
    }
}

/// By how much to multiply an estimate: the average of reported to estimated tokens, where older
/// requests count less and less. One atomic number, so that no request waits for another.
#[derive(Debug, Default)]
pub struct Correction(AtomicU64);

impl Correction {
    /// The factor; 1 while nothing has been learned.
    #[must_use]
    pub fn factor(&self) -> f32 {
        Learned::unpacked(self.0.load(Relaxed)).factor()
    }

    /// An estimate corrected. What costs something never costs nothing.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, and no factor is negative"
    )]
    pub fn apply(&self, estimate: u32) -> u32 {
        let corrected = (f64::from(estimate) * f64::from(self.factor())).round() as u32;
        corrected.max(estimate.min(1))
    }

    /// Learns from one request: its estimate before any correction, and what it really was.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a factor need not be exact"
    )]
    pub fn learn(&self, estimate: u32, reported: u64) {
        if estimate == 0 || reported == 0 {
            return;
        }
        let ratio = (reported as f64 / f64::from(estimate)) as f32;
        let ratio = ratio.clamp(FACTOR_MIN, FACTOR_MAX);
        let next = |packed| Some(Learned::unpacked(packed).with(ratio).packed());
        // Never `Err`: there is always a next one.
        _ = self.0.fetch_update(Relaxed, Relaxed, next);
    }
}

/// Logarithm of the factor and number of requests seen. Averages of logarithms are as far from
/// twice as from half, which averages of ratios are not.
#[derive(Clone, Copy)]
struct Learned {
    log: f32,
    seen: u32,
}

impl Learned {
    /// All zeros is nothing learned.
    fn unpacked(packed: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = packed.to_le_bytes();
        Self {
            log: f32::from_le_bytes([a, b, c, d]),
            seen: u32::from_le_bytes([e, f, g, h]),
        }
    }

    fn packed(self) -> u64 {
        let ([a, b, c, d], [e, f, g, h]) = (self.log.to_le_bytes(), self.seen.to_le_bytes());
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    fn factor(self) -> f32 {
        self.log.exp()
    }

    /// The first few weigh as much as each other, and as the guess that nothing is wrong.
    fn with(self, ratio: f32) -> Self {
        let seen = self.seen.saturating_add(1);
        #[allow(clippy::cast_precision_loss, reason = "only small numbers matter")]
        let weight = (1.0 / (seen as f32 + 1.0)).max(WEIGHT);
        Self {
            log: self.log + weight * (ratio.ln() - self.log),
            seen,
        }
    }
}

/// Weight of the newest request, once there were some.
const WEIGHT: f32 = 0.1;
const FACTOR_MIN: f32 = 0.1;
const FACTOR_MAX: f32 = 8.0;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn close(one: f32, other: f32) -> bool {
        (one / other).ln().abs() < 0.02
    }

    #[test]
    fn factors_approach_what_is_reported() {
        // (reported tokens of an estimate of 100, factor after so many requests)
        let table: [(u64, u32, f32); 8] = [
            (100, 50, 1.0),
            (345, 0, 1.0),
            (400, 1, 2.0),
            (345, 60, 3.45),
            (50, 60, 0.5),
            (100_000, 200, FACTOR_MAX),
            (1, 200, FACTOR_MIN),
            (0, 200, 1.0),
        ];
        for (reported, requests, expected) in table {
            let correction = Correction::default();
            for _ in 0..requests {
                correction.learn(100, reported);
            }
            let factor = correction.factor();
            assert!(
                close(factor, expected),
                "{factor} after {requests} of {reported}"
            );
        }
    }

    #[test]
    fn one_strange_request_changes_little() {
        let correction = Correction::default();
        for _ in 0..100 {
            correction.learn(100, 100);
        }
        correction.learn(1, u64::MAX);
        assert!(correction.factor() < 1.24, "{}", correction.factor());
        correction.learn(0, 7);
        correction.learn(u32::MAX, 1);
        assert!(correction.factor() > 0.8, "{}", correction.factor());
    }

    #[test]
    fn estimates_are_corrected_within_bounds() {
        let correction = Correction::default();
        assert_eq!(correction.apply(123), 123);
        for _ in 0..200 {
            correction.learn(1, 1_000);
        }
        let table = [(0, 0), (1, 8), (100, 800), (u32::MAX, u32::MAX)];
        for (estimate, expected) in table {
            assert_eq!(correction.apply(estimate), expected);
        }
        for _ in 0..400 {
            correction.learn(1_000, 1);
        }
        assert_eq!((correction.apply(1), correction.apply(100)), (1, 10));
    }

    #[test]
    fn kinds_of_requests_are_kept_apart() {
        let corrections = Corrections::default();
        let of = |api, tools| corrections.of(api, tools).unwrap();
        for _ in 0..50 {
            of(Api::Messages, true).learn(100, 300);
        }
        assert!(close(of(Api::Messages, true).factor(), 3.0));
        for other in [
            of(Api::Messages, false),
            of(Api::ChatCompletions, true),
            of(Api::Responses, true),
            of(Api::Embeddings, false),
        ] {
            assert!(close(other.factor(), 1.0));
        }
        assert!(corrections.of(Api::Models, false).is_none());
    }

    #[test]
    fn many_learn_at_once() {
        let correction = Correction::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| correction.learn(10, 20)));
            }
        });
        let learned = Learned::unpacked(correction.0.load(Relaxed));
        assert_eq!(learned.seen, 4_000);
        assert!(close(correction.factor(), 2.0));
    }
}
