//! One request and its answer: what it holds while it lives, and how its end is counted.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::ask::Ask;
use crate::engine::Engine;
use crate::plan::Plan;
use crate::prefix_cache::Pinned;
use crate::stats_stream::Progress;

/// Holds a request's slot and cache blocks. Dropping it before [`Exchange::finish`] means that the
/// caller left: hyper drops the handler or the body when the connection or stream closes.
pub(crate) struct Exchange {
    engine: Arc<Engine>,
    permit: Option<OwnedSemaphorePermit>,
    pinned: Option<Pinned>,
    stage: Stage,
    identity: Option<Identity>,
    generated: u64,
    finished: bool,
}

/// Where a model call is counted.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Nowhere,
    Waiting,
    Running,
}

/// What statistics call a model call.
struct Identity {
    request_id: String,
    model: String,
    prompt_tokens: u64,
}

impl Exchange {
    pub(crate) fn begin(engine: &Arc<Engine>) -> Self {
        engine.stats.active.fetch_add(1, Relaxed);
        Self {
            engine: Arc::clone(engine),
            permit: None,
            pinned: None,
            stage: Stage::Nowhere,
            identity: None,
            generated: 0,
            finished: false,
        }
    }

    /// From here on it is a model call that statistics know.
    pub(crate) fn identify(&mut self, request_id: String, ask: &Ask) {
        self.enter(Stage::Waiting);
        self.identity = Some(Identity {
            request_id,
            model: ask.model.clone(),
            prompt_tokens: ask.prompt_tokens,
        });
        self.report(0, false);
    }

    /// Waits for a slot, in arrival order. Bounded by the connections open.
    pub(crate) async fn queue(&mut self) {
        if let Some(slots) = &self.engine.slots {
            // The semaphore is never closed, so an error cannot be; no permit would be no harm.
            self.permit = Arc::clone(slots).acquire_owned().await.ok();
        }
    }

    /// Finds the prompt room in the cache and has it computed; what is left to wait, in real time,
    /// is returned. `None` when it does not fit.
    pub(crate) async fn prefill(&mut self, ask: &Ask, plan: &mut Plan) -> Option<Duration> {
        let engine = Arc::clone(&self.engine);
        let ttft = match &engine.prefill {
            None => {
                self.pin(ask).then_some(())?;
                self.enter(Stage::Running);
                plan.ttft.mul_f64(self.missed())
            }
            Some(prefill) => {
                let mut turn = prefill.turn().await;
                while !self.pin(ask) {
                    let cache = engine.cache.as_ref()?;
                    cache.lock().fits(&ask.prompt).then_some(())?;
                    turn.room().await;
                }
                self.enter(Stage::Running);
                let missed = ask.prompt_tokens.saturating_sub(self.cached_tokens());
                let cost = plan.jittered(prefill.cost(missed));
                turn.compute(engine.speed.real(cost)).await;
                plan.ttft
            }
        };
        self.report(0, false);
        Some(engine.speed.real(plan.jittered(ttft)))
    }

    /// Pins the prompt's blocks; false when they do not fit now.
    fn pin(&mut self, ask: &Ask) -> bool {
        if let Some(cache) = &self.engine.cache {
            self.pinned = cache.lock().pin(&ask.prompt);
            if self.pinned.is_none() {
                return false;
            }
        }
        let stats = &self.engine.stats;
        stats.prompt_tokens.fetch_add(ask.prompt_tokens, Relaxed);
        stats.cached_tokens.fetch_add(self.cached_tokens(), Relaxed);
        true
    }

    /// Prompt tokens that were in the cache.
    pub(crate) fn cached_tokens(&self) -> u64 {
        self.pinned
            .as_ref()
            .map_or(0, |pinned| pinned.cached_tokens)
    }

    /// Share (0 to 1) of the prompt to compute.
    fn missed(&self) -> f64 {
        self.pinned.as_ref().map_or(1.0, |pinned| pinned.missed)
    }

    /// The real time of a step of generation that would take `simulated` on a machine of its own.
    pub(crate) fn decode_time(&self, simulated: Duration) -> Duration {
        let batch = f64::from(self.engine.hardware.decode_batch);
        let running = self.engine.stats.running.load(Relaxed) as f64;
        let sharing = if batch > 0.0 {
            (running / batch).max(1.0)
        } else {
            1.0
        };
        let speed = &self.engine.speed;
        if sharing > 1.0 {
            return speed.real(simulated.mul_f64(sharing));
        }
        speed.real(simulated)
    }

    pub(crate) fn emitted(&mut self, tokens: u32) {
        let tokens = u64::from(tokens);
        self.engine.stats.tokens.fetch_add(tokens, Relaxed);
        let told = self.generated / TOKENS_PER_LINE;
        self.generated += tokens;
        if self.generated == tokens || self.generated / TOKENS_PER_LINE != told {
            self.report(self.generated, false);
        }
    }

    /// The answer ended as planned, be it a planned disconnect.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    fn enter(&mut self, stage: Stage) {
        let stats = &self.engine.stats;
        let counter = |stage| match stage {
            Stage::Nowhere => None,
            Stage::Waiting => Some(&stats.waiting),
            Stage::Running => Some(&stats.running),
        };
        if let Some(left) = counter(self.stage) {
            left.fetch_sub(1, Relaxed);
        }
        if let Some(entered) = counter(stage) {
            entered.fetch_add(1, Relaxed);
        }
        self.stage = stage;
    }

    fn report(&self, generated: u64, finished: bool) {
        let Some(identity) = &self.identity else {
            return;
        };
        let processed = match self.stage {
            Stage::Running => identity.prompt_tokens,
            Stage::Nowhere | Stage::Waiting => 0,
        };
        self.engine.stats_stream.publish(&Progress {
            request_id: &identity.request_id,
            model: &identity.model,
            processed,
            generated,
            finished,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.report(self.generated, true);
        self.enter(Stage::Nowhere);
        let stats = &self.engine.stats;
        stats.active.fetch_sub(1, Relaxed);
        if !self.finished {
            stats.client_aborts.fetch_add(1, Relaxed);
        }
        if let (Some(pinned), Some(cache)) = (self.pinned.take(), &self.engine.cache) {
            cache.lock().release(&pinned);
            if let Some(prefill) = &self.engine.prefill {
                prefill.room_freed();
            }
        }
    }
}

/// Tokens generated between two lines of a request in the stream of statistics.
const TOKENS_PER_LINE: u64 = 16;
