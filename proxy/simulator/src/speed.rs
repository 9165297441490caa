//! How fast simulated time passes, and how much slower the machine is than it was bought.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Deserialize;

/// Turns simulated delays into real ones.
#[derive(Debug)]
pub(crate) struct Speed {
    time_scale: f64,
    /// The bits of an `f64`.
    slowdown: AtomicU64,
}

/// Body of `POST /sim/slowdown`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Slowdown {
    factor: f64,
}

impl Speed {
    pub(crate) fn new(time_scale: f64) -> Self {
        let time_scale = if time_scale.is_finite() {
            time_scale.clamp(FACTOR_MIN, FACTOR_MAX)
        } else {
            1.0
        };
        Self {
            time_scale,
            slowdown: AtomicU64::new(1.0_f64.to_bits()),
        }
    }

    /// The real length of a simulated delay that begins now.
    pub(crate) fn real(&self, simulated: Duration) -> Duration {
        let stretch = f64::from_bits(self.slowdown.load(Relaxed)) / self.time_scale;
        if stretch == 1.0 {
            return simulated;
        }
        Duration::try_from_secs_f64(simulated.as_secs_f64() * stretch).unwrap_or(Duration::MAX)
    }

    /// Takes the body of a control request: work that begins later is so many times slower.
    ///
    /// # Errors
    /// What is wrong with the body.
    pub(crate) fn slow_down(&self, body: &[u8]) -> Result<(), String> {
        let asked: Slowdown = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if !(FACTOR_MIN..=FACTOR_MAX).contains(&asked.factor) {
            return Err(format!(
                "factor must be from {FACTOR_MIN} to {FACTOR_MAX}, is {}",
                asked.factor
            ));
        }
        self.slowdown.store(asked.factor.to_bits(), Relaxed);
        Ok(())
    }
}

const FACTOR_MIN: f64 = 0.001;
const FACTOR_MAX: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_follow_scale_and_slowdown() {
        let table = [
            (1.0, r#"{"factor":1}"#, 800),
            (8.0, r#"{"factor":1}"#, 100),
            (8.0, r#"{"factor":4}"#, 400),
            (f64::NAN, r#"{"factor":0.5}"#, 400),
        ];
        for (scale, body, expected_ms) in table {
            let speed = Speed::new(scale);
            assert_eq!(speed.slow_down(body.as_bytes()), Ok(()));
            let real = speed.real(Duration::from_millis(800));
            assert_eq!(
                real,
                Duration::from_millis(expected_ms),
                "scale {scale}, {body}"
            );
        }
    }

    #[test]
    fn nonsense_changes_nothing() {
        let speed = Speed::new(1.0);
        for body in [
            "",
            "{}",
            r#"{"factor":0}"#,
            r#"{"factor":1e9}"#,
            r#"{"factor":2,"x":1}"#,
        ] {
            assert!(speed.slow_down(body.as_bytes()).is_err(), "{body}");
        }
        assert_eq!(speed.real(Duration::from_secs(1)), Duration::from_secs(1));
    }
}
