//! All clusters of the process: hands backends from one configuration generation to the next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::backend::Backend;
use crate::cluster::{Cluster, ClusterSpec};

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
    /// that shares the backends known by the same cluster name and address. Call it while the
    /// old snapshot still lives. Not for the request path.
    #[must_use]
    pub fn cluster(&self, spec: &ClusterSpec) -> Arc<Cluster> {
        let mut lineages = self.lineages.lock();
        let lineage = lineages.entry(spec.name.as_str().into()).or_default();
        lineage.prune();
        let living = lineage.clusters.iter().filter_map(Weak::upgrade);
        if let Some(same) = { living }.find(|cluster| cluster.spec() == spec) {
            return same;
        }
        let name: Arc<str> = spec.name.as_str().into();
        let mut backends: Vec<(Arc<Backend>, u32)> = Vec::with_capacity(spec.endpoints.len());
        for (address, weight) in &spec.endpoints {
            match backends
                .iter_mut()
                .find(|(known, _)| **known.id() == **address)
            {
                Some((_, sum)) => *sum = sum.saturating_add(*weight),
                None => backends.push((lineage.backend(&name, address), *weight)),
            }
        }
        let generation = self.generation.fetch_add(1, Relaxed) + 1;
        let cursor = Arc::clone(&lineage.cursor);
        let cluster = Arc::new(Cluster::new(spec.clone(), backends, generation, cursor));
        lineage.clusters.push(Arc::downgrade(&cluster));
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
    fn backend(&mut self, cluster: &Arc<str>, address: &str) -> Arc<Backend> {
        if let Some(known) = self.backends.get(address).and_then(Weak::upgrade) {
            return known;
        }
        let fresh = Arc::new(Backend::new(Arc::clone(cluster), address));
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
    use crate::backend::EjectionPolicy;

    fn spec(name: &str, endpoints: &[(&str, u32)]) -> ClusterSpec {
        ClusterSpec {
            name: name.into(),
            endpoints: endpoints.iter().map(|(a, w)| ((*a).into(), *w)).collect(),
            max_concurrency: 0,
            ejection: EjectionPolicy::default(),
            health: false,
        }
    }

    #[test]
    fn a_reload_keeps_loads_and_cursor_and_takes_new_weights() {
        let fleet = Fleet::new();
        let old = fleet.cluster(&spec("c", &[("a:1", 1), ("b:1", 1)]));
        let held = old.backends()[0].reserve().unwrap();
        assert_eq!(old.candidates(0, &[]).next_cursor(), 0);
        let new = fleet.cluster(&spec("c", &[("z:1", 1), ("a:1", 7)]));
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
        let first = fleet.cluster(&spec("c", &[("a:1", 1)]));
        let changed = fleet.cluster(&spec("c", &[("a:1", 2)]));
        assert!(Arc::ptr_eq(
            &first,
            &fleet.cluster(&spec("c", &[("a:1", 1)]))
        ));
        assert_ne!(first.generation(), changed.generation());
        let other = fleet.cluster(&spec("d", &[("a:1", 1)]));
        assert!(!Arc::ptr_eq(
            &first.backends()[0].backend,
            &other.backends()[0].backend
        ));
        assert_eq!(other.backends()[0].backend.cluster().as_ref(), "d");
    }

    #[test]
    fn a_backend_returning_under_a_running_exchange_keeps_its_count() {
        let fleet = Fleet::new();
        let held = fleet.cluster(&spec("c", &[("a:1", 1)])).backends()[0].reserve();
        fleet.forget_unused();
        let again = fleet.cluster(&spec("c", &[("a:1", 1)]));
        assert_eq!(again.backends()[0].backend.running(), 1);
        drop((held, again));
        fleet.forget_unused();
        assert!(fleet.lineages.lock().is_empty());
    }

    #[test]
    fn an_address_given_twice_is_one_backend() {
        let both = Fleet::new().cluster(&spec("c", &[("a:1", 1), ("a:1", 2)]));
        assert_eq!(both.backends().len(), 1);
        assert_eq!(both.backends()[0].weight, 3);
    }
}
