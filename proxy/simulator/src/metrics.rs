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
    let labels = format!(
        "engine=\"0\",model_name=\"{}\"",
        label(&engine.settings.model)
    );
    let mut text = String::new();
    let mut gauge = |name, help, value| write(&mut text, (name, "gauge"), help, &labels, value);
    let count = |count: i64| count.max(0) as f64;
    let running = count(stats.running.load(Relaxed));
    let waiting = count(stats.waiting.load(Relaxed));
    gauge("num_requests_running", "Requests worked on.", running);
    gauge("num_requests_waiting", "Requests that wait.", waiting);
    gauge(
        "kv_cache_usage_perc",
        "Share of the KV cache in use, 1 is all.",
        usage,
    );
    let mut counter = |name, help, value: u64| {
        write(&mut text, (name, "counter"), help, &labels, value as f64);
    };
    let prompts = stats.prompt_tokens.load(Relaxed);
    let queries = if blocks > 0 { prompts } else { 0 };
    let hits = stats.cached_tokens.load(Relaxed);
    let generated = stats.tokens.load(Relaxed);
    counter(
        "prefix_cache_queries_total",
        "Prompt tokens looked up in the prefix cache.",
        queries,
    );
    counter(
        "prefix_cache_hits_total",
        "Prompt tokens found in the prefix cache.",
        hits,
    );
    counter("prompt_tokens_total", "Prompt tokens processed.", prompts);
    counter("generation_tokens_total", "Tokens generated.", generated);
    let config = format!(
        "block_size=\"{BLOCK_TOKENS}\",enable_prefix_caching=\"{}\",engine=\"0\",num_gpu_blocks=\"{blocks}\"",
        if blocks > 0 { "True" } else { "False" }
    );
    let kind = ("cache_config_info", "gauge");
    write(&mut text, kind, "How the cache is set up.", &config, 1.0);
    text
}

fn write(text: &mut String, (name, kind): (&str, &str), help: &str, labels: &str, value: f64) {
    // Writing to a string cannot fail.
    let _infallible = write!(
        text,
        "# HELP vllm:{name} {help}\n# TYPE vllm:{name} {kind}\nvllm:{name}{{{labels}}} {value:?}\n"
    );
}

/// A label's value, escaped as the text format asks.
fn label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
