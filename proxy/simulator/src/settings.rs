//! How a simulated model server behaves: speed, failures, capacity.

use serde::Deserialize;

/// Behaviour of one simulated model server. The default is an unlimited, instant, faultless one.
///
/// Everything random (text, jitter, failures) depends only on `seed` and on the request: its
/// `x-request-id`, or without one its number since the server started.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seed of all randomness.
    pub seed: u64,
    /// Model listed by `GET /v1/models`. Answers echo the model asked for, whatever it is.
    pub model: String,
    /// Milliseconds from the admission of a request to the first byte of its answer.
    pub ttft_ms: u64,
    /// Tokens per second after the first; 0 means at once, without any timer.
    pub tokens_per_second: f64,
    /// Share (0 to 1) by which each delay varies in both directions.
    pub jitter: f64,
    /// Share (0 to 1) of the requests answered with status 500.
    pub error_rate: f64,
    /// Share (0 to 1) of the answers whose connection is cut in the middle.
    pub disconnect_rate: f64,
    /// Requests answered at the same time; more wait in arrival order. 0 means no limit.
    pub slots: u32,
    /// Prompt tokens the prefix cache holds; 0 means no limit and no cache. A prompt that does not
    /// fit beside those being answered is refused with status 503.
    pub kv_tokens: u64,
    /// Tokens of an answer; the request's own limit caps it.
    pub output_tokens: u32,
    /// Whether answers report their usage.
    pub usage: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            model: "sim".to_owned(),
            ttft_ms: 0,
            tokens_per_second: 0.0,
            jitter: 0.0,
            error_rate: 0.0,
            disconnect_rate: 0.0,
            slots: 0,
            kv_tokens: 0,
            output_tokens: 16,
            usage: true,
        }
    }
}
