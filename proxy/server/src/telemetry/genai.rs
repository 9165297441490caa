//! Times and tokens per function, model and tenant, named by OpenTelemetry's conventions for
//! generative AI.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use prometheus::{Histogram, HistogramOpts, HistogramVec, Registry};
use weir_dialect::{Api, Usage};
use weir_pipeline::verdict::End;

use crate::request::exchange::Exchange;
use crate::request::settle::Times;
use crate::snapshot::{ModelTarget, Snapshot};

/// What the conventions call an exchange of one API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    /// Chat Completions and Responses.
    OpenAiChat,
    /// Messages.
    AnthropicChat,
    /// Embeddings.
    Embeddings,
}

impl Operation {
    /// That of an API, unless it asks no model.
    pub(crate) fn of(api: Api) -> Option<Self> {
        match api {
            Api::ChatCompletions | Api::Responses => Some(Self::OpenAiChat),
            Api::Messages => Some(Self::AnthropicChat),
            Api::Embeddings => Some(Self::Embeddings),
            Api::Models | Api::Other => None,
        }
    }

    /// `gen_ai.operation.name`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OpenAiChat | Self::AnthropicChat => "chat",
            Self::Embeddings => "embeddings",
        }
    }

    /// `gen_ai.provider.name`: whose format it is, for who answers in it is not known here.
    pub(crate) fn provider(self) -> &'static str {
        match self {
            Self::OpenAiChat | Self::Embeddings => "openai",
            Self::AnthropicChat => "anthropic",
        }
    }
}

/// `error.type` of an exchange that did not end well: how it ended, else the status of the answer.
/// One of [`ERROR_TYPES`].
pub(crate) fn error_type(exchange: &Exchange) -> Option<&'static str> {
    match (exchange.progress.end, exchange.progress.status) {
        (End::Ok, ..400) => None,
        (End::Ok, status) => {
            let status = status.to_string();
            let known = ERROR_TYPES.into_iter().find(|known| *known == status);
            Some(known.unwrap_or(OTHER_ERROR))
        }
        (end, _) => Some(end.as_str()),
    }
}

/// The series. There are at most `telemetry.series_max` sets of them and one more per operation;
/// each kind of error that a set meets adds one histogram to it.
pub(crate) struct GenAi {
    duration: HistogramVec,
    first_token: HistogramVec,
    per_token: HistogramVec,
    tokens: HistogramVec,
    sets: RwLock<HashMap<Labels, Arc<Set>>>,
}

/// What a set of series is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Labels {
    operation: Operation,
    function: Arc<str>,
    model: Arc<str>,
    tenant: Arc<str>,
}

/// The series of one set of labels. Each is made when there is something to count in it.
struct Set {
    labels: Labels,
    /// Of exchanges that ended well.
    duration: OnceLock<Histogram>,
    /// Of the others, in the order of [`ERROR_TYPES`].
    failed: [OnceLock<Histogram>; ERROR_TYPES.len()],
    first_token: OnceLock<Histogram>,
    per_token: OnceLock<Histogram>,
    input_tokens: OnceLock<Histogram>,
    output_tokens: OnceLock<Histogram>,
}

/// The sets of one model by tenant, so that an exchange finds its own without a lock and by one
/// string only. Each configuration begins with none.
#[derive(Default)]
pub(crate) struct KnownSets {
    open_ai_chat: ByTenant,
    anthropic_chat: ByTenant,
    embeddings: ByTenant,
}

type ByTenant = ArcSwap<HashMap<Arc<str>, Arc<Set>>>;

impl KnownSets {
    fn of(&self, operation: Operation) -> &ByTenant {
        match operation {
            Operation::OpenAiChat => &self.open_ai_chat,
            Operation::AnthropicChat => &self.anthropic_chat,
            Operation::Embeddings => &self.embeddings,
        }
    }
}

impl GenAi {
    /// Registers the series.
    ///
    /// # Errors
    /// When a name is registered already: a fault of ours.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str, buckets: &[f64], more: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let family = HistogramVec::new(options, &[LABELS, more].concat())?;
            registry.register(Box::new(family.clone())).map(|()| family)
        };
        Ok(Self {
            duration: histogram(
                "gen_ai_server_request_duration_seconds",
                "From head read to last byte written.",
                DURATION_BUCKETS,
                &["error_type"],
            )?,
            first_token: histogram(
                "gen_ai_server_time_to_first_token_seconds",
                "From head read to the first event, of streams that ended well.",
                FIRST_TOKEN_BUCKETS,
                &[],
            )?,
            per_token: histogram(
                "gen_ai_server_time_per_output_token_seconds",
                "Time per output token after the first one, of streams that ended well.",
                PER_TOKEN_BUCKETS,
                &[],
            )?,
            tokens: histogram(
                "gen_ai_client_token_usage",
                "Tokens of an exchange as its upstream reported them.",
                TOKEN_BUCKETS,
                &["gen_ai_token_type"],
            )?,
            sets: RwLock::default(),
        })
    }

    /// An exchange has ended.
    pub(crate) fn ended(&self, exchange: &Exchange, usage: &Usage, times: &Times) {
        let (Some(call), Some(operation)) = (&exchange.call, Operation::of(exchange.api)) else {
            return;
        };
        let tenant = exchange.tenant();
        let known = call.target.series.of(operation);
        if let Some(set) = known.load().get(tenant) {
            return self.count(set, exchange, usage, times);
        }
        let max = exchange.snapshot.config.telemetry.series_max;
        let set = self.set(&call.target, operation, tenant, max);
        if *set.labels.tenant == *tenant {
            known.rcu(|known| {
                let mut known = HashMap::clone(known);
                known.insert(Arc::clone(&set.labels.tenant), Arc::clone(&set));
                known
            });
        }
        self.count(&set, exchange, usage, times);
    }

    fn count(&self, set: &Set, exchange: &Exchange, usage: &Usage, times: &Times) {
        let error = error_type(exchange);
        set.made(
            set.duration(error),
            &self.duration,
            Some(error.unwrap_or("")),
        )
        .observe(times.total.as_secs_f64());
        if usage.reported {
            #[allow(clippy::cast_precision_loss, reason = "no exchange has 2^52 tokens")]
            let [input, output] = [usage.input_tokens as f64, usage.output_tokens as f64];
            set.made(&set.input_tokens, &self.tokens, Some("input"))
                .observe(input);
            if set.labels.operation != Operation::Embeddings {
                set.made(&set.output_tokens, &self.tokens, Some("output"))
                    .observe(output);
            }
        }
        if error.is_some() || !exchange.wants_events() {
            return;
        }
        if let Some(first) = times.ttft {
            set.made(&set.first_token, &self.first_token, None)
                .observe(first.as_secs_f64());
        }
        if usage.reported && usage.output_tokens > 1 {
            set.made(&set.per_token, &self.per_token, None)
                .observe(times.per_token.as_secs_f64());
        }
    }

    /// The set of a tenant while there is room for it, else that of the tenant `other`, for which
    /// a quarter is kept, else that of everything.
    fn set(
        &self,
        target: &ModelTarget,
        operation: Operation,
        tenant: &str,
        max: usize,
    ) -> Arc<Set> {
        let labels = |function: &Arc<str>, model: &Arc<str>, tenant: &str| Labels {
            operation,
            function: Arc::clone(function),
            model: Arc::clone(model),
            tenant: Arc::from(tenant),
        };
        let other: Arc<str> = Arc::from(OTHER);
        let tenant = if tenant.len() > TENANT_BYTES_MAX {
            OTHER
        } else {
            tenant
        };
        let wanted = [
            (
                labels(&target.routing_key, &target.model, tenant),
                max - max / 4,
            ),
            (labels(&target.routing_key, &target.model, OTHER), max),
            (labels(&other, &other, OTHER), usize::MAX),
        ];
        let known = place(&self.sets.read(), &wanted).ok();
        known.unwrap_or_else(|| {
            let mut sets = self.sets.write();
            match place(&sets, &wanted) {
                Ok(set) => set,
                Err(labels) => {
                    let set = Arc::new(Set::new(labels.clone()));
                    sets.insert(labels.clone(), Arc::clone(&set));
                    set
                }
            }
        })
    }

    /// Ends the series of models that are no more, so that there is room for others.
    pub(crate) fn forget_unused(&self, live: &Snapshot) {
        self.sets.write().retain(|labels, set| {
            let function = weir_dialect::normal_routing_key(&labels.function);
            let keep = live.model(&function, &labels.model).is_some() || *labels.function == *OTHER;
            if !keep {
                set.end(self);
            }
            keep
        });
    }
}

/// The first of `wanted` that is known, unless there is room for a better one: then that one.
fn place<'a>(
    sets: &HashMap<Labels, Arc<Set>>,
    wanted: &'a [(Labels, usize); 3],
) -> Result<Arc<Set>, &'a Labels> {
    for (labels, room) in wanted {
        if let Some(set) = sets.get(labels) {
            return Ok(Arc::clone(set));
        }
        if sets.len() < *room {
            return Err(labels);
        }
    }
    let [.., (last, _)] = wanted;
    Err(last)
}

impl Set {
    fn new(labels: Labels) -> Self {
        Self {
            labels,
            duration: OnceLock::new(),
            failed: Default::default(),
            first_token: OnceLock::new(),
            per_token: OnceLock::new(),
            input_tokens: OnceLock::new(),
            output_tokens: OnceLock::new(),
        }
    }

    fn duration(&self, error: Option<&'static str>) -> &OnceLock<Histogram> {
        let mut failed = ERROR_TYPES.into_iter().zip(&self.failed);
        let of_error = error.and_then(|error| failed.find(|(known, _)| *known == error));
        of_error.map_or(&self.duration, |(_, cell)| cell)
    }

    /// The series in `cell`, made of this set's labels and the one more that the family has.
    fn made<'a>(
        &self,
        cell: &'a OnceLock<Histogram>,
        family: &HistogramVec,
        more: Option<&str>,
    ) -> &'a Histogram {
        cell.get_or_init(|| family.with_label_values(&self.values(more)))
    }

    /// Takes its series out of their families.
    fn end(&self, all: &GenAi) {
        // Those that were never made are not there to be removed.
        let end = |family: &HistogramVec, more| _ = family.remove_label_values(&self.values(more));
        end(&all.first_token, None);
        end(&all.per_token, None);
        end(&all.tokens, Some("input"));
        end(&all.tokens, Some("output"));
        end(&all.duration, Some(""));
        for error in ERROR_TYPES {
            end(&all.duration, Some(error));
        }
    }

    /// In the order of [`LABELS`].
    fn values<'a>(&'a self, more: Option<&'a str>) -> Vec<&'a str> {
        let labels = &self.labels;
        let mut values = vec![
            labels.operation.name(),
            labels.operation.provider(),
            &labels.model,
            &labels.function,
            &labels.tenant,
        ];
        values.extend(more);
        values
    }
}

/// The name and the unit by which OpenTelemetry knows a family.
pub(super) fn open_telemetry_name(family: &str) -> (&str, &'static str) {
    let known = INSTRUMENTS.iter().find(|(name, ..)| *name == family);
    known.map_or((family, ""), |(_, name, unit)| (name, unit))
}

/// The name by which OpenTelemetry knows a label.
pub(super) fn open_telemetry_label(label: &str) -> &str {
    let known = ATTRIBUTES.iter().find(|(name, _)| *name == label);
    known.map_or(label, |(_, name)| name)
}

/// The labels of all series, in Prometheus' form of OpenTelemetry's names.
const LABELS: &[&str] = &[
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "weir_function",
    "weir_tenant",
];
const INSTRUMENTS: [(&str, &str, &str); 4] = [
    (
        "gen_ai_server_request_duration_seconds",
        "gen_ai.server.request.duration",
        "s",
    ),
    (
        "gen_ai_server_time_to_first_token_seconds",
        "gen_ai.server.time_to_first_token",
        "s",
    ),
    (
        "gen_ai_server_time_per_output_token_seconds",
        "gen_ai.server.time_per_output_token",
        "s",
    ),
    (
        "gen_ai_client_token_usage",
        "gen_ai.client.token.usage",
        "{token}",
    ),
];
const ATTRIBUTES: [(&str, &str); 7] = [
    ("gen_ai_operation_name", "gen_ai.operation.name"),
    ("gen_ai_provider_name", "gen_ai.provider.name"),
    ("gen_ai_request_model", "gen_ai.request.model"),
    ("gen_ai_token_type", "gen_ai.token.type"),
    ("weir_function", "weir.function"),
    ("weir_tenant", "weir.tenant"),
    ("error_type", "error.type"),
];
/// The tenant, and the model, of those for which there is no room.
const OTHER: &str = "other";
/// Longer names of tenants count as [`OTHER`].
const TENANT_BYTES_MAX: usize = 128;

/// All values of `error_type`: the words of [`End`], statuses, and [`OTHER_ERROR`].
const ERROR_TYPES: [&str; 21] = [
    "client_gone",
    "upstream_error",
    "timeout",
    "denied",
    "limited",
    "filter_failed",
    "400",
    "401",
    "403",
    "404",
    "408",
    "409",
    "413",
    "422",
    "429",
    "500",
    "502",
    "503",
    "504",
    "529",
    OTHER_ERROR,
];
/// What the conventions call an error that has no word of its own.
const OTHER_ERROR: &str = "_OTHER";

// Buckets as the conventions recommend them.
const DURATION_BUCKETS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];
const FIRST_TOKEN_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
const PER_TOKEN_BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
];
const TOKEN_BUCKETS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_word() {
        for end in [
            End::ClientGone,
            End::UpstreamError,
            End::Timeout,
            End::Denied,
            End::Limited,
            End::FilterFailed,
        ] {
            assert!(ERROR_TYPES.contains(&end.as_str()), "{end:?}");
        }
    }

    #[test]
    fn sets_have_a_bound() {
        let labels = |model: &str, tenant: &str| Labels {
            operation: Operation::OpenAiChat,
            function: "f".into(),
            model: model.into(),
            tenant: tenant.into(),
        };
        let max = 8;
        let mut sets = HashMap::new();
        for tenant in 0..100 {
            for model in ["a", "b", "c", "d", "e"] {
                let wanted = [
                    (labels(model, &tenant.to_string()), max - max / 4),
                    (labels(model, OTHER), max),
                    (labels(OTHER, OTHER), usize::MAX),
                ];
                if let Err(new) = place(&sets, &wanted) {
                    sets.insert(new.clone(), Arc::new(Set::new(new.clone())));
                }
            }
        }
        let of_other = |model| sets.contains_key(&labels(model, OTHER));
        assert_eq!(sets.len(), max + 1);
        assert!(
            of_other("b") && of_other("c"),
            "two sets were kept for others"
        );
        assert!(of_other(OTHER), "and one for everything else");
    }
}
