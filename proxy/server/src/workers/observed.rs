//! What this gateway has in flight to one model of one worker, and what it measures of it: told to
//! the worker, which adds up what all gateways tell it and reports the sum.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use weir_tunnel::{ObservedModel, Samples, is_news};

/// Counts of one model of one worker.
#[derive(Default)]
pub(crate) struct Observer {
    counts: Mutex<Counts>,
    /// Raised when the worker should hear of them before their time.
    news: Arc<Notify>,
}

#[derive(Default)]
struct Counts {
    now: ObservedModel,
    /// Prompt tokens that waited when the worker was told last.
    told_tokens: u64,
    /// Whether `news` was raised since.
    raised: bool,
    /// Input tokens per second, as the worker says; 0 = unknown.
    rate: f64,
    /// When a first output came last.
    last_output: Option<Instant>,
}

/// One exchange as it is counted; not counted any more when dropped.
pub(crate) struct Observation {
    observer: Arc<Observer>,
    input_tokens: u64,
    priority: u32,
    waits: bool,
    /// What an answer took that came as a whole, microseconds.
    took_us: u64,
}

impl Observer {
    /// Nothing is in flight yet.
    pub(crate) fn new(news: Arc<Notify>) -> Self {
        Self {
            news,
            ..Self::default()
        }
    }

    /// The worker says how many input tokens it works through in a second; 0 = unknown.
    pub(crate) fn learn_rate(&self, tokens_per_second: f32) {
        self.counts.lock().rate = tokens_per_second.into();
    }

    /// An exchange is on its way to the worker.
    pub(crate) fn begin(self: &Arc<Self>, input_tokens: u64, priority: u32) -> Observation {
        let mut counts = self.counts.lock();
        let now = &mut counts.now;
        now.running += 1;
        now.waiting += 1;
        now.running_input_tokens += input_tokens;
        now.waiting_input_tokens += input_tokens;
        // Whoever makes up priorities shares the last place.
        let known = now.waiting_tokens_by_priority.contains_key(&priority);
        let full = now.waiting_tokens_by_priority.len() >= PRIORITIES_MAX;
        let priority = if full && !known { u32::MAX } else { priority };
        *now.waiting_tokens_by_priority.entry(priority).or_default() += input_tokens;
        self.raise(&mut counts);
        Observation {
            observer: Arc::clone(self),
            input_tokens,
            priority,
            waits: true,
            took_us: 0,
        }
    }

    /// The counts of now, and the samples since the last time; none when there is nothing to tell.
    pub(crate) fn tell(&self) -> Option<ObservedModel> {
        let mut counts = self.counts.lock();
        counts.told_tokens = counts.now.waiting_input_tokens;
        counts.raised = false;
        let told = counts.now.clone();
        counts.now.samples = None;
        (told.running > 0 || told.samples.is_some()).then_some(told)
    }

    /// Lets the worker hear of a queue that has changed much.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    fn raise(&self, counts: &mut Counts) {
        if counts.raised || counts.rate <= 0.0 {
            return;
        }
        let ms = |tokens: u64| tokens as f64 / counts.rate * 1e3;
        if is_news(ms(counts.told_tokens), ms(counts.now.waiting_input_tokens)) {
            counts.raised = true;
            self.news.notify_one();
        }
    }

    /// An exchange does not wait any more.
    fn leave_queue(&self, counts: &mut Counts, input_tokens: u64, priority: u32) {
        let now = &mut counts.now;
        now.waiting = now.waiting.saturating_sub(1);
        now.waiting_input_tokens = now.waiting_input_tokens.saturating_sub(input_tokens);
        if let Some(tokens) = now.waiting_tokens_by_priority.get_mut(&priority) {
            *tokens = tokens.saturating_sub(input_tokens);
            if *tokens == 0 {
                now.waiting_tokens_by_priority.remove(&priority);
            }
        }
        self.raise(counts);
    }
}

impl Observation {
    /// The first output came now, so long after the request was sent. Of one without input to work
    /// through that says nothing of the worker's rate.
    pub(crate) fn first_output(&mut self, now: Instant, since_us: u64) {
        if !std::mem::take(&mut self.waits) {
            return;
        }
        let mut counts = self.observer.counts.lock();
        self.observer
            .leave_queue(&mut counts, self.input_tokens, self.priority);
        let before = counts.last_output.replace(now);
        if self.input_tokens == 0 {
            return;
        }
        // Until the one before came the worker was busy with that: else a queue would count twice, as
        // itself and as a slow worker.
        let gap = before.map(|before| now.saturating_duration_since(before).as_micros());
        let gap_us = gap.and_then(|us| u64::try_from(us).ok());
        let samples = counts.now.samples.get_or_insert_with(Samples::default);
        samples.count += 1;
        samples.input_tokens += self.input_tokens;
        samples.prefill_us += since_us.min(gap_us.unwrap_or(u64::MAX));
    }

    /// The answer came as a whole so long after the request was sent.
    pub(crate) fn answered(&mut self, took_us: u64) {
        self.took_us = took_us;
        if std::mem::take(&mut self.waits) {
            let mut counts = self.observer.counts.lock();
            self.observer
                .leave_queue(&mut counts, self.input_tokens, self.priority);
        }
    }

    /// The answer is whole; its output took so long after the first of it.
    pub(crate) fn whole(&mut self, output_tokens: u64, generating_us: u64) {
        let mut counts = self.observer.counts.lock();
        let samples = counts.now.samples.get_or_insert_with(Samples::default);
        samples.output_tokens += output_tokens;
        samples.decode_us += generating_us.max(self.took_us);
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let mut counts = self.observer.counts.lock();
        let now = &mut counts.now;
        now.running = now.running.saturating_sub(1);
        now.running_input_tokens = now.running_input_tokens.saturating_sub(self.input_tokens);
        if self.waits {
            self.observer
                .leave_queue(&mut counts, self.input_tokens, self.priority);
        }
    }
}

/// Most priorities told apart.
const PRIORITIES_MAX: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

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
        first.first_output(Instant::now(), 2_000);
        first.first_output(Instant::now(), 9_000);
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
    fn a_queue_is_not_told_as_a_slow_worker() {
        let observer = Arc::new(Observer::default());
        let mut all: Vec<_> = (0..4).map(|_| observer.begin(1_000, 0)).collect();
        let sent = Instant::now();
        let came = |observation: &mut Observation, after_us| {
            observation.first_output(sent + Duration::from_micros(after_us), after_us);
        };
        for (place, observation) in (1..).zip(&mut all) {
            came(observation, place * 100_000);
        }
        let told = || {
            let samples = observer.tell().unwrap().samples.unwrap();
            (samples.count, samples.input_tokens, samples.prefill_us)
        };
        assert_eq!(told(), (4, 4_000, 400_000), "10,000 tokens a second");
        let mut late = observer.begin(1_000, 0);
        late.first_output(sent + Duration::from_secs(9), 200_000);
        assert_eq!(told(), (1, 1_000, 200_000), "it was idle before");
    }

    #[tokio::test]
    async fn a_queue_that_changes_much_is_told_at_once() {
        let news = Arc::new(Notify::new());
        let observer = Arc::new(Observer::new(Arc::clone(&news)));
        let raised = async || {
            tokio::select! {
                biased;
                () = news.notified() => true,
                () = std::future::ready(()) => false,
            }
        };
        let unknown = observer.begin(1_000_000, 0);
        assert!(!raised().await, "at no rate there is no time");
        drop(unknown);
        observer.learn_rate(1_000.0);
        let short = observer.begin(25, 0);
        assert!(!raised().await);
        let long = observer.begin(1, 0);
        assert!(raised().await);
        let more = observer.begin(500, 0);
        assert!(!raised().await, "it will be told of both");
        observer.tell();
        drop(short);
        assert!(!raised().await);
        drop((long, more));
        assert!(raised().await);
    }

    #[test]
    fn without_input_there_is_no_rate() {
        let observer = Arc::new(Observer::default());
        let mut passed = observer.begin(0, 0);
        passed.first_output(Instant::now(), 2_000);
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
