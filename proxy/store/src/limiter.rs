//! Token budgets over many windows, taken together or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::bucket::{Bucket, Granted, Limited, RETRY_MS_MAX, Why, Window};
use crate::sharded::Sharded;

/// The windows of one configuration over accounts that all configurations of the same name
/// share. Two limiters of one name may work side by side while a reload is under way.
#[derive(Debug)]
pub struct Limiter {
    windows: Box<[Window]>,
    ledger: Arc<Ledger>,
}

/// The accounts of all keys, whatever the windows.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) accounts: Sharded<Account>,
    pub(crate) open_holds: AtomicU64,
    pub(crate) abandoned: AtomicU64,
    /// Sums over all holds so far.
    pub(crate) reserved: AtomicU64,
    pub(crate) settled: AtomicU64,
    pub(crate) refunded: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Account {
    key: Arc<str>,
    /// Not settled yet: their account must stay, or a settlement would meet a full one.
    holds: u32,
    bucket: Bucket,
}

impl Ledger {
    pub(crate) fn new(keys_max: usize) -> Self {
        Self {
            accounts: Sharded::new(keys_max),
            open_holds: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            refunded: AtomicU64::new(0),
        }
    }
}

impl Limiter {
    pub(crate) fn new(windows: Box<[Window]>, ledger: Arc<Ledger>) -> Self {
        Self { windows, ledger }
    }

    /// Takes an estimate now, to be settled when the true cost is known. Granted if and only
    /// if every window has as much left; exact under concurrency.
    ///
    /// # Errors
    /// [`Limited`], and nothing is taken.
    pub fn reserve(self: &Arc<Self>, key: &str, cost: u64, now_ms: u64) -> Result<Hold, Limited> {
        let (granted, key) = self.on_account(key, now_ms, |account| {
            let granted = account.bucket.take(&self.windows, cost, now_ms)?;
            account.holds = account.holds.saturating_add(1);
            Ok((granted, Arc::clone(&account.key)))
        })?;
        self.ledger.open_holds.fetch_add(1, Relaxed);
        self.ledger.reserved.fetch_add(cost, Relaxed);
        Ok(Hold {
            limiter: Arc::clone(self),
            key,
            reserved: cost,
            granted,
            open: true,
        })
    }

    /// Takes for good.
    ///
    /// # Errors
    /// [`Limited`], and nothing is taken.
    pub fn take(&self, key: &str, cost: u64, now_ms: u64) -> Result<Granted, Limited> {
        self.on_account(key, now_ms, |account| {
            account.bucket.take(&self.windows, cost, now_ms)
        })
    }

    /// What is left, without taking.
    #[must_use]
    pub fn peek(&self, key: &str, now_ms: u64) -> Granted {
        let look = |account: &mut Account| account.bucket.tightest(&self.windows, now_ms);
        self.ledger
            .accounts
            .visit(key, look, |_| false)
            .unwrap_or_else(|| Bucket::default().tightest(&self.windows, now_ms))
    }

    /// Charges whatever is left, even into debt; negative refunds, never above the budget.
    ///
    /// # Errors
    /// [`Limited`] with [`Why::NoRoom`] when the key cannot be kept.
    pub fn adjust(&self, key: &str, delta: i64, now_ms: u64) -> Result<(), Limited> {
        self.on_account(key, now_ms, |account| {
            account
                .bucket
                .charge(&self.windows, i128::from(delta), now_ms);
            Ok(())
        })
    }

    /// Its windows, spans ascending.
    #[must_use]
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    fn on_account<R>(
        &self,
        key: &str,
        now_ms: u64,
        work: impl FnOnce(&mut Account) -> Result<R, Limited>,
    ) -> Result<R, Limited> {
        if key.len() > KEY_BYTES_MAX {
            return Err(self.no_room());
        }
        let idle = |account: &Account| account.holds == 0 && account.bucket.is_full(now_ms);
        let fresh = |key: &Arc<str>| Account {
            key: Arc::clone(key),
            holds: 0,
            bucket: Bucket::default(),
        };
        self.ledger
            .accounts
            .with(key, now_ms, idle, fresh, work)
            .unwrap_or_else(|| Err(self.no_room()))
    }

    fn no_room(&self) -> Limited {
        let nothing = Window {
            budget: 0,
            seconds: 1,
        };
        let window = self.windows.first().copied().unwrap_or(nothing);
        Limited {
            window,
            limit: window.budget,
            remaining: 0,
            reset_ms: 0,
            retry_after_ms: RETRY_MS_MAX,
            why: Why::NoRoom,
        }
    }
}

/// An estimate taken from every window. Settle or refund it; dropping it keeps the estimate
/// charged and counts it as abandoned.
#[derive(Debug)]
#[must_use = "dropping a hold keeps its estimate charged"]
pub struct Hold {
    limiter: Arc<Limiter>,
    key: Arc<str>,
    reserved: u64,
    granted: Granted,
    open: bool,
}

impl Hold {
    /// What the reservation left.
    #[must_use]
    pub fn granted(&self) -> Granted {
        self.granted
    }

    /// What was taken.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Replaces the estimate by the true cost: the rest returns, an excess is charged even
    /// into debt.
    pub fn settle(mut self, actual: u64, now_ms: u64) {
        self.limiter.ledger.settled.fetch_add(actual, Relaxed);
        self.close(i128::from(actual) - i128::from(self.reserved), now_ms);
    }

    /// Returns all of it, for when no work was done.
    pub fn refund(mut self, now_ms: u64) {
        let ledger = &self.limiter.ledger;
        ledger.refunded.fetch_add(self.reserved, Relaxed);
        self.close(-i128::from(self.reserved), now_ms);
    }

    fn close(&mut self, delta: i128, now_ms: u64) {
        self.open = false;
        let close = |account: &mut Account| {
            account.holds = account.holds.saturating_sub(1);
            if delta != 0 {
                account.bucket.charge(&self.limiter.windows, delta, now_ms);
            }
        };
        let ledger = &self.limiter.ledger;
        ledger.accounts.visit(&self.key, close, |_| false);
        ledger.open_holds.fetch_sub(1, Relaxed);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.open {
            self.close(0, 0);
            self.limiter.ledger.abandoned.fetch_add(1, Relaxed);
        }
    }
}

const KEY_BYTES_MAX: usize = 512;

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
