//! `GET /workers`.

use serde_json::{Map, Value, json};
use weir_tunnel::ModelStats;

use crate::runtime::Runtime;
use crate::workers::seat::SaidModel;

/// Every worker that has dialled in.
pub(crate) fn all(runtime: &Runtime) -> Value {
    let workers = runtime.workers.all();
    let workers = workers.iter().map(|link| {
        let said = link.said.lock().clone();
        let of = |value: fn(&SaidModel) -> Value| -> Map<String, Value> {
            let models = said.models.iter();
            models
                .map(|model| (model.name.clone(), value(model)))
                .collect()
        };
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
            "models": of(|model| model.status.into()),
            "load": of(|model| load(&model.stats)),
        })
    });
    json!({ "workers": workers.collect::<Vec<Value>>() })
}

/// The figures of a worker's last heartbeat; null: it does not know.
fn load(stats: &ModelStats) -> Value {
    json!({
        "running": stats.num_running_queries,
        "slots": stats.max_engine_concurrency,
        "queued": stats.queue_size,
        "queued_input_tokens": stats.queued_input_size,
        "queue_ms_by_priority": stats.queue_time_estimate_ms_by_priority,
        "input_tps": stats.last_mean_input_tps,
        "output_tps": stats.output_tps,
        "kv_used_tokens": stats.kv_cache_used_tokens,
        "kv_capacity_tokens": stats.kv_cache_capacity_tokens,
        "sources": stats.stats_sources,
    })
}
