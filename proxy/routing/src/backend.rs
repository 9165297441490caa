//! One backend: its counters, its standing, and the reservations that claim it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::health::{Health, HealthState};
use crate::load::{Load, Rate, Report, ReportCell};

/// A member of a cluster and all that is known of it. Shared by every configuration
/// generation that names it, so counters, health and ejection carry over a reload.
#[derive(Debug)]
pub struct Backend {
    id: Arc<str>,
    cluster: Arc<str>,
    id_hash: u64,
    running: AtomicU32,
    /// Input tokens of our exchanges that have not seen their first byte.
    waiting_tokens: AtomicU64,
    ewma_ttft_us: AtomicU32,
    observed_input_tps: Rate,
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
    report: ReportCell,
}

/// When failing traffic takes a backend out of selection for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionPolicy {
    /// Failures in a row that eject; 0 = never eject.
    pub consecutive_failures: u32,
    /// First ejection; doubled by each further one without a success between, up to 32 times.
    pub base_ms: u64,
    /// Greatest share of a cluster that may be ejected at once, 0..=100. One backend of
    /// several may always be ejected unless this is 0.
    pub max_percent: u32,
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ms: 10_000,
            max_percent: 50,
        }
    }
}

impl Backend {
    pub(crate) fn new(cluster: Arc<str>, id: &str) -> Self {
        Self {
            id: id.into(),
            cluster,
            id_hash: xxh3_64(id.as_bytes()),
            running: AtomicU32::new(0),
            waiting_tokens: AtomicU64::new(0),
            ewma_ttft_us: AtomicU32::new(0),
            observed_input_tps: Rate::default(),
            error_ppm: AtomicU32::new(0),
            successes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            consecutive_failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            standing: AtomicU8::new(0),
            probes: Mutex::new(HealthState::default()),
            report: ReportCell::default(),
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
        Some(Reservation {
            backend: Arc::clone(self),
            waiting_tokens: 0,
        })
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

    /// Takes what the backend says about itself.
    pub fn report(&self, report: &Report, now_ms: u64) {
        self.report.put(report, now_ms);
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
        let reported = self.report.load(now_ms);
        let observed_tps = self.observed_input_tps.value();
        Load {
            running: reported.running.max(self.running.load(Relaxed)),
            queued_input_tokens: reported
                .queued_input_tokens
                .max(self.waiting_tokens.load(Relaxed)),
            input_tps: if reported.input_tps > 0.0 {
                reported.input_tps
            } else {
                observed_tps
            },
            ewma_ttft_us: self.ewma_ttft_us.load(Relaxed),
            error_permille: u16::try_from(self.error_ppm.load(Relaxed) / 1000).unwrap_or(1000),
            ..reported
        }
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

    pub(crate) fn id_hash(&self) -> u64 {
        self.id_hash
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

/// The counted claim of one exchange on a backend. Dropping it releases the claim.
#[derive(Debug)]
#[must_use = "dropping a reservation releases it"]
pub struct Reservation {
    backend: Arc<Backend>,
    waiting_tokens: u64,
}

impl Reservation {
    /// Counts the exchange's estimated input as waiting until [`Self::first_byte`] or the
    /// end. A second call replaces the first.
    pub fn await_input(&mut self, input_tokens: u64) {
        self.release_input();
        self.waiting_tokens = input_tokens;
        self.backend.waiting_tokens.fetch_add(input_tokens, Relaxed);
    }

    /// The first byte of the answer came `ttft_us` microseconds after the exchange was sent:
    /// moves the backend's averages and releases the waiting input.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn first_byte(&mut self, ttft_us: u64) {
        self.backend.record_ttft_us(ttft_us);
        if self.waiting_tokens > 0 {
            let rate = self.waiting_tokens as f32 * 1e6 / ttft_us.max(1) as f32;
            self.backend.observed_input_tps.sample(rate);
        }
        self.release_input();
    }

    /// The claimed backend.
    #[must_use]
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    fn release_input(&mut self) {
        let released = std::mem::take(&mut self.waiting_tokens);
        if released > 0 {
            self.backend.waiting_tokens.fetch_sub(released, Relaxed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release_input();
        self.backend.running.fetch_sub(1, Relaxed);
    }
}

const EJECTION_DOUBLINGS_MAX: u32 = 5;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn backend() -> Arc<Backend> {
        Arc::new(Backend::new("c".into(), "10.0.0.1:80"))
    }

    #[test]
    fn reservations_never_pass_the_limit_and_all_return() {
        let shared = backend();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let held = shared.reserve(3);
                        assert!(shared.running() <= 3);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(shared.running(), 0);
        let held: Vec<_> = (0..3).map(|_| shared.reserve(3).unwrap()).collect();
        assert!(shared.reserve(3).is_none(), "full");
        assert!(shared.reserve(0).is_some(), "no limit");
        drop(held);
        assert_eq!(shared.running(), 0);
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

    #[test]
    fn first_byte_moves_averages_and_releases_the_input() {
        let one = backend();
        let mut held = one.reserve(0).unwrap();
        held.await_input(500);
        assert_eq!(one.load(0).queued_input_tokens, 500);
        held.first_byte(250_000);
        let load = one.load(0);
        assert_eq!((load.queued_input_tokens, load.ewma_ttft_us), (0, 250_000));
        assert!((load.input_tps - 2000.0).abs() < 1.0);
        held.await_input(7);
        drop(held);
        assert_eq!(one.load(0).queued_input_tokens, 0);
        (0..200).for_each(|_| one.record_ttft_us(1000));
        assert!((950..=1050).contains(&one.load(0).ewma_ttft_us));
    }
}
