//! The requests a model server answers: routing by path, then one path from ask to answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::answer::Answer;
use crate::ask::{Api, Ask};
use crate::controls::Controls;
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::hardware::Hardware;
use crate::plan::Plan;
use crate::prefill::Prefill;
use crate::prefix_cache::PrefixCache;
use crate::script::{PromptUsage, Reply};
use crate::settings::Settings;
use crate::speed::Speed;
use crate::stats::Stats;
use crate::stats_stream::StatsStream;
use crate::{chat, echo, embeddings, messages, metrics, responses, websocket};

/// State shared by all connections of one server.
pub(crate) struct Engine {
    pub(crate) settings: Settings,
    pub(crate) hardware: Hardware,
    /// The machine's name as a header; `None` for none.
    server: Option<HeaderValue>,
    requests: AtomicU64,
    pub(crate) stats: Stats,
    pub(crate) stats_stream: StatsStream,
    pub(crate) speed: Speed,
    /// `None` for no limit.
    pub(crate) slots: Option<Arc<Semaphore>>,
    /// `None` for no limit and no cache.
    pub(crate) cache: Option<Mutex<PrefixCache>>,
    /// `None` when prompts do not share a rate.
    pub(crate) prefill: Option<Prefill>,
}

impl Engine {
    pub(crate) fn new(settings: Settings, hardware: Hardware) -> Self {
        let slots = settings.slots as usize;
        let rate = hardware.prefill_tokens_per_second;
        Self {
            server: HeaderValue::from_str(&hardware.name)
                .ok()
                .filter(|name| !name.is_empty()),
            requests: AtomicU64::new(0),
            stats: Stats::default(),
            stats_stream: StatsStream::default(),
            speed: Speed::new(hardware.time_scale),
            slots: (slots > 0).then(|| Arc::new(Semaphore::new(slots))),
            cache: (settings.kv_tokens > 0)
                .then(|| Mutex::new(PrefixCache::new(settings.kv_tokens))),
            prefill: (rate > 0.0).then(|| Prefill::new(rate)),
            settings,
            hardware,
        }
    }

    pub(crate) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        upgrade: &websocket::Pending,
    ) -> Response<Answer> {
        let mut response = match self.observe(request).await {
            Ok(response) => response,
            Err(request) => self.serve(request, upgrade).await,
        };
        if let Some(name) = &self.server {
            response.headers_mut().insert(X_SIM_SERVER, name.clone());
        }
        response
    }

    /// What those ask who watch or steer the simulation; never counted. Gives back all else.
    async fn observe(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Request<Incoming>> {
        let path = request.uri().path();
        let get = request.method() == Method::GET;
        match path {
            "/sim/stats" if get => Ok(json(StatusCode::OK, self.stats.json())),
            "/sim/slowdown" if request.method() == Method::POST => {
                Ok(self.slow_down(request.into_body()).await)
            }
            "/metrics" if get => {
                let text = Answer::Whole(metrics::text(self).into());
                Ok(respond(StatusCode::OK, METRICS_TEXT, text))
            }
            _ if get && path == self.hardware.stats_stream_path => {
                Ok(match self.stats_stream.subscribe() {
                    Some(lines) => respond(StatusCode::OK, NDJSON, Answer::Lines(Box::new(lines))),
                    None => json(StatusCode::SERVICE_UNAVAILABLE, "{}"),
                })
            }
            _ => Err(request),
        }
    }

    async fn slow_down(&self, body: Incoming) -> Response<Answer> {
        let body = Limited::new(body, CONTROL_BYTES_MAX).collect().await;
        let taken = match body {
            Ok(body) => self.speed.slow_down(&body.to_bytes()),
            Err(error) => Err(error.to_string()),
        };
        match taken {
            Ok(()) => json(StatusCode::OK, "{}"),
            Err(message) => refuse(Api::ChatCompletions, &Fault::invalid(message)),
        }
    }

    async fn serve(
        self: &Arc<Self>,
        request: Request<Incoming>,
        upgrade: &websocket::Pending,
    ) -> Response<Answer> {
        let path = request.uri().path();
        let post = match path {
            "/v1/chat/completions" => Some(Api::ChatCompletions),
            "/v1/responses" => Some(Api::Responses),
            "/v1/embeddings" => Some(Api::Embeddings),
            "/v1/messages" => Some(Api::Messages),
            _ => None,
        };
        let get = request.method() == Method::GET;
        self.stats.count(path);
        match (path, post) {
            (_, Some(api)) if request.method() == Method::POST => self.infer(api, request).await,
            ("/health", _) if get => json(StatusCode::OK, r#"{"status":"ok"}"#),
            ("/v1/models", _) if get => {
                self.stats.remember(request.into_parts().0, Bytes::new());
                json(StatusCode::OK, self.models())
            }
            ("/ws", _) => websocket::accept(request, upgrade),
            ("/v1/models" | "/health" | "/sim/stats", _) | (_, Some(_)) => {
                let message = format!("Method not allowed: {} {path}", request.method());
                refuse(
                    Api::ChatCompletions,
                    &Fault::new(StatusCode::METHOD_NOT_ALLOWED, message),
                )
            }
            _ if path == "/echo" || path.starts_with("/echo/") => self.echo(request).await,
            _ => {
                let message = format!("Invalid URL ({} {path})", request.method());
                refuse(
                    Api::ChatCompletions,
                    &Fault::new(StatusCode::NOT_FOUND, message),
                )
            }
        }
    }

    async fn echo(self: &Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        let mut exchange = Exchange::begin(self);
        let (parts, body) = request.into_parts();
        let Ok(bytes) = echo::drain(body).await else {
            return json(StatusCode::BAD_REQUEST, "{}");
        };
        let answer = echo::describe(&parts, bytes);
        self.stats.remember(parts, Bytes::new());
        exchange.finish();
        json(StatusCode::OK, answer)
    }

    async fn infer(self: &Arc<Self>, api: Api, request: Request<Incoming>) -> Response<Answer> {
        let mut exchange = Exchange::begin(self);
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                exchange.finish();
                return refuse(
                    api,
                    &Fault::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "The request body is too large.",
                    ),
                );
            }
            // The caller left while sending; nobody reads this.
            Err(_) => return refuse(api, &Fault::invalid("The request body is incomplete.")),
        };
        let planned = self.plan(api, &parts, &body);
        let id = parts.headers.get("x-request-id").cloned();
        self.stats.remember(parts, body);
        match planned {
            Ok((ask, plan)) => {
                let id = id.as_ref().and_then(|id| id.to_str().ok());
                let id = id.map_or_else(|| format!("sim-{:016x}", plan.roll), str::to_owned);
                exchange.identify(id, &ask);
                self.perform(api, ask, plan, exchange).await
            }
            Err(fault) => {
                exchange.finish();
                refuse(api, &fault)
            }
        }
    }

    fn plan(&self, api: Api, parts: &Parts, body: &[u8]) -> Result<(Ask, Plan), Fault> {
        let roll = self.roll(&parts.headers);
        let ask = Ask::parse(api, body)?;
        let controls = Controls::read(&parts.headers, &ask.metadata)?;
        let plan = Plan::new(&self.settings, roll, &ask, &controls);
        Ok((ask, plan))
    }

    /// The one number all randomness of a request comes from.
    fn roll(&self, headers: &HeaderMap) -> u64 {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        match headers.get("x-request-id") {
            Some(id) => xxh3_64_with_seed(id.as_bytes(), self.settings.seed),
            None => xxh3_64_with_seed(&number.to_le_bytes(), self.settings.seed),
        }
    }

    async fn perform(
        &self,
        api: Api,
        ask: Ask,
        mut plan: Plan,
        mut exchange: Exchange,
    ) -> Response<Answer> {
        exchange.queue().await;
        if let Some(status) = plan.error {
            exchange.finish();
            return refuse(
                api,
                &Fault::new(
                    status,
                    "The server had an error while processing your request.",
                ),
            );
        }
        let Some(mut wait) = exchange.prefill(&ask, &mut plan).await else {
            exchange.finish();
            let message = "The engine is currently overloaded, please try again later.";
            return refuse(api, &Fault::new(StatusCode::SERVICE_UNAVAILABLE, message));
        };
        if !ask.stream && ask.embed.is_none() {
            wait += exchange.decode_time(plan.rest());
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let cached = exchange.cached_tokens();
        let reply = reply(&ask, &plan, cached);
        if ask.stream {
            let script = match api {
                Api::Responses => responses::script(&reply),
                Api::Messages => messages::script(&reply),
                Api::ChatCompletions | Api::Embeddings => chat::script(&reply),
            };
            return respond(
                StatusCode::OK,
                EVENT_STREAM,
                Answer::stream(script, plan, exchange),
            );
        }
        let body = match (api, &ask.embed) {
            (Api::Embeddings, Some(embed)) => {
                let usage = reply.usage.map(|usage| usage.prompt);
                embeddings::unary(embed, &reply.model_json, self.settings.seed, usage)
            }
            (Api::Responses, _) => responses::unary(&reply),
            (Api::Messages, _) => messages::unary(&reply),
            (Api::ChatCompletions | Api::Embeddings, _) => chat::unary(&reply),
        };
        if ask.embed.is_none() {
            exchange.emitted(plan.tokens);
        }
        respond(
            StatusCode::OK,
            JSON,
            Answer::unary(Bytes::from(body), plan.cut, exchange),
        )
    }

    fn models(&self) -> String {
        let created = seconds_since_1970();
        let model = serde_json::json!({"id": self.settings.model, "object": "model", "created": created, "owned_by": "weir"});
        serde_json::json!({"object": "list", "data": [model]}).to_string()
    }
}

fn reply(ask: &Ask, plan: &Plan, cached: u64) -> Reply {
    Reply {
        roll: plan.roll,
        model_json: serde_json::Value::from(ask.model.as_str()).to_string(),
        created: seconds_since_1970(),
        tokens: plan.tokens,
        truncated: plan.truncated,
        tool: ask.tool.clone(),
        usage: plan.usage.then_some(PromptUsage {
            prompt: ask.prompt_tokens,
            cached,
        }),
        include_usage: ask.include_usage,
        error_event: plan.error_event,
    }
}

fn seconds_since_1970() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

fn refuse(api: Api, fault: &Fault) -> Response<Answer> {
    let mut response = json(fault.status, fault.body(api));
    if fault.status == StatusCode::TOO_MANY_REQUESTS {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Answer> {
    respond(status, JSON, Answer::Whole(body.into()))
}

fn respond(status: StatusCode, content_type: HeaderValue, answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const METRICS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");
const X_SIM_SERVER: HeaderName = HeaderName::from_static("x-sim-server");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const BODY_BYTES_MAX: usize = 64 << 20;
const CONTROL_BYTES_MAX: usize = 1 << 10;
