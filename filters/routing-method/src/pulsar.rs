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
    let prefix = asked.plan.ranking_prefix(&key);
    let last = last(&asked.plan.settings);
    if asked.tried.is_empty()
        && !settings.consider_kv_free_tokens
        && let Some(position) = leading(asked, &prefix, last)
    {
        return Choice::Pick(position);
    }
    let able = able(asked);
    if able.is_empty() {
        return if asked.tried.is_empty() {
            admission::overloaded().into()
        } else {
            Choice::Abstain
        };
    }
    let fit = fit(asked, &able);
    if let Some(position) = last.filter(|position| fit.contains(position)) {
        return Choice::Pick(position);
    }
    if !fit.is_empty()
        && let Some(position) = first(asked, &prefix, &fit)
    {
        return Choice::Pick(position);
    }
    // All are busy: the better of a few.
    let mut able = able;
    let sample = power_of_two::sample(&mut able, SPILL_CHOICES);
    power_of_two::best(Compared::Ttft, asked.weights, sample).into()
}

/// The first of the order's head that is fit: usually one of a few is, and the others need not be
/// looked at one by one.
fn leading(asked: &Asked<'_>, prefix: &[u8], last: Option<u32>) -> Option<u32> {
    let settings = &asked.plan.settings.pulsar;
    let weighting = settings.weight.weighting();
    let limits = Limits::of(asked);
    let is_fit = |position: &u32| limits.admit(asked, *position);
    let first = last.or_else(|| first(asked, prefix, &[]));
    let mut looked = 0;
    let mut fit_of_next = |count: &u32| {
        let order = candidates::rendezvous_by(prefix, weighting, *count, &[]);
        let seen = std::mem::replace(&mut looked, order.len());
        order.into_iter().skip(seen).find(is_fit)
    };
    first
        .filter(is_fit)
        .or_else(|| HEADS.iter().find_map(&mut fit_of_next))
}

/// What is compared with, of all candidates.
struct Limits {
    /// Looked at for the first that has no free slot.
    shares: OnceCell<Shares>,
    escape: Escape,
}

impl Limits {
    fn of(asked: &Asked<'_>) -> Self {
        Self {
            shares: OnceCell::new(),
            escape: Escape::new(asked.plan.settings.pulsar.ttft_penalty_ms),
        }
    }

    fn admit(&self, asked: &Asked<'_>, position: u32) -> bool {
        let settings = &asked.plan.settings.pulsar;
        let ttft_us = || candidates::figure(position, Figure::TtftUs);
        self.escape.admits(ttft_us)
            && (has_slot(settings, position) || self.within_share(asked, position))
    }

    fn within_share(&self, asked: &Asked<'_>, position: u32) -> bool {
        let shares = self.shares.get_or_init(|| Shares::of(asked));
        let rate = shares.rate.and_then(|of| candidates::figure(position, of));
        let running = candidates::figure(position, Figure::Running);
        running.is_some_and(|running| running < shares.bound(asked, position, rate))
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

    /// Requests that a candidate of this rate may hold.
    #[allow(clippy::cast_precision_loss, reason = "weights have 32 bits")]
    fn bound(&self, asked: &Asked<'_>, position: u32, rate: Option<f64>) -> f64 {
        let weight = match self.rate {
            Some(_) => rate.filter(|rate| *rate > 0.0).unwrap_or(self.mean),
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
    let chosen = match able.as_slice() {
        [] => None,
        able => first(asked, &asked.plan.ranking_prefix(key), able),
    };
    chosen.map_or_else(|| admission::overloaded().into(), Choice::Pick)
}

fn first(asked: &Asked<'_>, prefix: &[u8], among: &[u32]) -> Option<u32> {
    let weighting = asked.plan.settings.pulsar.weight.weighting();
    let order = candidates::rendezvous_by(prefix, weighting, 1, among);
    order.first().copied()
}

fn last(settings: &Config) -> Option<u32> {
    if !settings.last_cluster_affinity {
        return None;
    }
    match candidates::session() {
        Session::Returning(position) => Some(position),
        Session::Unknown | Session::New | Session::Stale => None,
    }
}

fn has_slot(settings: &Pulsar, position: u32) -> bool {
    if settings.c == 0.0 {
        return true;
    }
    let running = candidates::figure(position, Figure::Running);
    let slots = candidates::figure(position, Figure::Slots);
    running
        .zip(slots)
        .is_some_and(|(running, slots)| running < known_slots(settings, slots))
}

fn known_slots(settings: &Pulsar, slots: f64) -> f64 {
    if slots > 0.0 {
        slots
    } else {
        f64::from(settings.assumed_slots)
    }
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

/// Those of `able` within their bound, and not much later than the best.
fn fit(asked: &Asked<'_>, able: &[u32]) -> Vec<u32> {
    let settings = &asked.plan.settings.pulsar;
    let mut fit = able.to_vec();
    if settings.c > 0.0 {
        let running = candidates::column(Figure::Running);
        let slots = candidates::column(Figure::Slots);
        let shares = Shares::of(asked);
        let rates = shares.rate.map(candidates::column).unwrap_or_default();
        fit.retain(|position| {
            let at = *position as usize;
            let bound = shares.bound(asked, *position, rates.get(at).copied());
            let both = running.get(at).zip(slots.get(at));
            both.is_some_and(|(running, slots)| *running < bound.max(known_slots(settings, *slots)))
        });
    }
    if settings.ttft_penalty_ms > 0.0 {
        let ttfts = candidates::column(Figure::TtftUs);
        let of = |position: &u32| ttfts.get(*position as usize).copied();
        let best = able.iter().filter_map(of).fold(f64::INFINITY, f64::min);
        let latest = best + settings.ttft_penalty_ms * 1e3;
        fit.retain(|position| of(position).is_some_and(|ttft| ttft <= latest));
    }
    fit
}

/// How much of the order is looked at before all are. The last is as many as the gateway picks out
/// without putting all in order.
const HEADS: [u32; 2] = [8, 32];
/// Drawn among all when nobody has room.
const SPILL_CHOICES: u32 = 2;
