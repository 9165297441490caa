//! Who has dialled in, and the pools they serve.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::workers::pool::Pool;
use crate::workers::seat::Link;

/// All workers of this gateway.
#[derive(Default)]
pub(crate) struct Workers {
    pools: Mutex<HashMap<Served, Arc<Pool>>>,
    links: Mutex<HashMap<Name, Arc<Link>>>,
}

/// A model of a function.
#[derive(PartialEq, Eq, Hash)]
struct Served {
    function: Box<str>,
    model: Box<str>,
}

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
    /// The pool of a model of a function; both in the words of the configuration and of tokens.
    /// `None` when there are [`POOLS_MAX`].
    pub(crate) fn pool(&self, function: &str, model: &str) -> Option<Arc<Pool>> {
        let mut pools = self.pools.lock();
        let name = Served {
            function: function.into(),
            model: model.into(),
        };
        if let Some(pool) = pools.get(&name) {
            return Some(Arc::clone(pool));
        }
        if pools.len() >= POOLS_MAX {
            return None;
        }
        let pool = Arc::<Pool>::default();
        pools.insert(name, Arc::clone(&pool));
        Some(pool)
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
/// Most models of functions that workers have served, or that the configuration lets them serve.
const POOLS_MAX: usize = 16_384;
