//! The prefill queue: prompts are computed one at a time, in order of arrival.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::Instant;

/// One machine's queue of prompts to compute.
#[derive(Debug)]
pub(crate) struct Prefill {
    tokens_per_second: f64,
    /// When the last prompt was, or will be, done. The lock is fair, which makes it the queue; it is
    /// held while its holder computes, and bounded by the connections open.
    done: Mutex<Instant>,
    /// Wakes the prompt that waits for room in the cache.
    room: Notify,
}

/// The right to compute next. Dropping it, as when the caller left, lets the next one begin.
pub(crate) struct Turn<'a> {
    done: MutexGuard<'a, Instant>,
    begin: Instant,
    computed: bool,
    prefill: &'a Prefill,
}

impl Prefill {
    pub(crate) fn new(tokens_per_second: f64) -> Self {
        Self {
            tokens_per_second,
            done: Mutex::new(Instant::now()),
            room: Notify::new(),
        }
    }

    /// Waits until everything that arrived before is computed.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let arrival = Instant::now();
        let done = self.done.lock().await;
        // Not now: a timer wakes late, and the machine would idle between two prompts.
        let begin = arrival.max(*done);
        Turn {
            done,
            begin,
            computed: false,
            prefill: self,
        }
    }

    /// Time to compute that many tokens.
    pub(crate) fn cost(&self, tokens: u64) -> Duration {
        Duration::try_from_secs_f64(tokens as f64 / self.tokens_per_second).unwrap_or(Duration::MAX)
    }

    /// Some room in the cache has become free.
    pub(crate) fn room_freed(&self) {
        self.room.notify_one();
    }
}

impl Turn<'_> {
    /// Waits until room in the cache may have become free.
    pub(crate) async fn room(&mut self) {
        self.prefill.room.notified().await;
        self.begin = Instant::now();
    }

    /// Computes for that long.
    pub(crate) async fn compute(mut self, real: Duration) {
        let end = self.begin + real;
        tokio::time::sleep_until(end).await;
        *self.done = end;
        self.computed = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.computed {
            // The caller left: the machine was busy for it until now.
            *self.done = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn prompts_share_one_rate_in_order() {
        let prefill = Arc::new(Prefill::new(1000.0));
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for (number, tokens) in [(0, 300), (1, 100), (2, 600)] {
            let prefill = Arc::clone(&prefill);
            tasks.spawn(async move {
                let turn = prefill.turn().await;
                turn.compute(prefill.cost(tokens)).await;
                (number, begun.elapsed().as_millis())
            });
        }
        let mut done = Vec::new();
        while let Some(result) = tasks.join_next().await {
            done.extend(result.ok());
        }
        let expected = [(0, 300), (1, 400), (2, 1000)];
        for ((number, at), (expected_number, expected_at)) in done.iter().zip(expected) {
            assert_eq!(*number, expected_number);
            assert!((expected_at..expected_at + 3).contains(at), "{done:?}");
        }
        assert_eq!(done.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_holds_nobody_up() {
        let prefill = Arc::new(Prefill::new(1.0));
        let mut tasks = JoinSet::new();
        for _ in 0..2 {
            let prefill = Arc::clone(&prefill);
            tasks.spawn(async move {
                let turn = prefill.turn().await;
                turn.compute(prefill.cost(1_000_000)).await;
            });
        }
        tokio::task::yield_now().await;
        tasks.shutdown().await;
        let begun = Instant::now();
        prefill.turn().await.compute(prefill.cost(1)).await;
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}
