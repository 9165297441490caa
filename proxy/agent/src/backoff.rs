//! How long to wait before a gateway is dialled again.

use std::time::Duration;

/// Waits that double, with jitter, until a tunnel has been up for long enough.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait. `up` is how long the tunnel before was up, `asked` what the gateway asked
    /// for, `random` is from 0 to 1.
    pub(crate) fn next(&mut self, up: Duration, asked: Duration, random: f64) -> Duration {
        if up >= RESET {
            self.failures = 0;
        }
        let doubled = FIRST.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX));
        self.failures = self.failures.saturating_add(1);
        // From three quarters to five quarters, so that agents do not come back in step.
        let jittered = doubled
            .min(LONGEST)
            .mul_f64(0.75 + 0.5 * random.clamp(0.0, 1.0));
        jittered
            .max(asked.min(ASKED_MAX))
            .min(LONGEST.max(asked.min(ASKED_MAX)))
    }
}

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);
const RESET: Duration = Duration::from_secs(60);
const DOUBLINGS_MAX: u32 = 10;

/// The longest wait that a gateway may ask for.
const ASKED_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_start_again_after_success() {
        let mut backoff = Backoff::default();
        let mut next = |up| {
            backoff
                .next(Duration::from_secs(up), Duration::ZERO, 0.5)
                .as_millis()
        };
        let waits: Vec<_> = (0..10).map(|_| next(0)).collect();
        assert_eq!(
            waits,
            [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]
        );
        assert_eq!(next(59), 30000);
        assert_eq!(next(60), 200);
    }

    #[test]
    fn jitter_and_the_gateways_wish_keep_to_their_bounds() {
        let wait = |asked, random| {
            Backoff::default()
                .next(Duration::ZERO, Duration::from_millis(asked), random)
                .as_millis()
        };
        assert_eq!(wait(0, 0.0), 150);
        assert_eq!(wait(0, 1.0), 250);
        assert_eq!(wait(5000, 0.5), 5000);
        assert_eq!(wait(10_000_000, 0.5), 300_000);
    }
}
