//! What outlives a configuration: the Wasm host, the fleet, connections, counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::connectors::http::Connector;
use tokio::sync::mpsc;
use weir_host::Host;
use weir_pipeline::filter::Filter;
use weir_pipeline::verdict::Summary;
use weir_routing::{Fleet, LastDomains};

use crate::names::Names;
use crate::reload::History;
use crate::snapshot::Snapshot;
use crate::telemetry::{Metrics, Spans};
use crate::upstream::IdleByAddress;
use crate::workers::registry::Workers;

/// Ended exchanges that wait for filters with a `complete` phase; more are dropped and counted.
pub(crate) const COMPLETIONS_MAX: usize = 8192;

/// Conversations whose backend is remembered, and for how long after their last answer: a prompt
/// cache keeps them no longer than that.
const CONVERSATIONS_MAX: usize = 100_000;
const CONVERSATION_TTL_MS: u64 = 3_600_000;

/// An ended exchange on its way to the filters that want to hear of it.
pub(crate) type Completion = (Arc<dyn Filter>, Summary);

/// What a runtime begins with.
pub(crate) struct Parts {
    /// Runs the filters.
    pub(crate) host: Arc<Host>,
    /// Loads and health of backends.
    pub(crate) fleet: Fleet,
    /// Model servers that have dialled in.
    pub(crate) workers: Workers,
    /// Where names of backends point.
    pub(crate) names: Names,
    /// Connections that wait for the next request.
    pub(crate) idle: Arc<IdleByAddress>,
    /// Counters.
    pub(crate) metrics: Metrics,
    /// Where exchanges leave their spans, if they are exported.
    pub(crate) spans: Option<Spans>,
}

/// The one thing of a process that is shared by everything.
pub(crate) struct Runtime {
    /// Runs the filters.
    pub(crate) host: Arc<Host>,
    /// Loads and health of backends.
    pub(crate) fleet: Fleet,
    /// Model servers that have dialled in.
    pub(crate) workers: Workers,
    /// Where names of backends point.
    pub(crate) names: Names,
    /// Plaintext connections to backends that wait for the next request.
    pub(crate) idle: Arc<IdleByAddress>,
    /// Where conversations were served last.
    pub(crate) last_domains: LastDomains,
    /// Counters.
    pub(crate) metrics: Metrics,
    /// Where exchanges leave their spans, if they are exported.
    pub(crate) spans: Option<Spans>,
    /// Connections to upstreams.
    pub(crate) connector: Connector,
    /// Past configurations and the state of the last reload.
    pub(crate) history: Mutex<History>,
    /// Set when the process is to end: readiness off, connections closed after their answer.
    pub(crate) draining: AtomicBool,
    /// Filters with a `complete` phase hear through this.
    pub(crate) completions: mpsc::Sender<Completion>,
    snapshot: ArcSwap<Snapshot>,
    exchanges: AtomicU64,
}

impl Runtime {
    /// Everything with its first snapshot.
    pub(crate) fn new(parts: Parts, snapshot: Snapshot) -> (Arc<Self>, mpsc::Receiver<Completion>) {
        let (completions, receiver) = mpsc::channel(COMPLETIONS_MAX);
        let snapshot = Arc::new(snapshot);
        let history = Mutex::new(History::starting_with(&snapshot));
        let Parts {
            host,
            fleet,
            workers,
            names,
            idle,
            metrics,
            spans,
        } = parts;
        let runtime = Self {
            host,
            fleet,
            workers,
            names,
            idle,
            last_domains: LastDomains::new(CONVERSATIONS_MAX, CONVERSATION_TTL_MS),
            metrics,
            spans,
            connector: Connector::new(None),
            history,
            draining: AtomicBool::new(false),
            completions,
            snapshot: ArcSwap::new(snapshot),
            exchanges: AtomicU64::new(0),
        };
        (Arc::new(runtime), receiver)
    }

    /// The live snapshot, to be pinned by an exchange.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Makes a snapshot live; exchanges under way keep theirs.
    pub(crate) fn swap(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.store(snapshot);
    }

    /// Milliseconds of the clock of loads, ejections and slow starts: the one that configurations are
    /// compiled by, too.
    #[allow(clippy::unused_self, reason = "a fact of the running process")]
    pub(crate) fn now_ms(&self) -> u64 {
        weir_host::Services::now_ms()
    }

    /// A number for the next exchange.
    pub(crate) fn next_exchange(&self) -> u64 {
        self.exchanges.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the process is about to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
