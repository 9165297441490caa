//! Requests that several callers want at the same time, sent once.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::Pin;

use futures_util::FutureExt as _;
use futures_util::future::WeakShared;
use parking_lot::Mutex;

type Flight<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What is under way, by key. A flight has no task of its own: whoever waits for it drives it, so
/// that it goes on as long as anybody waits, whoever began it, and is given up when nobody does.
pub(crate) struct Flights<K, T: Clone> {
    under_way: Mutex<HashMap<K, WeakShared<Flight<T>>>>,
}

impl<K, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
        }
    }
}

impl<K: Clone + Eq + Hash, T: Clone> Flights<K, T> {
    /// The result of the flight of this key that is under way, or of a new one.
    pub(crate) async fn join<F>(&self, key: K, begin: impl FnOnce() -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        let flight = {
            let mut under_way = self.under_way.lock();
            let known = under_way.get(&key).and_then(WeakShared::upgrade);
            // One that has arrived but is still held by someone answers of the past.
            match known.filter(|flight| flight.peek().is_none()) {
                Some(known) => known,
                None => {
                    let begin: Flight<T> = Box::pin(begin());
                    let fresh = begin.shared();
                    if let Some(weak) = fresh.downgrade() {
                        under_way.insert(key.clone(), weak);
                    }
                    fresh
                }
            }
        };
        let _waiter = Waiter { flights: self, key };
        flight.await
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.under_way.lock().len()
    }
}

/// Removes the entry with the last that waited, whether it got the result or went away.
struct Waiter<'a, K: Eq + Hash, T: Clone> {
    flights: &'a Flights<K, T>,
    key: K,
}

impl<K: Eq + Hash, T: Clone> Drop for Waiter<'_, K, T> {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way.lock();
        let over = |flight: &WeakShared<Flight<T>>| {
            flight
                .upgrade()
                .is_none_or(|flight| flight.peek().is_some())
        };
        if under_way.get(&self.key).is_some_and(over) {
            under_way.remove(&self.key);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::sync::oneshot;
    use tokio::task::JoinSet;

    use super::*;

    type Counted = Arc<(Flights<u8, usize>, AtomicUsize)>;

    /// Waits for `done` in the flight; its result is how many flights there were.
    async fn wait(shared: Counted, done: Option<oneshot::Receiver<()>>) -> usize {
        let begin = || {
            let number = shared.1.fetch_add(1, SeqCst) + 1;
            async move {
                if let Some(done) = done {
                    done.await.unwrap();
                }
                number
            }
        };
        shared.0.join(7, begin).await
    }

    #[tokio::test]
    async fn many_fly_once_and_who_comes_later_flies_again() {
        let shared = Counted::default();
        let (arrive, done) = oneshot::channel();
        let leader = tokio::spawn(wait(shared.clone(), Some(done)));
        while shared.1.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let mut waiters = JoinSet::new();
        for _ in 0..100 {
            waiters.spawn(wait(shared.clone(), None));
        }
        for _ in 0..waiters.len() {
            tokio::task::yield_now().await;
        }
        arrive.send(()).unwrap();
        assert_eq!(waiters.join_all().await, vec![1; 100]);
        assert_eq!(leader.await.unwrap(), 1);
        assert_eq!(wait(shared.clone(), None).await, 2);
        assert_eq!(shared.0.len(), 0);
    }

    #[tokio::test]
    async fn a_leader_that_goes_away_takes_nobody_along() {
        let shared = Counted::default();
        let (arrive, done) = oneshot::channel();
        let leader = tokio::spawn(wait(shared.clone(), Some(done)));
        while shared.1.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let waiter = tokio::spawn(wait(shared.clone(), None));
        tokio::task::yield_now().await;
        leader.abort();
        assert!(leader.await.is_err());
        arrive.send(()).unwrap();
        assert_eq!(waiter.await.unwrap(), 1);
        assert_eq!(shared.0.len(), 0);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_given_up() {
        let shared = Counted::default();
        let (mut arrive, done) = oneshot::channel();
        let only = tokio::spawn(wait(shared.clone(), Some(done)));
        while shared.1.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        only.abort();
        assert!(only.await.is_err());
        arrive.closed().await;
        assert_eq!(shared.0.len(), 0);
    }
}
