//! `GET /metrics`: the figures of vLLM's Prometheus endpoint that routers read, by the same names.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use crate::engine::Engine;
use crate::prefix_cache::BLOCK_TOKENS;

/// The text of one scrape.
pub(crate) fn text(engine: &Engine) -> String {
    let stats = &engine.stats;
    let (usage, blocks) = engine.cache.as_ref().map_or((0.0, 0), |cache| {
        let cache = cache.lock();
        (cache.usage(), cache.blocks_max())
    });
    let model = label(&engine.settings.model);
    let labels = format!("engine=\"0\",model_name=\"{model}\"");
    let config = format!(
        "block_size=\"{BLOCK_TOKENS}\",enable_prefix_caching=\"{}\",engine=\"0\",num_gpu_blocks=\"{blocks}\"",
        if blocks > 0 { "True" } else { "False" }
    );
    let cached = stats.cached_tokens.load(Relaxed);
    let prompts = stats.prompt_tokens.load(Relaxed);
    let queries = if blocks > 0 { prompts } else { 0 };
    let gauge = |count: i64| count.max(0) as f64;
    let rows: [(&str, &str, &str, &str, f64); 8] = [
        (
            "num_requests_running",
            "gauge",
            "Requests being worked on.",
            &labels,
            gauge(stats.running.load(Relaxed)),
        ),
        (
            "num_requests_waiting",
            "gauge",
            "Requests waiting to be worked on.",
            &labels,
            gauge(stats.waiting.load(Relaxed)),
        ),
        (
            "kv_cache_usage_perc",
            "gauge",
            "Share of the KV cache in use, 1 is all.",
            &labels,
            usage,
        ),
        (
            "prefix_cache_queries",
            "counter",
            "Prompt tokens looked up in the prefix cache.",
            &labels,
            queries as f64,
        ),
        (
            "prefix_cache_hits",
            "counter",
            "Prompt tokens found in the prefix cache.",
            &labels,
            cached as f64,
        ),
        (
            "prompt_tokens",
            "counter",
            "Prompt tokens processed.",
            &labels,
            prompts as f64,
        ),
        (
            "generation_tokens",
            "counter",
            "Tokens generated.",
            &labels,
            stats.tokens.load(Relaxed) as f64,
        ),
        (
            "cache_config_info",
            "gauge",
            "How the cache is set up.",
            &config,
            1.0,
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, labels, value) in rows {
        let suffix = if kind == "counter" { "_total" } else { "" };
        // Writing to a string cannot fail.
        let _infallible = write!(
            text,
            "# HELP vllm:{name}{suffix} {help}\n# TYPE vllm:{name}{suffix} {kind}\nvllm:{name}{suffix}{{{labels}}} {value:?}\n"
        );
    }
    text
}

/// A label's value, escaped as the text format asks.
fn label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
