//! Figures about filters: counters for the scraper, and the same by filter for the admin API.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use serde::Serialize;
use weir_pipeline::verdict::FailureKind;

use crate::phase::{PHASES, PhaseKind};

/// The metric families of all filters.
pub(crate) struct HostMetrics {
    calls: IntCounterVec,
    seconds: HistogramVec,
    failures: IntCounterVec,
    started: IntCounterVec,
    quarantined: IntGaugeVec,
    idle: IntGaugeVec,
    live: IntGaugeVec,
}

impl HostMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let family = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone())).map(|()| family)
        };
        let gauge = |name: &str, help: &str| {
            let family = IntGaugeVec::new(Opts::new(name, help), &["filter"])?;
            registry.register(Box::new(family.clone())).map(|()| family)
        };
        let help = "Duration of phase calls; one in 16 is measured";
        let options =
            HistogramOpts::new("weir_filter_call_seconds", help).buckets(BUCKETS.to_vec());
        let seconds = HistogramVec::new(options, &["filter", "phase"])?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            calls: counter(
                "weir_filter_calls_total",
                "Phase calls",
                &["filter", "phase"],
            )?,
            seconds,
            failures: counter(
                "weir_filter_failures_total",
                "Failed phase calls",
                &["filter", "kind"],
            )?,
            started: counter(
                "weir_filter_instantiations_total",
                "Instances started",
                &["filter"],
            )?,
            quarantined: gauge(
                "weir_filter_quarantined",
                "1 while a filter is in quarantine",
            )?,
            idle: gauge("weir_filter_pool_idle", "Idle instances")?,
            live: gauge("weir_filter_pool_live", "Instances")?,
        })
    }

    pub(crate) fn of(&self, filter: &str) -> Meters {
        Meters {
            phases: PHASES.map(|phase| PhaseMeter {
                calls: self.calls.with_label_values(&[filter, phase.name()]),
                seconds: self.seconds.with_label_values(&[filter, phase.name()]),
                own_calls: AtomicU64::new(0),
                ns: AtomicU64::new(0),
            }),
            failures: FAILURES.map(|kind| Failures {
                kind,
                total: self.failures.with_label_values(&[filter, kind.as_str()]),
                own: AtomicU64::new(0),
            }),
            started: self.started.with_label_values(&[filter]),
            quarantined: self.quarantined.with_label_values(&[filter]),
            idle: self.idle.with_label_values(&[filter]),
            live: self.live.with_label_values(&[filter]),
        }
    }
}

/// The figures of one filter, resolved once.
pub(crate) struct Meters {
    phases: [PhaseMeter; PHASES.len()],
    failures: [Failures; FAILURES.len()],
    pub(crate) started: IntCounter,
    pub(crate) quarantined: IntGauge,
    pub(crate) idle: IntGauge,
    pub(crate) live: IntGauge,
}

struct PhaseMeter {
    calls: IntCounter,
    seconds: Histogram,
    /// The counters of a name live on when the filter is replaced; these two do not.
    own_calls: AtomicU64,
    ns: AtomicU64,
}

struct Failures {
    kind: FailureKind,
    total: IntCounter,
    own: AtomicU64,
}

impl Meters {
    pub(crate) fn called(&self, phase: PhaseKind, took: Duration) {
        let Some(meter) = self.phases.get(phase as usize) else {
            return;
        };
        meter.calls.inc();
        let nth = meter.own_calls.fetch_add(1, Relaxed);
        meter
            .ns
            .fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        if nth % SAMPLE == 0 {
            meter.seconds.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn failed(&self, kind: FailureKind) {
        if let Some(meter) = self.failures.iter().find(|meter| meter.kind == kind) {
            meter.total.inc();
            meter.own.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn phase_stats(&self) -> BTreeMap<&'static str, PhaseStats> {
        let read = |(phase, meter): (PhaseKind, &PhaseMeter)| {
            let calls = meter.own_calls.load(Relaxed);
            (calls > 0).then(|| {
                (
                    phase.name(),
                    PhaseStats {
                        calls,
                        total_us: meter.ns.load(Relaxed) / 1_000,
                    },
                )
            })
        };
        PHASES
            .into_iter()
            .zip(&self.phases)
            .filter_map(read)
            .collect()
    }

    pub(crate) fn failure_stats(&self) -> BTreeMap<&'static str, u64> {
        let read = |meter: &Failures| (meter.kind.as_str(), meter.own.load(Relaxed));
        self.failures
            .iter()
            .map(read)
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// A filter as the admin API shows it, since it was prepared.
#[derive(Clone, Debug, Serialize)]
pub struct FilterStats {
    /// By phase; phases never called are left out.
    pub phases: BTreeMap<&'static str, PhaseStats>,
    /// By kind of failure; kinds that never happened are left out.
    pub failures: BTreeMap<&'static str, u64>,
    /// Idle instances.
    pub pool_idle: usize,
    /// Instances, idle or in a call.
    pub pool_live: u32,
    /// Whether it is in quarantine now.
    pub quarantined: bool,
    /// How often it was put there.
    pub trips: u64,
    /// Calls let through by the quarantine, retries not counted.
    pub calls: u64,
}

/// Calls of one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PhaseStats {
    /// How many.
    pub calls: u64,
    /// How long they took together, in microseconds.
    pub total_us: u64,
}

const FAILURES: [FailureKind; 8] = [
    FailureKind::Deadline,
    FailureKind::Memory,
    FailureKind::Trap,
    FailureKind::ForbiddenEdit,
    FailureKind::BadVerdict,
    FailureKind::Quarantined,
    FailureKind::PoolExhausted,
    FailureKind::Host,
];

/// Observing costs about as much as everything else that is counted per call.
const SAMPLE: u64 = 16;

const BUCKETS: [f64; 14] = [
    0.5e-6, 1e-6, 2e-6, 5e-6, 10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3,
];
