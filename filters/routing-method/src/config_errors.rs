//! What may be wrong in the filter's table, with the place.

use weir_sdk::ConfigError;
use weir_sdk::lifecycle::config_error;

use crate::config::{Config, unknown};
use crate::method::Method;

/// Whether it is right, where it stands, what it has to be.
type Check = (bool, &'static str, &'static str);

/// All errors of one table, without those of `models`.
pub(crate) fn of(config: &Config) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    if Method::parse(&config.default).is_none() {
        errors.push(config_error("/default", unknown(&config.default)));
    }
    let own: [Check; 3] = [
        (
            config.seed.len() <= SEED_BYTES_MAX,
            "/seed",
            "must be at most 256 bytes",
        ),
        (
            amount(config.max_input_work_seconds),
            "/max_input_work_seconds",
            LEAST,
        ),
        (
            (2..=CHOICES_MAX).contains(&config.power_of_two.choices),
            "/power_of_two/choices",
            "must be between 2 and 64",
        ),
    ];
    let checks = own.into_iter().chain(groq(config)).chain(pulsar(config));
    let wrong = checks.filter(|(right, _, _)| !right);
    errors.extend(wrong.map(|(_, pointer, message)| config_error(pointer, message)));
    errors
}

fn groq(config: &Config) -> [Check; 8] {
    let table = &config.groq_multiregion;
    let (floor, ceiling) = (table.max_queue_time_floor_ms, table.max_queue_time_ceil_ms);
    [
        (
            sample(table.sample_count),
            "/groq_multiregion/sample_count",
            SAMPLED,
        ),
        (
            amount(table.ttft_bucket_size_ms),
            "/groq_multiregion/ttft_bucket_size_ms",
            LEAST,
        ),
        (
            amount(table.next_bucket_unlock_factor),
            "/groq_multiregion/next_bucket_unlock_factor",
            LEAST,
        ),
        (
            floor.is_some() == ceiling.is_some(),
            "/groq_multiregion/max_queue_time_floor_ms",
            "needs max_queue_time_ceil_ms, and the other way round",
        ),
        (
            floor.is_none_or(amount) && ceiling.is_none_or(amount),
            "/groq_multiregion/max_queue_time_ceil_ms",
            LEAST,
        ),
        (
            (1..=1_000).contains(&table.cache_affinity_virtual_nodes),
            "/groq_multiregion/cache_affinity_virtual_nodes",
            "must be between 1 and 1000",
        ),
        (
            share(table.cache_affinity_input_tokens_scale),
            "/groq_multiregion/cache_affinity_input_tokens_scale",
            "must be between 0 and 1",
        ),
        (
            amount(table.cache_affinity_ttft_penalty_ms),
            "/groq_multiregion/cache_affinity_ttft_penalty_ms",
            LEAST,
        ),
    ]
}

fn pulsar(config: &Config) -> [Check; 8] {
    let (plain, multi) = (&config.pulsar, &config.pulsar_multiregion);
    [
        (
            plain.c == 0.0 || (1.0..=1e6).contains(&plain.c),
            "/pulsar/c",
            "must be at least 1, or 0 for no bound",
        ),
        (
            amount(plain.ttft_penalty_ms),
            "/pulsar/ttft_penalty_ms",
            LEAST,
        ),
        (
            plain.new_session_ttft_penalty_ms.is_none_or(amount),
            "/pulsar/new_session_ttft_penalty_ms",
            LEAST,
        ),
        (
            sample(multi.sample_count),
            "/pulsar_multiregion/sample_count",
            SAMPLED,
        ),
        (
            multi.cache_affinity_backend_selection_count > 0,
            "/pulsar_multiregion/cache_affinity_backend_selection_count",
            "must be at least 1",
        ),
        (
            amount(multi.ttft_bucket_size_ms),
            "/pulsar_multiregion/ttft_bucket_size_ms",
            LEAST,
        ),
        (
            amount(multi.next_bucket_unlock_factor),
            "/pulsar_multiregion/next_bucket_unlock_factor",
            LEAST,
        ),
        (
            share(multi.cache_affinity_input_tokens_scale),
            "/pulsar_multiregion/cache_affinity_input_tokens_scale",
            "must be between 0 and 1",
        ),
    ]
}

fn amount(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

fn share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

fn sample(count: u32) -> bool {
    (1..=CHOICES_MAX).contains(&count)
}

const LEAST: &str = "must be a number of at least 0";
const SAMPLED: &str = "must be between 1 and 64";
/// The widest sample of the reference behaviour.
const CHOICES_MAX: u32 = 64;
const SEED_BYTES_MAX: usize = 256;
