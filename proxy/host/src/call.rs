//! One phase call of a filter: quarantine, pool, call, check, count.

use std::time::{Duration, Instant};

use weir_pipeline::facts::Facts;
use weir_pipeline::filter::{Answer, PhaseCall};
use weir_pipeline::verdict::{FailureKind, FilterFailure};

use crate::breaker::Admission;
use crate::failure::Fault;
use crate::filter::WasmFilter;
use crate::guest_state::{LogPermit, clock};
use crate::instance::Instance;
use crate::phase::{Lifting, Phase, PhaseKind};
use crate::pool::Pool;

/// What comes out of one try: the exchange, and the verdict or why there is none.
type Tried<V> = (Option<Box<Facts>>, Result<V, Failed>);

struct Failed {
    fault: Fault,
    /// Whether another try cannot do anything twice.
    again: bool,
}

impl Failed {
    fn at_once(fault: Fault) -> Self {
        Self {
            fault,
            again: false,
        }
    }
}

impl WasmFilter {
    /// A call that does not suspend.
    pub(crate) fn run<P: Phase>(
        &self,
        phase: &P,
        facts: Option<Box<Facts>>,
    ) -> (Option<Box<Facts>>, Result<P::Verdict, FilterFailure>) {
        let began = Instant::now();
        let admission = match self.admit() {
            Ok(admission) => admission,
            Err(fault) => return (facts, Err(self.failure(P::KIND, fault))),
        };
        let scratch = self.scratch(facts.as_deref());
        let (mut facts, mut result) = self.try_once(phase, facts, began, false);
        if self.retry_fresh && result.as_ref().is_err_and(|failed| failed.again) {
            self.restore(facts.as_deref_mut(), scratch);
            (facts, result) = self.try_once(phase, facts, began, true);
        }
        let result = self.conclude(P::KIND, admission, began, facts.as_deref_mut(), result);
        (facts, result)
    }

    fn try_once<P: Phase>(
        &self,
        phase: &P,
        facts: Option<Box<Facts>>,
        began: Instant,
        fresh: bool,
    ) -> Tried<P::Verdict> {
        let lease = if fresh {
            self.pool.fresh()
        } else {
            self.pool.take()
        };
        let mut lease = match lease {
            Ok(lease) => lease,
            Err(fault) => return (facts, Err(Failed::at_once(self.note(P::KIND, fault)))),
        };
        let (mut facts, returned) = lease.instance.call(phase, facts, self.deadline_ms(P::KIND));
        let result = self.judge(phase, &lease.instance, facts.as_deref_mut(), returned);
        if result.is_ok() {
            lease.give_back(began);
        }
        (facts, result)
    }

    /// A call that may suspend.
    pub(crate) async fn run_suspending<P: Phase>(
        &self,
        pool: &Pool,
        phase: P,
        facts: Option<Box<Facts>>,
    ) -> (Option<Box<Facts>>, Result<P::Verdict, FilterFailure>) {
        let began = Instant::now();
        let admission = match self.admit() {
            Ok(admission) => admission,
            Err(fault) => return (facts, Err(self.failure(P::KIND, fault))),
        };
        let scratch = self.scratch(facts.as_deref());
        let (mut facts, mut result) = self.try_suspending(pool, &phase, facts, began, false).await;
        if self.retry_fresh && result.as_ref().is_err_and(|failed| failed.again) {
            self.restore(facts.as_deref_mut(), scratch);
            (facts, result) = self.try_suspending(pool, &phase, facts, began, true).await;
        }
        let result = self.conclude(P::KIND, admission, began, facts.as_deref_mut(), result);
        (facts, result)
    }

    async fn try_suspending<P: Phase>(
        &self,
        pool: &Pool,
        phase: &P,
        facts: Option<Box<Facts>>,
        began: Instant,
        fresh: bool,
    ) -> Tried<P::Verdict> {
        let patience = match facts.as_deref().map_or(0, |facts| facts.view.deadline_ms) {
            0 => PATIENCE,
            left => PATIENCE.min(Duration::from_millis(left.into())),
        };
        let lease = if fresh {
            pool.fresh_suspending().await
        } else {
            pool.take_suspending(patience).await
        };
        let mut lease = match lease {
            Ok(lease) => lease,
            Err(fault) => return (facts, Err(Failed::at_once(self.note(P::KIND, fault)))),
        };
        let deadline_ms = self.deadline_ms(P::KIND);
        let (mut facts, returned) = lease
            .instance
            .call_suspending(phase, facts, deadline_ms, patience)
            .await;
        let result = self.judge(phase, &lease.instance, facts.as_deref_mut(), returned);
        if result.is_ok() {
            lease.give_back(began);
        }
        (facts, result)
    }

    fn judge<P: Phase>(
        &self,
        phase: &P,
        instance: &Instance,
        facts: Option<&mut Facts>,
        returned: Result<P::Return, Fault>,
    ) -> Result<P::Verdict, Failed> {
        let mut lifting = Lifting {
            filter: &self.identity.name,
            respond_granted: self.identity.grants.respond,
            edit_grants: &self.edit_grants,
            interner: &self.host.services().interner,
            found: instance.found(),
            facts,
        };
        returned
            .and_then(|returned| phase.lift(&mut lifting, returned))
            .map_err(|fault| Failed {
                fault: self.note(P::KIND, fault),
                again: !instance.side_effects(),
            })
    }

    /// What a failed try may have changed of the exchange, if there will be another.
    fn scratch(&self, facts: Option<&Facts>) -> Option<Vec<u8>> {
        if !self.retry_fresh {
            return None;
        }
        facts.map(|facts| facts.scratch_of(&self.identity.name).to_vec())
    }

    fn restore(&self, facts: Option<&mut Facts>, scratch: Option<Vec<u8>>) {
        if let (Some(facts), Some(scratch)) = (facts, scratch) {
            facts.set_scratch(&self.identity.name, scratch);
        }
    }

    fn admit(&self) -> Result<Admission, Fault> {
        match self.breaker.admit(clock::now_ms) {
            Admission::Refuse => {
                self.meters.failed(FailureKind::Quarantined);
                Err(Fault::new(FailureKind::Quarantined, "failed too often"))
            }
            admission => Ok(admission),
        }
    }

    /// Counts and logs a failure, and puts the filter into quarantine when it is one too many.
    fn note(&self, phase: PhaseKind, fault: Fault) -> Fault {
        self.meters.failed(fault.kind);
        let name = &self.identity.name;
        if let LogPermit::Write { suppressed } = self.identity.log_permit() {
            tracing::warn!(filter = %name, phase = phase.name(), kind = %fault.kind, detail = %fault.detail, suppressed, "filter failed");
        }
        if fault.counts() && self.breaker.failed(clock::now_ms()) {
            self.meters.quarantined.set(1);
            tracing::error!(filter = %name, last = %fault, "filter put into quarantine");
            self.host.tripped(name);
        }
        fault
    }

    fn conclude<V>(
        &self,
        phase: PhaseKind,
        admission: Admission,
        began: Instant,
        facts: Option<&mut Facts>,
        result: Result<V, Failed>,
    ) -> Result<V, FilterFailure> {
        let took = began.elapsed();
        self.meters.called(phase, took);
        if let Some(facts) = facts {
            facts.filter_ns += u64::try_from(took.as_nanos()).unwrap_or(0);
        }
        if admission == Admission::Probe && result.is_ok() {
            self.breaker.probe_passed(clock::now_ms());
            if !self.breaker.is_open() {
                self.meters.quarantined.set(0);
                tracing::info!(filter = %self.identity.name, "filter out of quarantine");
            }
        }
        result.map_err(|failed| self.failure(phase, failed.fault))
    }

    fn failure(&self, phase: PhaseKind, fault: Fault) -> FilterFailure {
        let Fault { kind, detail } = fault;
        FilterFailure {
            filter: self.identity.name.clone(),
            phase: phase.name(),
            kind,
            detail,
        }
    }

    fn deadline_ms(&self, phase: PhaseKind) -> u64 {
        let limits = &self.identity.limits;
        match phase {
            PhaseKind::Events => limits.event_ms,
            // Off the callers' path, and about several exchanges at once.
            PhaseKind::Complete | PhaseKind::Tick => limits.init_ms.max(limits.request_ms),
            _ => limits.request_ms,
        }
    }

    pub(crate) fn phase_call<'a, P: Phase + 'a>(
        &'a self,
        phase: P,
        facts: Box<Facts>,
    ) -> PhaseCall<'a, P::Verdict> {
        match &self.suspending {
            None => PhaseCall::Done(returned(self.run(&phase, Some(facts)))),
            Some(pool) => PhaseCall::Suspended(Box::pin(async move {
                returned(self.run_suspending(pool, phase, Some(facts)).await)
            })),
        }
    }
}

/// An exchange that went into a call has come out of it: `Instance::leave` asserts so.
pub(crate) fn returned<V>(
    (facts, result): (Option<Box<Facts>>, Result<V, FilterFailure>),
) -> Answer<V> {
    match facts {
        Some(facts) => (facts, result),
        None => unreachable!("the call was made with an exchange"),
    }
}

/// Longest call that suspends, whatever the deadline of its exchange.
const PATIENCE: Duration = Duration::from_secs(30);
