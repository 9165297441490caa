//! A module with its configuration, as the chain sees it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_pipeline::edits::EditGrants;
use weir_pipeline::facts::Facts;
use weir_pipeline::filter::{Answer, Filter, OnError, PhaseCall, Phases};
use weir_pipeline::verdict::{
    Affinity, Choice, Decision, EventVerdict, Outcome, StreamEvent, Summary,
};

use crate::breaker::Breaker;
use crate::call::returned;
use crate::engine::Host;
use crate::guest_state::FilterIdentity;
use crate::manifest::Manifest;
use crate::metrics::{FilterStats, Meters};
use crate::module::Module;
use crate::phase::{
    Affine, Authorize, Complete, Events, Request, RequestHeaders, ResponseHeaders, Route, Tick,
};
use crate::pool::Pool;

/// A configured Wasm filter.
pub struct WasmFilter {
    pub(crate) identity: Arc<FilterIdentity>,
    pub(crate) module: Arc<Module>,
    pub(crate) manifest: Manifest,
    pub(crate) phases: Phases,
    pub(crate) on_error: OnError,
    /// A failed call is made once more on a fresh instance.
    pub(crate) retry_fresh: bool,
    pub(crate) edit_grants: EditGrants,
    /// Instances called without a fiber.
    pub(crate) pool: Pool,
    /// Instances for request phases and ticks of a filter that sends requests.
    pub(crate) suspending: Option<Pool>,
    pub(crate) breaker: Breaker,
    pub(crate) meters: Meters,
    pub(crate) host: Arc<Host>,
}

impl WasmFilter {
    /// Hash of the module's bytes, in hexadecimal.
    #[must_use]
    pub fn module_sha256(&self) -> &str {
        &self.module.sha256
    }

    /// Its module.
    #[must_use]
    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// What it says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How often it was put into quarantine.
    #[must_use]
    pub fn trips(&self) -> u64 {
        self.breaker.trips()
    }

    /// Its figures since it was prepared.
    #[must_use]
    pub fn stats(&self) -> FilterStats {
        let pools = || std::iter::once(&self.pool).chain(&self.suspending);
        let (idle, live) = (
            pools().map(Pool::idle_count).sum(),
            pools().map(Pool::live_count).sum(),
        );
        self.meters
            .idle
            .set(i64::try_from(idle).unwrap_or(i64::MAX));
        self.meters.live.set(i64::from(live));
        FilterStats {
            phases: self.meters.phase_stats(),
            failures: self.meters.failure_stats(),
            pool_idle: idle,
            pool_live: live,
            quarantined: self.breaker.is_open(),
            trips: self.breaker.trips(),
            calls: self.breaker.calls(),
        }
    }

    /// Destroys instances that have been idle for a minute, but one. To be called now and then;
    /// also brings the gauges up to date.
    pub fn prune(&self) {
        if let Some(before) = Instant::now().checked_sub(IDLE_MAX) {
            self.pool.prune(before, 1);
            self.suspending
                .iter()
                .for_each(|pool| pool.prune(before, 1));
        }
        drop(self.stats());
    }

    /// Destroys all idle instances but one: for a filter of a chain that is on its way out.
    pub fn shrink(&self) {
        let now = Instant::now();
        self.pool.prune(now, 1);
        self.suspending.iter().for_each(|pool| pool.prune(now, 0));
        drop(self.stats());
    }
}

impl Filter for WasmFilter {
    fn name(&self) -> &Arc<str> {
        &self.identity.name
    }

    fn phases(&self) -> Phases {
        self.phases
    }

    fn on_error(&self) -> OnError {
        self.on_error
    }

    fn request_headers(&self, facts: Box<Facts>) -> PhaseCall<'_, Outcome> {
        self.phase_call(RequestHeaders, facts)
    }

    fn authorize(&self, facts: Box<Facts>) -> PhaseCall<'_, Decision> {
        self.phase_call(Authorize, facts)
    }

    fn request(&self, facts: Box<Facts>) -> PhaseCall<'_, Outcome> {
        self.phase_call(Request, facts)
    }

    fn affinity(&self, facts: Box<Facts>) -> PhaseCall<'_, Option<Affinity>> {
        self.phase_call(Affine, facts)
    }

    fn route(&self, facts: Box<Facts>, affinity_hash: u64) -> PhaseCall<'_, Choice> {
        self.phase_call(Route { affinity_hash }, facts)
    }

    fn response_headers(&self, facts: Box<Facts>) -> PhaseCall<'_, Outcome> {
        self.phase_call(ResponseHeaders, facts)
    }

    fn events(&self, facts: Box<Facts>, events: &[StreamEvent]) -> Answer<Vec<EventVerdict>> {
        returned(self.run(&Events(events), Some(facts)))
    }

    fn complete(&self, done: &[Summary]) {
        // Noted where it happened; there is no exchange left to refuse.
        drop(self.run(&Complete(done), None));
    }

    fn tick(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            match &self.suspending {
                None => drop(self.run(&Tick, None)),
                Some(pool) => drop(self.run_suspending(pool, Tick, None).await),
            }
        })
    }
}

/// Idle instances older than this are destroyed.
const IDLE_MAX: Duration = Duration::from_secs(60);
