//! The builder of a scripted exchange.

use super::world::{self, FakeLimiter, World};
use crate::candidates::{Backend, Figure, Load, Session};
use crate::host::Level;
use crate::http_client::{Request, Response};
use crate::lifecycle::{self, ConfigError, Filter};
use crate::state::{HeaderForms, Unit};
use crate::types::{
    Endpoint, Failure, InternId, NO_PRIORITY, Principal, RequestView, SessionKey, SessionSource,
    Traits, Transport,
};

/// One scripted exchange, and the host around it.
///
/// The builder methods take and return it; `set_*` and [`Exchange::advance_ms`] change it
/// between runs.
#[derive(Default)]
pub struct Exchange {
    world: World,
    max_output_tokens: u32,
    traits: Option<Traits>,
    attempt: u16,
    endpoint: Option<Endpoint>,
}

impl Exchange {
    /// A chat completion without a header, key or candidate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The model string `function/model`.
    #[must_use]
    pub fn model(mut self, function: &str, model: &str) -> Self {
        function.clone_into(&mut self.world.function);
        model.clone_into(&mut self.world.model);
        self
    }

    /// What the caller speaks.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// How the request came in, its method and its path.
    #[must_use]
    pub fn head(mut self, transport: Transport, method: &str, path: &str) -> Self {
        self.world.meta.transport = transport;
        method.clone_into(&mut self.world.method);
        path.clone_into(&mut self.world.path);
        self
    }

    /// Adds a request header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.world
            .headers
            .push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Replaces a request header between runs.
    pub fn set_header(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        let name = name.to_ascii_lowercase();
        self.world.headers.retain(|(known, _)| *known != name);
        self.world.headers.push((name, value.into()));
    }

    /// The request body; JSON text for `exchange::json`.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.world.body = body.into();
        self
    }

    /// Adds a session key candidate; call strongest first.
    #[must_use]
    pub fn session_key(mut self, source: SessionSource, value: &str) -> Self {
        let hash = world::hash53(value.as_bytes(), 0);
        self.world.session_keys.push(SessionKey {
            source,
            value: value.to_owned(),
            hash,
        });
        self
    }

    /// An attribute of the model or of an earlier filter.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: &str) -> Self {
        self.set_attribute(name, value);
        self
    }

    /// Changes an attribute between runs.
    pub fn set_attribute(&mut self, name: &str, value: &str) {
        self.world
            .attributes
            .insert(name.to_owned(), value.to_owned());
    }

    /// Who was let in.
    #[must_use]
    pub fn principal(mut self, principal: Principal) -> Self {
        self.set_principal(principal);
        self
    }

    /// Changes who was let in between runs.
    pub fn set_principal(&mut self, principal: Principal) {
        self.world.principal = Some(principal);
    }

    /// Adds a key to a key table.
    #[must_use]
    pub fn key(mut self, table: &str, key: &str, principal: Principal) -> Self {
        self.world
            .keys
            .push((table.to_owned(), key.as_bytes().to_vec(), principal));
        self
    }

    /// Adds a key set: the JSON text that its file would have.
    #[must_use]
    pub fn key_set(mut self, name: &str, json: &str) -> Self {
        self.set_key_set(name, json);
        self
    }

    /// Changes a key set between runs.
    pub fn set_key_set(&mut self, name: &str, json: &str) {
        self.world.key_sets.insert(name.to_owned(), json.to_owned());
    }

    /// A cluster without TLS; the others have it.
    #[must_use]
    pub fn plaintext(mut self, cluster: &str) -> Self {
        self.world.plaintext.push(cluster.to_owned());
        self
    }

    /// The host's estimate of input tokens, and the output tokens the caller allows (0 = not
    /// given).
    #[must_use]
    pub fn tokens(mut self, est_input: u32, max_output: u32) -> Self {
        self.world.est_input_tokens = est_input;
        self.max_output_tokens = max_output;
        self
    }

    /// The candidates, see [`backend`] and [`load`].
    #[must_use]
    pub fn candidates(mut self, candidates: impl IntoIterator<Item = (Backend, Load)>) -> Self {
        (self.world.backends, self.world.loads) = candidates.into_iter().unzip();
        self.world.set = None;
        self
    }

    /// What is known of the request beside its scalars.
    #[must_use]
    pub fn traits(mut self, traits: Traits) -> Self {
        self.traits = Some(traits);
        self
    }

    /// Sets one live figure of one candidate, also between runs; the others that follow from it
    /// follow.
    pub fn set_figure(&mut self, index: u32, figure: Figure, value: f64) {
        let same = |(at, which, _): &(u32, Figure, f64)| *at == index && *which == figure;
        self.world.figures.retain(|known| !same(known));
        self.world.figures.push((index, figure, value));
        if matches!(figure, Figure::InputTps | Figure::MaxInputTps) {
            self.world.set = None;
        }
    }

    /// The affinity key that a filter derived, for `candidates::affinity_key`; its hash is an
    /// argument of [`Exchange::routing`].
    pub fn set_affinity_key(&mut self, key: Option<&str>) {
        self.world.affinity_key = key.map(str::to_owned);
    }

    /// Who served the conversation last.
    pub fn set_session(&mut self, session: Session) {
        self.world.session = session;
    }

    /// Changes the live figures of one candidate between runs.
    pub fn set_load(&mut self, index: usize, load: Load) {
        if let Some(slot) = self.world.loads.get_mut(index) {
            *slot = load;
            self.world.set = None;
        }
    }

    /// Positions tried already; the view's `attempt` becomes their number.
    #[must_use]
    pub fn excluded(mut self, positions: &[u32]) -> Self {
        self.world.excluded = positions.to_vec();
        self.attempt = u16::try_from(positions.len()).unwrap_or(u16::MAX);
        self
    }

    /// The next random numbers; after them a fixed sequence follows.
    #[must_use]
    pub fn random(mut self, numbers: impl IntoIterator<Item = u64>) -> Self {
        self.world.random.extend(numbers);
        self
    }

    /// The upstream's answer, for response phases.
    #[must_use]
    pub fn response(mut self, status: u16, headers: &[(&str, &str)]) -> Self {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec()))
            .collect();
        self.world.response = Some((status, headers));
        self
    }

    /// Queues the answer of the next `http_client::send`. When none is left, sending answers
    /// [`Failure::Unavailable`].
    #[must_use]
    pub fn answer(mut self, answer: Result<Response, Failure>) -> Self {
        self.push_answer(answer);
        self
    }

    /// Queues an answer between runs.
    pub fn push_answer(&mut self, answer: Result<Response, Failure>) {
        self.world.answers.push_back(answer);
    }

    /// Makes every call of `state` fail, as when a store is down; `None` mends it.
    pub fn set_state_failure(&mut self, failure: Option<Failure>) {
        self.world.state_failure = failure;
    }

    /// The least severe level that is logged; everything by default.
    #[must_use]
    pub fn log_level(mut self, level: Level) -> Self {
        self.world.log_level = level;
        self
    }

    /// Moves the fake clock.
    pub fn advance_ms(&mut self, ms: u64) {
        self.world.now_ms += ms;
    }

    /// The view that phase methods take.
    #[must_use]
    pub fn view(&self) -> RequestView {
        RequestView {
            endpoint: self.endpoint.unwrap_or(Endpoint::ChatCompletions),
            traits: self.traits.unwrap_or(Traits::empty()),
            routing_key: world::intern(&self.world.function),
            model: world::intern(&self.world.model),
            principal: self
                .world
                .principal
                .as_ref()
                .map_or(0, |who| world::intern(&who.subject)),
            session_hash: self.world.session_keys.first().map_or(0, |key| key.hash),
            est_input_tokens: self.world.est_input_tokens,
            max_output_tokens: self.max_output_tokens,
            body_bytes: u32::try_from(self.world.body.len()).unwrap_or(u32::MAX),
            attempt: self.attempt,
            priority: self
                .world
                .principal
                .as_ref()
                .and_then(|who| who.priority)
                .unwrap_or(NO_PRIORITY),
            deadline_ms: 0,
            settings: self.settings(),
        }
    }

    /// As on a host: none without an attribute of the model, else by their texts.
    fn settings(&self) -> InternId {
        let settings =
            MODEL_ATTRIBUTES.map(|name| self.world.attributes.get(name).map(String::as_str));
        if settings == [None; MODEL_ATTRIBUTES.len()] {
            return 0;
        }
        world::intern(&format!("{settings:?}"))
    }

    /// The routing argument of the route phase.
    #[must_use]
    pub fn routing(&self, affinity_hash: u64) -> crate::Routing {
        let facts = self
            .world
            .backends
            .iter()
            .fold(Vec::new(), |mut facts, backend| {
                facts.extend_from_slice(&backend.id.to_le_bytes());
                facts.extend_from_slice(&backend.weight.to_le_bytes());
                facts
            });
        crate::Routing {
            generation: world::hash53(&facts, 1),
            candidates: u32::try_from(self.world.backends.len()).unwrap_or(u32::MAX),
            affinity_hash,
        }
    }

    /// Runs `phase` with this exchange as the current one.
    pub fn run<R>(&mut self, phase: impl FnOnce() -> R) -> R {
        let outer = world::swap(std::mem::take(&mut self.world));
        let result = phase();
        self.world = world::swap(outer);
        result
    }

    /// Lines logged so far.
    #[must_use]
    pub fn logs(&self) -> &[(Level, String)] {
        &self.world.logs
    }

    /// The filter's scratch.
    #[must_use]
    pub fn scratch(&self) -> &[u8] {
        &self.world.scratch
    }

    /// Requests sent by `http_client::send`, with their clusters.
    #[must_use]
    pub fn sent(&self) -> &[(String, Request)] {
        &self.world.sent
    }

    /// How callers are told of the limiter of a name; none: they are not.
    #[must_use]
    pub fn announced(&self, limiter: &str) -> Option<(Unit, HeaderForms)> {
        let named = |known: &&FakeLimiter| known.name == limiter && known.told.is_some();
        self.world.limiters.iter().find(named)?.told
    }

    /// Sum of what a metric's series observed, by `NAME` or `NAME{VALUE,VALUE}`.
    #[must_use]
    pub fn metric(&self, series: &str) -> Option<f64> {
        self.world
            .series
            .iter()
            .find(|(name, _)| name == series)
            .map(|(_, value)| *value)
    }
}

/// A filter from its configuration as JSON, checked as the host does it.
///
/// # Errors
/// The configuration's errors; an error of [`Filter::new`] has an empty pointer.
pub fn filter<F: Filter>(config: &str) -> Result<F, Vec<ConfigError>> {
    let config = lifecycle::parse::<F>(config)?;
    F::new(config).map_err(|message| vec![lifecycle::config_error("", message)])
}

/// A candidate's static facts, with room for everything.
#[must_use]
pub fn backend(id: &str, weight: u32) -> Backend {
    Backend {
        id: world::intern(id),
        cluster: world::intern("test-cluster"),
        region: 0,
        weight,
        max_concurrency: 0,
        kv_capacity_tokens: 0,
    }
}

/// A candidate's live figures: this many running, nothing else.
#[must_use]
pub fn load(running: u32) -> Load {
    Load {
        running,
        queued: 0,
        queued_input_tokens: 0,
        kv_free_tokens: 0,
        input_tps: 0.0,
        output_tps: 0.0,
        ewma_ttft_us: 0,
        error_permille: 0,
        age_ms: 0,
    }
}

/// What the configuration may say of a model.
const MODEL_ATTRIBUTES: [&str; 5] = [
    "weir.routing-method",
    "weir.token-rate-limit",
    "weir.input-token-rate-limit",
    "weir.output-token-rate-limit",
    "weir.request-rate-limit",
];
