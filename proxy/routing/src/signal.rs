//! Wakes exchanges that wait for a better moment to be routed.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Raised when something about a cluster changed for the better, maybe: a report came, an
/// exchange ended, a backend joined. Costs next to nothing while nobody waits.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    waiting: AtomicU32,
    arrivals: AtomicU64,
    queue: Mutex<BTreeMap<Place, Entry>>,
}

/// Priority, then arrival.
type Place = (u32, u64);

#[derive(Debug, Default)]
struct Entry {
    raised: bool,
    waker: Option<Waker>,
}

impl Signal {
    /// Wakes all who wait, the most urgent first and of these who came first.
    pub(crate) fn raise(&self) {
        // Against a waiter that registers and then looks at the figures: one of the two sees the
        // other.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        for entry in self.queue.lock().values_mut() {
            entry.raised = true;
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }
}

/// A place among those who wait at one cluster; leaving it is dropping it.
///
/// Take it after a first refusal, ask again, and only then wait for [`Waiting::changed`]: what
/// happened between the two questions is remembered, so nothing is missed.
#[derive(Debug)]
pub struct Waiting {
    signal: Arc<Signal>,
    place: Option<Place>,
}

impl Waiting {
    pub(crate) fn new(signal: Arc<Signal>, priority: u32) -> Self {
        let place = {
            let mut queue = signal.queue.lock();
            (queue.len() < WAITING_MAX).then(|| {
                let arrival = signal.arrivals.fetch_add(1, Ordering::Relaxed);
                queue.insert((priority, arrival), Entry::default());
                signal.waiting.fetch_add(1, Ordering::SeqCst);
                (priority, arrival)
            })
        };
        fence(Ordering::SeqCst);
        Self { signal, place }
    }

    /// Ready when something changed since the last time this was ready, or since the place was
    /// taken. Never ready beyond 65 536 who wait at one cluster: bound it by a time.
    pub fn changed(&mut self) -> Changed<'_> {
        Changed(self)
    }

    /// Whether nobody who waits is more urgent, or as urgent and here longer.
    #[must_use]
    pub fn is_first(&self) -> bool {
        let first = self.signal.queue.lock().keys().next().copied();
        self.place.is_some() && first == self.place
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.signal.queue.lock().remove(&place);
            self.signal.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// See [`Waiting::changed`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Changed<'a>(&'a mut Waiting);

impl Future for Changed<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(place) = self.0.place else {
            return Poll::Pending;
        };
        match self.0.signal.queue.lock().get_mut(&place) {
            Some(entry) if entry.raised => {
                entry.raised = false;
                Poll::Ready(())
            }
            Some(entry) => {
                entry.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

/// Most who wait at one cluster.
const WAITING_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ready(waiting: &mut Waiting, count: &Arc<Count>) -> bool {
        let waker = Waker::from(Arc::clone(count));
        Pin::new(&mut waiting.changed())
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
    }

    #[test]
    fn a_change_wakes_everyone_once() {
        let (signal, count) = (Arc::new(Signal::default()), Arc::new(Count::default()));
        signal.raise();
        let mut one = Waiting::new(Arc::clone(&signal), 1);
        let mut other = Waiting::new(Arc::clone(&signal), 1);
        assert!(!ready(&mut one, &count) && !ready(&mut other, &count));
        signal.raise();
        signal.raise();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(ready(&mut one, &count) && !ready(&mut one, &count));
        assert!(
            ready(&mut other, &count),
            "remembered until it is asked for"
        );
        drop((one, other));
        assert_eq!(signal.waiting.load(Ordering::Relaxed), 0);
        assert!(signal.queue.lock().is_empty());
    }

    #[test]
    fn the_first_is_the_most_urgent_then_the_oldest() {
        let signal = Arc::new(Signal::default());
        let late = Waiting::new(Arc::clone(&signal), 5);
        let later = Waiting::new(Arc::clone(&signal), 5);
        assert!(late.is_first() && !later.is_first());
        let urgent = Waiting::new(Arc::clone(&signal), 0);
        assert!(urgent.is_first() && !late.is_first());
        drop(urgent);
        drop(late);
        assert!(later.is_first());
    }
}
