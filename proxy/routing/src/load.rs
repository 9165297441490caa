//! Live figures of a candidate: what routing methods compare.

use crate::prediction::{self, Demand, Outlook, Source};
use crate::report::QueueTimes;

/// Live figures of one candidate at one moment. Each is exact by itself; together they are no
/// transaction, since traffic goes on while they are read.
///
/// Of a domain of several backends, rates and queues are sums, the round trip is a mean, and
/// what each backend tells of the whole domain (running, slots, KV cache, queue times, greatest
/// rates) is that of the latest report.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Exchanges in progress: as reported and our own that the report does not know of yet, at
    /// least our own.
    pub running: u32,
    /// Exchanges without a first byte, by the same rule; without reports 0.
    pub queued: u32,
    /// Input tokens not yet worked through, by the same rule.
    pub queued_input_tokens: u64,
    /// Those of them that no report knows of.
    pub pending_input_tokens: u64,
    /// Exchanges the engine works on at once; 0 = unknown.
    pub slots: u32,
    /// KV cache, as reported; 0 without reports.
    pub kv_capacity_tokens: u64,
    /// Used KV cache, as reported.
    pub kv_used_tokens: u64,
    /// Free KV cache, as reported.
    pub kv_free_tokens: u64,
    /// Input tokens per second: reported, else observed by us; 0 when unknown.
    pub input_tps: f32,
    /// The greatest reported input rate; 0 when unknown.
    pub max_input_tps: f32,
    /// Output tokens per second, as reported; 0 when unknown.
    pub output_tps: f32,
    /// The greatest output rate, as reported; 0 when unknown.
    pub max_output_tps: f32,
    /// Moving average of the time to the first byte, microseconds; 0 when unknown.
    pub ewma_ttft_us: u32,
    /// Moving share of failed exchanges, 0..=1000.
    pub error_permille: u16,
    /// Round trip, microseconds; 0 when unknown.
    pub rtt_us: u32,
    /// What work on the input took of late over what was predicted, 0.25..=4.
    pub bias: f32,
    /// Time in the queue by priority, as reported.
    pub queue_times: QueueTimes,
    /// Age of the last report; 0 without reports, since our own figures are current.
    pub age_ms: u64,
}

/// One of the figures of [`Load`], or one computed from them for a [`Demand`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// See [`Load::running`].
    Running,
    /// See [`Load::queued`].
    Queued,
    /// See [`Load::queued_input_tokens`].
    QueuedInputTokens,
    /// See [`Load::kv_free_tokens`].
    KvFreeTokens,
    /// See [`Load::input_tps`].
    InputTps,
    /// See [`Load::output_tps`].
    OutputTps,
    /// See [`Load::ewma_ttft_us`].
    EwmaTtftUs,
    /// See [`Load::error_permille`].
    ErrorPermille,
    /// Estimated wait before work on a new exchange begins, microseconds: the queued input over
    /// the input rate, else the usual time to the first byte for every exchange in progress.
    EstWaitUs,
    /// Predicted time to the first byte for the demand: [`Outlook::ttft_us`].
    TtftUs,
    /// Its part in the queue: 0 while a slot is free.
    QueueUs,
    /// Its part of work on the input.
    PrefillUs,
    /// Queued input and that of the demand over the input rate; infinite without a rate.
    InputWorkUs,
    /// Exchanges in progress over slots; slots unknown count as 1.
    Utilization,
    /// See [`Load::slots`].
    Slots,
    /// See [`Load::rtt_us`].
    RttUs,
    /// See [`Load::max_input_tps`].
    MaxInputTps,
    /// See [`Load::max_output_tps`].
    MaxOutputTps,
    /// See [`Load::kv_used_tokens`].
    KvUsedTokens,
    /// See [`Load::kv_capacity_tokens`].
    KvCapacityTokens,
    /// See [`Load::age_ms`].
    AgeMs,
}

impl Load {
    /// The figure as a number; counters above 2^53 lose their last digits.
    #[must_use]
    pub fn figure(&self, figure: Figure, demand: &Demand) -> f64 {
        prediction::figure(self, figure, demand, 0)
    }

    /// When the first byte of an answer to this demand is expected.
    #[must_use]
    pub fn outlook(&self, demand: &Demand) -> Outlook {
        prediction::outlook(self, demand)
    }

    /// Takes another backend of the same domain in; `newer` says whose report came last.
    pub(crate) fn join(&mut self, other: &Self, newer: bool) {
        self.queued = self.queued.saturating_add(other.queued);
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.queued_input_tokens, other.queued_input_tokens);
        add(&mut self.pending_input_tokens, other.pending_input_tokens);
        self.input_tps += other.input_tps;
        self.output_tps += other.output_tps;
        self.ewma_ttft_us = self.ewma_ttft_us.max(other.ewma_ttft_us);
        self.error_permille = self.error_permille.max(other.error_permille);
        if newer {
            self.running = other.running;
            self.slots = other.slots;
            self.kv_capacity_tokens = other.kv_capacity_tokens;
            self.kv_used_tokens = other.kv_used_tokens;
            self.kv_free_tokens = other.kv_free_tokens;
            self.max_input_tps = other.max_input_tps;
            self.max_output_tps = other.max_output_tps;
            self.queue_times = other.queue_times;
            self.age_ms = other.age_ms;
        }
    }
}

impl Default for Load {
    fn default() -> Self {
        Self {
            running: 0,
            queued: 0,
            queued_input_tokens: 0,
            pending_input_tokens: 0,
            slots: 0,
            kv_capacity_tokens: 0,
            kv_used_tokens: 0,
            kv_free_tokens: 0,
            input_tps: 0.0,
            max_input_tps: 0.0,
            output_tps: 0.0,
            max_output_tps: 0.0,
            ewma_ttft_us: 0,
            error_permille: 0,
            rtt_us: 0,
            bias: 1.0,
            queue_times: QueueTimes::default(),
            age_ms: 0,
        }
    }
}

impl Source for Load {
    fn running(&self) -> u32 {
        self.running
    }
    fn queued(&self) -> u32 {
        self.queued
    }
    fn queued_input_tokens(&self) -> u64 {
        self.queued_input_tokens
    }
    fn pending_input_tokens(&self) -> u64 {
        self.pending_input_tokens
    }
    fn queue_ms(&self, priority: u32) -> Option<u32> {
        self.queue_times.at(priority)
    }
    fn slots(&self) -> u32 {
        self.slots
    }
    fn kv_capacity_tokens(&self) -> u64 {
        self.kv_capacity_tokens
    }
    fn kv_used_tokens(&self) -> u64 {
        self.kv_used_tokens
    }
    fn kv_free_tokens(&self) -> u64 {
        self.kv_free_tokens
    }
    fn input_tps(&self) -> f32 {
        self.input_tps
    }
    fn max_input_tps(&self) -> f32 {
        self.max_input_tps
    }
    fn output_tps(&self) -> f32 {
        self.output_tps
    }
    fn max_output_tps(&self) -> f32 {
        self.max_output_tps
    }
    fn ewma_ttft_us(&self) -> u32 {
        self.ewma_ttft_us
    }
    fn error_permille(&self) -> u16 {
        self.error_permille
    }
    fn rtt_us(&self) -> u32 {
        self.rtt_us
    }
    fn bias(&self) -> f32 {
        self.bias
    }
    fn age_ms(&self, _: u64) -> u64 {
        self.age_ms
    }
}
