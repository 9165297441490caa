//! One instance of a filter in its own store: started once, called many times, one call at a time.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use wasmtime::component::{InstancePre, TypedFunc};
use wasmtime::{Store, UpdateDeadline};
use weir_pipeline::facts::Facts;
use weir_pipeline::principal::Principal;
use weir_pipeline::verdict::FailureKind;

use crate::bindings::exports::weir::filter::lifecycle;
use crate::bindings::exports::weir::filter::on_events::Event;
use crate::failure::Fault;
use crate::guest_state::{FilterIdentity, GuestState};
use crate::manifest::Manifest;
use crate::module::Module;
use crate::phase::{Exports, Phase};
use crate::services::Services;
use crate::tick_length::TickLength;

/// Everything needed to start an instance of one filter.
pub(crate) struct Blueprint {
    pub(crate) identity: Arc<FilterIdentity>,
    pub(crate) services: Arc<Services>,
    pub(crate) module: Arc<Module>,
    pub(crate) pre: InstancePre<GuestState>,
    /// Whether `pre` has host functions that suspend: then only calls on a fiber are possible.
    pub(crate) suspending: bool,
    /// The filter's own table, as JSON.
    pub(crate) config: Arc<str>,
}

/// An instance, ready for calls.
pub(crate) struct Instance {
    store: Store<GuestState>,
    exports: Exports,
    calls_left: u64,
    /// Memory after the start: an instance that begins near its cap is not thereby worn out.
    start_bytes: usize,
    pub(crate) idle_since: Instant,
    /// Room for lowered events, kept from call to call.
    events: Arc<Vec<Event>>,
    running: Arc<RunningTime>,
}

impl Blueprint {
    fn running_time(&self) -> Arc<RunningTime> {
        Arc::new(RunningTime::new(self.services.tick.clone()))
    }

    fn store(&self, running: &Arc<RunningTime>, pure: bool) -> Store<GuestState> {
        let mut state = GuestState::new(self.identity.clone(), self.services.clone());
        state.pure = pure;
        let mut store = Store::new(self.pre.engine(), state);
        store.limiter(|state| &mut state.memory);
        let suspending = self.suspending;
        let running = running.clone();
        store.epoch_deadline_callback(move |_| {
            Ok(if suspending {
                running.deadline_passed()
            } else {
                running.had_its_time()
            })
        });
        store.set_epoch_deadline(self.services.tick.count(self.identity.limits.init_ms));
        store
    }

    /// Starts an instance and lets it read its config.
    pub(crate) fn start(&self) -> Result<Instance, Fault> {
        let running = self.running_time();
        let mut store = self.store(&running, false);
        let begun = (|| {
            let instance = self.pre.instantiate(&mut store)?;
            store.set_epoch_deadline(self.services.tick.count(self.identity.limits.init_ms));
            let init = instance.get_typed_func::<(&str,), (Result<(), String>,)>(
                &mut store,
                &self.module.indices.init,
            )?;
            let (answer,) = init.call(&mut store, (&self.config,))?;
            Ok((instance, answer))
        })();
        self.ready(store, running, begun)
    }

    /// The same for an instance that suspends.
    pub(crate) async fn start_suspending(&self) -> Result<Instance, Fault> {
        let running = self.running_time();
        running.begin(self.identity.limits.init_ms);
        let mut store = self.store(&running, false);
        let begun = running
            .measure(async {
                let instance = self.pre.instantiate_async(&mut store).await?;
                let init = instance.get_typed_func::<(&str,), (Result<(), String>,)>(
                    &mut store,
                    &self.module.indices.init,
                )?;
                let (answer,) = init.call_async(&mut store, (&self.config,)).await?;
                Ok((instance, answer))
            })
            .await;
        self.ready(store, running, begun)
    }

    fn ready(
        &self,
        mut store: Store<GuestState>,
        running: Arc<RunningTime>,
        begun: wasmtime::Result<(wasmtime::component::Instance, Result<(), String>)>,
    ) -> Result<Instance, Fault> {
        let refused = store.data().memory.refused;
        let (instance, answer) = begun.map_err(|error| Fault::of_call(&error, refused))?;
        answer.map_err(|message| Fault::new(FailureKind::Trap, format!("init: {message}")))?;
        let exports = Exports::find(&mut store, &instance, &self.module.indices)
            .map_err(|error| Fault::new(FailureKind::Host, format!("{error:#}")))?;
        let calls_max = self.identity.limits.calls_max.max(1);
        Ok(Instance {
            exports,
            // Instances that start together must not end together.
            calls_left: calls_max - fastrand::u64(0..=calls_max / 10),
            start_bytes: store.data().memory.bytes(),
            idle_since: Instant::now(),
            events: Arc::default(),
            store,
            running,
        })
    }

    /// What the filter says of itself, from an instance of its own.
    pub(crate) fn describe(&self) -> Result<Manifest, Fault> {
        let index = &self.module.indices.describe;
        self.pure(|store, instance| {
            let describe =
                instance.get_typed_func::<(), (lifecycle::Manifest,)>(&mut *store, index)?;
            Ok(describe.call(store, ())?.0.into())
        })
    }

    /// What the filter says of its config, from an instance of its own.
    pub(crate) fn validate(&self) -> Result<Result<(), Vec<lifecycle::ConfigError>>, Fault> {
        type Answer = (Result<(), Vec<lifecycle::ConfigError>>,);
        let index = &self.module.indices.validate;
        self.pure(|store, instance| {
            let validate = instance.get_typed_func::<(&str,), Answer>(&mut *store, index)?;
            Ok(validate.call(store, (&self.config,))?.0)
        })
    }

    /// Only for blueprints that do not suspend.
    fn pure<T>(
        &self,
        call: impl FnOnce(&mut Store<GuestState>, wasmtime::component::Instance) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        let mut store = self.store(&self.running_time(), true);
        let result = self.pre.instantiate(&mut store).and_then(|instance| {
            store.set_epoch_deadline(self.services.tick.count(self.identity.limits.init_ms));
            call(&mut store, instance)
        });
        result.map_err(|error| Fault::of_call(&error, store.data().memory.refused))
    }
}

impl Instance {
    /// Calls one phase. The exchange comes back, whatever becomes of the call.
    pub(crate) fn call<P: Phase>(
        &mut self,
        phase: &P,
        facts: Option<Box<Facts>>,
        deadline_ms: u64,
    ) -> (Option<Box<Facts>>, Result<P::Return, Fault>) {
        let func = match self.func::<P>() {
            Ok(func) => func,
            Err(fault) => return (facts, Err(fault)),
        };
        let params = phase.lower(facts.as_deref(), &mut self.events);
        let had = facts.is_some();
        self.store.data_mut().may_suspend = false;
        self.store.data_mut().enter(facts);
        self.running.forget_core(deadline_ms);
        self.store.set_epoch_deadline(deadline_ms.div_ceil(2));
        let returned = func.call(&mut self.store, params);
        (self.leave(had), self.judge(returned))
    }

    /// The same for an instance that suspends. `deadline_ms` bounds the guest's own time, `patience`
    /// the whole call.
    pub(crate) async fn call_suspending<P: Phase>(
        &mut self,
        phase: &P,
        facts: Option<Box<Facts>>,
        deadline_ms: u64,
        patience: Duration,
    ) -> (Option<Box<Facts>>, Result<P::Return, Fault>) {
        let func = match self.func::<P>() {
            Ok(func) => func,
            Err(fault) => return (facts, Err(fault)),
        };
        let params = phase.lower(facts.as_deref(), &mut self.events);
        let had = facts.is_some();
        self.store.data_mut().may_suspend = true;
        self.store.data_mut().enter(facts);
        let ticks = self.running.tick.count(deadline_ms);
        self.store.set_epoch_deadline(ticks);
        self.running.begin(deadline_ms);
        let running = self.running.clone();
        // When patience ends the call is dropped here: its fiber unwinds and the store, with the
        // exchange in it, is ours again.
        let returned = tokio::time::timeout(
            patience,
            running.measure(func.call_async(&mut self.store, params)),
        )
        .await;
        let facts = self.leave(had);
        let returned = match returned {
            Ok(returned) => self.judge(returned),
            Err(_) => Err(Fault::new(
                FailureKind::Deadline,
                "waited too long for the host",
            )),
        };
        (facts, returned)
    }

    fn func<P: Phase>(&self) -> Result<TypedFunc<P::Params, P::Return>, Fault> {
        let missing = || {
            Fault::new(
                FailureKind::Host,
                format!("no export for {}", P::KIND.name()),
            )
        };
        P::func(&self.exports).ok_or_else(missing)
    }

    fn judge<R>(&mut self, returned: wasmtime::Result<R>) -> Result<R, Fault> {
        self.calls_left = self.calls_left.saturating_sub(1);
        returned.map_err(|error| Fault::of_call(&error, self.store.data().memory.refused))
    }

    fn leave(&mut self, had: bool) -> Option<Box<Facts>> {
        let facts = self.store.data_mut().leave();
        // Going on with a made-up exchange could let in what a filter would have refused.
        assert!(
            facts.is_some() == had,
            "only `leave` takes the exchange out of a store"
        );
        facts
    }

    /// Principals found in the last call.
    pub(crate) fn found(&self) -> &[Arc<Principal>] {
        &self.store.data().found
    }

    /// Whether the last call changed something outside the instance.
    pub(crate) fn side_effects(&self) -> bool {
        self.store.data().side_effects
    }

    /// Whether it should be replaced although nothing went wrong.
    pub(crate) fn worn(&self) -> bool {
        let bytes = self.store.data().memory.bytes();
        let cap =
            usize::try_from(self.store.data().filter.limits.memory_bytes).unwrap_or(usize::MAX);
        self.calls_left == 0 || (bytes > cap / 4 * 3 && bytes > self.start_bytes)
    }
}

/// How long a guest itself has been running in the call at hand. The clock of deadlines goes on
/// while a call waits for the host, so when it passes this says whether that was the guest's doing.
struct RunningTime {
    tick: Arc<TickLength>,
    limit_ns: AtomicU64,
    /// Of this call, up to the last pause.
    spent_ns: AtomicU64,
    /// When the guest was last resumed, by `clock`.
    resumed_ns: AtomicU64,
    /// Time of this thread on a core when it was first looked at; 0 before.
    core_ns: AtomicU64,
    /// How often it has been looked at since.
    looks: AtomicU64,
}

impl RunningTime {
    fn new(tick: Arc<TickLength>) -> Self {
        Self {
            tick,
            limit_ns: AtomicU64::new(0),
            spent_ns: AtomicU64::new(0),
            resumed_ns: AtomicU64::new(0),
            core_ns: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        }
    }

    fn begin(&self, limit_ms: u64) {
        self.forget_core(limit_ms);
        self.spent_ns.store(0, Relaxed);
        self.resumed_ns.store(Self::clock(), Relaxed);
    }

    fn clock() -> u64 {
        crate::guest_state::clock::now_ns()
    }

    fn spent(&self) -> u64 {
        self.spent_ns.load(Relaxed) + Self::clock().saturating_sub(self.resumed_ns.load(Relaxed))
    }

    fn deadline_passed(&self) -> UpdateDeadline {
        match self.limit_ns.load(Relaxed).checked_sub(self.spent()) {
            Some(left) if left > 0 => {
                UpdateDeadline::Continue(self.tick.count(left.div_ceil(1_000_000)))
            }
            _ => self.had_its_time(),
        }
    }

    fn forget_core(&self, limit_ms: u64) {
        self.limit_ns
            .store(limit_ms.saturating_mul(1_000_000), Relaxed);
        self.core_ns.store(0, Relaxed);
        self.looks.store(0, Relaxed);
    }

    /// Half of the time of a call has passed, or more. On a machine with more to do than cores
    /// that may be because the thread was not on a core, and a good filter must not fail for it.
    /// The clock of that costs a system call, so it is read only now: who has then been running
    /// for a good part of the other half is interrupted.
    fn had_its_time(&self) -> UpdateDeadline {
        let half_ms = self.limit_ns.load(Relaxed) / 2_000_000;
        let core_ns = core_ns();
        let ran_ns = match self.core_ns.load(Relaxed) {
            0 => {
                self.core_ns.store(core_ns.max(1), Relaxed);
                0
            }
            since => core_ns.saturating_sub(since).max(1),
        };
        let looks = self.looks.fetch_add(1, Relaxed);
        if ran_ns > half_ms * 500_000 || looks >= LOOKS_MAX {
            UpdateDeadline::Interrupt
        } else {
            UpdateDeadline::Continue(self.tick.count(half_ms))
        }
    }

    /// Counts the time during which the call is being polled.
    async fn measure<F: Future>(&self, call: F) -> F::Output {
        let mut call = pin!(call);
        poll_fn(|context| {
            self.resumed_ns.store(Self::clock(), Relaxed);
            // It may be another thread now.
            self.core_ns.store(0, Relaxed);
            let polled = call.as_mut().poll(context);
            self.spent_ns.store(self.spent(), Relaxed);
            polled
        })
        .await
    }
}

/// How long this thread has been on a core, in nanoseconds.
fn core_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    u64::try_from(nanoseconds).unwrap_or(0)
}

/// Looks at a call that is not getting anywhere for want of a core before it is given up.
const LOOKS_MAX: u64 = 40;
