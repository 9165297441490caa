//! `pulsar`: each key has an order of its own over the candidates, by weight; the first of it
//! that is not too busy is chosen.
//!
//! Too busy is more than `c` times its share of all that is in progress, and more than its slots
//! (consistent hashing with bounded loads, Mirrokni, Thorup, Zadimoghaddam, arXiv:1608.01350).

use std::cell::OnceCell;

use weir_sdk::candidates::{self, Figure, Session};
use weir_sdk::{Choice, RequestView, Routing};

use crate::admission;
use crate::config::{Compared, Config, PowerOfTwo, Pulsar};
use crate::escape::Escape;
use crate::plan::Plan;
use crate::power_of_two;
use crate::weights::Weights;

/// What a choice is made from.
pub(crate) struct Asked<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) request: &'a RequestView,
    pub(crate) routing: &'a Routing,
    pub(crate) weights: &'a Weights,
    pub(crate) tried: &'a [u32],
}

/// The first of the key's order that has room.
pub(crate) fn choose(asked: &Asked<'_>) -> Choice {
    let settings = &asked.plan.settings.pulsar;
    let key = key(asked.routing);
    if settings.compat {
        return compat(asked, &key.unwrap_or_default());
    }
    let Some(key) = key else {
        return without_key(asked);
    };
    let (last, penalty_ms) = remembered(&asked.plan.settings);
    let order = Order {
        asked,
        prefix: asked.plan.ranking_prefix(&key),
        last,
    };
    let limits = Limits {
        asked,
        shares: OnceCell::new(),
    };
    let escape = Escape::new(penalty_ms);
    let all_are_able = asked.tried.is_empty() && !settings.consider_kv_free_tokens;
    // Usually one of the first is fit, and the others need not be looked at one by one.
    let ttft_us = |position| candidates::figure(position, Figure::TtftUs);
    let is_fit = |position| escape.admits(|| ttft_us(position)) && limits.has_room(position);
    if all_are_able && let Some(position) = order.first_of(&[], &HEAD, is_fit) {
        return Choice::Pick(position);
    }
    let able = if all_are_able {
        Vec::new()
    } else {
        match able(asked) {
            able if !able.is_empty() => able,
            _ if asked.tried.is_empty() => return admission::overloaded().into(),
            _ => return Choice::Abstain,
        }
    };
    let has_room = |position| limits.has_room(position);
    let found = match escape.within(&able) {
        Some(in_time) if in_time.is_empty() => None,
        Some(in_time) => order.first_of(&in_time, &DEPTHS, has_room),
        None => order.first_of(&able, &DEPTHS, has_room),
    };
    found.map_or_else(|| spill(asked, able), Choice::Pick)
}

/// All are busy: the better of a few.
fn spill(asked: &Asked<'_>, able: Vec<u32>) -> Choice {
    let mut able = if able.is_empty() {
        (0..asked.routing.candidates).collect()
    } else {
        able
    };
    let sample = power_of_two::sample(&mut able, SPILL_CHOICES);
    power_of_two::best(Compared::Ttft, asked.weights, sample).into()
}

/// The order of a key over the candidates.
struct Order<'a> {
    asked: &'a Asked<'a>,
    prefix: Vec<u8>,
    /// Who served the conversation last comes before all.
    last: Option<u32>,
}

impl Order<'_> {
    /// The first of `among` (empty = all) that is fit. So many are put in order as `depths` say, one
    /// after the other, until one is.
    fn first_of(&self, among: &[u32], depths: &[u32], is_fit: impl Fn(u32) -> bool) -> Option<u32> {
        let weighting = self.asked.plan.settings.pulsar.weight.weighting();
        let is_asked_about = |last: &u32| among.is_empty() || among.contains(last);
        let last = self.last.filter(is_asked_about);
        if let Some(last) = last.filter(|last| is_fit(*last)) {
            return Some(last);
        }
        let mut looked = 0;
        for depth in depths {
            let head = candidates::rendezvous_by(&self.prefix, weighting, *depth, among);
            let mut deeper = head.iter().copied().skip(looked);
            if let Some(found) = deeper.find(|position| is_fit(*position)) {
                return Some(found);
            }
            if head.len() < *depth as usize {
                return None;
            }
            looked = head.len();
        }
        None
    }
}

/// What a candidate may hold.
struct Limits<'a> {
    asked: &'a Asked<'a>,
    /// Looked at for the first that has no free slot.
    shares: OnceCell<Shares>,
}

impl Limits<'_> {
    fn has_room(&self, position: u32) -> bool {
        has_slot(&self.asked.plan.settings.pulsar, position) || self.is_within_share(position)
    }

    fn is_within_share(&self, position: u32) -> bool {
        let shares = self.shares.get_or_init(|| Shares::of(self.asked));
        let running = candidates::figure(position, Figure::Running);
        running.is_some_and(|running| running < shares.bound(self.asked, position))
    }
}

/// How much of all that is in progress each may hold: `c` times its share, by weight, of all of it
/// with this request.
struct Shares {
    /// Requests for each unit of weight.
    scale: f64,
    /// The rate that is the weight; none: the configured weights are.
    rate: Option<Figure>,
    /// What counts for a rate that is not known: the mean of those that are.
    mean: f64,
}

impl Shares {
    #[allow(clippy::cast_precision_loss, reason = "weights have 32 bits")]
    fn of(asked: &Asked<'_>) -> Self {
        let count = asked.routing.candidates;
        let settings = &asked.plan.settings.pulsar;
        let rate = settings.weight.figure();
        let known = rate.map(|figure| (figure, candidates::total(figure)));
        let known = known.filter(|(_, total)| total.known > 0);
        let (rate, mean, whole) = match known {
            Some((figure, total)) => {
                let mean = total.sum / f64::from(total.known);
                (Some(figure), mean, mean * f64::from(count))
            }
            None => (None, 0.0, asked.weights.whole(count) as f64),
        };
        let in_progress = candidates::total(Figure::Running).sum + 1.0;
        Self {
            scale: settings.c * in_progress / whole.max(f64::MIN_POSITIVE),
            rate,
            mean,
        }
    }

    /// Requests that a candidate may hold.
    #[allow(clippy::cast_precision_loss, reason = "weights have 32 bits")]
    fn bound(&self, asked: &Asked<'_>, position: u32) -> f64 {
        let weight = match self.rate {
            Some(figure) => {
                let rate = candidates::figure(position, figure);
                rate.filter(|rate| *rate > 0.0).unwrap_or(self.mean)
            }
            None => asked.weights.weight(position) as f64,
        };
        (self.scale * weight).ceil()
    }
}

/// The affinity key, if the request has one.
pub(crate) fn key(routing: &Routing) -> Option<String> {
    (routing.affinity_hash != 0)
        .then(candidates::affinity_key)
        .flatten()
}

/// Requests without a key are not one conversation: the better of a few.
pub(crate) fn without_key(asked: &Asked<'_>) -> Choice {
    let config = PowerOfTwo {
        figure: Compared::Ttft,
        ..asked.plan.settings.power_of_two
    };
    power_of_two::pick(config, asked.weights, asked.routing.candidates, asked.tried).into()
}

fn compat(asked: &Asked<'_>, key: &str) -> Choice {
    let mut able = able(asked);
    if let Some(figure) = asked.plan.settings.pulsar.weight.figure() {
        let rates = candidates::column(figure);
        able.retain(|position| {
            rates
                .get(*position as usize)
                .is_some_and(|rate| *rate > 0.0)
        });
    }
    let order = Order {
        asked,
        prefix: asked.plan.ranking_prefix(key),
        last: None,
    };
    let chosen = if able.is_empty() {
        None
    } else {
        order.first_of(&able, &HEAD, |_| true)
    };
    chosen.map_or_else(|| admission::overloaded().into(), Choice::Pick)
}

/// Who served the conversation last, and how much later than the best its choice may answer.
fn remembered(settings: &Config) -> (Option<u32>, f64) {
    let Pulsar {
        ttft_penalty_ms,
        new_session_ttft_penalty_ms,
        ..
    } = settings.pulsar;
    if !settings.last_cluster_affinity {
        return (None, ttft_penalty_ms);
    }
    match candidates::session() {
        Session::Returning(position) => (Some(position), ttft_penalty_ms),
        Session::Unknown => (None, ttft_penalty_ms),
        Session::New | Session::Stale => {
            let penalty_ms = new_session_ttft_penalty_ms.unwrap_or(ttft_penalty_ms);
            (None, penalty_ms)
        }
    }
}

fn has_slot(settings: &Pulsar, position: u32) -> bool {
    if settings.c == 0.0 {
        return true;
    }
    let running = candidates::figure(position, Figure::Running);
    let slots = candidates::figure(position, Figure::Slots);
    running.zip(slots).is_some_and(|(running, slots)| {
        let assumed = f64::from(settings.assumed_slots);
        running < if slots > 0.0 { slots } else { assumed }
    })
}

/// Those that were not tried and, if asked for, have room for the input in their cache.
fn able(asked: &Asked<'_>) -> Vec<u32> {
    let all = 0..asked.routing.candidates;
    let mut able: Vec<u32> = all
        .filter(|position| !asked.tried.contains(position))
        .collect();
    if asked.plan.settings.pulsar.consider_kv_free_tokens {
        let free = candidates::column(Figure::KvFreeTokens);
        let wanted = f64::from(asked.request.est_input_tokens);
        // None reported is none free.
        able.retain(|at| {
            free.get(*at as usize)
                .is_some_and(|free| *free > 0.0 && *free >= wanted)
        });
    }
    able
}

/// How much of the order is looked at before anything is asked about all.
const HEAD: [u32; 2] = [1, 8];
/// And then.
const DEPTHS: [u32; 3] = [8, 32, u32::MAX];
/// Drawn among all when nobody has room.
const SPILL_CHOICES: u32 = 2;
