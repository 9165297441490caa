//! One backend: its counters, its standing, its last report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::ejection::EjectionPolicy;
use crate::health::{Health, HealthState};
use crate::load::{Figure, Load};
use crate::pending::Pending;
use crate::prediction::{self, Demand, Outlook, Source};
use crate::report::{Rate, Report, ReportCell};
use crate::reservation::Reservation;
use crate::signal::Signal;
use crate::throughput::Throughput;

/// A member of a cluster and all that is known of it. Shared by every configuration
/// generation that names it, so counters, health and ejection carry over a reload.
///
/// Looking at many of them is bound by memory: what the usual prediction reads is in the first
/// cache line, up to the head of the report.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Backend {
    pub(crate) running: AtomicU32,
    /// The last round trip; 0 = unknown.
    rtt_us: AtomicU32,
    /// The factor that corrects predictions.
    bias: Rate,
    ewma_ttft_us: AtomicU32,
    /// Our exchanges in progress that no report knows of.
    pub(crate) pending_running: Pending,
    /// Those that have ended and that the last report has among those in progress.
    pub(crate) pending_ended: Pending,
    report: ReportCell,
    /// Input tokens of our exchanges that have not seen their first byte.
    pub(crate) waiting_tokens: AtomicU64,
    pub(crate) observed_input: Throughput,
    /// Our exchanges without a first byte that no report knows of.
    pub(crate) pending_waiting: Pending,
    /// The input tokens of these.
    pub(crate) pending_tokens: Pending,
    id: Arc<str>,
    cluster: Arc<str>,
    pub(crate) signal: Arc<Signal>,
    /// When it came to a cluster that was serving already; 0 = it was there from the start.
    joined_ms: AtomicU64,
    /// Moving share of failures, in millionths.
    error_ppm: AtomicU32,
    successes: AtomicU64,
    failures: AtomicU64,
    consecutive_failures: AtomicU32,
    /// Ejections since the last success: each doubles the next.
    ejections: AtomicU32,
    ejected_until_ms: AtomicU64,
    standing: AtomicU8,
    probes: Mutex<HealthState>,
}

impl Backend {
    pub(crate) fn new(cluster: Arc<str>, id: &str, signal: Arc<Signal>, joined_ms: u64) -> Self {
        Self {
            running: AtomicU32::new(0),
            rtt_us: AtomicU32::new(0),
            bias: Rate::new(1.0),
            ewma_ttft_us: AtomicU32::new(0),
            pending_running: Pending::default(),
            pending_ended: Pending::default(),
            report: ReportCell::default(),
            waiting_tokens: AtomicU64::new(0),
            observed_input: Throughput::default(),
            pending_waiting: Pending::default(),
            pending_tokens: Pending::default(),
            id: id.into(),
            cluster,
            signal,
            joined_ms: AtomicU64::new(joined_ms),
            error_ppm: AtomicU32::new(0),
            successes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            consecutive_failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            standing: AtomicU8::new(0),
            probes: Mutex::new(HealthState::default()),
        }
    }

    /// Claims a place for one exchange, or `None` when `max_concurrency` (0 = no limit)
    /// exchanges are in progress already. Exact under concurrency.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, max_concurrency: u32) -> Option<Reservation> {
        if max_concurrency == 0 {
            self.running.fetch_add(1, Relaxed);
        } else {
            let more = |running| (running < max_concurrency).then_some(running + 1);
            self.running.fetch_update(Relaxed, Relaxed, more).ok()?;
        }
        Some(Reservation::new(Arc::clone(self)))
    }

    /// An exchange ended well: the row of failures is broken.
    pub fn record_success(&self) {
        self.successes.fetch_add(1, Relaxed);
        // Plain loads first: in the usual case no line is written but the counter's.
        if self.consecutive_failures.load(Relaxed) != 0 {
            self.consecutive_failures.store(0, Relaxed);
        }
        if self.ejections.load(Relaxed) != 0 {
            self.ejections.store(0, Relaxed);
        }
        if self.error_ppm.load(Relaxed) != 0 {
            self.sample_error(0);
        }
    }

    /// An exchange failed by the backend's fault. True if this failure ejected it.
    /// While ejected, late failures of older exchanges are counted but prolong nothing.
    pub fn record_failure(&self, now_ms: u64, policy: &EjectionPolicy) -> bool {
        self.failures.fetch_add(1, Relaxed);
        self.sample_error(1_000_000);
        let row = self
            .consecutive_failures
            .fetch_add(1, Relaxed)
            .saturating_add(1);
        let until_ms = self.ejected_until_ms.load(Relaxed);
        if policy.consecutive_failures == 0
            || row < policy.consecutive_failures
            || now_ms < until_ms
        {
            return false;
        }
        let doublings = self.ejections.load(Relaxed).min(EJECTION_DOUBLINGS_MAX);
        let next_ms = now_ms.saturating_add(policy.base_ms.saturating_mul(1 << doublings));
        // Of several failures that cross the threshold together only one ejects.
        let won = self
            .ejected_until_ms
            .compare_exchange(until_ms, next_ms, Relaxed, Relaxed)
            .is_ok();
        if won {
            self.ejections.fetch_add(1, Relaxed);
            self.consecutive_failures.store(0, Relaxed);
        }
        won
    }

    /// Time to the first byte of one exchange, microseconds.
    pub fn record_ttft_us(&self, ttft_us: u64) {
        let sample = u32::try_from(ttft_us).unwrap_or(u32::MAX).max(1);
        let old = self.ewma_ttft_us.load(Relaxed);
        let next = if old == 0 {
            sample
        } else {
            old - old / 8 + sample / 8
        };
        // A sample lost to a concurrent one does not hurt an average.
        self.ewma_ttft_us.store(next, Relaxed);
    }

    /// Takes a probe result, see [`HealthState::on_probe`]; returns the new standing if it
    /// changed.
    pub fn on_probe(&self, ok: bool, healthy_after: u32, unhealthy_after: u32) -> Option<Health> {
        let mut probes = self.probes.lock();
        let change = probes.on_probe(ok, healthy_after, unhealthy_after)?;
        self.standing.store(change as u8, Relaxed);
        Some(change)
    }

    /// Takes what the backend says about itself. Claims made before count as known to it: they
    /// are in its figures from now on, and only later ones are added to them.
    pub fn report(&self, report: &Report, now_ms: u64) {
        self.report.put(report, now_ms);
        self.pending_running.reported();
        self.pending_ended.reported();
        self.pending_waiting.reported();
        self.pending_tokens.reported();
        self.signal.raise();
    }

    /// Takes a measured round trip, microseconds: the last one counts.
    pub fn record_rtt_us(&self, rtt_us: u64) {
        let rtt_us = u32::try_from(rtt_us).unwrap_or(u32::MAX).max(1);
        self.rtt_us.store(rtt_us, Relaxed);
    }

    /// What an exchange's first byte took, against what was expected of it: moves the factor
    /// that corrects later predictions.
    ///
    /// The correction is of the work on the input, so round trip and queue are taken off what
    /// was observed; and the smaller the work's part in the prediction, the less the sample
    /// counts, since then it tells of the queue.
    pub(crate) fn learn(&self, expected: &Outlook, observed_us: f64) {
        let plain = expected.plain_prefill_us;
        let predicted = expected.rtt_us + expected.queue_us + plain;
        if plain <= 0.0 || !predicted.is_finite() {
            return;
        }
        let sample = (observed_us - expected.rtt_us - expected.queue_us) / plain;
        let sample = sample.clamp(BIAS_MIN, BIAS_MAX);
        let old = f64::from(self.bias());
        let step = BIAS_STEP * plain / predicted;
        let next = (old + (sample - old) * step).clamp(BIAS_MIN, BIAS_MAX);
        #[allow(clippy::cast_possible_truncation, reason = "a factor of 0.25..=4")]
        self.bias.put(next as f32);
    }

    /// It left and came back at `now_ms`, under the same id: it starts slowly again.
    pub fn rejoin(&self, now_ms: u64) {
        self.joined_ms.store(now_ms, Relaxed);
    }

    /// When it came to a cluster that was serving already; 0 = it was there from the start.
    #[must_use]
    pub fn joined_ms(&self) -> u64 {
        self.joined_ms.load(Relaxed)
    }

    /// The address, which is unique within the cluster.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Name of the cluster it belongs to.
    #[must_use]
    pub fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    /// Live figures.
    #[must_use]
    pub fn load(&self, now_ms: u64) -> Load {
        Load {
            running: Source::running(self),
            queued: self.queued(),
            queued_input_tokens: self.queued_input_tokens(),
            pending_input_tokens: self.pending_input_tokens(),
            slots: self.slots(),
            kv_capacity_tokens: self.kv_capacity_tokens(),
            kv_used_tokens: self.kv_used_tokens(),
            kv_free_tokens: self.kv_free_tokens(),
            input_tps: self.input_tps(),
            max_input_tps: self.max_input_tps(),
            output_tps: self.output_tps(),
            max_output_tps: self.max_output_tps(),
            ewma_ttft_us: self.ewma_ttft_us(),
            error_permille: self.error_permille(),
            rtt_us: Source::rtt_us(self),
            bias: Source::bias(self),
            queue_times: self.report.queue_times(),
            age_ms: self.report.age_ms(now_ms),
        }
    }

    /// One live figure: reads no more than it needs.
    #[inline(always)]
    #[must_use]
    pub fn figure(&self, figure: Figure, demand: &Demand, now_ms: u64) -> f64 {
        prediction::figure(self, figure, demand, now_ms)
    }

    /// When the first byte of an answer to this demand is expected.
    #[must_use]
    pub fn outlook(&self, demand: &Demand) -> Outlook {
        prediction::outlook(self, demand)
    }

    /// When its last report arrived; 0 = never.
    #[must_use]
    pub fn reported_ms(&self) -> u64 {
        self.report.at_ms()
    }

    /// Its reported input rates: the mean, and both in the steps of weights.
    pub(crate) fn reported_tps(&self) -> f32 {
        self.report.input_tps.value()
    }

    pub(crate) fn stepped_input_tps(&self) -> f32 {
        self.report.stepped_input_tps.value()
    }

    pub(crate) fn stepped_max_input_tps(&self) -> f32 {
        self.report.stepped_max_input_tps.value()
    }

    /// Exchanges in progress as it last said, without ours since.
    pub(crate) fn reported_running(&self) -> u32 {
        self.report.running.load(Relaxed)
    }

    /// Neither failed by its probes nor ejected.
    #[must_use]
    pub fn eligible(&self, now_ms: u64) -> bool {
        self.health() != Health::Unhealthy && self.ejected_for_ms(now_ms) == 0
    }

    /// Standing by active probes.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.standing.load(Relaxed) {
            1 => Health::Healthy,
            2 => Health::Unhealthy,
            _ => Health::Unknown,
        }
    }

    /// Milliseconds until its ejection ends; 0 = not ejected.
    #[must_use]
    pub fn ejected_for_ms(&self, now_ms: u64) -> u64 {
        self.ejected_until_ms.load(Relaxed).saturating_sub(now_ms)
    }

    /// Our own exchanges in progress.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.running.load(Relaxed)
    }

    /// Exchanges that ended well since the backend is known.
    #[must_use]
    pub fn successes(&self) -> u64 {
        self.successes.load(Relaxed)
    }

    /// Exchanges that failed by its fault since the backend is known.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    fn sample_error(&self, sample_ppm: u32) {
        let old = self.error_ppm.load(Relaxed);
        let next = old - old / 16 + sample_ppm / 16;
        // The truncated step stops short of 0: round the last bit away.
        let kept = if sample_ppm == 0 && next < 1000 {
            0
        } else {
            next
        };
        self.error_ppm.store(kept, Relaxed);
    }
}

impl Source for Backend {
    #[inline(always)]
    fn running(&self) -> u32 {
        // Without a report nothing is pending, and ours are all that is known.
        let told = u64::from(self.reported_running()) + self.pending_running.sum();
        let told = told.saturating_sub(self.pending_ended.sum());
        narrow(told.max(u64::from(self.running.load(Relaxed))))
    }
    fn queued(&self) -> u32 {
        let reported = self.report.queued.load(Relaxed);
        reported.saturating_add(narrow(self.pending_waiting.sum()))
    }
    fn queued_input_tokens(&self) -> u64 {
        // A report that was on its way when a claim was made does not know of it.
        let reported = self.report.queued_input_tokens.load(Relaxed);
        let ours = self.waiting_tokens.load(Relaxed);
        reported.saturating_add(self.pending_tokens.sum()).max(ours)
    }
    fn pending_input_tokens(&self) -> u64 {
        self.pending_tokens.sum()
    }
    fn queue_ms(&self, priority: u32) -> Option<u32> {
        self.report.queue_ms(priority)
    }
    fn slots(&self) -> u32 {
        self.report.slots.load(Relaxed)
    }
    fn kv_capacity_tokens(&self) -> u64 {
        self.report.kv_capacity_tokens.load(Relaxed)
    }
    fn kv_used_tokens(&self) -> u64 {
        self.report.kv_used_tokens.load(Relaxed)
    }
    fn kv_free_tokens(&self) -> u64 {
        self.report.kv_free_tokens.load(Relaxed)
    }
    fn input_tps(&self) -> f32 {
        let reported = self.report.input_tps.value();
        if reported > 0.0 {
            reported
        } else {
            self.observed_input.per_second()
        }
    }
    #[inline(always)]
    fn input_token_us(&self) -> f64 {
        let reported = self.report.input_token_us();
        if reported > 0.0 {
            reported
        } else {
            prediction::token_us(self.observed_input.per_second())
        }
    }
    fn max_input_tps(&self) -> f32 {
        self.report.max_input_tps.value()
    }
    fn output_tps(&self) -> f32 {
        self.report.output_tps.value()
    }
    fn max_output_tps(&self) -> f32 {
        self.report.max_output_tps.value()
    }
    fn ewma_ttft_us(&self) -> u32 {
        self.ewma_ttft_us.load(Relaxed)
    }
    fn error_permille(&self) -> u16 {
        u16::try_from(self.error_ppm.load(Relaxed) / 1000).unwrap_or(1000)
    }
    fn rtt_us(&self) -> u32 {
        self.rtt_us.load(Relaxed)
    }
    fn bias(&self) -> f32 {
        self.bias.value()
    }
    fn age_ms(&self, now_ms: u64) -> u64 {
        self.report.age_ms(now_ms)
    }
}

fn narrow(sum: u64) -> u32 {
    u32::try_from(sum).unwrap_or(u32::MAX)
}

const EJECTION_DOUBLINGS_MAX: u32 = 5;
/// How far one sample moves the correction.
const BIAS_STEP: f64 = 0.1;
const BIAS_MIN: f64 = 0.25;
const BIAS_MAX: f64 = 4.0;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn backend() -> Arc<Backend> {
        Arc::new(Backend::new("c".into(), "10.0.0.1:80", Arc::default(), 0))
    }

    #[test]
    fn ejection_doubles_until_a_success_and_is_not_prolonged() {
        let one = backend();
        let policy = EjectionPolicy {
            consecutive_failures: 2,
            base_ms: 100,
            max_percent: 100,
        };
        assert!(!one.record_failure(1000, &policy));
        assert!(one.record_failure(1000, &policy));
        assert!(!one.eligible(1099) && one.eligible(1100));
        assert!(!one.record_failure(1050, &policy));
        assert!(!one.record_failure(1060, &policy));
        assert_eq!(
            one.ejected_for_ms(1060),
            40,
            "late failures prolong nothing"
        );
        assert!(one.record_failure(1200, &policy), "the row goes on");
        assert_eq!(one.ejected_for_ms(1200), 200);
        one.record_success();
        one.record_failure(2000, &policy);
        assert!(one.record_failure(2000, &policy));
        assert_eq!(one.ejected_for_ms(2000), 100, "a success starts anew");
    }

    #[test]
    fn zero_failures_never_eject() {
        let one = backend();
        let policy = EjectionPolicy {
            consecutive_failures: 0,
            ..EjectionPolicy::default()
        };
        assert!((0..100).all(|_| !one.record_failure(5, &policy)));
        assert!(one.eligible(5));
        assert!(one.load(5).error_permille > 990);
        (0..200).for_each(|_| one.record_success());
        assert_eq!(one.load(5).error_permille, 0);
    }
}
