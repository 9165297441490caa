//! One request and its answer: what it holds while it lives, and how its end is counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use crate::engine::Engine;
use crate::prefix_cache::Pinned;

/// Holds a request's slot and cache blocks. Dropping it before [`Exchange::finish`] means that the
/// caller left: hyper drops the handler or the body when the connection or stream closes.
pub(crate) struct Exchange {
    engine: Arc<Engine>,
    permit: Option<OwnedSemaphorePermit>,
    pinned: Option<Pinned>,
    finished: bool,
}

impl Exchange {
    pub(crate) fn begin(engine: &Arc<Engine>) -> Self {
        engine.stats.active.fetch_add(1, Ordering::Relaxed);
        Self {
            engine: Arc::clone(engine),
            permit: None,
            pinned: None,
            finished: false,
        }
    }

    /// Waits for a slot, in arrival order. Bounded by the connections open.
    pub(crate) async fn queue(&mut self) {
        if let Some(slots) = &self.engine.slots {
            // The semaphore is never closed, so an error cannot be; no permit would be no harm.
            self.permit = Arc::clone(slots).acquire_owned().await.ok();
        }
    }

    /// Pins the prompt's blocks; false when they do not fit.
    pub(crate) fn pin(&mut self, prompt: &str) -> bool {
        if let Some(cache) = &self.engine.cache {
            self.pinned = cache.lock().pin(prompt);
            return self.pinned.is_some();
        }
        true
    }

    /// Share of the prompt to compute, and how many of its tokens were cached.
    pub(crate) fn cache_outcome(&self) -> (f64, u64) {
        self.pinned
            .as_ref()
            .map_or((1.0, 0), |pinned| (pinned.missed, pinned.cached_tokens))
    }

    pub(crate) fn emitted(&self, tokens: u32) {
        self.engine
            .stats
            .tokens
            .fetch_add(u64::from(tokens), Ordering::Relaxed);
    }

    /// The answer ended as planned, be it a planned disconnect.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let stats = &self.engine.stats;
        stats.active.fetch_sub(1, Ordering::Relaxed);
        if !self.finished {
            stats.client_aborts.fetch_add(1, Ordering::Relaxed);
        }
        if let (Some(pinned), Some(cache)) = (self.pinned.take(), &self.engine.cache) {
            cache.lock().release(&pinned);
        }
    }
}
