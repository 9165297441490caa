//! Live figures of a backend: what routing methods compare.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Live figures of one backend at one moment. Each is exact by itself; together they are no
/// transaction, since traffic goes on while they are read.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Exchanges in progress: the greater of our own and what the backend reported.
    pub running: u32,
    /// Exchanges waiting inside the backend, as it reported; 0 without reports.
    pub queued: u32,
    /// Input tokens not yet worked through: the greater of the reported and of our own
    /// exchanges that have not seen their first byte.
    pub queued_input_tokens: u64,
    /// Free KV cache, as reported; 0 without reports.
    pub kv_free_tokens: u64,
    /// Input tokens per second: reported, else observed by us; 0 when unknown.
    pub input_tps: f32,
    /// Output tokens per second, as reported; 0 when unknown.
    pub output_tps: f32,
    /// Moving average of the time to the first byte, microseconds; 0 when unknown.
    pub ewma_ttft_us: u32,
    /// Moving share of failed exchanges, 0..=1000.
    pub error_permille: u16,
    /// Age of the last report; 0 without reports, since our own figures are current.
    pub age_ms: u16,
}

/// One of the figures of [`Load`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// See [`Load::running`].
    Running,
    /// See [`Load::queued`].
    Queued,
    /// See [`Load::queued_input_tokens`].
    QueuedInputTokens,
    /// See [`Load::kv_free_tokens`].
    KvFreeTokens,
    /// See [`Load::input_tps`].
    InputTps,
    /// See [`Load::output_tps`].
    OutputTps,
    /// See [`Load::ewma_ttft_us`].
    EwmaTtftUs,
    /// See [`Load::error_permille`].
    ErrorPermille,
    /// See [`Load::est_wait_us`].
    EstWaitUs,
}

impl Load {
    /// The figure as a number; counters above 2^53 lose their last digits.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "documented: figures are estimates"
    )]
    pub fn figure(&self, figure: Figure) -> f64 {
        match figure {
            Figure::Running => f64::from(self.running),
            Figure::Queued => f64::from(self.queued),
            Figure::QueuedInputTokens => self.queued_input_tokens as f64,
            Figure::KvFreeTokens => self.kv_free_tokens as f64,
            Figure::InputTps => f64::from(self.input_tps),
            Figure::OutputTps => f64::from(self.output_tps),
            Figure::EwmaTtftUs => f64::from(self.ewma_ttft_us),
            Figure::ErrorPermille => f64::from(self.error_permille),
            Figure::EstWaitUs => self.est_wait_us(),
        }
    }

    /// Estimated wait before work on a new exchange begins, microseconds: the queued input
    /// over the input rate where the rate is known, else the usual time to the first byte
    /// once for every exchange in progress.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn est_wait_us(&self) -> f64 {
        if self.input_tps > 0.0 {
            self.queued_input_tokens as f64 / f64::from(self.input_tps) * 1e6
        } else {
            f64::from(self.ewma_ttft_us) * f64::from(self.running)
        }
    }
}

/// What a backend says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Report {
    /// Exchanges in progress, from all gateways.
    pub running: u32,
    /// Exchanges waiting.
    pub queued: u32,
    /// Input tokens waiting.
    pub queued_input_tokens: u64,
    /// Free KV cache in tokens.
    pub kv_free_tokens: u64,
    /// Input tokens per second; 0 or not finite = unknown.
    pub input_tps: f32,
    /// Output tokens per second; 0 or not finite = unknown.
    pub output_tps: f32,
}

/// The last report, readable without a lock.
#[derive(Debug, Default)]
pub(crate) struct ReportCell {
    running: AtomicU32,
    queued: AtomicU32,
    queued_input_tokens: AtomicU64,
    kv_free_tokens: AtomicU64,
    input_tps: Rate,
    output_tps: Rate,
    /// 0 = never.
    at_ms: AtomicU64,
}

impl ReportCell {
    pub(crate) fn put(&self, report: &Report, now_ms: u64) {
        self.running.store(report.running, Relaxed);
        self.queued.store(report.queued, Relaxed);
        self.queued_input_tokens
            .store(report.queued_input_tokens, Relaxed);
        self.kv_free_tokens.store(report.kv_free_tokens, Relaxed);
        self.input_tps.put(report.input_tps);
        self.output_tps.put(report.output_tps);
        self.at_ms.store(now_ms.max(1), Relaxed);
    }

    /// Fills the reported half of a load; the caller lays our own figures over it.
    pub(crate) fn load(&self, now_ms: u64) -> Load {
        let at_ms = self.at_ms.load(Relaxed);
        if at_ms == 0 {
            return Load::default();
        }
        Load {
            running: self.running.load(Relaxed),
            queued: self.queued.load(Relaxed),
            queued_input_tokens: self.queued_input_tokens.load(Relaxed),
            kv_free_tokens: self.kv_free_tokens.load(Relaxed),
            input_tps: self.input_tps.value(),
            output_tps: self.output_tps.value(),
            age_ms: u16::try_from(now_ms.saturating_sub(at_ms)).unwrap_or(u16::MAX),
            ..Load::default()
        }
    }
}

/// An `f32` that is never negative nor infinite, in an atomic.
#[derive(Debug, Default)]
pub(crate) struct Rate(AtomicU32);

impl Rate {
    pub(crate) fn value(&self) -> f32 {
        f32::from_bits(self.0.load(Relaxed))
    }

    pub(crate) fn put(&self, value: f32) {
        let kept = if value.is_finite() {
            value.max(0.0)
        } else {
            0.0
        };
        self.0.store(kept.to_bits(), Relaxed);
    }

    /// Moves an eighth of the way to the sample. Concurrent samples may overwrite each
    /// other: losing one of them does not hurt an average.
    pub(crate) fn sample(&self, value: f32) {
        let old = self.value();
        self.put(if old > 0.0 {
            old + (value - old) / 8.0
        } else {
            value
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_by_rate_if_known_else_by_first_byte() {
        let check = |load: Load, expected: f64| {
            assert!(
                (load.figure(Figure::EstWaitUs) - expected).abs() < 1e-6,
                "{load:?}"
            );
        };
        check(Load::default(), 0.0);
        let unknown_rate = Load {
            running: 3,
            ewma_ttft_us: 100,
            ..Load::default()
        };
        check(unknown_rate, 300.0);
        let known_rate = Load {
            queued_input_tokens: 500,
            input_tps: 1000.0,
            ..unknown_rate
        };
        check(known_rate, 500_000.0);
    }

    #[test]
    fn a_report_ages_and_bad_rates_count_as_unknown() {
        let cell = ReportCell::default();
        assert_eq!(cell.load(99), Load::default());
        let report = Report {
            running: 4,
            input_tps: f32::NAN,
            output_tps: -1.0,
            ..Report::default()
        };
        cell.put(&report, 100);
        let load = cell.load(160);
        assert_eq!((load.running, load.age_ms), (4, 60));
        assert!(load.input_tps == 0.0 && load.output_tps == 0.0);
        assert_eq!(cell.load(1_000_000).age_ms, u16::MAX);
    }
}
