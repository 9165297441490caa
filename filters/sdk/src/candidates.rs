//! The eligible backends of the exchange being routed; everything here is absent outside
//! `route`.
//!
//! Ask questions rather than copy the set: two loads for power-of-two, a column for a scan,
//! [`least`], [`rendezvous`] and [`next_cursor`] for what the host does natively.

use std::cell::RefCell;
use std::rc::Rc;

pub use crate::bindings::imports::weir::filter::candidates::{Backend, Figure, Load};
use crate::phases::Routing;
use crate::raw::candidates as raw;

/// Static facts of all candidates; a candidate's position is its index everywhere else. 3.8 µs
/// for 64: use [`PerGeneration`].
#[must_use]
pub fn backends() -> Vec<Backend> {
    raw::backends()
}

/// Live figures of one candidate. 0.15 µs.
#[must_use]
pub fn load(index: u32) -> Option<Load> {
    raw::load_at(index)
}

/// One figure of all candidates: about 0.35 µs for 64.
#[must_use]
pub fn column(figure: Figure) -> Vec<f64> {
    raw::column(figure)
}

/// Positions of this set that were tried in this exchange already. Empty on hosts that leave
/// tried backends out of the set; ask when `request.attempt` is not 0.
#[must_use]
pub fn excluded() -> Vec<u32> {
    raw::excluded()
}

/// The least by a figure among `among` (empty = all that are not excluded), found by the host:
/// 0.35 µs over 64.
#[must_use]
pub fn least(figure: Figure, among: &[u32]) -> Option<u32> {
    raw::least(figure, among)
}

/// The first `count` positions in highest-random-weight order of a key's hash: the same key
/// meets the same backend as long as that is a candidate.
#[must_use]
pub fn rendezvous(key_hash: u64, count: u32) -> Vec<u32> {
    raw::rendezvous(key_hash, count)
}

/// Next value of the round-robin cursor of this routing target, shared by all instances.
#[must_use]
pub fn next_cursor() -> u64 {
    raw::next_cursor()
}

/// What a filter derives from [`backends`], kept by generation.
pub struct PerGeneration<T> {
    entries: RefCell<Vec<(u64, Rc<T>)>>,
}

impl<T> PerGeneration<T> {
    /// Nothing derived yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: RefCell::new(Vec::new()),
        }
    }

    /// The derived value; `derive` runs when this set of backends is a new one.
    pub fn of(&self, routing: &Routing, derive: impl FnOnce(&[Backend]) -> T) -> Rc<T> {
        let known = |(generation, _): &&(u64, Rc<T>)| *generation == routing.generation;
        if let Some((_, value)) = self.entries.borrow().iter().find(known) {
            return Rc::clone(value);
        }
        let value = Rc::new(derive(&backends()));
        let mut entries = self.entries.borrow_mut();
        if entries.len() >= GENERATIONS_MAX {
            entries.clear();
        }
        entries.push((routing.generation, Rc::clone(&value)));
        value
    }
}

impl<T> Default for PerGeneration<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Sets remembered by one [`PerGeneration`]; beyond it starts over.
const GENERATIONS_MAX: usize = 64;
