//! A set of equal backends as one configuration generation names it, and who of them may serve.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwapOption;

use crate::candidate::{Candidate, Domain, Member};
use crate::candidates::{CandidateSet, Members};
use crate::ejection::EjectionPolicy;
use crate::health::Health;
use crate::signal::{Signal, Waiting};

/// What the configuration or a registry says of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Unique name.
    pub name: String,
    /// Its backends. Of an id given twice the weights are added.
    pub members: Vec<MemberSpec>,
    /// When failing traffic ejects.
    pub ejection: EjectionPolicy,
    /// Whether active probes decide too; without them the standing they left is ignored.
    pub health: bool,
    /// How long a backend that joins a serving cluster takes to its full weight; 0 = none.
    pub slow_start_ms: u32,
}

impl ClusterSpec {
    /// With the defaults: no probes, no slow start.
    #[must_use]
    pub fn new(name: &str, members: Vec<MemberSpec>) -> Self {
        Self {
            name: name.to_owned(),
            members,
            ejection: EjectionPolicy::default(),
            health: false,
            slow_start_ms: 0,
        }
    }
}

/// What is said of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSpec {
    /// Address or worker id, unique in the cluster: what its counters hang on.
    pub id: String,
    /// Capacity domain it belongs to; empty = one of its own, named by its id.
    pub domain: String,
    /// Weight relative to the others'. 0 takes no new exchange.
    pub weight: u32,
    /// Exchanges in progress; 0 = no limit.
    pub max_concurrency: u32,
}

impl MemberSpec {
    /// A domain of its own, without a limit.
    #[must_use]
    pub fn new(id: &str, weight: u32) -> Self {
        Self {
            id: id.to_owned(),
            domain: String::new(),
            weight,
            max_concurrency: 0,
        }
    }
}

/// A cluster of one generation. Immutable but for what hangs on its backends, so building one
/// that is then refused changes nothing.
#[derive(Debug)]
pub struct Cluster {
    name: Arc<str>,
    spec: ClusterSpec,
    everyone: Box<[Member]>,
    domains: Box<[Arc<Domain>]>,
    /// All of them, at full weight.
    full: Arc<Members>,
    /// The last set that lacked someone: usually the same for many exchanges in a row.
    partial: ArcSwapOption<Members>,
    /// When the last who joined has its full weight.
    warm_ms: u64,
    signal: Arc<Signal>,
}

impl Cluster {
    /// Of members in order of their index, with their domains.
    pub(crate) fn new(
        spec: ClusterSpec,
        everyone: Vec<Member>,
        domains: Vec<Arc<Domain>>,
        generation: u64,
        shared: (Arc<AtomicU64>, Arc<Signal>),
    ) -> Self {
        let (cursor, signal) = shared;
        let slow_start_ms = u64::from(spec.slow_start_ms);
        let warm = everyone
            .iter()
            .map(|member| match member.backend.joined_ms() {
                0 => 0,
                joined_ms => joined_ms.saturating_add(slow_start_ms),
            });
        let warm_ms = warm.max().unwrap_or(0);
        let whole = everyone.iter().map(|member| (member, WARM));
        let entries = entries(&domains, whole);
        Self {
            name: spec.name.as_str().into(),
            full: Arc::new(Members::new(generation, entries, cursor)),
            everyone: everyone.into(),
            domains: domains.into(),
            partial: ArcSwapOption::empty(),
            warm_ms,
            signal,
            spec,
        }
    }

    /// Those who may serve now, without `excluded` (values of [`Member::index`], as tried
    /// before in the same exchange). A domain is among them as long as one of its backends is.
    ///
    /// Ejections beyond the policy's share are overlooked, latest-ending kept; and if nobody
    /// else is left, all ejected ones serve: a doubtful backend beats a sure refusal. Those
    /// failed by probes never serve. Allocates only when the set differs from the full one
    /// and from the last such one.
    #[must_use]
    pub fn candidates(&self, now_ms: u64, excluded: &[u32]) -> CandidateSet {
        let (mut serving, mut ejected) = (0_usize, 0_usize);
        let mut generation = self.full.generation;
        let warming = now_ms < self.warm_ms;
        for member in &self.everyone {
            match self.standing(member, now_ms, excluded) {
                Standing::Serving => {
                    serving += 1;
                    if warming {
                        generation = at_step(generation, member, self.step(member, now_ms));
                    }
                }
                Standing::Ejected(_) => {
                    ejected += 1;
                    generation = without(generation, member.index);
                }
                Standing::Out => generation = without(generation, member.index),
            }
        }
        if generation == self.full.generation {
            return CandidateSet::new(Arc::clone(&self.full), now_ms);
        }
        let strict = serving > 0 && ejected <= self.ejected_max();
        if strict {
            let last = self.partial.load();
            if let Some(last) = last.as_ref().filter(|last| last.generation == generation) {
                return CandidateSet::new(Arc::clone(last), now_ms);
            }
        }
        let members = self.gather(now_ms, excluded);
        if excluded.is_empty() && !Arc::ptr_eq(&members, &self.full) {
            self.partial.store(Some(Arc::clone(&members)));
        }
        CandidateSet::new(members, now_ms)
    }

    /// Name of the cluster.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it was built from.
    #[must_use]
    pub fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    /// Every backend, eligible or not, in the order of the spec.
    #[must_use]
    pub fn backends(&self) -> &[Member] {
        &self.everyone
    }

    /// Generation of the full set: unique among all clusters of the process.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.full.generation
    }

    /// A place among those who wait for a better moment, the most urgent first and of equals who
    /// came first.
    #[must_use]
    pub fn wait(&self, priority: u32) -> Waiting {
        Waiting::new(Arc::clone(&self.signal), priority)
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.signal.waiting()
    }

    /// Whether somebody who waits and comes before a newcomer of this priority is about to look
    /// for what has changed.
    #[must_use]
    pub fn is_taken_before(&self, priority: u32) -> bool {
        self.signal.is_taken_before(priority)
    }

    /// Builds the set that serves. Looks at everyone anew: counters move meanwhile, and the
    /// generation must tell what is really in the set.
    fn gather(&self, now_ms: u64, excluded: &[u32]) -> Arc<Members> {
        let mut picked = vec![false; self.everyone.len()];
        let mut serving = 0_usize;
        let mut ejected = Vec::new();
        for (member, picked) in self.everyone.iter().zip(&mut picked) {
            match self.standing(member, now_ms, excluded) {
                Standing::Serving => {
                    *picked = true;
                    serving += 1;
                }
                Standing::Ejected(for_ms) => ejected.push((for_ms, member.index)),
                Standing::Out => {}
            }
        }
        let kept_out = if serving == 0 { 0 } else { self.ejected_max() };
        ejected.sort_unstable_by(|one, other| other.cmp(one));
        for (_, index) in ejected.into_iter().skip(kept_out) {
            if let Some(picked) = picked.get_mut(index as usize) {
                *picked = true;
            }
        }
        let mut generation = self.full.generation;
        let mut kept = Vec::with_capacity(picked.len());
        for (member, picked) in self.everyone.iter().zip(picked) {
            if picked {
                let step = self.step(member, now_ms);
                generation = at_step(generation, member, step);
                kept.push((member, step));
            } else {
                generation = without(generation, member.index);
            }
        }
        if generation == self.full.generation {
            return Arc::clone(&self.full);
        }
        let entries = entries(&self.domains, kept.into_iter());
        let cursor = Arc::clone(&self.full.cursor);
        Arc::new(Members::new(generation, entries, cursor))
    }

    fn standing(&self, member: &Member, now_ms: u64, excluded: &[u32]) -> Standing {
        let backend = &member.backend;
        if member.weight == 0
            || (self.spec.health && backend.health() == Health::Unhealthy)
            || excluded.contains(&member.index)
        {
            return Standing::Out;
        }
        match backend.ejected_for_ms(now_ms) {
            0 => Standing::Serving,
            for_ms => Standing::Ejected(for_ms),
        }
    }

    /// How far it is on its way to full weight, 1..=[`WARM`]: in steps, so that a set stays the
    /// same for a while.
    fn step(&self, member: &Member, now_ms: u64) -> u32 {
        let joined_ms = member.backend.joined_ms();
        let slow_start_ms = u64::from(self.spec.slow_start_ms);
        if joined_ms == 0 || now_ms >= joined_ms.saturating_add(slow_start_ms) {
            return WARM;
        }
        let age_ms = now_ms.saturating_sub(joined_ms);
        let steps = age_ms.saturating_mul(u64::from(WARM)) / slow_start_ms.max(1);
        u32::try_from(steps).unwrap_or(WARM).clamp(1, WARM)
    }

    fn ejected_max(&self) -> usize {
        let percent = usize::try_from(self.spec.ejection.max_percent.min(100)).unwrap_or(100);
        let share = self.everyone.len().saturating_mul(percent) / 100;
        share.max(usize::from(percent > 0))
    }
}

/// The domains of the members given, each with its own in order. While one is not at its full
/// weight all weights are tenths.
fn entries<'a>(
    domains: &[Arc<Domain>],
    members: impl Iterator<Item = (&'a Member, u32)> + Clone,
) -> Vec<Candidate> {
    let scale = if { members.clone() }.all(|(_, step)| step == WARM) {
        1
    } else {
        WARM
    };
    let mut places: Vec<Option<usize>> = vec![None; domains.len()];
    let mut entries: Vec<Candidate> = Vec::new();
    for (member, step) in members {
        let at = member.domain as usize;
        let (Some(place), Some(domain)) = (places.get_mut(at), domains.get(at)) else {
            continue;
        };
        let weight = match scale {
            1 => member.weight,
            _ => member.weight.saturating_mul(step),
        };
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let warmth = step as f32 / WARM as f32;
        match place.and_then(|place| entries.get_mut(place)) {
            Some(entry) => entry.join(weight, warmth, member.clone()),
            None => {
                *place = Some(entries.len());
                let domain = Arc::clone(domain);
                entries.push(Candidate::new(domain, weight, warmth, member.clone()));
            }
        }
    }
    entries
}

enum Standing {
    Serving,
    /// For how many milliseconds more.
    Ejected(u64),
    Out,
}

/// The generation of a set that lacks one more: equal numbers mean equal members. Bit 52 sets
/// such numbers apart from those counted up; 53 bits, since some guests read it as a double.
fn without(generation: u64, index: u32) -> u64 {
    // Multiplied, so that a small index cannot make up for a neighbouring generation.
    let place = (u64::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut mixed = generation ^ place;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 12) | (1 << 52)
}

/// The generation of a set in which one is at a step below its full weight.
fn at_step(generation: u64, member: &Member, step: u32) -> u64 {
    if step == WARM {
        generation
    } else {
        without(generation, member.index | (step << STEP_SHIFT))
    }
}

/// Steps to full weight.
const WARM: u32 = 10;
/// Above every index: no cluster has 2^28 backends.
const STEP_SHIFT: u32 = 28;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::fleet::Fleet;
    use crate::load::Figure;
    use crate::prediction::Demand;
    use crate::report::Report;

    fn cluster(count: usize, max_percent: u32) -> Arc<Cluster> {
        let members = (0..count).map(|i| MemberSpec::new(&format!("h{i}:80"), 1));
        let spec = ClusterSpec {
            ejection: EjectionPolicy {
                consecutive_failures: 1,
                base_ms: 100,
                max_percent,
            },
            health: true,
            ..ClusterSpec::new("c", members.collect())
        };
        Fleet::default().cluster(&spec, 0)
    }

    fn fail(cluster: &Cluster, index: usize, now_ms: u64) {
        let backend = &cluster.backends()[index].backend;
        assert!(backend.record_failure(now_ms, &cluster.spec().ejection));
    }

    fn indices(cluster: &Cluster, now_ms: u64, excluded: &[u32]) -> Vec<u32> {
        let set = cluster.candidates(now_ms, excluded);
        let members = set.iter().flat_map(Candidate::members);
        members.map(|member| member.index).collect()
    }

    #[test]
    fn ejected_excluded_and_failed_ones_are_left_out() {
        let four = cluster(4, 50);
        assert_eq!(indices(&four, 0, &[]), [0, 1, 2, 3]);
        fail(&four, 1, 10);
        assert_eq!(indices(&four, 10, &[]), [0, 2, 3]);
        assert_eq!(indices(&four, 10, &[3]), [0, 2]);
        four.backends()[0].backend.on_probe(false, 1, 1);
        assert_eq!(indices(&four, 10, &[3]), [2]);
        assert_eq!(
            indices(&four, 10, &[3, 2]),
            [1],
            "ejected ones as the last resort"
        );
        assert_eq!(
            indices(&four, 110, &[]),
            [1, 2, 3],
            "the ejection ends by itself"
        );
        assert!(
            indices(&four, 110, &[1, 2, 3]).is_empty(),
            "failed ones never"
        );
    }

    #[test]
    fn no_more_than_the_share_is_ejected() {
        let check = |count, max_percent, failing: &[usize], expected: &[u32]| {
            let some = cluster(count, max_percent);
            for (at, index) in failing.iter().enumerate() {
                fail(&some, *index, 10 + at as u64);
            }
            let label = format!("{count} at {max_percent} %, failing {failing:?}");
            assert_eq!(indices(&some, 20, &[]), expected, "{label}");
        };
        check(4, 50, &[0, 1], &[2, 3]);
        check(4, 50, &[0, 1, 2], &[0, 3]);
        check(4, 10, &[2, 3], &[0, 1, 2]);
        check(4, 0, &[0], &[0, 1, 2, 3]);
        check(3, 100, &[0, 1], &[2]);
        check(3, 100, &[0, 1, 2], &[0, 1, 2]);
        check(1, 100, &[0], &[0]);
    }

    #[test]
    fn generations_tell_sets_apart_and_sets_are_shared() {
        let four = cluster(4, 50);
        let full = four.candidates(0, &[]);
        assert_eq!(full.generation(), four.generation());
        assert!(full.shares(&four.candidates(5, &[])));
        fail(&four, 1, 10);
        let first = four.candidates(10, &[]);
        assert!(
            first.shares(&four.candidates(11, &[])),
            "no second allocation"
        );
        let excluded = four.candidates(0, &[1]);
        assert_eq!(excluded.generation(), first.generation(), "same members");
        let mut seen: Vec<u64> = [&[0][..], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]]
            .iter()
            .map(|excluded| four.candidates(500, excluded).generation())
            .collect();
        seen.push(full.generation());
        assert!(seen.iter().all(|generation| *generation < 1 << 53));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 8);
    }

    #[test]
    fn sets_of_neighbouring_generations_do_not_collide() {
        let mut seen: Vec<u64> = (1..200)
            .flat_map(|generation| (0..200).map(move |index| without(generation, index)))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 199 * 200);
    }

    #[test]
    fn probes_count_only_where_the_spec_wants_them() {
        let fleet = Fleet::default();
        let mut spec = cluster(2, 50).spec().clone();
        let probed = fleet.cluster(&spec, 0);
        probed.backends()[0].backend.on_probe(false, 1, 1);
        assert_eq!(indices(&probed, 0, &[]), [1]);
        spec.health = false;
        assert_eq!(indices(&fleet.cluster(&spec, 0), 0, &[]), [0, 1]);
    }

    #[test]
    fn backends_of_a_domain_are_one_candidate() {
        let member = |id: &str, domain: &str| MemberSpec {
            domain: domain.into(),
            ..MemberSpec::new(id, 2)
        };
        let members = vec![
            member("a", "x"),
            member("b", ""),
            member("c", "x"),
            member("d", "x"),
        ];
        let all = Fleet::default().cluster(&ClusterSpec::new("c", members), 0);
        let set = all.candidates(0, &[]);
        let ids: Vec<&str> = set.iter().map(|one| one.id().as_ref()).collect();
        assert_eq!(ids, ["x", "b"]);
        assert_eq!(
            (set.at(0).unwrap().weight(), set.at(1).unwrap().weight()),
            (6, 2)
        );
        let turns: Vec<u32> = (0..6)
            .map(|_| set.at(0).unwrap().reserve().unwrap().0)
            .collect();
        assert_eq!(turns, [0, 2, 3, 0, 2, 3], "one after the other");
        let fewer = all.candidates(0, &[0, 3]);
        assert_eq!(fewer.len(), 2);
        assert_eq!(fewer.at(1).unwrap().reserve().unwrap().0, 2);
        assert_eq!(all.candidates(0, &[0, 2, 3]).len(), 1, "all of it is tried");
    }

    #[test]
    fn figures_of_a_domain_are_sums_means_and_the_latest() {
        let members = ["a", "b"].map(|id| MemberSpec {
            domain: "x".into(),
            ..MemberSpec::new(id, 1)
        });
        let all = Fleet::default().cluster(&ClusterSpec::new("c", members.into()), 0);
        let reports = [(0, 10, 5, 3, 1_000), (1, 20, 7, 9, 3_000)];
        for (at, at_ms, queued, running, rtt_us) in reports {
            let backend = &all.backends()[at].backend;
            backend.record_rtt_us(rtt_us);
            let report = Report {
                running,
                queued,
                queued_input_tokens: 100,
                slots: 8 + running,
                kv_free_tokens: u64::from(running),
                input_tps: 50.0,
                max_output_tps: running as f32,
                ..Report::default()
            };
            backend.report(&report, at_ms);
        }
        let set = all.candidates(30, &[]);
        let _held = set.at(0).unwrap().reserve().unwrap();
        let load = set.load_at(0).unwrap();
        assert_eq!((load.queued, load.queued_input_tokens), (12, 200), "sums");
        assert_eq!((load.running, load.slots, load.kv_free_tokens), (10, 17, 9));
        assert_eq!(
            (load.rtt_us, load.age_ms),
            (2_000, 10),
            "the mean, the latest"
        );
        assert!((load.input_tps - 100.0).abs() < 0.1 && (load.max_output_tps - 9.0).abs() < 0.1);
        let column = set.column(Figure::Running, &Demand::default());
        assert_eq!(column, [10.0]);
    }

    #[test]
    fn a_backend_that_joins_starts_slowly() {
        let fleet = Fleet::default();
        let spec = |ids: &[&str]| ClusterSpec {
            slow_start_ms: 10_000,
            ..ClusterSpec::new("c", ids.iter().map(|id| MemberSpec::new(id, 3)).collect())
        };
        let first = fleet.cluster(&spec(&["a", "b"]), 1_000);
        let weights = |cluster: &Cluster, now_ms| -> Vec<u32> {
            let set = cluster.candidates(now_ms, &[]);
            set.iter().map(Candidate::weight).collect()
        };
        assert_eq!(weights(&first, 1_000), [3, 3], "nobody was there before");
        let more = fleet.cluster(&spec(&["a", "b", "c"]), 5_000);
        for (now_ms, expected) in [(5_000, 3), (6_000, 3), (7_500, 6), (14_900, 27)] {
            assert_eq!(weights(&more, now_ms), [30, 30, expected], "at {now_ms}");
        }
        assert_eq!(weights(&more, 15_000), [3, 3, 3]);
        let (early, same) = (more.candidates(7_000, &[]), more.candidates(7_900, &[]));
        assert!(early.shares(&same), "the same for a step");
        assert_ne!(early.generation(), more.candidates(8_000, &[]).generation());
        assert_eq!(
            weights(&more, 7_000).len(),
            more.candidates(7_000, &[]).len()
        );
    }
}
