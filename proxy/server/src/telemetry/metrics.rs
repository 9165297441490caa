//! The gateway's own counters, in Prometheus' format.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use weir_dialect::{Api, Usage};
use weir_pipeline::verdict::End;

use crate::request::exchange::Exchange;
use crate::request::settle::Times;
use crate::snapshot::Snapshot;
use crate::telemetry::genai::GenAi;
use crate::telemetry::workers::WorkerCounters;

/// Seconds; from a cached answer to a long generation.
const DURATION_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Every series of the gateway. Labels are bounded: APIs, statuses, ends, and names in the config.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
    ttft: HistogramVec,
    tokens: IntCounterVec,
    active: IntGaugeVec,
    retries: IntCounterVec,
    /// Of model servers that dial in.
    pub(crate) workers: WorkerCounters,
    completions_dropped: IntCounter,
    lookups: IntCounterVec,
    reloads: IntCounterVec,
    config_rejected: IntGauge,
    config_number: IntGauge,
    genai: GenAi,
    /// Those of every exchange, found once.
    series: PerApi,
    started: SystemTime,
}

/// The series that every exchange of one API moves: looking them up by their labels costs more
/// than moving them.
struct Series {
    active: IntGauge,
    /// Status 200, ended well.
    answered: IntCounter,
    duration: Histogram,
    ttft: Histogram,
    /// Input and output tokens, reported by the upstream.
    reported: [IntCounter; 2],
    /// The same, estimated.
    estimated: [IntCounter; 2],
}

struct PerApi {
    chat_completions: Series,
    responses: Series,
    embeddings: Series,
    messages: Series,
    models: Series,
    other: Series,
}

impl PerApi {
    fn new(make: impl Fn(Api) -> Series) -> Self {
        Self {
            chat_completions: make(Api::ChatCompletions),
            responses: make(Api::Responses),
            embeddings: make(Api::Embeddings),
            messages: make(Api::Messages),
            models: make(Api::Models),
            other: make(Api::Other),
        }
    }

    fn of(&self, api: Api) -> &Series {
        match api {
            Api::ChatCompletions => &self.chat_completions,
            Api::Responses => &self.responses,
            Api::Embeddings => &self.embeddings,
            Api::Messages => &self.messages,
            Api::Models => &self.models,
            Api::Other => &self.other,
        }
    }
}

impl Metrics {
    /// Registers all series.
    ///
    /// # Errors
    /// When a name is registered already: a fault of ours.
    pub(crate) fn new(registry: Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels)
        };
        let seconds = |name: &str, help: &str, labels: &[&str]| {
            HistogramVec::new(
                HistogramOpts::new(name, help).buckets(DURATION_BUCKETS.to_vec()),
                labels,
            )
        };
        let requests = counters(
            "weir_requests_total",
            "Exchanges that have ended.",
            &["api", "status", "end"],
        )?;
        let duration = seconds(
            "weir_request_seconds",
            "From head read to last byte written.",
            &["api"],
        )?;
        let ttft = seconds(
            "weir_ttft_seconds",
            "From head read to the first byte of the answer.",
            &["api"],
        )?;
        let tokens = counters(
            "weir_tokens_total",
            "Tokens, reported or estimated.",
            &["api", "direction", "reported"],
        )?;
        let active = IntGaugeVec::new(
            Opts::new("weir_requests_active", "Exchanges in progress."),
            &["api"],
        )?;
        let series = PerApi::new(|api| {
            let api = api.as_str();
            let counted = |reported| {
                ["input", "output"].map(|way| tokens.with_label_values(&[api, way, reported]))
            };
            Series {
                active: active.with_label_values(&[api]),
                answered: requests.with_label_values(&[api, "200", "ok"]),
                duration: duration.with_label_values(&[api]),
                ttft: ttft.with_label_values(&[api]),
                reported: counted("true"),
                estimated: counted("false"),
            }
        });
        let metrics = Self {
            series,
            requests,
            duration,
            ttft,
            tokens,
            active,
            workers: WorkerCounters::new(&registry)?,
            retries: counters(
                "weir_upstream_retries_total",
                "Further candidates tried.",
                &["cluster"],
            )?,
            lookups: counters(
                "weir_name_lookups_total",
                "Names of backends looked up again.",
                &["result"],
            )?,
            completions_dropped: IntCounter::new(
                "weir_completions_dropped_total",
                "Ended exchanges that filters were not told of because they lag behind.",
            )?,
            reloads: counters(
                "weir_config_reloads_total",
                "Reloads by result.",
                &["result"],
            )?,
            config_rejected: IntGauge::new(
                "weir_config_rejected",
                "1 while the newest config or module was refused and an older one serves.",
            )?,
            config_number: IntGauge::new(
                "weir_config_number",
                "Number of the live configuration.",
            )?,
            started: SystemTime::now(),
            genai: GenAi::new(&registry)?,
            registry,
        };
        let registry = &metrics.registry;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.ttft.clone()))?;
        registry.register(Box::new(metrics.tokens.clone()))?;
        registry.register(Box::new(metrics.active.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.completions_dropped.clone()))?;
        registry.register(Box::new(metrics.lookups.clone()))?;
        registry.register(Box::new(metrics.reloads.clone()))?;
        registry.register(Box::new(metrics.config_rejected.clone()))?;
        registry.register(Box::new(metrics.config_number.clone()))?;
        Ok(metrics)
    }

    /// Counts an exchange as active until the guard is dropped.
    pub(crate) fn active(&self, api: Api) -> Active {
        let gauge = self.series.of(api).active.clone();
        gauge.inc();
        Active(gauge)
    }

    /// How many exchanges are in progress.
    pub(crate) fn active_count(&self) -> i64 {
        let families = prometheus::core::Collector::collect(&self.active);
        let values = families.iter().flat_map(|family| family.get_metric());
        #[allow(clippy::cast_possible_truncation, reason = "a count")]
        let total = values
            .map(|metric| metric.get_gauge().get_value())
            .sum::<f64>() as i64;
        total
    }

    /// An exchange has ended.
    pub(crate) fn ended(&self, exchange: &Exchange, usage: &Usage, times: &Times) {
        let api = exchange.api.as_str();
        let series = self.series.of(exchange.api);
        if exchange.progress.status == 200 && exchange.progress.end == End::Ok {
            series.answered.inc();
        } else {
            let mut status = [0_u8; 3];
            let status = digits(exchange.progress.status, &mut status);
            self.requests
                .with_label_values(&[api, status, exchange.progress.end.as_str()])
                .inc();
        }
        series.duration.observe(times.total.as_secs_f64());
        if let Some(ttft) = times.ttft {
            series.ttft.observe(ttft.as_secs_f64());
        }
        let [input, output] = if usage.reported {
            &series.reported
        } else {
            &series.estimated
        };
        input.inc_by(usage.input_tokens);
        output.inc_by(usage.output_tokens);
        self.genai.ended(exchange, usage, times);
    }

    /// Another configuration is live: series of models it does not have end.
    pub(crate) fn forget_unused(&self, live: &Snapshot) {
        self.genai.forget_unused(live);
    }

    /// A further candidate is tried.
    pub(crate) fn retried(&self, cluster: &str) {
        self.retries.with_label_values(&[cluster]).inc();
    }

    /// A name of backends was looked up again.
    pub(crate) fn looked_up(&self, found: bool) {
        let result = if found { "found" } else { "failed" };
        self.lookups.with_label_values(&[result]).inc();
    }

    /// A filter with a `complete` phase lags behind.
    pub(crate) fn completion_dropped(&self) {
        self.completions_dropped.inc();
    }

    /// A reload has ended: `applied`, `rejected`, `rolled_back`.
    pub(crate) fn reloaded(&self, result: &str, number: u64) {
        self.reloads.with_label_values(&[result]).inc();
        self.config_rejected.set(i64::from(result != "applied"));
        self.config_number
            .set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// When the process began, in seconds since the Unix epoch.
    pub(crate) fn started_unix_s(&self) -> u64 {
        self.since_epoch().as_secs()
    }

    /// The same in nanoseconds.
    pub(crate) fn started_unix_ns(&self) -> u64 {
        u64::try_from(self.since_epoch().as_nanos()).unwrap_or(u64::MAX)
    }

    fn since_epoch(&self) -> Duration {
        self.started.duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// All series as they are now.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// Everything in Prometheus' text format.
    pub(crate) fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be rendered");
        }
        text
    }
}

/// Keeps an exchange counted as active.
pub(crate) struct Active(IntGauge);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A status as a label without an allocation.
fn digits(status: u16, text: &mut [u8; 3]) -> &str {
    for (place, unit) in text.iter_mut().zip([100, 10, 1]) {
        *place = b'0' + u8::try_from(status / unit % 10).unwrap_or(0);
    }
    std::str::from_utf8(text).unwrap_or("000")
}
