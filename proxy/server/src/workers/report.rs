//! A worker's figures of one model in the words of the routing crate.

use weir_routing::{QueueTimes, Report};
use weir_tunnel::ModelStats;

/// What a heartbeat says of one model; what it leaves out is unknown.
#[allow(
    clippy::cast_possible_truncation,
    reason = "rates are estimates, single precision is plenty"
)]
pub(crate) fn report(stats: &ModelStats, now_unix_ms: u64) -> Report {
    let count = |value: Option<u64>| u32::try_from(value.unwrap_or_default()).unwrap_or(u32::MAX);
    let rate = |value: Option<f64>| value.unwrap_or_default() as f32;
    let times = &stats.queue_time_estimate_ms_by_priority;
    let times = times
        .iter()
        .map(|(priority, ms)| (*priority, u32::try_from(*ms).unwrap_or(u32::MAX)));
    Report {
        running: count(stats.num_running_queries),
        queued: count(stats.queue_size),
        queued_input_tokens: stats.queued_input_size.unwrap_or_default(),
        slots: count(Some(stats.max_engine_concurrency)),
        kv_capacity_tokens: stats.kv_cache_capacity_tokens.unwrap_or_default(),
        kv_used_tokens: stats.kv_cache_used_tokens.unwrap_or_default(),
        kv_free_tokens: stats.kv_cache_free_tokens.unwrap_or_default(),
        input_tps: rate(stats.last_mean_input_tps),
        max_input_tps: rate(stats.max_input_tps),
        output_tps: rate(stats.output_tps),
        max_output_tps: rate(stats.max_output_tps),
        queue_times: QueueTimes::new(times),
        age_ms: age_ms(stats.stats_observed_at_unix_ms, now_unix_ms),
    }
}

/// Clocks of two machines differ; one that is ahead of ours says nothing about age, and one that is
/// far behind no more than this.
fn age_ms(observed_unix_ms: u64, now_unix_ms: u64) -> u32 {
    if observed_unix_ms == 0 {
        return 0;
    }
    let age = now_unix_ms.saturating_sub(observed_unix_ms);
    u32::try_from(age).unwrap_or(u32::MAX).min(AGE_MS_MAX)
}

const AGE_MS_MAX: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_unknown() {
        assert_eq!(report(&ModelStats::default(), 5), Report::default());
    }

    #[test]
    fn figures_keep_their_meaning() {
        let stats = ModelStats {
            last_mean_input_tps: Some(1_000.0),
            queue_size: Some(3),
            queued_input_size: Some(4_000),
            num_running_queries: Some(u64::MAX),
            max_engine_concurrency: 8,
            kv_cache_free_tokens: Some(7),
            queue_time_estimate_ms_by_priority: [(0, 5), (9, u64::MAX)].into(),
            stats_observed_at_unix_ms: 900,
            ..ModelStats::default()
        };
        let told = report(&stats, 1_000);
        assert_eq!((told.running, told.queued, told.slots), (u32::MAX, 3, 8));
        assert_eq!((told.queued_input_tokens, told.kv_free_tokens), (4_000, 7));
        assert_eq!(told.queue_times.at(0), Some(5));
        assert_eq!(told.queue_times.at(10), Some(u32::MAX));
        assert_eq!(told.age_ms, 100);
        assert_eq!(report(&stats, 0).age_ms, 0, "a clock ahead of ours");
        assert_eq!(report(&stats, u64::MAX).age_ms, AGE_MS_MAX);
    }
}
