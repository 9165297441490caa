//! The eligible candidates of the exchange being routed; everything here is absent outside
//! `route`. A candidate is one backend, or several that share a capacity domain.
//!
//! Ask questions rather than copy the set: two loads for power-of-two, a column for a scan,
//! [`total`], [`least`], [`at_most`], [`rendezvous`] and [`next_cursor`] for what the host does
//! natively.

use std::cell::RefCell;
use std::rc::Rc;

pub use crate::bindings::imports::weir::filter::candidates::{
    Backend, Figure, Load, Session, Total, Weighting,
};
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

/// One live figure of one candidate, those among them that are computed for this request. 0.1 µs.
#[must_use]
pub fn figure(index: u32, figure: Figure) -> Option<f64> {
    raw::figure_at(index, figure)
}

/// One figure of all candidates: about 0.35 µs for 64.
#[must_use]
pub fn column(figure: Figure) -> Vec<f64> {
    raw::column(figure)
}

/// One figure of all candidates, added up by the host: cheaper than a column.
#[must_use]
pub fn total(figure: Figure) -> Total {
    raw::total_of(figure)
}

/// Those among `among` (empty = all that are not excluded) whose figure is at most `limit`, in that
/// order; found by the host: 3 to 4 µs over 1,000. An empty answer handed on means all: look first.
#[must_use]
pub fn at_most(figure: Figure, limit: f64, among: &[u32]) -> Vec<u32> {
    raw::at_most(figure, limit, among)
}

/// Those among `among` (empty = all that are not excluded) that run fewer than their slots plus
/// `queued_max`, in that order; slots unknown are no limit. 3 µs over 1,000.
#[must_use]
pub fn with_room(queued_max: u32, among: &[u32]) -> Vec<u32> {
    raw::with_room(queued_max, among)
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

/// The first `count` of `among` (empty = all) in weighted rendezvous order of a key of bytes: the
/// hash of a candidate is `xxh3_64(prefix || len as u64 LE || id)`. End `prefix` with what marks
/// the field of the id, see [`Field`]. Over 1,000, for a new key: 6 µs for the first, 10 for 32, 45 to
/// put all in order; 17 more where key and id are over 240 bytes.
#[must_use]
pub fn rendezvous_by(prefix: &[u8], by: Weighting, count: u32, among: &[u32]) -> Vec<u32> {
    raw::rendezvous_by(prefix, by, count, among)
}

/// The first `count` different candidates from `xxh3_64(key)` upwards on a ring of `nodes`
/// virtual nodes for each, whose hashes begin with `prefix`. The host keeps the ring; making it
/// takes 10 ms for 1,000 candidates with 150 nodes, once for each set of candidates and prefix.
#[must_use]
pub fn ring(prefix: &[u8], key: &[u8], nodes: u32, count: u32) -> Vec<u32> {
    raw::ring(prefix, key, nodes, count)
}

/// A field of a key to hash: `tag || 0xff || len as u64 LE || value`, so that no two lists of
/// fields are the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The seed of the configuration.
    Seed = 1,
    /// Function id.
    RoutingKey = 2,
    /// Model name.
    Model = 3,
    /// What keeps the conversation together.
    AffinityKey = 4,
    /// Name of a candidate: the host appends its length and text.
    Candidate = 5,
}

impl Field {
    /// Appends a whole field.
    pub fn append(self, bytes: &mut Vec<u8>, value: &[u8]) {
        self.begin(bytes);
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value);
    }

    /// Appends what marks it, for a host that appends the rest.
    pub fn begin(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&[self as u8, 0xff]);
    }
}

/// The text of the affinity key whose hash `route` was given. 0.3 µs.
#[must_use]
pub fn affinity_key() -> Option<String> {
    raw::affinity_key()
}

/// Who served this conversation last, if the gateway remembers.
#[must_use]
pub fn session() -> Session {
    raw::last_served()
}

/// Milliseconds since the request's head was read.
#[must_use]
pub fn elapsed_ms() -> u32 {
    raw::elapsed_ms()
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
