//! Who has dialled in, and the pools they serve.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::workers::pool::Pool;
use crate::workers::seat::Link;

/// All workers of this gateway.
#[derive(Default)]
pub(crate) struct Workers {
    /// By function.
    pools: Mutex<HashMap<Box<str>, Models>>,
    links: Mutex<HashMap<Name, Arc<Link>>>,
}

/// Pools by model.
type Models = HashMap<Box<str>, Arc<Pool>>;

/// A worker of a function.
#[derive(PartialEq, Eq, Hash)]
struct Name {
    function: Arc<str>,
    worker: Arc<str>,
}

impl Name {
    fn of(link: &Link) -> Self {
        Self {
            function: Arc::clone(&link.function),
            worker: Arc::clone(&link.worker),
        }
    }
}

/// Why a worker does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSeated {
    /// A newer connection of it is there.
    #[error("a newer connection of this worker is there")]
    Superseded,
    /// [`WORKERS_MAX`] are there.
    #[error("the gateway has as many workers as it may")]
    Full,
}

impl Workers {
    /// The pool of a model that the configuration lets workers serve; function and model in the words
    /// of the configuration and of tokens.
    pub(crate) fn pool(&self, function: &str, model: &str) -> Arc<Pool> {
        let mut pools = self.pools.lock();
        let models = pools.entry(function.into()).or_default();
        Arc::clone(models.entry(model.into()).or_default())
    }

    /// The pool of a model that a worker says it serves, whether the configuration has it or may have
    /// it one day. `None` when the function has [`MODELS_MAX`] already.
    pub(crate) fn announced(&self, function: &str, model: &str) -> Option<Arc<Pool>> {
        let mut pools = self.pools.lock();
        let models = pools.entry(function.into()).or_default();
        if let Some(pool) = models.get(model) {
            return Some(Arc::clone(pool));
        }
        if models.len() >= MODELS_MAX {
            // Those that neither a worker nor a configuration knows any more make room.
            models.retain(|_, pool| Arc::strong_count(pool) > 1);
            if models.len() >= MODELS_MAX {
                return None;
            }
        }
        Some(Arc::clone(models.entry(model.into()).or_default()))
    }

    /// Whether a connection of this age may come in.
    ///
    /// # Errors
    /// [`NotSeated`].
    pub(crate) fn may_join(
        &self,
        function: &str,
        worker: &str,
        epoch: u64,
    ) -> Result<(), NotSeated> {
        let links = self.links.lock();
        let name = Name {
            function: function.into(),
            worker: worker.into(),
        };
        match links.get(&name) {
            Some(link) if link.epoch > epoch => Err(NotSeated::Superseded),
            Some(_) => Ok(()),
            None if links.len() >= WORKERS_MAX => Err(NotSeated::Full),
            None => Ok(()),
        }
    }

    /// Lets a connection in; the older one of the same worker, if there is one, comes back: it is
    /// to be closed. When a newer one has come in meanwhile, the given one itself comes back.
    pub(crate) fn join(&self, link: &Arc<Link>) -> Option<Arc<Link>> {
        let mut links = self.links.lock();
        let name = Name::of(link);
        if links
            .get(&name)
            .is_some_and(|known| known.epoch > link.epoch)
        {
            return Some(Arc::clone(link));
        }
        links.insert(name, Arc::clone(link))
    }

    /// Forgets a connection, if it is still its worker's.
    pub(crate) fn leave(&self, link: &Arc<Link>) {
        let mut links = self.links.lock();
        let name = Name::of(link);
        if links
            .get(&name)
            .is_some_and(|known| Arc::ptr_eq(known, link))
        {
            links.remove(&name);
        }
    }

    /// Everybody, by function and name.
    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        let mut all: Vec<Arc<Link>> = self.links.lock().values().cloned().collect();
        all.sort_by(|one, other| {
            (&one.function, &one.worker).cmp(&(&other.function, &other.worker))
        });
        all
    }
}

/// Most workers at once.
pub(crate) const WORKERS_MAX: usize = 10_000;
/// Most models of one function that workers may bring it to; the configuration may have more.
const MODELS_MAX: usize = 1_024;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_function_leave_the_others_their_room() {
        let workers = Workers::default();
        let held: Vec<_> = (0..MODELS_MAX)
            .map(|number| workers.announced("greedy", &number.to_string()).unwrap())
            .collect();
        assert!(workers.announced("greedy", "more").is_none());
        assert!(Arc::ptr_eq(
            &workers.announced("greedy", "7").unwrap(),
            &held[7]
        ));
        assert!(workers.announced("other", "m").is_some());
        let of_config = workers.pool("greedy", "of the configuration");
        drop(held);
        assert!(
            workers.announced("greedy", "more").is_some(),
            "nobody has the rest any more"
        );
        let again = workers.announced("greedy", "of the configuration").unwrap();
        assert!(Arc::ptr_eq(&again, &of_config));
    }
}
