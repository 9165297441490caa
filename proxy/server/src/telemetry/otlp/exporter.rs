//! When something is sent: metrics at each interval, spans when there are many or the first has
//! waited for one; and what becomes of it when the collector does not take it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use weir_config::OtlpTable;

use crate::runtime::Runtime;
use crate::telemetry::otlp::collector::{Collector, Export, ExportError};
use crate::telemetry::otlp::points;
use crate::telemetry::otlp::span::{span, text};
use crate::telemetry::otlp::spans::{Ended, Spans};

/// Sends what is to be sent; made before the process serves, started when it does.
pub(crate) struct Exporter {
    collector: Arc<Collector>,
    counters: Counters,
    resource: Resource,
    interval: Duration,
    metrics: bool,
    ended: Option<mpsc::Receiver<Box<Ended>>>,
}

/// A running exporter.
pub(crate) struct Exporting {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What became of exports.
#[derive(Clone)]
struct Counters {
    exports: IntCounterVec,
    spans: IntCounterVec,
}

impl Exporter {
    /// What a config asks for: nothing, or where exchanges leave their spans, and who sends them.
    ///
    /// # Errors
    /// A name in `headers` that cannot be one, or whose value cannot.
    pub(crate) fn new(
        table: &OtlpTable,
        registry: &Registry,
    ) -> Result<(Option<Spans>, Option<Self>), OtlpError> {
        let Some(collector) = Collector::new(table).map_err(OtlpError::Header)? else {
            return Ok((None, None));
        };
        let counters = Counters::new(registry).map_err(OtlpError::Registry)?;
        let dropped = counters.spans.with_label_values(&["queue_full"]);
        let (spans, ended) = table
            .traces
            .then(|| Spans::new(table.queue_max, table.sample_ratio, dropped))
            .unzip();
        let exporter = Self {
            collector: Arc::new(collector),
            counters,
            resource: resource(table),
            interval: Duration::from_millis(table.interval_ms),
            metrics: table.metrics,
            ended,
        };
        Ok((spans, Some(exporter)))
    }

    /// Begins to send.
    pub(crate) fn start(self, runtime: &Arc<Runtime>) -> Exporting {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let sender = || Sender {
            runtime: Arc::clone(runtime),
            collector: Arc::clone(&self.collector),
            counters: self.counters.clone(),
            resource: self.resource.clone(),
            interval: self.interval,
            stopped: stopped.clone(),
            failing: false,
        };
        if self.metrics {
            tasks.spawn(sender().metrics());
        }
        if let Some(ended) = self.ended {
            tasks.spawn(sender().spans(ended));
        }
        Exporting { stop, tasks }
    }
}

/// Why a config's export cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OtlpError {
    /// Not a header.
    #[error("`{0}` cannot be the name of a header, or its value cannot be sent in one")]
    Header(String),
    /// A name is registered already: a fault of ours.
    #[error(transparent)]
    Registry(prometheus::Error),
}

impl Exporting {
    /// Sends what is left, for no longer than this.
    pub(crate) async fn finish(mut self, within: Duration) {
        _ = self.stop.send(true);
        let done = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(within, done).await.is_err() {
            tracing::warn!("the last metrics and spans could not be exported in time");
        }
    }
}

impl Counters {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let family = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone())).map(|()| family)
        };
        Ok(Self {
            exports: counters(
                "weir_otlp_exports_total",
                "Requests to the collector by result.",
                &["signal", "result"],
            )?,
            spans: counters(
                "weir_otlp_spans_total",
                "Spans that were sent, or dropped and why.",
                &["result"],
            )?,
        })
    }

    fn spans(&self, result: &str) -> IntCounter {
        self.spans.with_label_values(&[result])
    }
}

/// One of the two tasks.
struct Sender {
    runtime: Arc<Runtime>,
    collector: Arc<Collector>,
    counters: Counters,
    resource: Resource,
    interval: Duration,
    stopped: watch::Receiver<bool>,
    /// The last export failed: that has been said in the log.
    failing: bool,
}

impl Sender {
    /// What is not taken is not kept: the next time tells all of it.
    async fn metrics(mut self) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first one comes at once, when there is nothing to tell.
        ticks.tick().await;
        loop {
            let last = tokio::select! {
                _ = ticks.tick() => false,
                _ = self.stopped.wait_for(|stopped| *stopped) => true,
            };
            let families = self.runtime.metrics.gather();
            let span = points::Span {
                start_ns: self.runtime.metrics.started_unix_ns(),
                end_ns: unix_ns(),
            };
            for metrics in points::requests(&families, span) {
                let request = ExportMetricsServiceRequest {
                    resource_metrics: vec![ResourceMetrics {
                        resource: Some(self.resource.clone()),
                        scope_metrics: vec![ScopeMetrics {
                            scope: Some(scope()),
                            metrics,
                            ..ScopeMetrics::default()
                        }],
                        ..ResourceMetrics::default()
                    }],
                };
                if self.send(&request).await.is_err() {
                    break;
                }
            }
            if last {
                return;
            }
        }
    }

    async fn spans(mut self, mut queue: mpsc::Receiver<Box<Ended>>) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch: Vec<Span> = Vec::new();
        let mut due = Instant::now();
        let mut last = false;
        loop {
            // Looking now and then instead of waiting for each: an exchange wakes nobody.
            tokio::select! {
                _ = ticks.tick() => {}
                _ = self.stopped.wait_for(|stopped| *stopped), if !last => last = true,
            }
            if batch.is_empty() {
                due = Instant::now() + self.interval;
            }
            loop {
                while batch.len() < BATCH_MAX
                    && let Ok(ended) = queue.try_recv()
                {
                    batch.push(span(&ended));
                }
                let ready = batch.len() >= BATCH_MAX || last || Instant::now() >= due;
                if batch.is_empty() || !ready {
                    break;
                }
                self.deliver(std::mem::take(&mut batch)).await;
            }
            if last {
                return;
            }
        }
    }

    /// Sends spans until they are taken, refused for good, or the process ends. Meanwhile the
    /// queue fills, and what does not fit is dropped.
    async fn deliver(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope()),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let mut pause = PAUSE_MIN;
        loop {
            match self.send(&request).await {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.counters.spans("sent").inc_by(count - rejected);
                    self.counters.spans("rejected").inc_by(rejected);
                    return;
                }
                Err(error) if error.may_pass() && !*self.stopped.borrow() => {
                    tokio::select! {
                        () = sleep(pause) => {}
                        _ = self.stopped.wait_for(|stopped| *stopped) => {}
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(error) => {
                    let result = if error.may_pass() {
                        "unsent"
                    } else {
                        "rejected"
                    };
                    self.counters.spans(result).inc_by(count);
                    return;
                }
            }
        }
    }

    /// How many items the collector did not take of those it was sent.
    async fn send<T: Export>(&mut self, request: &T) -> Result<u64, ExportError> {
        let sent = self.collector.send(&self.runtime.connector, request).await;
        let result = if sent.is_ok() { "ok" } else { "failed" };
        self.counters
            .exports
            .with_label_values(&[T::SIGNAL, result])
            .inc();
        match &sent {
            Ok(Some((items, reason))) if *items > 0 => {
                tracing::warn!(
                    signal = T::SIGNAL,
                    items,
                    reason,
                    "the collector rejects some"
                );
            }
            Ok(_) if self.failing => tracing::info!(signal = T::SIGNAL, "exports succeed again"),
            Err(error) if !self.failing => {
                tracing::warn!(signal = T::SIGNAL, %error, "exports fail");
            }
            _ => {}
        }
        self.failing = sent.is_err();
        let rejected = sent?.map_or(0, |(items, _)| items);
        Ok(u64::try_from(rejected).unwrap_or(0))
    }
}

/// Who tells: `service.*`, and what the config adds to it or says otherwise.
fn resource(table: &OtlpTable) -> Resource {
    let instance = crate::request::headers::uuid_v4(fastrand::u128(..));
    let own = [
        ("service.name", "weir"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", &instance),
    ];
    let own = own
        .into_iter()
        .filter(|(name, _)| !table.resource.contains_key(*name));
    let given = table
        .resource
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    Resource {
        attributes: own
            .chain(given)
            .map(|(name, value)| text(name, value))
            .collect(),
        ..Resource::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "weir".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    }
}

fn unix_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Spans in one request: a span is about 1 KiB, and collectors take 4 MiB by gRPC.
const BATCH_MAX: usize = 1_024;
/// How often is looked for new spans.
const LOOK: Duration = Duration::from_millis(100);
/// Pauses between two tries double from the one to the other.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
