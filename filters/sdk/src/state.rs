//! State that outlives an instance and a reload: keys with expiry, rate limiters, slots.
//!
//! Names are private to the filter. Limiters need the grant `limiters`, stores `stores`, slots
//! `slots`. With [`Scope::ClusterExact`] every call asks the store and may suspend.

pub use crate::bindings::imports::weir::filter::state::{
    Granted, HeaderForms, Limited, Scope, Subject, TakeResult, Unit, Versioned, Window,
};
use crate::raw::state as raw;
use crate::types::Failure;

/// Keys with values and expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store(raw::Store);

impl Store {
    /// Opens the store of a name; do it once and keep it.
    ///
    /// # Errors
    /// [`Failure::Denied`] without the grant, [`Failure::Unavailable`] when the store is down.
    pub fn open(name: &str, scope: Scope) -> Result<Self, Failure> {
        raw::open_store(name, scope).map(Self)
    }

    /// The value of a key with its version.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when the store is down.
    pub fn get(self, key: &str) -> Result<Option<Versioned>, Failure> {
        raw::get(self.0, key)
    }

    /// Sets a key; returns its new version. `ttl_ms` `None`: kept until deleted.
    ///
    /// # Errors
    /// [`Failure::TooLarge`] beyond the limits of the store.
    pub fn set(self, key: &str, value: &[u8], ttl_ms: Option<u32>) -> Result<u64, Failure> {
        raw::set(self.0, key, value, ttl_ms)
    }

    /// Sets a key if its version is `expected`; 0 = only if absent.
    ///
    /// # Errors
    /// [`Failure::Conflict`] when it has another version.
    pub fn compare_and_swap(
        self,
        key: &str,
        expected: u64,
        value: &[u8],
        ttl_ms: Option<u32>,
    ) -> Result<u64, Failure> {
        raw::compare_and_swap(self.0, key, expected, value, ttl_ms)
    }

    /// Removes a key; whether it was there.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when the store is down.
    pub fn delete(self, key: &str) -> Result<bool, Failure> {
        raw::delete(self.0, key)
    }

    /// Adds to a number atomically and returns the sum. The expiry is set when the key is
    /// created and not moved by later adds.
    ///
    /// # Errors
    /// [`Failure::Invalid`] when the value is not a number.
    pub fn add(self, key: &str, delta: i64, ttl_ms: Option<u32>) -> Result<i64, Failure> {
        raw::add(self.0, key, delta, ttl_ms)
    }
}

/// Continuously refilled token buckets: all windows are taken together or none is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limiter(raw::Limiter);

impl Limiter {
    /// Opens the limiter of a name; the same name and windows give the same one, across
    /// instances and reloads. With other windows it is another limiter that shares what each
    /// key has used of windows with the same seconds. Do it once and keep it.
    ///
    /// # Errors
    /// [`Failure::Denied`] without the grant, [`Failure::Invalid`] for no window or a zero.
    pub fn open(name: &str, windows: &[Window], scope: Scope) -> Result<Self, Failure> {
        raw::open_limiter(name, windows, scope).map(Self)
    }

    /// Has callers told where they stand after each [`Limiter::reserve`], as a budget of `what`, in
    /// the headers of whatever answer they get. The host writes them.
    ///
    /// # Errors
    /// [`Failure::NotFound`] for a limiter that is not open.
    pub fn announce(self, what: Unit, forms: HeaderForms) -> Result<(), Failure> {
        raw::announce(self.0, what, forms)
    }

    /// What is left, without taking. `extra` is appended to the key when it is not empty.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when the store is down.
    pub fn peek(self, who: Subject, extra: &str) -> Result<Granted, Failure> {
        raw::peek(self.0, who, extra)
    }

    /// Takes `cost` for good.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when the store is down.
    pub fn take(self, who: Subject, extra: &str, cost: u64) -> Result<TakeResult, Failure> {
        raw::take(self.0, who, extra, cost)
    }

    /// Takes `estimate` now; when the exchange ends the host settles it with the usage reported
    /// (or refunds it, when no upstream worked), whatever ended it. 0.3 µs.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when the store is down.
    pub fn reserve(
        self,
        who: Subject,
        extra: &str,
        estimate: u64,
        unit: Unit,
    ) -> Result<TakeResult, Failure> {
        raw::reserve(self.0, who, extra, estimate, unit)
    }

    /// Corrects by a signed amount, for filters that count by a formula of their own.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when the store is down.
    pub fn adjust(self, who: Subject, extra: &str, delta: i64) -> Result<(), Failure> {
        raw::adjust(self.0, who, extra, delta)
    }
}

/// Takes one of `max` slots of `key` for this exchange; the host releases it at its end.
///
/// # Errors
/// [`Failure::Denied`] without the grant.
pub fn acquire_slot(name: &str, key: &str, max: u32, scope: Scope) -> Result<bool, Failure> {
    raw::acquire_slot(name, key, max, scope)
}
