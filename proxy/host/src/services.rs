//! What one process offers to all its filters; outlives configurations and instances.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use weir_pipeline::intern::Interner;
use weir_store::{Limiters, Slots, Stores};

use crate::bindings::weir::filter::types::Failure;
use crate::capability::http_client::{Outbound, OutboundResponse};
use crate::capability::metrics::FilterMetrics;
use crate::flights::Flights;
use crate::guest_state::{FilterIdentity, clock};
use crate::key_set::KeySets;
use crate::key_table::KeyTables;
use crate::tick_length::TickLength;

/// The process side of every capability.
pub struct Services {
    /// Names as numbers.
    pub interner: Interner,
    /// Token budgets; names are `FILTER/NAME`.
    pub limiters: Arc<Limiters>,
    /// Key-value stores; names are `FILTER/NAME`.
    pub stores: Stores,
    /// Concurrency slots; names are `FILTER/NAME`.
    pub slots: Slots,
    /// Known caller keys; the server replaces them at each reload.
    pub key_tables: ArcSwap<KeyTables>,
    /// Public keys of issuers; replaced together with the key tables.
    pub key_sets: ArcSwap<KeySets>,
    /// Where filters' series go.
    pub registry: prometheus::Registry,
    /// How requests of filters leave; until the server sets it they are `unavailable`.
    pub outbound: OnceLock<Arc<dyn Outbound>>,
    /// Requests under way that filters share, by filter, cluster and what the filter calls them.
    pub(crate) shared_sends: Flights<(Arc<str>, String, String), Result<OutboundResponse, Failure>>,
    /// How finely deadlines are counted.
    pub(crate) tick: Arc<TickLength>,
    metrics: Mutex<HashMap<Arc<str>, Arc<FilterMetrics>>>,
}

impl Services {
    /// Empty services whose series are registered in `registry`.
    #[must_use]
    pub fn new(registry: prometheus::Registry) -> Self {
        Self {
            interner: Interner::new(),
            limiters: Arc::default(),
            stores: Stores::default(),
            slots: Slots::default(),
            key_tables: ArcSwap::from_pointee(KeyTables::default()),
            key_sets: ArcSwap::default(),
            registry,
            shared_sends: Flights::default(),
            outbound: OnceLock::new(),
            tick: Arc::default(),
            metrics: Mutex::default(),
        }
    }

    /// Milliseconds of the monotonic clock that limiters and stores are asked with; never 0.
    #[must_use]
    pub fn now_ms() -> u64 {
        clock::now_ms()
    }

    /// The series of a filter: the same for all its instances and generations.
    pub(crate) fn metrics_of(&self, filter: &FilterIdentity) -> Arc<FilterMetrics> {
        let mut metrics = self.metrics.lock();
        if let Some(known) = metrics.get(&filter.name) {
            return known.clone();
        }
        let fresh = Arc::new(FilterMetrics::new(&filter.name, self.registry.clone()));
        metrics.insert(filter.name.clone(), fresh.clone());
        fresh
    }
}
