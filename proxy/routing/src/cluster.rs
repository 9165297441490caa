//! A set of equal backends as one configuration generation names it, and who of them may serve.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwapOption;

use crate::backend::{Backend, EjectionPolicy};
use crate::candidates::{Candidate, CandidateSet, Members};
use crate::health::Health;

/// What the configuration says of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Unique name.
    pub name: String,
    /// Address and weight of each backend. Weight 0 takes no new exchange. Of an address
    /// given twice the weights are added.
    pub endpoints: Vec<(String, u32)>,
    /// Exchanges in progress per backend; 0 = no limit.
    pub max_concurrency: u32,
    /// When failing traffic ejects.
    pub ejection: EjectionPolicy,
    /// Whether active probes decide too; without them the standing they left is ignored.
    pub health: bool,
}

/// A cluster of one configuration generation. Immutable but for what hangs on its backends,
/// so building one that is then refused changes nothing.
#[derive(Debug)]
pub struct Cluster {
    name: Arc<str>,
    spec: ClusterSpec,
    full: Arc<Members>,
    /// The last set that lacked someone: usually the same for many exchanges in a row.
    partial: ArcSwapOption<Members>,
}

impl Cluster {
    pub(crate) fn new(
        spec: ClusterSpec,
        backends: Vec<(Arc<Backend>, u32)>,
        generation: u64,
        cursor: Arc<AtomicU64>,
    ) -> Self {
        let entries = backends
            .into_iter()
            .zip(0..)
            .map(|((backend, weight), index)| Candidate {
                index,
                weight,
                max_concurrency: spec.max_concurrency,
                backend,
            });
        Self {
            name: spec.name.as_str().into(),
            full: Arc::new(Members {
                generation,
                entries: entries.collect(),
                cursor,
            }),
            partial: ArcSwapOption::empty(),
            spec,
        }
    }

    /// Those who may serve now, without `excluded` (values of [`Candidate::index`], as tried
    /// before in the same exchange).
    ///
    /// Ejections beyond the policy's share are overlooked, latest-ending kept; and if nobody
    /// else is left, all ejected ones serve: a doubtful backend beats a sure refusal. Those
    /// failed by probes never serve. Allocates only when the set differs from the full one
    /// and from the last such one.
    #[must_use]
    pub fn candidates(&self, now_ms: u64, excluded: &[u32]) -> CandidateSet {
        let everyone = &self.full.entries;
        let (mut serving, mut ejected) = (0_usize, 0_usize);
        let mut generation = self.full.generation;
        for candidate in everyone {
            match self.standing(candidate, now_ms, excluded) {
                Standing::Serving => serving += 1,
                Standing::Ejected(_) => {
                    ejected += 1;
                    generation = without(generation, candidate.index);
                }
                Standing::Out => generation = without(generation, candidate.index),
            }
        }
        if serving == everyone.len() {
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

    /// Every backend, eligible or not, in the order of the configuration.
    #[must_use]
    pub fn backends(&self) -> &[Candidate] {
        &self.full.entries
    }

    /// Generation of the full set: unique among all clusters of the process.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.full.generation
    }

    /// Builds the set that serves. Looks at everyone anew: counters move meanwhile, and the
    /// generation must tell what is really in the set.
    fn gather(&self, now_ms: u64, excluded: &[u32]) -> Arc<Members> {
        let everyone = &self.full.entries;
        let mut picked = Vec::with_capacity(everyone.len());
        let mut ejected = Vec::new();
        for candidate in everyone {
            match self.standing(candidate, now_ms, excluded) {
                Standing::Serving => picked.push(candidate.index),
                Standing::Ejected(for_ms) => ejected.push((for_ms, candidate.index)),
                Standing::Out => {}
            }
        }
        let kept_out = if picked.is_empty() {
            0
        } else {
            self.ejected_max()
        };
        ejected.sort_unstable_by(|one, other| other.cmp(one));
        picked.extend(ejected.into_iter().skip(kept_out).map(|(_, index)| index));
        if picked.len() == everyone.len() {
            return Arc::clone(&self.full);
        }
        let mut generation = self.full.generation;
        let mut entries = Vec::with_capacity(picked.len());
        for candidate in everyone {
            if picked.contains(&candidate.index) {
                entries.push(candidate.clone());
            } else {
                generation = without(generation, candidate.index);
            }
        }
        Arc::new(Members {
            generation,
            entries,
            cursor: Arc::clone(&self.full.cursor),
        })
    }

    fn standing(&self, candidate: &Candidate, now_ms: u64, excluded: &[u32]) -> Standing {
        let backend = &candidate.backend;
        if candidate.weight == 0
            || (self.spec.health && backend.health() == Health::Unhealthy)
            || excluded.contains(&candidate.index)
        {
            return Standing::Out;
        }
        match backend.ejected_for_ms(now_ms) {
            0 => Standing::Serving,
            for_ms => Standing::Ejected(for_ms),
        }
    }

    fn ejected_max(&self) -> usize {
        let percent = usize::try_from(self.spec.ejection.max_percent.min(100)).unwrap_or(100);
        let share = self.full.entries.len().saturating_mul(percent) / 100;
        share.max(usize::from(percent > 0))
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::fleet::Fleet;

    fn cluster(count: usize, max_percent: u32) -> Arc<Cluster> {
        Fleet::default().cluster(&ClusterSpec {
            name: "c".into(),
            endpoints: (0..count).map(|i| (format!("h{i}:80"), 1)).collect(),
            max_concurrency: 2,
            ejection: EjectionPolicy {
                consecutive_failures: 1,
                base_ms: 100,
                max_percent,
            },
            health: true,
        })
    }

    fn fail(cluster: &Cluster, index: usize, now_ms: u64) {
        let backend = &cluster.backends()[index].backend;
        assert!(backend.record_failure(now_ms, &cluster.spec().ejection));
    }

    fn indices(cluster: &Cluster, now_ms: u64, excluded: &[u32]) -> Vec<u32> {
        let set = cluster.candidates(now_ms, excluded);
        set.iter().map(|candidate| candidate.index).collect()
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
        let probed = fleet.cluster(&spec);
        probed.backends()[0].backend.on_probe(false, 1, 1);
        assert_eq!(indices(&probed, 0, &[]), [1]);
        spec.health = false;
        assert_eq!(indices(&fleet.cluster(&spec), 0, &[]), [0, 1]);
    }
}
