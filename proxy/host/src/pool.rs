//! Warm instances of one filter, lent out for one call at a time.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use weir_pipeline::verdict::FailureKind;

use crate::failure::Fault;
use crate::instance::{Blueprint, Instance};

/// The instances of one filter. Idle ones lie in stacks, one per thread at work: the warmest is on
/// top, and what is at the bottom has not been needed for the longest time.
pub(crate) struct Pool {
    blueprint: Blueprint,
    #[allow(
        clippy::vec_box,
        reason = "an instance is moved at every call, and is large"
    )]
    shards: Box<[Mutex<Vec<Box<Instance>>>]>,
    /// Instances in stacks and on loan.
    live: AtomicU32,
    /// Instances beyond the maximum, each for one call.
    extra: AtomicU32,
    max: u32,
    started: prometheus::IntCounter,
    freed: tokio::sync::Notify,
}

/// An instance on loan. Dropped without [`Lease::give_back`] it is destroyed: that is what becomes
/// of calls that fail and of calls whose caller leaves.
pub(crate) struct Lease<'p> {
    pub(crate) instance: Box<Instance>,
    place: Place<'p>,
}

/// The right to have an instance; given up when dropped.
struct Place<'p> {
    pool: &'p Pool,
    extra: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let counter = if self.extra {
            &self.pool.extra
        } else {
            &self.pool.live
        };
        counter.fetch_sub(1, Relaxed);
        self.pool.tell_waiting();
    }
}

impl Pool {
    pub(crate) fn new(blueprint: Blueprint, started: prometheus::IntCounter) -> Self {
        let threads = std::thread::available_parallelism()
            .map_or(1, std::num::NonZero::get)
            .min(SHARDS_MAX);
        Self {
            max: blueprint.identity.limits.instances_max.max(1),
            shards: (0..threads).map(|_| Mutex::default()).collect(),
            live: AtomicU32::new(0),
            extra: AtomicU32::new(0),
            blueprint,
            started,
            freed: tokio::sync::Notify::new(),
        }
    }

    /// An instance for a call that does not wait: an idle one, a new one, or beyond the maximum
    /// one for this call only.
    pub(crate) fn take(&self) -> Result<Lease<'_>, Fault> {
        match self.idle() {
            Some(lease) => Ok(lease),
            None => self.fresh(),
        }
    }

    /// A new instance.
    pub(crate) fn fresh(&self) -> Result<Lease<'_>, Fault> {
        let place = self
            .place(false)
            .or_else(|| self.place(true))
            .ok_or_else(exhausted)?;
        self.started.inc();
        Ok(Lease {
            instance: Box::new(self.blueprint.start()?),
            place,
        })
    }

    /// An instance for a call that may suspend; waits for one to come back, but not for longer
    /// than `patience`.
    pub(crate) async fn take_suspending(&self, patience: Duration) -> Result<Lease<'_>, Fault> {
        let free = async {
            loop {
                let freed = self.freed.notified();
                if let Some(lease) = self.idle() {
                    return Ok(lease);
                }
                if let Some(place) = self.place(false) {
                    return self.start_suspending(place).await;
                }
                freed.await;
            }
        };
        tokio::time::timeout(patience, free)
            .await
            .unwrap_or_else(|_| Err(exhausted()))
    }

    /// A new instance that may suspend.
    pub(crate) async fn fresh_suspending(&self) -> Result<Lease<'_>, Fault> {
        let place = self
            .place(false)
            .or_else(|| self.place(true))
            .ok_or_else(exhausted)?;
        self.start_suspending(place).await
    }

    async fn start_suspending<'p>(&'p self, place: Place<'p>) -> Result<Lease<'p>, Fault> {
        self.started.inc();
        Ok(Lease {
            instance: Box::new(self.blueprint.start_suspending().await?),
            place,
        })
    }

    fn idle(&self) -> Option<Lease<'_>> {
        let own = self.shard();
        let (before, from) = self.shards.split_at_checked(own)?;
        let instance = from
            .iter()
            .chain(before)
            .find_map(|shard| shard.lock().pop())?;
        Some(Lease {
            instance,
            place: Place {
                pool: self,
                extra: false,
            },
        })
    }

    fn place(&self, extra: bool) -> Option<Place<'_>> {
        let (counter, max) = if extra {
            (&self.extra, EXTRA_MAX)
        } else {
            (&self.live, self.max)
        };
        let more = |count: u32| (count < max).then_some(count + 1);
        counter.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Place { pool: self, extra })
    }

    fn shard(&self) -> usize {
        THREAD.with(|thread| thread % self.shards.len().max(1))
    }

    fn tell_waiting(&self) {
        if self.blueprint.suspending {
            self.freed.notify_one();
        }
    }

    /// Destroys instances idle since before `before`, but the last `keep`.
    pub(crate) fn prune(&self, before: Instant, keep: usize) {
        let mut spare = self.idle_count().saturating_sub(keep);
        for shard in &self.shards {
            let old: Vec<_> = {
                let mut stack = shard.lock();
                let count = stack
                    .iter()
                    .take_while(|instance| instance.idle_since < before)
                    .count()
                    .min(spare);
                spare -= count;
                stack.drain(..count).collect()
            };
            let count = u32::try_from(old.len()).unwrap_or(0);
            drop(old);
            self.live.fetch_sub(count, Relaxed);
        }
    }

    pub(crate) fn idle_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    pub(crate) fn live_count(&self) -> u32 {
        self.live.load(Relaxed) + self.extra.load(Relaxed)
    }
}

impl Lease<'_> {
    /// Ends the loan of an instance whose call went well. `at`: about now.
    pub(crate) fn give_back(self, at: Instant) {
        let Self {
            mut instance,
            place,
        } = self;
        if place.extra || instance.worn() {
            // The instance goes before its place does.
            drop(instance);
            return;
        }
        instance.idle_since = at;
        let pool = place.pool;
        // The place stays taken by the idle instance.
        std::mem::forget(place);
        if let Some(shard) = pool.shards.get(pool.shard()) {
            shard.lock().push(instance);
        }
        pool.tell_waiting();
    }
}

fn exhausted() -> Fault {
    Fault::new(FailureKind::PoolExhausted, "no free instance")
}

thread_local! {
    /// Number of this thread among those that have called filters.
    static THREAD: usize = THREADS.fetch_add(1, Relaxed);
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

const SHARDS_MAX: usize = 64;

/// Instances beyond the maximum at once: more than threads that can be inside a call that does not
/// suspend is never needed, less would refuse exchanges in a burst.
const EXTRA_MAX: u32 = 16;
