//! `GET /workers`.

use serde_json::{Value, json};

use crate::runtime::Runtime;

/// Every worker that has dialled in.
pub(crate) fn all(runtime: &Runtime) -> Value {
    let workers = runtime.workers.all();
    let workers = workers.iter().map(|link| {
        let said = link.said.lock().clone();
        let models: Value = said
            .models
            .into_iter()
            .map(|(name, status)| (name, status.into()))
            .collect::<serde_json::Map<String, Value>>()
            .into();
        json!({
            "worker": &*link.worker,
            "function": &*link.function,
            "token": &*link.token,
            "agent": link.agent,
            "address": link.address().to_string(),
            "cluster": said.domain,
            "region": said.region,
            "draining": link.is_draining(),
            "connected_ms": u64::try_from(link.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            "rtt_us": u64::try_from(link.tunnel.rtt().as_micros()).unwrap_or(u64::MAX),
            "streams": link.tunnel.stream_count(),
            "models": models,
        })
    });
    json!({ "workers": workers.collect::<Vec<Value>>() })
}
