//! Counters of model servers that dial in.

use prometheus::{IntCounterVec, Opts, Registry};

/// Who was not let in, and who has left, by reason.
pub(crate) struct WorkerCounters {
    refused: IntCounterVec,
    left: IntCounterVec,
}

impl WorkerCounters {
    /// Registers them.
    ///
    /// # Errors
    /// When a name is registered already: a fault of ours.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), &["reason"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self {
            refused: counter(
                "weir_workers_refused_total",
                "Workers that were not let in.",
            )?,
            left: counter(
                "weir_workers_left_total",
                "Connections of workers that have ended.",
            )?,
        })
    }

    /// A worker was not let in.
    pub(crate) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// A worker's connection has ended.
    pub(crate) fn left(&self, reason: &str) {
        self.left.with_label_values(&[reason]).inc();
    }
}
