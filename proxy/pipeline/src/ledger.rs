//! What an exchange has claimed and must give back exactly once, however it ends.

use parking_lot::Mutex;
use weir_dialect::Usage;

use crate::notice::{Notice, Notices};

/// Most claims one exchange may hold.
pub const CLAIMS_MAX: usize = 32;

/// How an exchange's claims are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// This much was used, reported by the upstream or counted from what it sent.
    Used(Usage),
    /// No upstream work was done: everything goes back.
    Refund,
}

/// Something claimed for the time of an exchange: tokens of a window, a slot.
pub trait Claim: Send {
    /// Called once, when the exchange has ended.
    fn settle(self: Box<Self>, settlement: &Settlement);
}

/// The claims of one exchange. Shared with phase calls, so that a call that is dropped half-way
/// leaves its claims here.
#[derive(Default)]
pub struct Ledger {
    claims: Mutex<Vec<Box<dyn Claim>>>,
    notices: Mutex<Notices>,
}

impl Ledger {
    /// Records a claim; gives it back when there are [`CLAIMS_MAX`] already.
    ///
    /// # Errors
    /// The claim itself, when the ledger is full.
    pub fn record(&self, claim: Box<dyn Claim>) -> Result<(), Box<dyn Claim>> {
        let mut claims = self.claims.lock();
        if claims.len() >= CLAIMS_MAX {
            return Err(claim);
        }
        claims.push(claim);
        Ok(())
    }

    /// Notes where the caller stands with a budget, for the headers of its answer.
    pub fn note(&self, notice: Notice) {
        self.notices.lock().add(notice);
    }

    /// Shows `tell` the notices, if there are any.
    pub fn tell<R>(&self, tell: impl FnOnce(&Notices) -> R) -> Option<R> {
        let notices = self.notices.lock();
        (!notices.is_empty()).then(|| tell(&notices))
    }

    /// How many claims are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.claims.lock().len()
    }

    /// Whether nothing is claimed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Settles all claims; a second call finds none.
    pub fn settle(&self, settlement: &Settlement) {
        let claims = std::mem::take(&mut *self.claims.lock());
        for claim in claims {
            claim.settle(settlement);
        }
    }
}

impl Drop for Ledger {
    /// An exchange that was dropped before it could settle did no work that anyone saw.
    fn drop(&mut self) {
        self.settle(&Settlement::Refund);
    }
}
