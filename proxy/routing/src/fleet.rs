//! All clusters of the process: hands backends from one configuration generation to the next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::backend::Backend;
use crate::candidate::{Domain, Member};
use crate::cluster::{Cluster, ClusterSpec};
use crate::signal::Signal;

/// Registry that outlives every configuration generation. It owns no cluster and no backend:
/// these live as long as a snapshot or an exchange holds them, so nothing leaks over reloads,
/// and a backend that returns while its old exchanges still run keeps its counters.
#[derive(Debug, Default)]
pub struct Fleet {
    lineages: Mutex<HashMap<Box<str>, Lineage>>,
    generation: AtomicU64,
}

/// What generations of one cluster name share.
#[derive(Debug, Default)]
struct Lineage {
    cursor: Arc<AtomicU64>,
    signal: Arc<Signal>,
    clusters: Vec<Weak<Cluster>>,
    backends: HashMap<Arc<str>, Weak<Backend>>,
}

impl Fleet {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The cluster of a spec: a living one if any generation has the same spec, else a new one
    /// that shares the backends known by the same cluster name and id. Call it while the old
    /// generation still lives. Not for the request path; a join or a leave among 1,000 costs
    /// about as much as a few requests.
    ///
    /// A backend that a serving cluster did not have has joined at `now_ms` and starts slowly, if
    /// the spec says so.
    #[must_use]
    pub fn cluster(&self, spec: &ClusterSpec, now_ms: u64) -> Arc<Cluster> {
        let mut lineages = self.lineages.lock();
        let lineage = lineages.entry(spec.name.as_str().into()).or_default();
        lineage.prune();
        let living = lineage.clusters.iter().filter_map(Weak::upgrade);
        if let Some(same) = { living }.find(|cluster| cluster.spec() == spec) {
            return same;
        }
        let joined_ms = if lineage.clusters.is_empty() {
            0
        } else {
            now_ms
        };
        let (members, domains) = lineage.members(spec, joined_ms);
        let generation = self.generation.fetch_add(1, Relaxed) + 1;
        let shared = (Arc::clone(&lineage.cursor), Arc::clone(&lineage.signal));
        let cluster = Cluster::new(spec.clone(), members, domains, generation, shared);
        let cluster = Arc::new(cluster);
        lineage.clusters.push(Arc::downgrade(&cluster));
        lineage.signal.raise();
        cluster
    }

    /// Drops what is remembered of clusters and backends nobody holds any more. Call it after
    /// a reload; forgetting a cluster starts its cursor anew.
    pub fn forget_unused(&self) {
        self.lineages.lock().retain(|_, lineage| {
            lineage.prune();
            !lineage.clusters.is_empty() || !lineage.backends.is_empty()
        });
    }
}

impl Lineage {
    /// The members of a spec in its order, and their domains.
    fn members(&mut self, spec: &ClusterSpec, joined_ms: u64) -> (Vec<Member>, Vec<Arc<Domain>>) {
        let name: Arc<str> = spec.name.as_str().into();
        let mut members: Vec<Member> = Vec::with_capacity(spec.members.len());
        let mut domains = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::with_capacity(spec.members.len());
        let mut domain_of: HashMap<&str, u32> = HashMap::with_capacity(spec.members.len());
        for one in &spec.members {
            let same = known.get(one.id.as_str());
            if let Some(member) = same.and_then(|at| members.get_mut(*at)) {
                member.weight = member.weight.saturating_add(one.weight);
                continue;
            }
            let backend = self.backend(&name, &one.id, joined_ms);
            let domain = if one.domain.is_empty() {
                one.id.as_str()
            } else {
                one.domain.as_str()
            };
            let domain = *domain_of.entry(domain).or_insert_with(|| {
                let id = if one.domain.is_empty() {
                    Arc::clone(backend.id())
                } else {
                    domain.into()
                };
                domains.push(Arc::new(Domain::new(id)));
                u32::try_from(domains.len() - 1).unwrap_or(u32::MAX)
            });
            known.insert(&one.id, members.len());
            members.push(Member {
                index: u32::try_from(members.len()).unwrap_or(u32::MAX),
                weight: one.weight,
                max_concurrency: one.max_concurrency,
                backend,
                domain,
            });
        }
        (members, domains)
    }

    fn backend(&mut self, cluster: &Arc<str>, id: &str, joined_ms: u64) -> Arc<Backend> {
        if let Some(known) = self.backends.get(id).and_then(Weak::upgrade) {
            return known;
        }
        let signal = Arc::clone(&self.signal);
        let fresh = Arc::new(Backend::new(Arc::clone(cluster), id, signal, joined_ms));
        self.backends
            .insert(Arc::clone(fresh.id()), Arc::downgrade(&fresh));
        fresh
    }

    fn prune(&mut self) {
        self.clusters.retain(|cluster| cluster.strong_count() > 0);
        self.backends
            .retain(|_, backend| backend.strong_count() > 0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::cluster::MemberSpec;

    fn spec(name: &str, endpoints: &[(&str, u32)]) -> ClusterSpec {
        let members = endpoints
            .iter()
            .map(|(id, weight)| MemberSpec::new(id, *weight));
        ClusterSpec::new(name, members.collect())
    }

    #[test]
    fn a_reload_keeps_loads_and_cursor_and_takes_new_weights() {
        let fleet = Fleet::new();
        let old = fleet.cluster(&spec("c", &[("a:1", 1), ("b:1", 1)]), 0);
        let held = old.backends()[0].reserve().unwrap();
        assert_eq!(old.candidates(0, &[]).next_cursor(), 0);
        let new = fleet.cluster(&spec("c", &[("z:1", 1), ("a:1", 7)]), 0);
        drop(old);
        let carried = &new.backends()[1];
        assert_eq!((carried.backend.running(), carried.weight), (1, 7));
        assert_eq!(new.candidates(0, &[]).next_cursor(), 1);
        drop(held);
        assert_eq!(carried.backend.running(), 0);
    }

    #[test]
    fn the_same_spec_is_the_same_cluster_and_others_differ() {
        let fleet = Fleet::new();
        let first = fleet.cluster(&spec("c", &[("a:1", 1)]), 0);
        let changed = fleet.cluster(&spec("c", &[("a:1", 2)]), 0);
        assert!(Arc::ptr_eq(
            &first,
            &fleet.cluster(&spec("c", &[("a:1", 1)]), 0)
        ));
        assert_ne!(first.generation(), changed.generation());
        let other = fleet.cluster(&spec("d", &[("a:1", 1)]), 0);
        assert!(!Arc::ptr_eq(
            &first.backends()[0].backend,
            &other.backends()[0].backend
        ));
        assert_eq!(other.backends()[0].backend.cluster().as_ref(), "d");
    }

    #[test]
    fn a_backend_returning_under_a_running_exchange_keeps_its_count() {
        let fleet = Fleet::new();
        let held = fleet.cluster(&spec("c", &[("a:1", 1)]), 0).backends()[0].reserve();
        fleet.forget_unused();
        let again = fleet.cluster(&spec("c", &[("a:1", 1)]), 0);
        assert_eq!(again.backends()[0].backend.running(), 1);
        drop((held, again));
        fleet.forget_unused();
        assert!(fleet.lineages.lock().is_empty());
    }

    #[test]
    fn an_address_given_twice_is_one_backend() {
        let both = Fleet::new().cluster(&spec("c", &[("a:1", 1), ("a:1", 2)]), 0);
        assert_eq!(both.backends().len(), 1);
        assert_eq!(both.backends()[0].weight, 3);
    }
}
