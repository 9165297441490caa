//! What the server has seen, for tests which look at the far side of a gateway.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// Paths counted one by one; all others are counted under `other`.
const PATHS: [&str; 7] = [
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/models",
    "/health",
    "/ws",
];

/// Counters since the server started. `GET /sim/stats` itself is never counted.
#[derive(Default)]
pub(crate) struct Stats {
    by_path: [AtomicU64; PATHS.len()],
    echo: AtomicU64,
    other: AtomicU64,
    pub(crate) active: AtomicI64,
    pub(crate) client_aborts: AtomicU64,
    pub(crate) tokens: AtomicU64,
    /// Model calls being worked on, and those that wait for a slot, their turn or room.
    pub(crate) running: AtomicI64,
    pub(crate) waiting: AtomicI64,
    /// Tokens of the prompts admitted, and those of them found in the prefix cache.
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) cached_tokens: AtomicU64,
    last: Mutex<Option<Last>>,
}

struct Last {
    method: String,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Stats {
    pub(crate) fn count(&self, path: &str) {
        let known = PATHS
            .iter()
            .position(|known| *known == path)
            .and_then(|index| self.by_path.get(index));
        let counter = match known {
            Some(counter) => counter,
            None if path.starts_with("/echo") => &self.echo,
            None => &self.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps the request for `last_request`; costs no copy of the body.
    pub(crate) fn remember(&self, parts: Parts, body: Bytes) {
        let path = parts
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string);
        let last = Last {
            method: parts.method.to_string(),
            path,
            headers: parts.headers,
            body,
        };
        *self.last.lock() = Some(last);
    }

    pub(crate) fn json(&self) -> String {
        let mut requests = Map::new();
        for (path, count) in PATHS.iter().zip(&self.by_path) {
            requests.insert((*path).to_owned(), count.load(Ordering::Relaxed).into());
        }
        requests.insert("/echo".to_owned(), self.echo.load(Ordering::Relaxed).into());
        requests.insert(
            "other".to_owned(),
            self.other.load(Ordering::Relaxed).into(),
        );
        let last = self.last.lock().as_ref().map(|last| {
            json!({
                "method": last.method,
                "path": last.path,
                "headers": headers_json(&last.headers),
                "body": String::from_utf8_lossy(&last.body),
            })
        });
        json!({
            "requests": requests,
            "active": self.active.load(Ordering::Relaxed),
            "client_aborts": self.client_aborts.load(Ordering::Relaxed),
            "tokens": self.tokens.load(Ordering::Relaxed),
            "last_request": last,
        })
        .to_string()
    }
}

/// Headers as a JSON object; the values of a repeated one are joined by `, `.
pub(crate) fn headers_json(headers: &HeaderMap) -> Value {
    let mut object = Map::new();
    for name in headers.keys() {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        object.insert(name.to_string(), values.join(", ").into());
    }
    Value::Object(object)
}
