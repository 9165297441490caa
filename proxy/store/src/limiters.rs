//! All limiters of the process, by name.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::bucket::Window;
use crate::error::StoreError;
use crate::limiter::{Ledger, Limiter};

/// Registry that outlives every configuration: what was spent stays spent over reloads, and
/// while no filter has the limiter open.
#[derive(Debug)]
pub struct Limiters {
    named: Mutex<HashMap<Box<str>, Named>>,
    keys_max: usize,
}

#[derive(Debug)]
struct Named {
    ledger: Arc<Ledger>,
    /// The windows opened last: usually those asked for again.
    last: Weak<Limiter>,
}

/// What a limiter holds, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimiterStats {
    /// Its name.
    pub name: Box<str>,
    /// Keys remembered.
    pub keys: usize,
    /// Reservations not settled yet.
    pub open_holds: u64,
    /// Reservations dropped without being settled.
    pub abandoned: u64,
    /// Sum of all estimates reserved so far.
    pub reserved: u64,
    /// Sum of the true costs by which reservations were replaced.
    pub settled: u64,
    /// Sum of the reservations given back in full.
    pub refunded: u64,
}

impl Default for Limiters {
    fn default() -> Self {
        Self::new(KEYS_MAX)
    }
}

impl Limiters {
    /// A registry whose limiters remember `keys_max` keys each ([`Default`]: 100 000). Keys
    /// whose budgets are full and unclaimed make room first; when there is none, new keys are
    /// refused.
    #[must_use]
    pub fn new(keys_max: usize) -> Self {
        Self {
            named: Mutex::default(),
            keys_max,
        }
    }

    /// The limiter of a name with these windows. Other windows than before keep what was
    /// spent in those with the same `seconds`; limiters opened before go on with theirs, on
    /// the same accounts. Of two windows with the same `seconds` the smaller budget counts.
    ///
    /// # Errors
    /// [`StoreError::BadWindows`]; [`StoreError::Full`] when there are 4096 names.
    pub fn open(&self, name: &str, windows: &[Window]) -> Result<Arc<Limiter>, StoreError> {
        let windows = checked(windows)?;
        let mut named = self.named.lock();
        if named.len() >= NAMES_MAX && !named.contains_key(name) {
            return Err(StoreError::Full);
        }
        let entry = named.entry(name.into()).or_insert_with(|| Named {
            ledger: Arc::new(Ledger::new(self.keys_max)),
            last: Weak::new(),
        });
        if let Some(last) = entry
            .last
            .upgrade()
            .filter(|last| last.windows() == &*windows)
        {
            return Ok(last);
        }
        let limiter = Arc::new(Limiter::new(windows, Arc::clone(&entry.ledger)));
        entry.last = Arc::downgrade(&limiter);
        Ok(limiter)
    }

    /// Forgets limiters for whose name `keep` is false, unless one is still open. What was
    /// spent there is lost.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.named
            .lock()
            .retain(|name, named| keep(name) || Arc::strong_count(&named.ledger) > 1);
    }

    /// What each holds, by name.
    #[must_use]
    pub fn stats(&self) -> Vec<LimiterStats> {
        let named = self.named.lock();
        let mut stats: Vec<LimiterStats> = named
            .iter()
            .map(|(name, named)| LimiterStats {
                name: name.clone(),
                keys: named.ledger.accounts.len(),
                open_holds: named.ledger.open_holds.load(Relaxed),
                abandoned: named.ledger.abandoned.load(Relaxed),
                reserved: named.ledger.reserved.load(Relaxed),
                settled: named.ledger.settled.load(Relaxed),
                refunded: named.ledger.refunded.load(Relaxed),
            })
            .collect();
        stats.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        stats
    }
}

fn checked(windows: &[Window]) -> Result<Box<[Window]>, StoreError> {
    let mut sorted = windows.to_vec();
    sorted.sort_unstable_by_key(|window| (window.seconds, window.budget));
    sorted.dedup_by_key(|window| window.seconds);
    let in_bounds = (1..=WINDOWS_MAX).contains(&sorted.len());
    if !in_bounds || sorted.iter().any(|window| window.seconds == 0) {
        return Err(StoreError::BadWindows {
            windows_max: WINDOWS_MAX,
        });
    }
    Ok(sorted.into())
}

const KEYS_MAX: usize = 100_000;
const NAMES_MAX: usize = 4096;
const WINDOWS_MAX: usize = 8;
