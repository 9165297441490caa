//! A candidate: one capacity domain of one or more backends, as a value at selection time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use xxhash_rust::xxh3::xxh3_64;

use crate::backend::Backend;
use crate::load::{Figure, Load};
use crate::prediction::{Demand, Source};
use crate::rendezvous::Weighting;
use crate::report;
use crate::reservation::Reservation;

/// A backend with its place in a cluster.
#[derive(Debug, Clone)]
pub struct Member {
    /// Place in the cluster's member list: what `excluded` lists and what tells how it is
    /// dialled. Not the position in a candidate set.
    pub index: u32,
    /// Configured weight, relative to the others'.
    pub weight: u32,
    /// Exchanges in progress it may hold; 0 = no limit.
    pub max_concurrency: u32,
    /// The backend itself.
    pub backend: Arc<Backend>,
    /// Place of its domain in the cluster's list of them.
    pub(crate) domain: u32,
}

impl Member {
    /// Claims it for one exchange; `None` when it holds `max_concurrency` already. Otherwise
    /// its index, and the claim.
    #[must_use]
    pub fn reserve(&self) -> Option<(u32, Reservation)> {
        Some((self.index, self.backend.reserve(self.max_concurrency)?))
    }
}

/// What all sets share of a domain.
#[derive(Debug)]
pub(crate) struct Domain {
    id: Arc<str>,
    id_hash: u64,
    turn: AtomicU32,
}

impl Domain {
    pub(crate) fn new(id: Arc<str>) -> Self {
        Self {
            id_hash: xxh3_64(id.as_bytes()),
            id,
            turn: AtomicU32::new(0),
        }
    }
}

/// A capacity domain at selection time: backends that share what routing decides by, such as the
/// workers of one engine. An endpoint of the configuration is a domain of its own.
#[derive(Debug, Clone)]
pub struct Candidate {
    weight: u32,
    /// Share of its full weight that it has by now.
    warmth: f32,
    first: Member,
    /// Empty for a domain of one.
    others: Box<[Member]>,
    domain: Arc<Domain>,
}

impl Candidate {
    /// Of the eligible members of a domain, each with the weight it has now.
    pub(crate) fn new(domain: Arc<Domain>, weight: u32, warmth: f32, first: Member) -> Self {
        Self {
            weight,
            warmth,
            first,
            others: Box::default(),
            domain,
        }
    }

    pub(crate) fn join(&mut self, weight: u32, warmth: f32, member: Member) {
        let (mine, more) = (f64::from(self.weight), f64::from(weight));
        let mixed = (mine * f64::from(self.warmth) + more * f64::from(warmth)) / (mine + more);
        #[allow(clippy::cast_possible_truncation, reason = "a share of 0..=1")]
        if mixed.is_finite() {
            self.warmth = mixed as f32;
        }
        self.weight = self.weight.saturating_add(weight);
        let mut others = std::mem::take(&mut self.others).into_vec();
        others.push(member);
        self.others = others.into_boxed_slice();
    }

    /// Name of the domain: the cluster id of workers, the address of an endpoint.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.domain.id
    }

    /// Weight relative to the others' in the same set; of a young one the part it has by now.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Exchanges in progress all its backends may hold; 0 = no limit.
    #[must_use]
    pub fn max_concurrency(&self) -> u32 {
        let limits = self.members().map(|member| member.max_concurrency);
        let mut sum = 0_u32;
        for limit in limits {
            if limit == 0 {
                return 0;
            }
            sum = sum.saturating_add(limit);
        }
        sum
    }

    /// Its eligible backends.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Claims one of its backends for one exchange, in turn among those with room, and says
    /// which by [`Member::index`]. `None` when none has room.
    #[must_use]
    pub fn reserve(&self) -> Option<(u32, Reservation)> {
        if self.others.is_empty() {
            return self.first.reserve();
        }
        let start = self.domain.turn.fetch_add(1, Relaxed) as usize;
        let count = self.others.len() + 1;
        (0..count).find_map(|step| self.member(start.wrapping_add(step) % count)?.reserve())
    }

    /// Live figures.
    #[must_use]
    pub fn load(&self, now_ms: u64) -> Load {
        let first = &self.first.backend;
        let mut sum = first.load(now_ms);
        if self.others.is_empty() {
            return sum;
        }
        let mut latest_ms = first.reported_ms();
        let mut reported = first.reported_running();
        let mut ours = first.running();
        let mut pending = first.pending_running.sum();
        let mut ended = first.pending_ended.sum();
        let (mut rtt_us, mut rtts) = (u64::from(sum.rtt_us), u64::from(sum.rtt_us > 0));
        let mut bias = sum.bias;
        for member in &self.others {
            let backend = &member.backend;
            let load = backend.load(now_ms);
            let newer = backend.reported_ms() > latest_ms;
            if newer {
                latest_ms = backend.reported_ms();
                reported = backend.reported_running();
            }
            ours = ours.saturating_add(backend.running());
            pending += backend.pending_running.sum();
            ended += backend.pending_ended.sum();
            rtt_us += u64::from(load.rtt_us);
            rtts += u64::from(load.rtt_us > 0);
            bias += load.bias;
            sum.join(&load, newer);
        }
        sum.running = reported
            .saturating_add(u32::try_from(pending).unwrap_or(u32::MAX))
            .saturating_sub(u32::try_from(ended).unwrap_or(u32::MAX))
            .max(ours);
        sum.rtt_us = u32::try_from(rtt_us.checked_div(rtts).unwrap_or(0)).unwrap_or(u32::MAX);
        #[allow(clippy::cast_precision_loss, reason = "few backends")]
        let count = (self.others.len() + 1) as f32;
        sum.bias = bias / count;
        sum
    }

    /// One live figure: of a domain of one it reads no more than it needs.
    #[inline(always)]
    #[must_use]
    pub fn figure(&self, figure: Figure, demand: &Demand, now_ms: u64) -> f64 {
        if self.others.is_empty() {
            self.first.backend.figure(figure, demand, now_ms)
        } else {
            // A copy: whose address is given away is read again for each candidate.
            let demand = *demand;
            self.load(now_ms).figure(figure, &demand)
        }
    }

    /// Its weight by a rule; `None` = the rule's figure is not known of it.
    pub(crate) fn weight_by(&self, weighting: Weighting) -> Option<f64> {
        let backend = &self.first.backend;
        let rate = match (weighting, self.others.is_empty()) {
            (Weighting::Configured, _) => return Some(f64::from(self.weight)),
            (Weighting::InputTps, true) => backend.stepped_input_tps(),
            (Weighting::MaxInputTps, true) => backend.stepped_max_input_tps(),
            (Weighting::InputTps, false) => {
                let rates = self.members().map(|member| member.backend.reported_tps());
                report::stepped(rates.sum())
            }
            (Weighting::MaxInputTps, false) => {
                let latest = self
                    .members()
                    .max_by_key(|member| member.backend.reported_ms());
                latest.map_or(0.0, |member| {
                    report::stepped(Source::max_input_tps(member.backend.as_ref()))
                })
            }
        };
        (rate > 0.0).then(|| f64::from(rate) * f64::from(self.warmth))
    }

    /// Whether it is one backend.
    pub(crate) fn is_one(&self) -> bool {
        self.others.is_empty()
    }

    pub(crate) fn id_hash(&self) -> u64 {
        self.domain.id_hash
    }

    fn member(&self, at: usize) -> Option<&Member> {
        match at.checked_sub(1) {
            None => Some(&self.first),
            Some(at) => self.others.get(at),
        }
    }
}
