//! Exchanges that wait for a better moment to be routed, in line.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Raised when something about a cluster changed for the better, maybe: a report came, an
/// exchange ended, a backend joined. Costs next to nothing while nobody waits.
///
/// Those who wait then get the turn one after the other, the most urgent first and of equals who
/// came first: each looks whether the change is of use to it, and passes the turn on by taking
/// what it wanted, by waiting again, or by leaving.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// Length of the line, to be read without its lock.
    waiting: AtomicU32,
    line: Mutex<Line>,
}

/// Priority, then arrival.
type Place = (u32, u64);

#[derive(Debug, Default)]
struct Line {
    places: BTreeMap<Place, Option<Waker>>,
    arrivals: u64,
    /// Counts what was raised.
    changes: u64,
    turn: Option<Turn>,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy)]
struct Turn {
    place: Place,
    /// The number of changes it is looking at, once it is.
    taken: Option<u64>,
}

impl Line {
    /// Gives the turn to the first behind `after`, or of all.
    fn give(&mut self, after: Option<Place>) {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.places.range_mut((behind, Bound::Unbounded)).next();
        self.turn = next.map(|(place, waker)| {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
            Turn {
                place: *place,
                taken: None,
            }
        });
    }

    /// Whoever had the turn has made no use of it. What was raised while it looked is looked at
    /// from the front.
    fn pass(&mut self, turn: Turn) {
        let renewed = turn.taken.is_some_and(|changes| changes < self.changes);
        self.give(Some(turn.place).filter(|_| !renewed));
    }

    fn turn_of(&self, place: Place) -> Option<Turn> {
        self.turn.filter(|turn| turn.place == place)
    }
}

impl Signal {
    /// Gives the turn to the first who waits.
    pub(crate) fn raise(&self) {
        // Against a waiter that registers and then looks at the figures: one of the two sees the
        // other.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut line = self.line.lock();
        line.changes += 1;
        let first = line.places.keys().next().copied();
        // The first may be looking just now: then it looks again.
        if line.turn.map(|turn| turn.place) != first {
            line.give(None);
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether somebody has the turn who comes before a newcomer of this priority.
    pub(crate) fn is_taken_before(&self, priority: u32) -> bool {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let turn = self.line.lock().turn;
        turn.is_some_and(|turn| turn.place.0 <= priority)
    }
}

/// A place among those who wait at one cluster; leaving it is dropping it.
///
/// Take it after a first refusal, ask again, and only then wait for [`Waiting::turn`]: what
/// happened between the two questions is remembered, so nothing is missed.
#[derive(Debug)]
pub struct Waiting {
    signal: Arc<Signal>,
    place: Option<Place>,
}

impl Waiting {
    pub(crate) fn new(signal: Arc<Signal>, priority: u32) -> Self {
        let place = {
            let mut line = signal.line.lock();
            (line.places.len() < WAITING_MAX).then(|| {
                let place = (priority, line.arrivals);
                line.arrivals += 1;
                line.places.insert(place, None);
                signal.waiting.fetch_add(1, Ordering::SeqCst);
                place
            })
        };
        fence(Ordering::SeqCst);
        Self { signal, place }
    }

    /// Ready when it is this one's turn to look at what has changed; to wait again is to pass the
    /// turn on. Never ready beyond 65 536 who wait at one cluster: bound it by a time. That is also
    /// against one before that has the turn and does not get to look.
    pub fn turn(&mut self) -> NextTurn<'_> {
        NextTurn(self)
    }

    /// Whether somebody before this one has the turn.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let turn = self.signal.line.lock().turn;
        let place = self.place;
        turn.is_some_and(|turn| place.is_none_or(|place| turn.place < place))
    }

    /// This one has looked, and there is nothing for anybody: nobody else gets the turn until
    /// something changes.
    pub fn nothing_for_anybody(&mut self) {
        let mut line = self.signal.line.lock();
        let turn = self.place.and_then(|place| line.turn_of(place));
        if let Some(changes) = turn.and_then(|turn| turn.taken) {
            line.turn = None;
            if changes < line.changes {
                line.give(None);
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let mut line = self.signal.line.lock();
            line.places.remove(&place);
            if let Some(turn) = line.turn_of(place) {
                line.pass(turn);
            }
            drop(line);
            self.signal.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// See [`Waiting::turn`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct NextTurn<'a>(&'a mut Waiting);

impl Future for NextTurn<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(place) = self.0.place else {
            return Poll::Pending;
        };
        let mut line = self.0.signal.line.lock();
        if let Some(turn) = line.turn_of(place)
            && turn.taken.is_some()
        {
            line.pass(turn);
        }
        let changes = line.changes;
        match &mut line.turn {
            Some(turn) if turn.place == place => {
                turn.taken = Some(changes);
                Poll::Ready(())
            }
            _ => {
                if let Some(waker) = line.places.get_mut(&place) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
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

    /// Waits again, and so passes a turn on; whether it is its turn now.
    fn turn(waiting: &mut Waiting, count: &Arc<Count>) -> bool {
        let waker = Waker::from(Arc::clone(count));
        Pin::new(&mut waiting.turn())
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
    }

    fn line<const N: usize>(priorities: [u32; N]) -> (Arc<Signal>, [Waiting; N], Arc<Count>) {
        let (signal, count) = (Arc::new(Signal::default()), Arc::new(Count::default()));
        let mut line = priorities.map(|priority| Waiting::new(Arc::clone(&signal), priority));
        for waiting in &mut line {
            assert!(!turn(waiting, &count), "nothing has changed");
        }
        (signal, line, count)
    }

    #[test]
    fn a_change_is_looked_at_by_one_after_the_other() {
        let (signal, [mut one, mut urgent, mut other], count) = line([5, 0, 5]);
        let woken = || count.0.swap(0, Ordering::Relaxed);
        signal.raise();
        assert_eq!(woken(), 1);
        assert!(!turn(&mut one, &count) && one.is_behind() && !urgent.is_behind());
        assert!(turn(&mut urgent, &count), "the most urgent first");
        assert!(!turn(&mut urgent, &count), "it has looked");
        assert_eq!(woken(), 1);
        assert!(turn(&mut one, &count) && other.is_behind());
        drop(one);
        assert!(turn(&mut other, &count), "who leaves passes the turn on");
        assert!(
            !turn(&mut other, &count) && !turn(&mut urgent, &count),
            "all have looked"
        );
        drop((urgent, other));
        assert_eq!(signal.waiting(), 0);
        assert!(signal.line.lock().places.is_empty());
        signal.raise();
    }

    #[test]
    fn a_turn_that_is_not_taken_is_passed_on_by_leaving() {
        let (signal, [one, mut other], count) = line([1, 1]);
        signal.raise();
        drop(one);
        assert!(turn(&mut other, &count));
    }

    #[test]
    fn what_changes_meanwhile_is_looked_at_from_the_front() {
        let (signal, [mut one, mut other], count) = line([1, 1]);
        signal.raise();
        assert!(turn(&mut one, &count));
        signal.raise();
        assert!(turn(&mut one, &count), "it looks again");
        assert!(!turn(&mut one, &count) && turn(&mut other, &count));
        signal.raise();
        assert!(turn(&mut one, &count), "the turn is back at the front");
        assert!(!turn(&mut other, &count));
        assert!(!turn(&mut one, &count) && turn(&mut other, &count));
    }

    #[test]
    fn nobody_looks_for_what_is_not_there() {
        let (signal, [mut one, mut other], count) = line([1, 1]);
        signal.raise();
        assert!(turn(&mut one, &count));
        one.nothing_for_anybody();
        assert!(!turn(&mut one, &count) && !turn(&mut other, &count));
        signal.raise();
        assert!(turn(&mut one, &count));
        signal.raise();
        one.nothing_for_anybody();
        assert!(turn(&mut one, &count), "there may be something by now");
        other.nothing_for_anybody();
        assert!(
            !turn(&mut one, &count) && turn(&mut other, &count),
            "it was not its turn to say so"
        );
    }

    #[test]
    fn newcomers_know_whether_somebody_comes_first() {
        let (signal, [mut one], count) = line([3]);
        assert!(!signal.is_taken_before(3), "who waits has looked");
        signal.raise();
        assert!(signal.is_taken_before(3) && !signal.is_taken_before(2));
        let mut newcomer = Waiting::new(Arc::clone(&signal), 3);
        assert!(newcomer.is_behind());
        assert!(turn(&mut one, &count) && !turn(&mut newcomer, &count));
        assert!(!turn(&mut one, &count) && turn(&mut newcomer, &count));
        assert!(!turn(&mut newcomer, &count) && !signal.is_taken_before(9));
    }
}
