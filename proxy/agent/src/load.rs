//! The load of each model, out of all that is known of it; of two sources the more direct counts.
//!
//! The engine's own stream comes before its metrics, and these before what gateways see. Only
//! gateways know how long the prompts are that wait, so those figures are theirs alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weir_tunnel::{ModelStats, Observed, ObservedModel};

use crate::engine_metrics::{EngineFigures, of};
use crate::rate::{InputRate, OutputRate, SPAN, float};
use crate::stats_stream::{Phases, Requests};

/// What is known of the load. Times are counted from any fixed moment.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// The input rate until it is measured, and where it comes from.
    start: Option<(f64, &'static str)>,
    slots: u64,
    models: BTreeMap<String, ModelLoad>,
    requests: Requests,
}

#[derive(Debug, Default)]
struct ModelLoad {
    /// What each gateway has in flight.
    gateways: BTreeMap<String, ObservedModel>,
    observed_input: InputRate,
    observed_output: OutputRate,
    metrics: Option<(Duration, EngineFigures)>,
    metrics_input: OutputRate,
    metrics_output: OutputRate,
    stream_input: InputRate,
    stream_output: OutputRate,
}

impl Load {
    pub(crate) fn new(slots: u64) -> Self {
        Self {
            slots,
            ..Self::default()
        }
    }

    /// The input rate to tell until it is measured.
    pub(crate) fn start_with(&mut self, rate: f64, source: &'static str) {
        self.start = Some((rate, source));
    }

    /// Keeps what is known of `models` and forgets the others.
    pub(crate) fn keep(&mut self, models: &BTreeSet<String>) {
        self.models.retain(|model, _| models.contains(model));
        for model in models {
            self.models.entry(model.clone()).or_default();
        }
    }

    /// Takes in what `gateway` sees; it replaces what that gateway said before.
    pub(crate) fn observe(&mut self, gateway: &str, observed: Observed, now: Duration) {
        self.forget(gateway);
        for (model, seen) in observed.models {
            let Some(load) = self.models.get_mut(&model) else {
                continue;
            };
            if let Some(samples) = seen.samples {
                let time = Duration::from_micros(samples.prefill_us);
                load.observed_input
                    .add(samples.count, samples.input_tokens, time);
                // Answers are told of when they are whole, and the times of several add up: more than
                // rates are over is not looked at.
                let took = Duration::from_micros(samples.decode_us);
                let since = now.saturating_sub(took);
                load.observed_output.add_over(
                    samples.output_tokens,
                    since.max(now.saturating_sub(SPAN)),
                    now,
                );
            }
            load.gateways.insert(gateway.to_owned(), seen);
        }
    }

    /// Forgets what `gateway` has in flight: its tunnel has ended, and its streams with it.
    pub(crate) fn forget(&mut self, gateway: &str) {
        for load in self.models.values_mut() {
            load.gateways.remove(gateway);
        }
    }

    /// Takes in the engine's metrics.
    pub(crate) fn measure(&mut self, figures: &BTreeMap<String, EngineFigures>, now: Duration) {
        for (model, load) in &mut self.models {
            let Some(figures) = of(figures, model) else {
                continue;
            };
            if let Some((since, before)) = load.metrics {
                // Counters that shrink are those of an engine that began anew.
                let grown = |now: Option<f64>, before: Option<f64>| {
                    (now.unwrap_or_default() - before.unwrap_or(f64::INFINITY)).max(0.0) as u64
                };
                let generated = grown(figures.generated_tokens, before.generated_tokens);
                load.metrics_output.add_over(generated, since, now);
                let prompt = grown(figures.prompt_tokens, before.prompt_tokens);
                load.metrics_input.add_over(prompt, since, now);
            }
            load.metrics = Some((now, figures));
        }
    }

    /// Takes in one line of the engine's stream.
    pub(crate) fn stream(&mut self, line: &[u8], now: Duration) -> Result<(), String> {
        let Some(progress) = self.requests.take(line, now)? else {
            return Ok(());
        };
        if let Some(load) = self.models.get_mut(&progress.model) {
            load.stream_output.add(progress.generated, now);
            if let Some((tokens, time)) = progress.prefilled {
                load.stream_input.add(1, tokens, time);
            }
        }
        Ok(())
    }

    /// The engine's stream has ended.
    pub(crate) fn stream_ended(&mut self) {
        self.requests.clear();
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.requests.expire(now);
    }

    /// How long the prompts that wait take each model, milliseconds, where its rate is known.
    pub(crate) fn queues_ms(&self) -> BTreeMap<String, f64> {
        let models = self.models.iter();
        let queue_ms = models.filter_map(|(model, load)| {
            let rate = load.input_rate().or(self.start.map(|(rate, _)| rate));
            let rate = rate.filter(|rate| *rate > 0.0)?;
            let tokens = Sum::of(&load.gateways).waiting_input_tokens;
            Some((model.clone(), float(tokens) / rate * 1000.0))
        });
        queue_ms.collect()
    }

    /// The figures of `model`.
    pub(crate) fn stats(&self, model: &str, now: Duration, unix_ms: u64) -> ModelStats {
        let mut stats = ModelStats {
            max_engine_concurrency: self.slots,
            stats_observed_at_unix_ms: unix_ms,
            ..ModelStats::default()
        };
        let Some(load) = self.models.get(model) else {
            return stats;
        };
        let mut sources = BTreeSet::new();
        let metrics = load
            .metrics
            .filter(|(at, _)| *at + METRICS_TTL > now)
            .map(|(_, f)| f);
        let phases = self.requests.phases(model, now);
        self.rates(&mut stats, load, metrics, now, &mut sources);
        if !load.gateways.is_empty() {
            sources.insert("gateway");
        }
        if let Some(metrics) = metrics {
            sources.insert("metrics");
            stats.kv_cache_capacity_tokens = metrics.kv_capacity.map(|tokens| tokens as u64);
            stats.kv_cache_used_tokens = metrics.kv_used.map(|tokens| tokens as u64);
            let both = metrics.kv_capacity.zip(metrics.kv_used);
            stats.kv_cache_free_tokens = both.map(|(all, used)| (all - used).max(0.0) as u64);
        }
        if phases.is_some() {
            sources.insert("stream");
        }
        in_flight(&mut stats, &Sum::of(&load.gateways), metrics, phases);
        stats.stats_sources = sources.into_iter().map(str::to_owned).collect();
        stats.stats_capabilities = capabilities(&stats);
        stats
    }

    fn rates(
        &self,
        stats: &mut ModelStats,
        load: &ModelLoad,
        metrics: Option<EngineFigures>,
        now: Duration,
        sources: &mut BTreeSet<&'static str>,
    ) {
        let measured = load.input_rate();
        stats.last_mean_input_tps = measured.or(self.start.map(|(rate, _)| rate));
        if let (None, Some((_, source))) = (measured, self.start) {
            sources.insert(source);
        }
        let inputs = [
            load.stream_input.max(),
            load.observed_input.max(),
            load.metrics_input.max(),
        ];
        stats.max_input_tps = greatest(inputs.into_iter().chain([stats.last_mean_input_tps]));
        stats.output_tps = load
            .stream_output
            .rate(now)
            .or(load.metrics_output.rate(now))
            .or(metrics.and_then(|figures| figures.output_tps))
            .or(load.observed_output.rate(now));
        let outputs = [
            load.stream_output.max(),
            load.metrics_output.max(),
            load.observed_output.max(),
            stats.output_tps,
        ];
        stats.max_output_tps = greatest(outputs.into_iter());
    }
}

impl ModelLoad {
    /// The measured one.
    fn input_rate(&self) -> Option<f64> {
        self.stream_input.mean().or(self.observed_input.mean())
    }
}

/// What is in flight, by the most direct source that tells it.
fn in_flight(
    stats: &mut ModelStats,
    seen: &Sum,
    metrics: Option<EngineFigures>,
    phases: Option<Phases>,
) {
    let engine =
        |figure: fn(EngineFigures) -> Option<f64>| metrics.and_then(figure).map(|n| n as u64);
    let (running, waiting) = (engine(|f| f.running), engine(|f| f.waiting));
    // Those that the engine has not begun are fewer than those without output.
    let silent = waiting.unwrap_or_default().max(seen.waiting);
    stats.queue_size = Some(phases.map_or(silent, |phases| phases.processing.max(seen.waiting)));
    stats.queued_input_size = Some(seen.waiting_input_tokens);
    stats.total_query_input_size = Some(seen.running_input_tokens);
    stats.num_running_queries = Some(match (phases, running) {
        (Some(phases), _) => phases.processing + phases.generating,
        (None, Some(running)) => running,
        (None, None) => seen.running,
    });
    stats.input_processing_queries = Some(match phases {
        Some(phases) => phases.processing,
        None => silent - waiting.unwrap_or_default().min(silent),
    });
    stats.output_generation_queries = Some(match phases {
        Some(phases) => phases.generating,
        None => seen.running.saturating_sub(seen.waiting),
    });
    if let Some(rate) = stats.last_mean_input_tps.filter(|rate| *rate > 0.0) {
        stats.queue_time_estimate_ms_by_priority = queue_times(&seen.waiting_by_priority, rate);
    }
}

/// How long a new request of each priority would wait: the prompts of its own priority and of
/// higher ones come first.
fn queue_times(tokens: &BTreeMap<u32, u64>, rate: f64) -> BTreeMap<u32, u64> {
    let mut before: u64 = 0;
    let mut times: BTreeMap<u32, u64> = tokens
        .iter()
        .take(PRIORITIES_MAX)
        .map(|(priority, tokens)| {
            before = before.saturating_add(*tokens);
            (*priority, (float(before) / rate * 1000.0) as u64)
        })
        .collect();
    // Nothing waits before the highest priority unless it says so.
    times.entry(0).or_insert(0);
    times
}

/// What all gateways have in flight together.
#[derive(Default)]
struct Sum {
    running: u64,
    waiting: u64,
    waiting_input_tokens: u64,
    running_input_tokens: u64,
    waiting_by_priority: BTreeMap<u32, u64>,
}

impl Sum {
    fn of(gateways: &BTreeMap<String, ObservedModel>) -> Self {
        let mut sum = Self::default();
        for seen in gateways.values() {
            let add = |total: &mut u64, more: u64| *total = total.saturating_add(more);
            add(&mut sum.running, seen.running);
            add(&mut sum.waiting, seen.waiting);
            add(&mut sum.waiting_input_tokens, seen.waiting_input_tokens);
            add(&mut sum.running_input_tokens, seen.running_input_tokens);
            for (priority, tokens) in &seen.waiting_tokens_by_priority {
                add(
                    sum.waiting_by_priority.entry(*priority).or_default(),
                    *tokens,
                );
            }
        }
        sum
    }
}

fn capabilities(stats: &ModelStats) -> Vec<String> {
    let told = [
        ("input_tps", stats.last_mean_input_tps.is_some()),
        ("kv_cache", stats.kv_cache_capacity_tokens.is_some()),
        ("output_tps", stats.output_tps.is_some()),
        ("queue", stats.queue_size.is_some()),
    ];
    let told = told.into_iter().filter(|(_, told)| *told);
    told.map(|(name, _)| name.to_owned()).collect()
}

fn greatest(rates: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    rates.flatten().reduce(f64::max)
}

/// How long metrics count after they were read.
const METRICS_TTL: Duration = Duration::from_secs(10);

/// Priorities told apart in a queue.
const PRIORITIES_MAX: usize = 64;

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
