//! What this gateway has in flight to one model of one worker, and what it measures of it: told to
//! the worker, which adds up what all gateways tell it and reports the sum.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_tunnel::{ObservedModel, Samples};

/// Counts of one model of one worker.
#[derive(Default)]
pub(crate) struct Observer(Mutex<ObservedModel>);

/// One exchange as it is counted; not counted any more when dropped.
pub(crate) struct Observation {
    observer: Arc<Observer>,
    input_tokens: u64,
    priority: u32,
    waits: bool,
}

impl Observer {
    /// An exchange is on its way to the worker.
    pub(crate) fn begin(self: &Arc<Self>, input_tokens: u64, priority: u32) -> Observation {
        let mut counts = self.0.lock();
        counts.running += 1;
        counts.waiting += 1;
        counts.running_input_tokens += input_tokens;
        counts.waiting_input_tokens += input_tokens;
        // Whoever makes up priorities shares the last place.
        let known = counts.waiting_tokens_by_priority.contains_key(&priority);
        let full = counts.waiting_tokens_by_priority.len() >= PRIORITIES_MAX;
        let priority = if full && !known { u32::MAX } else { priority };
        *counts
            .waiting_tokens_by_priority
            .entry(priority)
            .or_default() += input_tokens;
        Observation {
            observer: Arc::clone(self),
            input_tokens,
            priority,
            waits: true,
        }
    }

    /// The counts of now, and the samples since the last time; none when there is nothing to tell.
    pub(crate) fn tell(&self) -> Option<ObservedModel> {
        let mut counts = self.0.lock();
        let told = counts.clone();
        counts.samples = None;
        (told.running > 0 || told.samples.is_some()).then_some(told)
    }
}

impl Observation {
    /// The first output came so long after the request was sent. Of one without input to work through
    /// that says nothing of the worker's rate.
    pub(crate) fn first_output(&mut self, since_us: u64) {
        if !self.waits {
            return;
        }
        let mut counts = self.observer.0.lock();
        self.waits = false;
        leave_queue(&mut counts, self.input_tokens, self.priority);
        if self.input_tokens == 0 {
            return;
        }
        let samples = counts.samples.get_or_insert_with(Samples::default);
        samples.count += 1;
        samples.input_tokens += self.input_tokens;
        samples.prefill_us += since_us;
    }

    /// The answer is whole.
    pub(crate) fn whole(&mut self, output_tokens: u64, generating_us: u64) {
        let mut counts = self.observer.0.lock();
        let samples = counts.samples.get_or_insert_with(Samples::default);
        samples.output_tokens += output_tokens;
        samples.decode_us += generating_us;
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let mut counts = self.observer.0.lock();
        counts.running = counts.running.saturating_sub(1);
        counts.running_input_tokens = counts
            .running_input_tokens
            .saturating_sub(self.input_tokens);
        if self.waits {
            leave_queue(&mut counts, self.input_tokens, self.priority);
        }
    }
}

fn leave_queue(counts: &mut ObservedModel, input_tokens: u64, priority: u32) {
    counts.waiting = counts.waiting.saturating_sub(1);
    counts.waiting_input_tokens = counts.waiting_input_tokens.saturating_sub(input_tokens);
    let by_priority: &mut BTreeMap<u32, u64> = &mut counts.waiting_tokens_by_priority;
    if let Some(tokens) = by_priority.get_mut(&priority) {
        *tokens = tokens.saturating_sub(input_tokens);
        if *tokens == 0 {
            by_priority.remove(&priority);
        }
    }
}

/// Most priorities told apart.
const PRIORITIES_MAX: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_counted_from_begin_to_end() {
        let observer = Arc::new(Observer::default());
        assert_eq!(observer.tell(), None);
        let mut first = observer.begin(100, 0);
        let second = observer.begin(50, 7);
        let told = observer.tell().unwrap();
        assert_eq!((told.running, told.waiting), (2, 2));
        assert_eq!(told.waiting_input_tokens, 150);
        assert_eq!(told.waiting_tokens_by_priority, [(0, 100), (7, 50)].into());
        first.first_output(2_000);
        first.first_output(9_000);
        first.whole(20, 4_000);
        drop(second);
        let told = observer.tell().unwrap();
        assert_eq!((told.running, told.waiting), (1, 0));
        assert_eq!(told.running_input_tokens, 100);
        let samples = told.samples.unwrap();
        assert_eq!((samples.count, samples.prefill_us), (1, 2_000));
        assert_eq!((samples.output_tokens, samples.decode_us), (20, 4_000));
        assert_eq!(observer.tell().unwrap().samples, None, "told once");
        drop(first);
        assert_eq!(observer.tell(), None);
    }

    #[test]
    fn without_input_there_is_no_rate() {
        let observer = Arc::new(Observer::default());
        let mut passed = observer.begin(0, 0);
        passed.first_output(2_000);
        let told = observer.tell().unwrap();
        assert_eq!((told.running, told.waiting, told.samples), (1, 0, None));
    }

    #[test]
    fn made_up_priorities_are_bounded() {
        let observer = Arc::new(Observer::default());
        let held: Vec<_> = (0..500)
            .map(|priority| observer.begin(1, priority))
            .collect();
        let told = observer.tell().unwrap();
        assert!(told.waiting_tokens_by_priority.len() <= PRIORITIES_MAX + 1);
        drop(held);
        assert_eq!(observer.tell(), None);
    }
}
