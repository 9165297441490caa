//! Where exchanges leave their spans: which are recorded, and what is kept of them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use prometheus::IntCounter;
use tokio::sync::mpsc;
use weir_dialect::{Api, Usage};
use weir_pipeline::principal::Principal;

use crate::request::exchange::Exchange;
use crate::request::settle::Times;
use crate::request::trace::Hop;
use crate::snapshot::ModelTarget;
use crate::telemetry::genai::error_type;

/// The way of spans to the exporter. Leaving one never waits.
pub(crate) struct Spans {
    queue: mpsc::Sender<Box<Ended>>,
    /// Traces whose number is below are recorded.
    threshold: u64,
    dropped: IntCounter,
}

/// An exchange with a span, in retrospect.
pub(super) struct Ended {
    pub(super) hop: Hop,
    pub(super) trace_state: Option<String>,
    pub(super) ended: SystemTime,
    pub(super) total: Duration,
    pub(super) first: Option<Duration>,
    pub(super) api: Api,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) request_id: Arc<str>,
    pub(super) principal: Option<Arc<Principal>>,
    pub(super) asked: Option<Asked>,
    pub(super) backend: Option<Arc<str>>,
    pub(super) tries: u16,
    pub(super) status: u16,
    pub(super) error: Option<&'static str>,
    pub(super) code: Option<Arc<str>>,
    pub(super) usage: Usage,
}

/// What was asked of a model.
pub(super) struct Asked {
    pub(super) target: Arc<ModelTarget>,
    pub(super) stream: bool,
    pub(super) json: bool,
    pub(super) max_output_tokens: u32,
}

impl Spans {
    /// A queue and its other end.
    pub(super) fn new(
        queue_max: usize,
        sample_ratio: f64,
        dropped: IntCounter,
    ) -> (Self, mpsc::Receiver<Box<Ended>>) {
        let (queue, ended) = mpsc::channel(queue_max);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of all numbers, to 53 bits"
        )]
        let threshold = (sample_ratio * NUMBERS as f64) as u64;
        let spans = Self {
            queue,
            threshold,
            dropped,
        };
        (spans, ended)
    }

    /// Whether a trace that begins here is recorded. Told by its random last bytes (W3C Trace
    /// Context 2), so that whoever samples by them decides alike.
    pub(crate) fn samples(&self, trace_id: u128) -> bool {
        let number = u64::try_from(trace_id % u128::from(NUMBERS)).unwrap_or(u64::MAX);
        number < self.threshold
    }

    /// Leaves the span of an exchange.
    pub(crate) fn leave(&self, hop: Hop, exchange: &Exchange, usage: Usage, times: &Times) {
        let facts = exchange.facts.as_deref();
        let header = |name| {
            let value = facts.and_then(|facts| facts.headers.get(name))?;
            value.to_str().ok().map(str::to_owned)
        };
        let asked = exchange.call.as_ref().map(|call| Asked {
            target: Arc::clone(&call.target),
            stream: exchange.wants_events(),
            json: call.peek.json_mode,
            max_output_tokens: call.peek.max_output_tokens,
        });
        let ended = Box::new(Ended {
            hop,
            trace_state: header("tracestate"),
            ended: SystemTime::now(),
            total: times.total,
            first: times.ttft,
            api: exchange.api,
            method: facts.map(|facts| facts.method.clone()).unwrap_or_default(),
            path: facts.map(|facts| facts.path.clone()).unwrap_or_default(),
            request_id: Arc::clone(&exchange.request_id),
            principal: facts.and_then(|facts| facts.principal.clone()),
            asked,
            backend: exchange.progress.backend.clone(),
            tries: exchange.progress.tries,
            status: exchange.progress.status,
            error: error_type(exchange),
            code: exchange.progress.code.clone(),
            usage,
        });
        if self.queue.try_send(ended).is_err() {
            self.dropped.inc();
        }
    }
}

/// How many different last 56 bits there are.
const NUMBERS: u64 = 1 << 56;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_traces_is_recorded() {
        let random = fastrand::Rng::with_seed(1).u128(..);
        for (ratio, at_least, at_most) in [(0.0, 0, 0), (0.25, 2_000, 3_000), (1.0, 10_000, 10_000)]
        {
            let counter = IntCounter::new("dropped", "spans").unwrap();
            let (spans, _queue) = Spans::new(1, ratio, counter);
            let mut numbers = fastrand::Rng::with_seed(7);
            let sampled = (0..10_000)
                .filter(|_| spans.samples(numbers.u128(..)))
                .count();
            assert!(
                (at_least..=at_most).contains(&sampled),
                "{ratio}: {sampled}"
            );
            assert_eq!(spans.samples(random), spans.samples(random));
        }
    }
}
