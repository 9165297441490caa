//! `groq_multiregion`, also `wait_and_widen`: who answers first, and more of them the longer one
//! has waited.

use weir_sdk::candidates::{self, Session};
use weir_sdk::{Choice, Routing};

use crate::admission;
use crate::config::{Config, WaitAndWiden};
use crate::escape::Escape;
use crate::plan::Plan;
use crate::pulsar::Asked;
use crate::widening::{Look, Rules, look, pause_ms, ttft_us};

/// Chooses among the group of the conversation, then among all; or waits.
pub(crate) fn choose(asked: &Asked<'_>, slo_ms: u32) -> Choice {
    let Asked {
        plan,
        routing,
        weights,
        tried,
        ..
    } = *asked;
    let settings = &plan.settings.groq_multiregion;
    let elapsed_ms = f64::from(candidates::elapsed_ms());
    let group = group(plan, routing, settings);
    let rules = |budget_ms: f64, input_scale: f64| Rules {
        budget_ms,
        bucket_ms: settings.ttft_bucket_size_ms,
        unlock_factor: settings.next_bucket_unlock_factor,
        max_queued: settings.max_queued,
        sample_count: settings.sample_count,
        comparators: std::slice::from_ref(&settings.comparator),
        input_scale,
        queue_ms_max: queue_ms_max(settings, slo_ms, elapsed_ms),
        tried,
        weights,
    };
    let mut alone_ms = 0.0;
    if !group.positions.is_empty() {
        let scale = if group.known {
            settings.cache_affinity_input_tokens_scale
        } else {
            1.0
        };
        let found = look(&rules(elapsed_ms, scale), Some(&group.positions), 0);
        match found {
            Look::Pick(position) => {
                let escape = Escape::new(settings.cache_affinity_ttft_penalty_ms);
                if escape.admits(|| ttft_us(position, scale)) {
                    return Choice::Pick(position);
                }
            }
            Look::Wait(next_ms) => {
                if group.known {
                    alone_ms = f64::from(settings.cache_affinity_wait_ms);
                }
                if elapsed_ms < alone_ms {
                    return Choice::WaitMs(pause_ms([next_ms, Some(alone_ms - elapsed_ms)]));
                }
            }
        }
    }
    match look(&rules(elapsed_ms - alone_ms, 1.0), None, routing.candidates) {
        Look::Pick(position) => Choice::Pick(position),
        Look::Wait(next_ms) => wait(settings.max_wait_ms, elapsed_ms, next_ms),
    }
}

/// Waits for a slot or a bucket, but not for ever.
pub(crate) fn wait(max_wait_ms: u32, elapsed_ms: f64, next_ms: Option<f64>) -> Choice {
    let left_ms = f64::from(max_wait_ms) - elapsed_ms;
    if next_ms.is_none() && left_ms <= 0.0 {
        return admission::overloaded().into();
    }
    let left_ms = (left_ms > 0.0).then_some(left_ms);
    Choice::WaitMs(pause_ms([next_ms, left_ms]))
}

/// The candidates next to a conversation's key.
struct Group {
    positions: Vec<u32>,
    /// Whether the conversation is an old one here, as far as the gateway knows: a new one has
    /// nothing cached anywhere, so nothing is saved by waiting for its group.
    known: bool,
}

fn group(plan: &Plan, routing: &Routing, settings: &WaitAndWiden) -> Group {
    let count = settings.cache_affinity_backend_selection_count;
    let mut group = Group {
        positions: Vec::new(),
        known: true,
    };
    if count == 0 || routing.affinity_hash == 0 {
        return group;
    }
    let Some(key) = candidates::affinity_key() else {
        return group;
    };
    group.positions = candidates::ring(
        &plan.ring_prefix(),
        &plan.key(&key),
        settings.cache_affinity_virtual_nodes,
        count,
    );
    group.known = lead_with_last(&plan.settings, &mut group.positions, count);
    group
}

/// Puts who served the conversation last in front, keeping `count`. Whether it is an old one.
pub(crate) fn lead_with_last(settings: &Config, order: &mut Vec<u32>, count: u32) -> bool {
    if !settings.last_cluster_affinity {
        return true;
    }
    match candidates::session() {
        Session::Unknown => true,
        Session::New | Session::Stale => false,
        Session::Returning(last) => {
            order.retain(|position| *position != last);
            order.insert(0, last);
            order.truncate(count as usize);
            true
        }
    }
}

/// Grows from floor to ceiling while the time for a first token passes.
fn queue_ms_max(settings: &WaitAndWiden, slo_ms: u32, elapsed_ms: f64) -> Option<f64> {
    let floor = settings.max_queue_time_floor_ms?;
    let ceiling = settings.max_queue_time_ceil_ms?;
    let passed = match slo_ms {
        0 => 1.0,
        slo_ms => (elapsed_ms / f64::from(slo_ms)).clamp(0.0, 1.0),
    };
    Some(floor + (ceiling - floor) * passed)
}
