//! `pulsar_multiregion`, also `pulsar_wait_and_widen`: the key's order decides who may be asked,
//! more of it the longer one has waited; among those, who answers first.

use weir_sdk::candidates;
use weir_sdk::{Choice, Routing};

use crate::config::{Compared, PulsarWaitAndWiden};
use crate::groq_multiregion::{lead_with_last, wait};
use crate::plan::Plan;
use crate::pulsar::{Asked, key, without_key};
use crate::widening::{Look, Rules, look, pause_ms};

/// Chooses in the group, then in bands that grow; or waits.
pub(crate) fn choose(asked: &Asked<'_>) -> Choice {
    let Some(key) = key(asked.routing) else {
        return without_key(asked);
    };
    let settings = &asked.plan.settings.pulsar_multiregion;
    let elapsed_ms = f64::from(candidates::elapsed_ms());
    let size = settings.cache_affinity_backend_selection_count;
    let (group, known) = group(asked.plan, &key, settings, size);
    let alone_ms = f64::from(if known {
        settings.cache_affinity_wait_ms
    } else {
        0
    });
    let scale = if known {
        settings.cache_affinity_input_tokens_scale
    } else {
        1.0
    };
    let rules = |budget_ms, input_scale, max_queued| Rules {
        budget_ms,
        bucket_ms: settings.ttft_bucket_size_ms,
        unlock_factor: settings.next_bucket_unlock_factor,
        max_queued,
        sample_count: settings.sample_count,
        comparators: &[Compared::QueueTime, Compared::Utilization],
        input_scale,
        queue_ms_max: None,
        tried: asked.tried,
        weights: asked.weights,
    };
    let next_ms = match look(
        &rules(elapsed_ms, scale, settings.max_queued),
        Some(&group),
        0,
    ) {
        Look::Pick(position) => return Choice::Pick(position),
        Look::Wait(next_ms) => next_ms,
    };
    if elapsed_ms < alone_ms {
        return Choice::WaitMs(pause_ms([next_ms, Some(alone_ms - elapsed_ms)]));
    }
    let open_ms = elapsed_ms - alone_ms;
    let (width, band_ms) = band(settings, asked.routing, open_ms);
    let rules = rules(open_ms, 1.0, settings.fallback_max_queued);
    // Of a band that is all of them nobody asks for the order.
    let order =
        (width < asked.routing.candidates).then(|| ranking(asked.plan, &key, settings, width));
    match look(&rules, order.as_deref(), asked.routing.candidates) {
        Look::Pick(position) => Choice::Pick(position),
        Look::Wait(bucket_ms) => {
            let next = [next_ms, bucket_ms, band_ms].into_iter().flatten();
            let next_ms = next.reduce(f64::min);
            wait(settings.max_wait_ms, elapsed_ms, next_ms)
        }
    }
}

fn group(plan: &Plan, key: &str, settings: &PulsarWaitAndWiden, size: u32) -> (Vec<u32>, bool) {
    let mut group = ranking(plan, key, settings, size);
    let known = lead_with_last(&plan.settings, &mut group, size);
    (group, known)
}

fn ranking(plan: &Plan, key: &str, settings: &PulsarWaitAndWiden, count: u32) -> Vec<u32> {
    let prefix = plan.ranking_prefix(key);
    candidates::rendezvous_by(&prefix, settings.weight.weighting(), count, &[])
}

/// How many of the ranking are open, and when more are: two beyond the group, then 6, 14, 30 ...
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small number of bands"
)]
fn band(settings: &PulsarWaitAndWiden, routing: &Routing, open_ms: f64) -> (u32, Option<f64>) {
    let interval = settings.band_widen_interval_ms;
    let interval_ms = f64::from(interval.unwrap_or(settings.cache_affinity_wait_ms));
    if interval_ms <= 0.0 {
        return (routing.candidates, None);
    }
    let bands = (open_ms / interval_ms).floor().min(BANDS_MAX);
    let beyond = (4_u32 << bands as u32) - 2;
    let size = settings.cache_affinity_backend_selection_count;
    let width = size.saturating_add(beyond);
    if width >= routing.candidates {
        return (routing.candidates, None);
    }
    (width, Some((bands + 1.0) * interval_ms - open_ms))
}

/// 2^27 candidates are more than there are.
const BANDS_MAX: f64 = 25.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_widen_with_time() {
        let settings = PulsarWaitAndWiden {
            band_widen_interval_ms: Some(10),
            ..PulsarWaitAndWiden::default()
        };
        let routing = Routing {
            generation: 1,
            candidates: 20,
            affinity_hash: 1,
        };
        let table = [
            (0.0, (3, Some(10.0))),
            (9.0, (3, Some(1.0))),
            (10.0, (7, Some(10.0))),
            (25.0, (15, Some(5.0))),
            (30.0, (20, None)),
            (1e9, (20, None)),
        ];
        for (open_ms, expected) in table {
            assert_eq!(band(&settings, &routing, open_ms), expected, "{open_ms}");
        }
        let at_once = PulsarWaitAndWiden {
            band_widen_interval_ms: Some(0),
            ..settings
        };
        assert_eq!(band(&at_once, &routing, 0.0), (20, None));
    }
}
