//! What the agent counts of itself.

use std::sync::atomic::{AtomicU64, Ordering};

use weir_tunnel::{SpliceEnd, Spliced, Undelivered};

/// Counts since the agent began.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    done: AtomicU64,
    aborted: AtomicU64,
    broken: AtomicU64,
    draining: AtomicU64,
    busy: AtomicU64,
    connect_failed: AtomicU64,
    other: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    tunnels: AtomicU64,
    dial_failures: AtomicU64,
}

impl Counters {
    pub(crate) fn carried(&self, spliced: &Spliced) {
        add(&self.sent_bytes, spliced.sent_bytes);
        add(&self.received_bytes, spliced.received_bytes);
        let counter = match spliced.end {
            SpliceEnd::Done => &self.done,
            SpliceEnd::Gateway => &self.aborted,
            SpliceEnd::Upstream => &self.broken,
        };
        add(counter, 1);
    }

    pub(crate) fn refused(&self, reason: Undelivered) {
        let counter = match reason {
            Undelivered::Draining => &self.draining,
            Undelivered::Busy => &self.busy,
            Undelivered::ConnectFailed => &self.connect_failed,
            _ => &self.other,
        };
        add(counter, 1);
    }

    pub(crate) fn tunnel(&self) {
        add(&self.tunnels, 1);
    }

    pub(crate) fn dial_failure(&self) {
        add(&self.dial_failures, 1);
    }

    /// Name, label and value of each.
    pub(crate) fn rows(&self) -> [(&'static str, &'static str, u64); 11] {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            (
                "weir_agent_streams_total",
                "end=\"done\"",
                value(&self.done),
            ),
            (
                "weir_agent_streams_total",
                "end=\"aborted\"",
                value(&self.aborted),
            ),
            (
                "weir_agent_streams_total",
                "end=\"broken\"",
                value(&self.broken),
            ),
            (
                "weir_agent_undelivered_total",
                "reason=\"draining\"",
                value(&self.draining),
            ),
            (
                "weir_agent_undelivered_total",
                "reason=\"busy\"",
                value(&self.busy),
            ),
            (
                "weir_agent_undelivered_total",
                "reason=\"connect_failed\"",
                value(&self.connect_failed),
            ),
            (
                "weir_agent_undelivered_total",
                "reason=\"other\"",
                value(&self.other),
            ),
            (
                "weir_agent_bytes_total",
                "direction=\"sent\"",
                value(&self.sent_bytes),
            ),
            (
                "weir_agent_bytes_total",
                "direction=\"received\"",
                value(&self.received_bytes),
            ),
            ("weir_agent_tunnels_total", "", value(&self.tunnels)),
            (
                "weir_agent_dial_failures_total",
                "",
                value(&self.dial_failures),
            ),
        ]
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
