//! What a backend says about itself, and the cell that holds its last word.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Relaxed, Release},
};

use crate::prediction::token_us;

/// What a backend says about itself. 0 is "unknown" in every field that says so.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Exchanges in progress, from all gateways.
    pub running: u32,
    /// Exchanges without a first output token.
    pub queued: u32,
    /// Input tokens of those.
    pub queued_input_tokens: u64,
    /// Exchanges the engine works on at once; 0 = unknown.
    pub slots: u32,
    /// KV cache in tokens; 0 = unknown.
    pub kv_capacity_tokens: u64,
    /// Used KV cache in tokens.
    pub kv_used_tokens: u64,
    /// Free KV cache in tokens.
    pub kv_free_tokens: u64,
    /// Input tokens per second, a recent mean; 0 or not finite = unknown.
    pub input_tps: f32,
    /// The greatest input rate it has seen; 0 or not finite = unknown.
    pub max_input_tps: f32,
    /// Output tokens per second; 0 or not finite = unknown.
    pub output_tps: f32,
    /// The greatest output rate; 0 or not finite = unknown.
    pub max_output_tps: f32,
    /// How long a new exchange would wait, by its priority.
    pub queue_times: QueueTimes,
    /// How old these figures were when they arrived, milliseconds.
    pub age_ms: u32,
}

/// Time in the queue by priority: at most [`QueueTimes::PRIORITIES_MAX`], ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueTimes {
    entries: [(u32, u32); QueueTimes::PRIORITIES_MAX],
    count: u8,
}

impl QueueTimes {
    /// Most priorities kept of one report.
    pub const PRIORITIES_MAX: usize = 16;

    /// From pairs of priority and milliseconds in any order; of more than
    /// [`Self::PRIORITIES_MAX`] the most urgent are kept, of a priority given twice the last.
    #[must_use]
    pub fn new(pairs: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut kept = Self::default();
        for (priority, ms) in pairs {
            kept.put(priority, ms);
        }
        kept
    }

    /// The time of the greatest priority that is not above `priority`; 0 when all are above.
    /// `None` when nothing is known.
    #[must_use]
    pub fn at(&self, priority: u32) -> Option<u32> {
        at(self.entries(), priority)
    }

    /// Pairs of priority and milliseconds, ascending.
    pub fn entries(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.entries.iter().take(usize::from(self.count)).copied()
    }

    fn put(&mut self, priority: u32, ms: u32) {
        let count = usize::from(self.count);
        let place = self
            .entries()
            .position(|(known, _)| known >= priority)
            .unwrap_or(count);
        match self.entries.get_mut(place) {
            Some(same) if place < count && same.0 == priority => same.1 = ms,
            Some(_) => {
                let end = (count + 1).min(Self::PRIORITIES_MAX);
                if let Some(tail) = self.entries.get_mut(place..end) {
                    tail.rotate_right(1);
                }
                if let Some(slot) = self.entries.get_mut(place) {
                    *slot = (priority, ms);
                }
                self.count = u8::try_from(end).unwrap_or(u8::MAX);
            }
            None => {}
        }
    }
}

fn at(entries: impl Iterator<Item = (u32, u32)>, priority: u32) -> Option<u32> {
    let mut found = None;
    for (known, ms) in entries {
        if known > priority {
            return Some(found.unwrap_or(0));
        }
        found = Some(ms);
    }
    found
}

/// The last report, readable without a lock, field by field. What predictions read comes first: see
/// [`crate::Backend`].
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct ReportCell {
    /// When it arrived; 0 = never.
    at_ms: AtomicU64,
    pub(crate) running: AtomicU32,
    pub(crate) slots: AtomicU32,
    pub(crate) input_tps: Rate,
    queue_count: AtomicU32,
    /// Bits of the microseconds for one input token; 0 = unknown.
    input_token_us: AtomicU64,
    pub(crate) queued_input_tokens: AtomicU64,
    pub(crate) queued: AtomicU32,
    pub(crate) max_input_tps: Rate,
    /// The two rates in steps, as weights take them.
    pub(crate) stepped_input_tps: Rate,
    pub(crate) stepped_max_input_tps: Rate,
    age_ms: AtomicU32,
    pub(crate) output_tps: Rate,
    pub(crate) max_output_tps: Rate,
    pub(crate) kv_capacity_tokens: AtomicU64,
    pub(crate) kv_used_tokens: AtomicU64,
    pub(crate) kv_free_tokens: AtomicU64,
    /// Priority in the upper half, milliseconds in the lower.
    queue_times: [AtomicU64; QueueTimes::PRIORITIES_MAX],
}

impl ReportCell {
    pub(crate) fn put(&self, report: &Report, now_ms: u64) {
        self.running.store(report.running, Relaxed);
        self.slots.store(report.slots, Relaxed);
        self.queued.store(report.queued, Relaxed);
        self.queued_input_tokens
            .store(report.queued_input_tokens, Relaxed);
        self.kv_capacity_tokens
            .store(report.kv_capacity_tokens, Relaxed);
        self.kv_used_tokens.store(report.kv_used_tokens, Relaxed);
        self.kv_free_tokens.store(report.kv_free_tokens, Relaxed);
        self.input_tps.put(report.input_tps);
        let token_us = token_us(self.input_tps.value());
        self.input_token_us.store(token_us.to_bits(), Relaxed);
        self.output_tps.put(report.output_tps);
        self.max_output_tps.put(report.max_output_tps);
        // A worker that does not know its greatest rate: the greatest it has told us.
        let told = Rate::valid(report.max_input_tps);
        let greatest = self
            .max_input_tps
            .value()
            .max(Rate::valid(report.input_tps));
        self.max_input_tps
            .put(if told > 0.0 { told } else { greatest });
        let steps = [
            (&self.stepped_input_tps, self.input_tps.value()),
            (&self.stepped_max_input_tps, self.max_input_tps.value()),
        ];
        for (step, rate) in steps {
            let before = step.value();
            step.put(stepped(rate));
            if step.value().to_bits() != before.to_bits() {
                STEPS_TAKEN.fetch_add(1, Release);
            }
        }
        for (slot, (priority, ms)) in self.queue_times.iter().zip(report.queue_times.entries()) {
            slot.store(u64::from(priority) << 32 | u64::from(ms), Relaxed);
        }
        self.queue_count
            .store(u32::from(report.queue_times.count), Relaxed);
        self.age_ms.store(report.age_ms, Relaxed);
        self.at_ms.store(now_ms.max(1), Relaxed);
    }

    /// When the last one arrived; 0 = never.
    pub(crate) fn at_ms(&self) -> u64 {
        self.at_ms.load(Relaxed)
    }

    /// How old its figures are now; 0 without a report.
    pub(crate) fn age_ms(&self, now_ms: u64) -> u64 {
        match self.at_ms() {
            0 => 0,
            at_ms => now_ms
                .saturating_sub(at_ms)
                .saturating_add(u64::from(self.age_ms.load(Relaxed))),
        }
    }

    /// Microseconds for one input token; 0 = unknown.
    pub(crate) fn input_token_us(&self) -> f64 {
        f64::from_bits(self.input_token_us.load(Relaxed))
    }

    /// See [`QueueTimes::at`].
    pub(crate) fn queue_ms(&self, priority: u32) -> Option<u32> {
        match self.queue_count.load(Relaxed) {
            0 => None,
            count => at(self.pairs(count), priority),
        }
    }

    pub(crate) fn queue_times(&self) -> QueueTimes {
        QueueTimes::new(self.pairs(self.queue_count.load(Relaxed)))
    }

    #[allow(clippy::cast_possible_truncation, reason = "the halves of a pair")]
    fn pairs(&self, count: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let pair = |slot: &AtomicU64| {
            let pair = slot.load(Relaxed);
            ((pair >> 32) as u32, pair as u32)
        };
        self.queue_times.iter().take(count as usize).map(pair)
    }
}

/// The nearest power of 1.05: a weight that follows every small change of a rate would move keys
/// about all the time. 0 stays 0.
pub(crate) fn stepped(rate: f32) -> f32 {
    if rate > 0.0 {
        let step = WEIGHT_STEP.ln();
        ((rate.ln() / step).round() * step).exp()
    } else {
        0.0
    }
}

const WEIGHT_STEP: f32 = 1.05;

/// Moves when a stepped rate of any backend does: weights made of them before are out of date.
pub(crate) static STEPS_TAKEN: AtomicU64 = AtomicU64::new(0);

/// An `f32` that is never negative nor infinite, in an atomic.
#[derive(Debug, Default)]
pub(crate) struct Rate(AtomicU32);

impl Rate {
    pub(crate) fn new(value: f32) -> Self {
        Self(AtomicU32::new(Self::valid(value).to_bits()))
    }

    pub(crate) fn value(&self) -> f32 {
        f32::from_bits(self.0.load(Relaxed))
    }

    pub(crate) fn put(&self, value: f32) {
        self.0.store(Self::valid(value).to_bits(), Relaxed);
    }

    fn valid(value: f32) -> f32 {
        if value.is_finite() {
            value.max(0.0)
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_ages_and_bad_rates_count_as_unknown() {
        let cell = ReportCell::default();
        assert_eq!((cell.at_ms(), cell.age_ms(99)), (0, 0));
        let report = Report {
            running: 4,
            input_tps: f32::NAN,
            output_tps: -1.0,
            age_ms: 7,
            ..Report::default()
        };
        cell.put(&report, 100);
        assert_eq!((cell.running.load(Relaxed), cell.age_ms(160)), (4, 67));
        assert!(cell.input_tps.value() == 0.0 && cell.output_tps.value() == 0.0);
    }

    #[test]
    fn the_greatest_rate_is_the_told_one_or_the_greatest_mean() {
        let cell = ReportCell::default();
        let told = |input_tps, max_input_tps| Report {
            input_tps,
            max_input_tps,
            ..Report::default()
        };
        for (report, expected) in [
            (told(100.0, 0.0), 100.0),
            (told(50.0, 0.0), 100.0),
            (told(50.0, 80.0), 80.0),
            (told(90.0, f32::INFINITY), 90.0),
        ] {
            cell.put(&report, 1);
            assert!((cell.max_input_tps.value() - expected).abs() < 1e-3);
        }
    }

    #[test]
    fn weights_change_in_steps() {
        assert!(stepped(0.0) == 0.0);
        for rate in [0.001_f32, 1.0, 777.0, 1e9] {
            let step = stepped(rate);
            assert!((step / rate - 1.0).abs() < 0.026, "{rate} {step}");
            assert!((stepped(step) / step - 1.0).abs() < 1e-4, "{rate}");
        }
        assert!(stepped(1000.0) == stepped(1004.0), "small changes are none");
    }

    #[test]
    fn queue_times_are_of_the_greatest_priority_not_above() {
        let times = QueueTimes::new([(20, 300), (5, 10), (10, 100), (10, 120)]);
        let cell = ReportCell::default();
        assert_eq!(cell.queue_ms(3), None);
        let report = Report {
            queue_times: times,
            ..Report::default()
        };
        cell.put(&report, 1);
        assert_eq!(cell.queue_times(), times);
        for (priority, expected) in [(4, 0), (5, 10), (9, 10), (10, 120), (u32::MAX, 300)] {
            assert_eq!(times.at(priority), Some(expected), "{priority}");
            assert_eq!(cell.queue_ms(priority), Some(expected), "{priority}");
        }
        let many = QueueTimes::new((0..40).rev().map(|priority| (priority, priority)));
        assert_eq!(many.entries().count(), QueueTimes::PRIORITIES_MAX);
        assert_eq!(many.at(u32::MAX), Some(15), "the most urgent are kept");
    }
}
