//! The state of one exchange: each field has one writer, later steps read it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use weir_dialect::{Api, Peek, Usage};
use weir_pipeline::chain::Chain;
use weir_pipeline::facts::Facts;
use weir_pipeline::ledger::{Ledger, Settlement};
use weir_pipeline::verdict::{Affinity, End};

use crate::request::hints::Hints;
use crate::request::refuse::Refusal;
use crate::request::trace::Hop;
use crate::runtime::Runtime;
use crate::snapshot::{ModelTarget, Snapshot};
use crate::workers::observed::Observation;

/// One request and its answer.
pub(crate) struct Exchange {
    /// Shared by the process.
    pub(crate) runtime: Arc<Runtime>,
    /// The configuration it began with and ends with.
    pub(crate) snapshot: Arc<Snapshot>,
    /// What the caller speaks.
    pub(crate) api: Api,
    /// In logs and in `x-request-id`.
    pub(crate) request_id: Arc<str>,
    /// When the head was read.
    pub(crate) started: Instant,
    /// What must be given back at the end.
    pub(crate) ledger: Arc<Ledger>,
    /// Written by `classify`: what the body asks for.
    pub(crate) call: Option<Call>,
    /// What filters see. Away only while a phase call has it.
    pub(crate) facts: Option<Box<Facts>>,
    /// Written by `trace`: the span to be recorded.
    pub(crate) hop: Option<Box<Hop>>,
    /// Written by `admit`, or `passthrough`: how long it would wait.
    pub(crate) hints: Hints,
    /// Written by `admit`.
    pub(crate) affinity: Option<Arc<Affinity>>,
    /// Written by `passthrough`: the chain of the route, which may have none.
    pub(crate) passing: Option<Option<Arc<Chain>>>,
    /// Written by `passthrough`: what to say once pingora has given up.
    pub(crate) held: Option<Refusal>,
    /// Written by `forward` and `relay`.
    pub(crate) progress: Progress,
    /// Written by `settle`: how the claims were settled, once they are.
    pub(crate) settled: Option<Settlement>,
}

/// What an admitted body asks for.
pub(crate) struct Call {
    /// What was read of the body, its estimate corrected by what was learned of the model.
    pub(crate) peek: Peek,
    /// The model's name as the caller wrote it, quotes included.
    pub(crate) model_json: Bytes,
    /// Input tokens by the body alone, before any correction.
    pub(crate) estimate: u32,
    /// The model it names, and who decides and answers.
    pub(crate) target: Arc<ModelTarget>,
}

/// How far an exchange has come.
#[derive(Default)]
pub(crate) struct Progress {
    /// How the exchange counts for the worker in use, if it is one.
    pub(crate) observation: Option<Observation>,
    /// The backend in use, or the last one.
    pub(crate) backend: Option<Arc<str>>,
    /// How many backends were tried.
    pub(crate) tries: u16,
    /// When the last request was sent upstream.
    pub(crate) sent_at: Option<Instant>,
    /// When the body, or the first event that says something, came; none: no answer that counts.
    pub(crate) first_byte_at: Option<Instant>,
    /// The status of the upstream's answer, once there was one.
    pub(crate) upstream_status: Option<u16>,
    /// The status the caller saw, 0 = none yet.
    pub(crate) status: u16,
    /// The head of a stream has been sent: what goes wrong is told by an event.
    pub(crate) head_sent: bool,
    /// Usage reported so far.
    pub(crate) usage: Option<Usage>,
    /// Whether that is the last word: some streams begin with a part of it.
    pub(crate) usage_final: bool,
    /// Bytes of output text seen, to estimate usage that is never reported.
    pub(crate) output_bytes: u64,
    /// Bytes of body written to the caller.
    pub(crate) response_bytes: u64,
    /// How it ended.
    pub(crate) end: End,
    /// The backend says that the request would fail anywhere.
    pub(crate) callers_fault: bool,
    /// Stable code of the refusal, for the log.
    pub(crate) code: Option<Arc<str>>,
}

impl Exchange {
    /// An exchange about which nothing is known but the API.
    pub(crate) fn new(
        runtime: &Arc<Runtime>,
        snapshot: Arc<Snapshot>,
        api: Api,
        request_id: Arc<str>,
    ) -> Self {
        Self {
            runtime: Arc::clone(runtime),
            snapshot,
            api,
            request_id,
            started: Instant::now(),
            ledger: Arc::new(Ledger::default()),
            call: None,
            facts: None,
            hop: None,
            hints: Hints::default(),
            affinity: None,
            passing: None,
            held: None,
            progress: Progress::default(),
            settled: None,
        }
    }

    /// The facts, to be moved into a phase call.
    pub(crate) fn take_facts(&mut self) -> Result<Box<Facts>, Refusal> {
        self.facts.take().ok_or_else(Refusal::internal)
    }

    /// The chain that decides: the model's or the route's, else the default one.
    pub(crate) fn chain(&self) -> Option<Arc<Chain>> {
        match (&self.call, &self.passing) {
            (Some(call), _) => Some(Arc::clone(&call.target.chain)),
            (None, Some(chain)) => chain.clone(),
            (None, None) => self.snapshot.default_chain.clone(),
        }
    }

    /// Whether the time in which others may be tried is over.
    pub(crate) fn is_out_of_time(&self) -> bool {
        let budget = self.hints.retry_budget;
        budget.is_some_and(|budget| self.started.elapsed() >= budget)
    }

    /// Whether the caller waits for server-sent events.
    pub(crate) fn wants_events(&self) -> bool {
        let streams = matches!(
            self.api,
            Api::ChatCompletions | Api::Responses | Api::Messages
        );
        streams && self.call.as_ref().is_some_and(|call| call.peek.stream)
    }

    /// Whether the caller wants one answer where the upstream is asked for a stream.
    pub(crate) fn aggregates(&self) -> bool {
        self.api == Api::Responses && !self.wants_events()
    }

    /// Whose limits it counts against; empty while nobody was let in.
    pub(crate) fn tenant(&self) -> &str {
        let facts = self.facts.as_ref();
        let principal = facts.and_then(|facts| facts.principal.as_ref());
        principal.map_or("", |principal| &principal.tenant)
    }

    /// Tokens used: as reported, else estimated from what was sent and seen.
    pub(crate) fn usage(&self) -> Usage {
        let progress = &self.progress;
        // Four bytes of text a token, the same rule as the estimate of the input.
        let seen = progress.output_bytes.div_ceil(4);
        match progress.usage {
            Some(usage) if progress.usage_final || progress.end == End::Ok => usage,
            // Cut off: what was reported first does not have the output that came after.
            Some(part) => Usage {
                output_tokens: part.output_tokens.max(seen),
                reported: false,
                ..part
            },
            None => Usage {
                input_tokens: self
                    .call
                    .as_ref()
                    .map_or(0, |call| u64::from(call.peek.est_input_tokens)),
                output_tokens: seen,
                reported: false,
                ..Usage::default()
            },
        }
    }
}
