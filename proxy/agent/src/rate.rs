//! Rates from samples: a smoothed mean for input, a window of time for output.

use std::collections::VecDeque;
use std::time::Duration;

/// The mean input rate of the last requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct InputRate {
    samples: VecDeque<Sample>,
    max: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    count: u64,
    tokens: u64,
    seconds: f64,
}

impl InputRate {
    /// Takes in `count` requests with `tokens` of input, which took `time` together.
    pub(crate) fn add(&mut self, count: u64, tokens: u64, time: Duration) {
        if count == 0 || tokens == 0 {
            return;
        }
        // An answer out of a cache says nothing about how fast prompts are processed.
        let floor = SAMPLE_FLOOR.as_secs_f64() * float(count);
        self.samples.push_back(Sample {
            count,
            tokens,
            seconds: time.as_secs_f64().max(floor),
        });
        while self.samples.len() > 1
            && self.count() - self.samples.front().map_or(0, |s| s.count) >= WINDOW
        {
            self.samples.pop_front();
        }
        if let Some(mean) = self.mean() {
            self.max = Some(self.max.unwrap_or_default().max(mean));
        }
    }

    /// Tokens per second, once there are enough samples.
    pub(crate) fn mean(&self) -> Option<f64> {
        if self.count() < SAMPLES_MIN {
            return None;
        }
        let tokens: u64 = self.samples.iter().map(|s| s.tokens).sum();
        let seconds: f64 = self.samples.iter().map(|s| s.seconds).sum();
        Some(float(tokens) / seconds)
    }

    /// The greatest mean so far.
    pub(crate) fn max(&self) -> Option<f64> {
        self.max
    }

    fn count(&self) -> u64 {
        self.samples.iter().map(|s| s.count).sum()
    }
}

/// Tokens per second over the last seconds; nothing when nothing came.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutputRate {
    /// When and how many, oldest first.
    counts: VecDeque<(Duration, u64)>,
    first: Option<Duration>,
    max: Option<f64>,
}

impl OutputRate {
    /// Takes in `tokens` at `now`, counted from any fixed moment.
    pub(crate) fn add(&mut self, tokens: u64, now: Duration) {
        self.add_over(tokens, now, now);
    }

    /// Takes in `tokens` that came evenly from `from` to `now`.
    pub(crate) fn add_over(&mut self, tokens: u64, from: Duration, now: Duration) {
        if tokens == 0 {
            return;
        }
        let (whole, recent) = (now.saturating_sub(from), now.saturating_sub(from).min(SPAN));
        let tokens = match whole.as_micros() {
            0 => tokens,
            whole => (u128::from(tokens) * recent.as_micros() / whole) as u64,
        };
        if self.rate(now).is_none() {
            // Silence before does not thin out what begins now.
            self.first = Some(now.saturating_sub(recent));
            self.counts.clear();
        }
        let steps = (recent.as_millis() / STEP.as_millis()).max(1) as u32;
        let share = |step: u32| tokens * u64::from(step) / u64::from(steps);
        for step in 0..steps {
            let at = now.saturating_sub(recent * (steps - 1 - step) / steps);
            self.count(share(step + 1) - share(step), at);
        }
        while self.counts.front().is_some_and(|(at, _)| *at + SPAN < now) {
            self.counts.pop_front();
        }
        if let Some(rate) = self.rate(now) {
            self.max = Some(self.max.unwrap_or_default().max(rate));
        }
    }

    fn count(&mut self, tokens: u64, now: Duration) {
        match self.counts.back_mut() {
            Some((at, count)) if *at + STEP > now => *count += tokens,
            _ => self.counts.push_back((now, tokens)),
        }
    }

    /// Tokens per second up to `now`.
    pub(crate) fn rate(&self, now: Duration) -> Option<f64> {
        let recent = self.counts.iter().filter(|(at, _)| *at + SPAN >= now);
        let tokens: u64 = recent.map(|(_, tokens)| tokens).sum();
        let since = now.saturating_sub(self.first?).clamp(SPAN_MIN, SPAN);
        (tokens > 0).then(|| float(tokens) / since.as_secs_f64())
    }

    /// The greatest rate so far.
    pub(crate) fn max(&self) -> Option<f64> {
        self.max
    }
}

pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// Requests that a mean needs to be published, and those it is over.
const SAMPLES_MIN: u64 = 5;
const WINDOW: u64 = 8;
const SAMPLE_FLOOR: Duration = Duration::from_millis(10);

/// The time an output rate is over, at most and at least, and the steps it is kept in.
pub(crate) const SPAN: Duration = Duration::from_secs(10);
const SPAN_MIN: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_mean_needs_five_samples_and_forgets_all_but_eight() {
        let mut rate = InputRate::default();
        for _ in 0..4 {
            rate.add(1, 1000, ms(100));
        }
        assert_eq!(rate.mean(), None);
        rate.add(1, 1000, ms(100));
        assert_eq!(rate.mean().map(f64::round), Some(10_000.0));
        for _ in 0..8 {
            rate.add(1, 500, ms(100));
        }
        assert_eq!(rate.mean().map(f64::round), Some(5000.0));
        assert_eq!(rate.max().map(f64::round), Some(10_000.0));
        // Many at once replace all before.
        rate.add(20, 20 * 200, ms(20 * 100));
        assert_eq!(rate.mean().map(f64::round), Some(2000.0));
    }

    #[test]
    fn samples_too_short_to_be_true_count_as_ten_milliseconds() {
        let mut rate = InputRate::default();
        rate.add(5, 500, ms(0));
        assert_eq!(rate.mean().map(f64::round), Some(10_000.0));
        rate.add(0, 7, ms(1));
        rate.add(3, 0, ms(1));
        assert_eq!(rate.mean().map(f64::round), Some(10_000.0));
    }

    #[test]
    fn an_output_rate_is_over_the_last_seconds_and_then_gone() {
        let mut rate = OutputRate::default();
        assert_eq!(rate.rate(ms(0)), None);
        for second in 0..20 {
            rate.add(100, ms(second * 1000));
        }
        let now = rate.rate(ms(19_500)).unwrap();
        assert!((95.0..=110.0).contains(&now), "{now}");
        assert_eq!(rate.rate(ms(30_000)), None, "stale");
        assert!(rate.max().unwrap() >= 100.0);
        rate.add(50, ms(60_000));
        assert_eq!(
            rate.rate(ms(60_000)),
            Some(50.0),
            "the silence before does not count"
        );
    }

    #[test]
    fn what_came_over_a_time_is_a_rate_of_that_time() {
        let about = |rate: &OutputRate, now, expected: f64| {
            let found = rate.rate(ms(now)).unwrap();
            assert!((found / expected - 1.0).abs() < 0.02, "{found} {expected}");
        };
        let mut rate = OutputRate::default();
        // Nobody has looked for half a minute.
        rate.add_over(30_000, ms(5_000), ms(35_000));
        about(&rate, 35_000, 1_000.0);
        rate.add_over(5_000, ms(35_000), ms(40_000));
        about(&rate, 40_000, 1_000.0);
        assert!(rate.max().unwrap() < 1_050.0, "{:?}", rate.max());
        let mut rate = OutputRate::default();
        rate.add_over(400, ms(0), ms(4_000));
        about(&rate, 4_000, 100.0);
        rate.add_over(0, ms(4_000), ms(90_000));
        assert_eq!(rate.rate(ms(90_000)), None);
    }
}
