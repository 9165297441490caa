//! The workers that serve one model of one function.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::workers::seat::{Link, Seat};

/// Who serves one model of one function, whatever configuration is live.
#[derive(Default)]
pub(crate) struct Pool {
    /// In order of their ids, so that positions move as little as possible.
    seats: Mutex<Vec<Arc<Seat>>>,
    /// Counts the changes of who is there.
    version: AtomicU64,
    /// Whether anybody has ever been there.
    known: AtomicBool,
}

impl Pool {
    /// The seat of a connection, taken now if it had none. A worker that comes from another domain
    /// than before, or by a newer connection, takes the place of its own earlier seat.
    pub(crate) fn seat(&self, link: &Arc<Link>, domain: &str) -> Arc<Seat> {
        let mut seats = self.seats.lock();
        let place = seats.binary_search_by(|seat| seat.link.worker.cmp(&link.worker));
        if let Some(seat) = place.ok().and_then(|place| seats.get(place))
            && Arc::ptr_eq(&seat.link, link)
            && *seat.domain == *domain
        {
            return Arc::clone(seat);
        }
        let seat = Arc::new(Seat::new(Arc::clone(link), domain));
        match place {
            Ok(place) => {
                if let Some(old) = seats.get_mut(place) {
                    *old = Arc::clone(&seat);
                }
            }
            Err(place) => seats.insert(place, Arc::clone(&seat)),
        }
        self.known.store(true, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
        seat
    }

    /// Takes the seat of a connection away, if it is still that connection's.
    pub(crate) fn leave(&self, link: &Arc<Link>) {
        let mut seats = self.seats.lock();
        let before = seats.len();
        seats.retain(|seat| !Arc::ptr_eq(&seat.link, link));
        if seats.len() < before {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Everybody.
    pub(crate) fn seats(&self) -> Vec<Arc<Seat>> {
        self.seats.lock().clone()
    }

    /// Another number is other seats. Ask before [`Self::seats`].
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether a worker has ever served this model.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }
}
