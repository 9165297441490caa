//! What the simulated machine can compute, beside what [`crate::Settings`] says of its answers.

/// The machine under a simulated model server: given to [`crate::Simulator::with_hardware`].
///
/// Its work is simulated as an engine of today does it. Prompts are computed one after the other in
/// order of arrival, so that all callers share one rate; what the prefix cache holds is not computed
/// again; a prompt that finds no room in the cache waits for it. Generation goes on beside that.
/// Given the order and times of arrival, everything that happens depends on seeds only.
#[derive(Clone, Debug, PartialEq)]
pub struct Hardware {
    /// Sent with every answer as `x-sim-server`; empty: not sent. Must be visible ASCII.
    pub name: String,
    /// Prompt tokens computed per second, by all requests together. 0: prompts take the `ttft_ms` of
    /// the settings, less what the cache holds. Otherwise `ttft_ms` comes on top, once per request.
    pub prefill_tokens_per_second: f64,
    /// Answers generated at once at full speed; more share it. 0: no limit.
    pub decode_batch: u32,
    /// Simulated seconds per second: all delays are divided by it. From 0.001 to 1000.
    pub time_scale: f64,
    /// Path of the stream of statistics, one JSON object per line.
    pub stats_stream_path: String,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            name: String::new(),
            prefill_tokens_per_second: 0.0,
            decode_batch: 0,
            time_scale: 1.0,
            stats_stream_path: "/pylon/v1/stats/stream".to_owned(),
        }
    }
}
