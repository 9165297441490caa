//! The routes of the admin listener.

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Response, StatusCode};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::admin::{clusters, config, filters};
use crate::reload::{Ask, Reply};
use crate::runtime::Runtime;

/// Longest body read from an admin.
const BODY_MAX: usize = 64 << 10;

/// Serves the admin listener.
pub(crate) struct Admin {
    runtime: Arc<Runtime>,
    asks: mpsc::Sender<Ask>,
}

impl Admin {
    /// For one process.
    pub(crate) fn new(runtime: Arc<Runtime>, asks: mpsc::Sender<Ask>) -> Self {
        Self { runtime, asks }
    }

    async fn route(&self, method: &Method, path: &str, body: &[u8]) -> Response<Vec<u8>> {
        let path = if path.len() > 1 {
            path.trim_end_matches('/')
        } else {
            path
        };
        let runtime = &*self.runtime;
        let snapshot = runtime.snapshot();
        match (path, method.as_str()) {
            ("/", "GET") => json(StatusCode::OK, &ROUTES),
            ("/healthz", "GET") => plain(StatusCode::OK, "ok\n"),
            ("/readyz", "GET") if runtime.is_draining() => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            ("/readyz", "GET") => plain(StatusCode::OK, "ready\n"),
            ("/metrics", "GET") => text(
                StatusCode::OK,
                "text/plain; version=0.0.4",
                runtime.metrics.render(),
            ),
            ("/config", "GET") => json(StatusCode::OK, &config::live(runtime, &snapshot)),
            ("/config/history", "GET") => json(StatusCode::OK, &config::history(runtime)),
            ("/config/rollback", "POST") => self.roll_back(body).await,
            ("/filters", "GET") => json(StatusCode::OK, &filters::all(&snapshot)),
            ("/clusters", "GET") => json(StatusCode::OK, &clusters::all(runtime, &snapshot)),
            ("/reload", "POST") => {
                self.ask(|reply| Ask::Force {
                    why: "api",
                    reply: Some(reply),
                })
                .await
            }
            _ => match ROUTES.iter().find(|route| route.path == path) {
                Some(route) => {
                    let mut response = fault(
                        StatusCode::METHOD_NOT_ALLOWED,
                        "method_not_allowed",
                        "see `allow`",
                    );
                    if let Ok(allow) = route.method.parse() {
                        response.headers_mut().insert(ALLOW, allow);
                    }
                    response
                }
                None => fault(
                    StatusCode::NOT_FOUND,
                    "path_not_found",
                    "GET / lists what is served",
                ),
            },
        }
    }

    async fn roll_back(&self, body: &[u8]) -> Response<Vec<u8>> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wanted {
            number: Option<u64>,
        }
        let wanted = if body.is_empty() {
            Ok(Wanted { number: None })
        } else {
            serde_json::from_slice(body)
        };
        match wanted {
            Ok(Wanted { number }) => {
                self.ask(|reply| Ask::Rollback {
                    number,
                    reply: Some(reply),
                })
                .await
            }
            Err(error) => {
                let message = format!("the body is no {{\"number\": N}}: {error}");
                fault(StatusCode::BAD_REQUEST, "invalid_json", &message)
            }
        }
    }

    async fn ask(&self, ask: impl FnOnce(oneshot::Sender<Reply>) -> Ask) -> Response<Vec<u8>> {
        let (reply, replied) = oneshot::channel();
        if self.asks.send(ask(reply)).await.is_err() {
            return fault(
                StatusCode::SERVICE_UNAVAILABLE,
                "ending",
                "the process is ending",
            );
        }
        match replied.await {
            Ok(reply @ Reply::Rejected { .. }) => json(StatusCode::UNPROCESSABLE_ENTITY, &reply),
            Ok(reply) => json(StatusCode::OK, &reply),
            Err(_) => fault(
                StatusCode::SERVICE_UNAVAILABLE,
                "ending",
                "the process is ending",
            ),
        }
    }
}

/// One row of `GET /`.
#[derive(Serialize)]
struct Row {
    method: &'static str,
    path: &'static str,
    about: &'static str,
}

const ROUTES: [Row; 9] = [
    Row {
        method: "GET",
        path: "/healthz",
        about: "200 while the process lives",
    },
    Row {
        method: "GET",
        path: "/readyz",
        about: "200 while it takes requests, 503 while it drains",
    },
    Row {
        method: "GET",
        path: "/metrics",
        about: "Prometheus text",
    },
    Row {
        method: "GET",
        path: "/config",
        about: "the live configuration, secrets masked",
    },
    Row {
        method: "GET",
        path: "/config/history",
        about: "configurations that were live",
    },
    Row {
        method: "POST",
        path: "/config/rollback",
        about: "make an earlier one live: {\"number\": N}, or the one before",
    },
    Row {
        method: "GET",
        path: "/filters",
        about: "filters: calls, time, failures, pool, quarantine",
    },
    Row {
        method: "GET",
        path: "/clusters",
        about: "clusters: health, load, ejections",
    },
    Row {
        method: "POST",
        path: "/reload",
        about: "read config and modules anew",
    },
];

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let method = session.req_header().method.clone();
        let path = session.req_header().uri.path().to_owned();
        let mut body = Vec::new();
        loop {
            match session.read_request_body().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= BODY_MAX => {
                    body.extend_from_slice(&chunk)
                }
                Ok(None) => break,
                Ok(Some(_)) => {
                    return fault(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "body_too_large",
                        "at most 64 KiB",
                    );
                }
                Err(_) => {
                    return fault(
                        StatusCode::BAD_REQUEST,
                        "bad_framing",
                        "the body did not arrive",
                    );
                }
            }
        }
        self.route(&method, &path, &body).await
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Vec<u8>> {
    let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
    body.push(b'\n');
    text(status, "application/json", body)
}

fn plain(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    text(status, "text/plain; charset=utf-8", body.into())
}

fn fault(status: StatusCode, code: &str, message: &str) -> Response<Vec<u8>> {
    json(
        status,
        &serde_json::json!({ "error": { "code": code, "message": message } }),
    )
}

fn text(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, http::HeaderValue::from(length));
    response
}
