//! The filter's table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_sdk::ConfigError;
use weir_sdk::candidates::{Figure, Weighting};
use weir_sdk::lifecycle::config_error;

use crate::config_errors;
use crate::method::Method;

/// `[filters.NAME.config]` of the filter `routing-method`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Method of models that name none.
    pub default: String,
    /// Keep a conversation on its backend while that is a candidate, under methods that do not
    /// look at affinity keys themselves.
    pub sticky: bool,
    /// Part of what is hashed: another seed is another order.
    pub seed: String,
    /// Refuse requests without an affinity key.
    pub require_cache_affinity_key: bool,
    /// Refuse requests without an estimate of their input.
    pub require_input_tokens: bool,
    /// Refuse when the queued input and the request's would take longer at the rates of all
    /// candidates together; 0 = never.
    pub max_input_work_seconds: f64,
    /// Prefer where the session was served last, where the gateway remembers.
    pub last_cluster_affinity: bool,
    /// Whether requests may choose their method in `x-routing-method`.
    pub expressions: Expressions,
    /// Scope of callers who may.
    pub expression_scope: String,
    /// Methods they may choose; empty = all.
    pub request_algorithms: Vec<String>,
    /// Of the method `power_of_two`.
    pub power_of_two: PowerOfTwo,
    /// Of the method `groq_multiregion`.
    pub groq_multiregion: WaitAndWiden,
    /// Of the method `pulsar`.
    pub pulsar: Pulsar,
    /// Of the method `pulsar_multiregion`.
    pub pulsar_multiregion: PulsarWaitAndWiden,
    /// What is different for `FUNCTION/MODEL` or `FUNCTION/*`: a method's name, or a table like
    /// this one.
    pub models: BTreeMap<String, Value>,
}

/// Who may write `x-routing-method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expressions {
    /// Nobody: the header is not looked at.
    Never,
    /// Internal traffic and callers with the scope.
    Trusted,
}

/// How `power_of_two` compares.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowerOfTwo {
    /// What is compared.
    #[serde(alias = "comparator")]
    pub figure: Compared,
    /// How many are compared.
    #[serde(alias = "sample_count")]
    pub choices: u32,
}

/// What `power_of_two` compares; the better one is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// Requests being served, by weight: fewer is better.
    Running,
    /// Requests waiting, by weight: fewer is better.
    Queued,
    /// Input tokens waiting, by weight: fewer is better.
    QueuedInputTokens,
    /// Free tokens of the key-value cache: more is better.
    KvFreeTokens,
    /// Recent time to the first token: less is better.
    EwmaTtftUs,
    /// Estimated wait: less is better.
    EstWaitUs,
    /// Predicted time to the first token of this request: less is better.
    Ttft,
    /// Its part in the queue: less is better.
    #[serde(alias = "queue-time")]
    QueueTime,
    /// Queued input and the request's over the input rate: less is better.
    #[serde(alias = "input-work-seconds")]
    InputWorkSeconds,
    /// Running over slots: less is better.
    Utilization,
    /// Requests without a first token: fewer is better.
    #[serde(alias = "num-requests-queued")]
    NumRequestsQueued,
}

/// How `groq_multiregion` widens.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WaitAndWiden {
    /// How many of those that are open are compared.
    pub sample_count: u32,
    /// What is compared.
    pub comparator: Compared,
    /// Candidates within this of a bucket's first are in it.
    pub ttft_bucket_size_ms: f64,
    /// Waiting that opens the next bucket, by how much later that would answer.
    pub next_bucket_unlock_factor: f64,
    /// Requests a candidate may have beyond its slots.
    pub max_queued: u32,
    /// Longest queue at the request's arrival; both or none.
    pub max_queue_time_floor_ms: Option<f64>,
    /// Longest queue when the time of `slo_ms` is over.
    pub max_queue_time_ceil_ms: Option<f64>,
    /// In which a first token is wanted; 0 = none.
    pub slo_ms: u32,
    /// Longest wait for a slot.
    pub max_wait_ms: u32,
    /// Size of the group of a conversation; 0 = none.
    pub cache_affinity_backend_selection_count: u32,
    /// Virtual nodes of a candidate on the ring.
    pub cache_affinity_virtual_nodes: u32,
    /// For how long only the group is tried.
    pub cache_affinity_wait_ms: u32,
    /// Share of the input that the group has to work through.
    pub cache_affinity_input_tokens_scale: f64,
    /// How much later than the best of all the group may answer; 0 = no matter.
    pub cache_affinity_ttft_penalty_ms: f64,
}

/// How `pulsar` ranks, and when it goes on to the next.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pulsar {
    /// What the shares of keys follow.
    #[serde(alias = "rendezvous_weight")]
    pub weight: Weight,
    /// How much more than its share a candidate may have in progress; 0 = no bound.
    pub c: f64,
    /// Slots of candidates that report none.
    pub assumed_slots: u32,
    /// How much later than the best a candidate may answer; 0 = no matter.
    pub ttft_penalty_ms: f64,
    /// The same for a conversation that nobody has served yet: it leaves no cache behind. None: as
    /// for all.
    pub new_session_ttft_penalty_ms: Option<f64>,
    /// Only candidates with room in the KV cache for the request's input.
    pub consider_kv_free_tokens: bool,
    /// As NVCF has it: no bound, no memory, those without a weight left out, requests without a
    /// key together.
    pub compat: bool,
}

/// How `pulsar_multiregion` widens.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PulsarWaitAndWiden {
    /// What the shares of keys follow.
    #[serde(alias = "rendezvous_weight")]
    pub weight: Weight,
    /// How many of those that are open are compared.
    pub sample_count: u32,
    /// As in `groq_multiregion`.
    pub ttft_bucket_size_ms: f64,
    /// As in `groq_multiregion`.
    pub next_bucket_unlock_factor: f64,
    /// Requests a candidate of the group may have beyond its slots.
    pub max_queued: u32,
    /// The same for the others.
    pub fallback_max_queued: u32,
    /// Longest wait for a slot.
    pub max_wait_ms: u32,
    /// How many of the ranking are the group.
    pub cache_affinity_backend_selection_count: u32,
    /// For how long only the group is tried.
    pub cache_affinity_wait_ms: u32,
    /// Share of the input that the group has to work through.
    pub cache_affinity_input_tokens_scale: f64,
    /// After which the next band opens; 0 = all at once, none = as long as the group's time.
    pub band_widen_interval_ms: Option<u32>,
}

/// What a candidate's weight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// The configured one.
    Configured,
    /// The reported mean input rate.
    #[serde(alias = "last-mean-input-tps", alias = "last_mean_input_tps")]
    InputTps,
    /// The greatest reported input rate.
    #[serde(alias = "max-input-tps")]
    MaxInputTps,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default: "round_robin".to_owned(),
            sticky: true,
            seed: String::new(),
            require_cache_affinity_key: false,
            require_input_tokens: false,
            max_input_work_seconds: 0.0,
            last_cluster_affinity: true,
            expressions: Expressions::Never,
            expression_scope: "routing".to_owned(),
            request_algorithms: Vec::new(),
            power_of_two: PowerOfTwo::default(),
            groq_multiregion: WaitAndWiden::default(),
            pulsar: Pulsar::default(),
            pulsar_multiregion: PulsarWaitAndWiden::default(),
            models: BTreeMap::new(),
        }
    }
}

impl Default for PowerOfTwo {
    fn default() -> Self {
        Self {
            figure: Compared::Running,
            choices: 2,
        }
    }
}

impl Default for WaitAndWiden {
    fn default() -> Self {
        Self {
            sample_count: 2,
            comparator: Compared::Ttft,
            ttft_bucket_size_ms: 20.0,
            next_bucket_unlock_factor: 0.25,
            max_queued: 0,
            max_queue_time_floor_ms: None,
            max_queue_time_ceil_ms: None,
            slo_ms: 0,
            max_wait_ms: WAIT_MS_MAX,
            cache_affinity_backend_selection_count: 0,
            cache_affinity_virtual_nodes: 150,
            cache_affinity_wait_ms: 0,
            cache_affinity_input_tokens_scale: 1.0,
            cache_affinity_ttft_penalty_ms: 0.0,
        }
    }
}

impl Default for Pulsar {
    fn default() -> Self {
        Self {
            weight: Weight::MaxInputTps,
            c: 1.25,
            assumed_slots: 8,
            ttft_penalty_ms: 0.0,
            new_session_ttft_penalty_ms: None,
            consider_kv_free_tokens: false,
            compat: false,
        }
    }
}

impl Default for PulsarWaitAndWiden {
    fn default() -> Self {
        let like = WaitAndWiden::default();
        Self {
            weight: Weight::MaxInputTps,
            sample_count: like.sample_count,
            ttft_bucket_size_ms: like.ttft_bucket_size_ms,
            next_bucket_unlock_factor: like.next_bucket_unlock_factor,
            max_queued: 0,
            fallback_max_queued: 0,
            max_wait_ms: like.max_wait_ms,
            cache_affinity_backend_selection_count: 1,
            cache_affinity_wait_ms: 0,
            cache_affinity_input_tokens_scale: 1.0,
            band_widen_interval_ms: None,
        }
    }
}

impl Config {
    pub(crate) fn errors(&self) -> Vec<ConfigError> {
        let mut errors = config_errors::of(self);
        for name in &self.request_algorithms {
            if Method::parse(name).is_none() {
                let message = unknown(name);
                errors.push(config_error("/request_algorithms", message));
            }
        }
        for (name, changes) in &self.models {
            let pointer = format!("/models/{}", name.replace('~', "~0").replace('/', "~1"));
            match self.changed(changes) {
                Ok(merged) => {
                    let below = config_errors::of(&merged).into_iter();
                    errors.extend(below.map(|error| {
                        config_error(format!("{pointer}{}", error.pointer), error.message)
                    }));
                }
                Err(message) => errors.push(config_error(pointer, message)),
            }
        }
        errors
    }

    /// This table with another laid over it, or with another method.
    pub(crate) fn changed(&self, changes: &Value) -> Result<Self, String> {
        let mut base = Self {
            models: BTreeMap::new(),
            ..self.clone()
        };
        if let Value::String(method) = changes {
            base.default.clone_from(method);
            return Ok(base);
        }
        let of_all = ["models", "expressions", "expression_scope"];
        if let Some(key) = of_all.iter().find(|key| changes.get(**key).is_some()) {
            return Err(format!(
                "`{key}` is for all models: write it in the filter's table"
            ));
        }
        let mut merged = serde_json::to_value(&base).map_err(|error| error.to_string())?;
        lay_over(&mut merged, changes);
        serde_json::from_value(merged).map_err(|error| error.to_string())
    }

    /// What is different for a model.
    pub(crate) fn for_model(&self, function: &str, model: &str) -> Option<&Value> {
        let exact = self.models.get(&format!("{function}/{model}"));
        exact.or_else(|| self.models.get(&format!("{function}/*")))
    }
}

pub(crate) fn unknown(method: &str) -> String {
    format!("`{method}` is not a routing method; use {}", Method::NAMES)
}

fn lay_over(base: &mut Value, changes: &Value) {
    match (base, changes) {
        (Value::Object(base), Value::Object(changes)) => {
            for (key, change) in changes {
                lay_over(base.entry(key).or_insert(Value::Null), change);
            }
        }
        (base, change) => base.clone_from(change),
    }
}

impl Compared {
    pub(crate) fn figure(self) -> Figure {
        match self {
            Self::Running => Figure::Running,
            Self::Queued | Self::NumRequestsQueued => Figure::Queued,
            Self::QueuedInputTokens => Figure::QueuedInputTokens,
            Self::KvFreeTokens => Figure::KvFreeTokens,
            Self::EwmaTtftUs => Figure::EwmaTtftUs,
            Self::EstWaitUs => Figure::EstWaitUs,
            Self::Ttft => Figure::TtftUs,
            Self::QueueTime => Figure::QueueUs,
            Self::InputWorkSeconds => Figure::InputWorkUs,
            Self::Utilization => Figure::Utilization,
        }
    }

    /// What is made of one candidate's figure; less is better. Amounts of work are per weight,
    /// with one more for the request itself: an idle heavy backend beats an idle light one.
    pub(crate) fn cost(self, figure: f64, weight: u64) -> f64 {
        match self {
            Self::Running | Self::Queued | Self::QueuedInputTokens => {
                #[allow(clippy::cast_precision_loss, reason = "weights have 32 bits")]
                let weight = weight as f64;
                (figure + 1.0) / weight
            }
            Self::KvFreeTokens => -figure,
            _ => figure,
        }
    }
}

impl Weight {
    pub(crate) fn weighting(self) -> Weighting {
        match self {
            Self::Configured => Weighting::Configured,
            Self::InputTps => Weighting::InputTps,
            Self::MaxInputTps => Weighting::MaxInputTps,
        }
    }

    /// The figure it is; none: it is in the candidates' static facts.
    pub(crate) fn figure(self) -> Option<Figure> {
        match self {
            Self::Configured => None,
            Self::InputTps => Some(Figure::InputTps),
            Self::MaxInputTps => Some(Figure::MaxInputTps),
        }
    }
}

/// The gateway waits no longer.
const WAIT_MS_MAX: u32 = 60_000;
