//! The routes of the admin listener.

use std::sync::Arc;

use async_trait::async_trait;
use http::header::CONTENT_TYPE;
use http::{Method, Response, StatusCode};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::admin::answer::{fault, json, of_type, plain, with_allow};
use crate::admin::{clusters, config, filters, functions, workers};
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
        let runtime = &*self.runtime;
        let snapshot = runtime.snapshot();
        match (path, method.as_str()) {
            ("/", "GET") => json(StatusCode::OK, &ROUTES),
            ("/healthz", "GET") => plain(StatusCode::OK, "ok\n"),
            ("/readyz", "GET") if runtime.is_draining() => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            ("/readyz", "GET") => plain(StatusCode::OK, "ready\n"),
            ("/metrics", "GET") => of_type(
                StatusCode::OK,
                "text/plain; version=0.0.4",
                runtime.metrics.render(),
            ),
            ("/config", "GET") => json(StatusCode::OK, &config::live(runtime, &snapshot)),
            ("/config/history", "GET") => json(StatusCode::OK, &config::history(runtime)),
            ("/config/rollback", "POST") => self.roll_back(body).await,
            ("/filters", "GET") => json(StatusCode::OK, &filters::all(&snapshot)),
            ("/clusters", "GET") => json(StatusCode::OK, &clusters::all(runtime, &snapshot)),
            ("/workers", "GET") => json(StatusCode::OK, &workers::all(runtime)),
            ("/reload", "POST") => {
                self.ask(|reply| Ask::Force {
                    why: "api",
                    reply: Some(reply),
                })
                .await
            }
            _ => match ROUTES.iter().find(|route| route.path == path) {
                Some(route) => with_allow(
                    fault(
                        StatusCode::METHOD_NOT_ALLOWED,
                        "method_not_allowed",
                        "see `allow`",
                    ),
                    route.method,
                ),
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

const ROUTES: [Row; 14] = [
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
        method: "GET",
        path: "/workers",
        about: "workers that have dialled in, and what they serve",
    },
    Row {
        method: "POST",
        path: "/reload",
        about: "read config and modules anew",
    },
    Row {
        method: "GET, POST",
        path: "/v2/nvcf/functions",
        about: "all functions; make one",
    },
    Row {
        method: "GET, PUT, DELETE",
        path: "/v2/nvcf/functions/{id}",
        about: "one function",
    },
    Row {
        method: "GET, POST",
        path: "/v2/nvcf/functions/{id}/versions",
        about: "its versions; make one more",
    },
    Row {
        method: "GET, PUT, DELETE",
        path: "/v2/nvcf/functions/{id}/versions/{version}",
        about: "one version",
    },
];

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let method = session.req_header().method.clone();
        let path = session.req_header().uri.path().to_owned();
        let content_type = session.req_header().headers.get(CONTENT_TYPE);
        let is_json = content_type.is_some_and(|value| {
            let essence = value.as_bytes().split(|b| *b == b';').next();
            essence.is_some_and(|e| e.trim_ascii().eq_ignore_ascii_case(b"application/json"))
        });
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
        let path = match path.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        let below = path.strip_prefix(functions::PATH);
        if below.is_some_and(|below| below.is_empty() || below.starts_with('/')) {
            let request = functions::Request {
                method: &method,
                path,
                is_json,
                body: &body,
            };
            return functions::serve(&self.runtime, &self.asks, request).await;
        }
        self.route(&method, path, &body).await
    }
}
