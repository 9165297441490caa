//! The counted claim of one exchange on a backend.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::backend::Backend;
use crate::pending::Added;
use crate::prediction::{Demand, Outlook};

/// The counted claim of one exchange on a backend. Dropping it releases the claim, once.
#[derive(Debug)]
#[must_use = "dropping a reservation releases it"]
pub struct Reservation {
    backend: Arc<Backend>,
    running: Added,
    waiting_tokens: u64,
    /// Input that waited when this one's was added, its own and all that is worked through before.
    queued_tokens: u64,
    waiting: Added,
    tokens: Added,
    expected: Option<Outlook>,
}

impl Reservation {
    /// Of a backend whose counter was moved already.
    pub(crate) fn new(backend: Arc<Backend>) -> Self {
        let mut fresh = Self {
            backend,
            running: Added::default(),
            waiting_tokens: 0,
            queued_tokens: 0,
            waiting: Added::default(),
            tokens: Added::default(),
            expected: None,
        };
        if fresh.counts_pending() {
            fresh.running = fresh.backend.pending_running.add(1);
        }
        fresh
    }

    /// Counts the exchange's estimated input as waiting until [`Self::first_byte`] or the
    /// end, and remembers when its first byte is expected. A second call replaces the first.
    pub fn await_input(&mut self, demand: &Demand) {
        self.release_input();
        self.expected = Some(self.backend.outlook(demand));
        self.waiting_tokens = demand.input_tokens;
        let before = self
            .backend
            .waiting_tokens
            .fetch_add(demand.input_tokens, Relaxed);
        self.queued_tokens = before.saturating_add(demand.input_tokens);
        if self.counts_pending() {
            self.waiting = self.backend.pending_waiting.add(1);
            self.tokens = self.backend.pending_tokens.add(demand.input_tokens);
        }
    }

    /// The first byte of the answer came `ttft_us` microseconds after the exchange was sent:
    /// moves the backend's averages, corrects its predictions and releases the waiting input.
    ///
    /// To be told of the first output: what comes before the input was worked through, and an error
    /// that comes in its place, say nothing of how long that takes.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn first_byte(&mut self, ttft_us: u64) {
        self.backend.record_ttft_us(ttft_us);
        if let Some(expected) = self.expected.take() {
            self.backend.learn(&expected, ttft_us as f64);
        }
        if self.waiting_tokens > 0 {
            // What waited before it was worked through in this time too: else a queue would count
            // twice, as itself and as a slow backend.
            let queued = self.queued_tokens;
            self.backend.observed_input.sample(queued, ttft_us);
        }
        self.release_input();
    }

    /// The answer came as a whole, `after_us` microseconds after the exchange was sent. How much of
    /// that the input took is not known: it moves the backend's average, which stands in for rates
    /// that are unknown, and no rate.
    pub fn whole(&mut self, after_us: u64) {
        self.backend.record_ttft_us(after_us);
        self.expected = None;
        self.release_input();
    }

    /// The claimed backend.
    #[must_use]
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// When the first byte is expected, until it came.
    #[must_use]
    pub fn expected(&self) -> Option<&Outlook> {
        self.expected.as_ref()
    }

    /// Without a report all that is known is ours, and nothing has to be told apart.
    fn counts_pending(&self) -> bool {
        self.backend.reported_ms() != 0
    }

    fn release_input(&mut self) {
        let released = std::mem::take(&mut self.waiting_tokens);
        if released > 0 {
            self.backend.waiting_tokens.fetch_sub(released, Relaxed);
        }
        let backend = &self.backend;
        backend
            .pending_waiting
            .remove(std::mem::take(&mut self.waiting));
        backend
            .pending_tokens
            .remove(std::mem::take(&mut self.tokens));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release_input();
        let backend = &self.backend;
        if self.counts_pending() && !backend.pending_running.remove(self.running) {
            // The last report has it among those in progress.
            backend.pending_ended.add(1);
        }
        self.backend.running.fetch_sub(1, Relaxed);
        self.backend.signal.raise();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::prediction::Outlook;
    use crate::report::Report;

    fn backend() -> Arc<Backend> {
        Arc::new(Backend::new("c".into(), "10.0.0.1:80", Arc::default(), 0))
    }

    fn tokens(input_tokens: u64) -> Demand {
        Demand {
            input_tokens,
            ..Demand::default()
        }
    }

    #[test]
    fn reservations_never_pass_the_limit_and_all_return() {
        let shared = backend();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let held = shared.reserve(3);
                        assert!(shared.running() <= 3);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(shared.running(), 0);
        let held: Vec<_> = (0..3).map(|_| shared.reserve(3).unwrap()).collect();
        assert!(shared.reserve(3).is_none(), "full");
        assert!(shared.reserve(0).is_some(), "no limit");
        drop(held);
        assert_eq!(shared.running(), 0);
    }

    #[test]
    fn first_byte_moves_averages_and_releases_the_input() {
        let one = backend();
        let mut held = one.reserve(0).unwrap();
        held.await_input(&tokens(500));
        assert_eq!(one.load(0).queued_input_tokens, 500);
        held.first_byte(250_000);
        let load = one.load(0);
        assert_eq!((load.queued_input_tokens, load.ewma_ttft_us), (0, 250_000));
        assert!((load.input_tps - 2000.0).abs() < 1.0);
        held.await_input(&tokens(7));
        drop(held);
        assert_eq!(one.load(0).queued_input_tokens, 0);
        (0..200).for_each(|_| one.record_ttft_us(1000));
        assert!((950..=1050).contains(&one.load(0).ewma_ttft_us));
    }

    #[test]
    fn what_a_report_cannot_know_is_added_to_it() {
        let one = backend();
        let mut before = one.reserve(0).unwrap();
        before.await_input(&tokens(100));
        let report = Report {
            running: 10,
            queued: 4,
            queued_input_tokens: 1_000,
            ..Report::default()
        };
        let check = |running, queued, queued_input_tokens, label: &str| {
            let load = one.load(5);
            let found = (load.running, load.queued, load.queued_input_tokens);
            assert_eq!(found, (running, queued, queued_input_tokens), "{label}");
        };
        check(1, 0, 100, "our own alone");
        one.report(&report, 5);
        check(10, 4, 1_000, "the first is in the report");
        let mut after = one.reserve(0).unwrap();
        after.await_input(&tokens(50));
        check(11, 5, 1_050, "the second is not");
        drop(before);
        check(10, 5, 1_050, "nor is the end of the first");
        after.first_byte(1_000);
        check(10, 4, 1_000, "its input is worked through");
        one.report(&report, 6);
        check(10, 4, 1_000, "the report knows of all of it");
        drop(after);
        check(9, 4, 1_000, "but not of this");
        one.report(&report, 7);
        check(10, 4, 1_000, "it does now");
        let mut early = one.reserve(0).unwrap();
        early.await_input(&tokens(5_000));
        one.report(&report, 8);
        check(
            10,
            4,
            5_000,
            "a report that was on its way did not know of it",
        );
        drop(early);
        check(9, 4, 1_000, "all is given back");
        assert_eq!(one.running(), 0);
    }

    #[test]
    fn a_queue_is_not_taken_for_a_slow_backend() {
        let one = backend();
        let mut held: Vec<_> = (0..4).map(|_| one.reserve(0).unwrap()).collect();
        for reservation in &mut held {
            reservation.await_input(&tokens(1_000));
        }
        for (place, reservation) in (1..).zip(&mut held) {
            reservation.first_byte(place * 100_000);
        }
        let rate = one.load(0).input_tps;
        assert!((rate - 10_000.0).abs() < 1.0, "{rate}");
    }

    #[test]
    fn an_answer_as_a_whole_tells_of_no_rate() {
        let one = backend();
        let mut held = one.reserve(0).unwrap();
        held.await_input(&tokens(500));
        held.whole(20_000_000);
        let load = one.load(0);
        assert_eq!(load.ewma_ttft_us, 20_000_000);
        assert_eq!((load.queued_input_tokens, load.input_tps), (0, 0.0));
        assert!((load.bias - 1.0).abs() < 1e-6);
    }

    #[test]
    fn predictions_learn_from_what_was_observed() {
        let one = backend();
        let report = Report {
            input_tps: 1_000.0,
            ..Report::default()
        };
        one.report(&report, 1);
        one.record_rtt_us(10_000);
        let mut last = Outlook::default();
        for _ in 0..100 {
            let mut held = one.reserve(0).unwrap();
            held.await_input(&tokens(1_000));
            last = *held.expected().unwrap();
            // Work takes half as long again as the rate says.
            held.first_byte(1_510_000);
        }
        assert!((last.ttft_us() - 1_510_000.0).abs() < 15_000.0, "{last:?}");
        for _ in 0..200 {
            let mut held = one.reserve(0).unwrap();
            held.await_input(&tokens(1_000));
            held.first_byte(60_000_000);
        }
        assert!((one.load(1).bias - 4.0).abs() < 0.01, "bounded");
    }
}
