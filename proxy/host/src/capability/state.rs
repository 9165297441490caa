//! The interface `state`: stores, limiters and slots that outlive instances and reloads.

use std::sync::Arc;

use weir_pipeline::ledger::{Claim, Ledger, Settlement};
use weir_pipeline::notice::{Announcement, Dimension, Notice};
use weir_store::{Hold, Kv, Limiter, SlotGuard, Why};

use crate::bindings::weir::filter::state::{
    Granted, HeaderForms, Host, Limited, Scope, Subject, TakeResult, Unit, Versioned, Window,
};
use crate::bindings::weir::filter::types::Failure;
use crate::capability::state_key;
use crate::guest_state::{GuestState, clock};

/// What an instance has open, by number.
#[derive(Default)]
pub(crate) struct StateHandles {
    stores: Vec<Arc<Kv>>,
    limiters: Vec<OpenLimiter>,
    /// Reused for every key.
    key: String,
}

struct OpenLimiter {
    limiter: Arc<Limiter>,
    /// In the order of the filter: a refusal names one by its place.
    windows: Vec<Window>,
    /// How callers are told of it, if they are.
    told: Option<Arc<Announcement>>,
}

impl Host for GuestState {
    fn open_store(&mut self, name: String, scope: Scope) -> Result<u32, Failure> {
        let name = self.private_name(&name, scope, self.filter.grants.stores)?;
        let store = self.services.stores.open(&name)?;
        let known = self
            .handles
            .stores
            .iter()
            .position(|known| Arc::ptr_eq(known, &store));
        let at = known.unwrap_or(self.handles.stores.len());
        if at >= HANDLES_MAX {
            return Err(Failure::TooLarge);
        }
        if known.is_none() {
            self.handles.stores.push(store);
        }
        u32::try_from(at).map_err(|_| Failure::Internal)
    }

    fn get(&mut self, in_: u32, key: String) -> Result<Option<Versioned>, Failure> {
        let found = self.store(in_)?.get(&key, clock::now_ms());
        Ok(found.map(|found| Versioned {
            value: found.value.to_vec(),
            version: found.version,
        }))
    }

    fn set(
        &mut self,
        in_: u32,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u32>,
    ) -> Result<u64, Failure> {
        let version = self
            .store(in_)?
            .set(&key, &value, ttl_ms, clock::now_ms())?;
        self.side_effects = true;
        Ok(version)
    }

    fn compare_and_swap(
        &mut self,
        in_: u32,
        key: String,
        expected: u64,
        value: Vec<u8>,
        ttl_ms: Option<u32>,
    ) -> Result<u64, Failure> {
        let store = self.store(in_)?;
        let version = store.compare_and_swap(&key, expected, &value, ttl_ms, clock::now_ms())?;
        self.side_effects = true;
        Ok(version)
    }

    fn delete(&mut self, in_: u32, key: String) -> Result<bool, Failure> {
        let deleted = self.store(in_)?.delete(&key, clock::now_ms());
        self.side_effects |= deleted;
        Ok(deleted)
    }

    fn add(
        &mut self,
        in_: u32,
        key: String,
        delta: i64,
        ttl_ms: Option<u32>,
    ) -> Result<i64, Failure> {
        let sum = self.store(in_)?.add(&key, delta, ttl_ms, clock::now_ms())?;
        self.side_effects = true;
        Ok(sum)
    }

    fn open_limiter(
        &mut self,
        name: String,
        windows: Vec<Window>,
        scope: Scope,
    ) -> Result<u32, Failure> {
        let name = self.private_name(&name, scope, self.filter.grants.limiters)?;
        if windows.len() > WINDOWS_MAX {
            return Err(Failure::Invalid);
        }
        let native = |window: &Window| weir_store::Window {
            budget: window.budget,
            seconds: window.seconds,
        };
        let asked: Vec<weir_store::Window> = windows.iter().map(native).collect();
        let limiter = self.services.limiters.open(&name, &asked)?;
        let same = |known: &OpenLimiter| {
            Arc::ptr_eq(&known.limiter, &limiter)
                && known.windows.iter().map(native).eq(asked.iter().copied())
        };
        let known = self.handles.limiters.iter().position(same);
        let at = known.unwrap_or(self.handles.limiters.len());
        if at >= HANDLES_MAX {
            return Err(Failure::TooLarge);
        }
        if known.is_none() {
            self.handles.limiters.push(OpenLimiter {
                limiter,
                windows,
                told: None,
            });
        }
        u32::try_from(at).map_err(|_| Failure::Internal)
    }

    fn announce(&mut self, at: u32, what: Unit, forms: HeaderForms) -> Result<(), Failure> {
        let open = self.handles.limiters.get_mut(at as usize);
        let open = open.ok_or(Failure::NotFound)?;
        let windows = open.limiter.windows().iter();
        let announcement = Announcement::new(
            dimension(what),
            forms.contains(HeaderForms::X_RATELIMIT),
            forms.contains(HeaderForms::RATELIMIT),
            windows.map(|window| (window.budget, window.seconds)),
        );
        open.told = (forms != HeaderForms::default()).then(|| Arc::new(announcement));
        Ok(())
    }

    fn peek(&mut self, at: u32, who: Subject, extra: String) -> Result<Granted, Failure> {
        let (open, key) = self.limiter(at, who, &extra)?;
        Ok(granted(open.limiter.peek(key, clock::now_ms())))
    }

    fn take(
        &mut self,
        at: u32,
        who: Subject,
        extra: String,
        cost: u64,
    ) -> Result<TakeResult, Failure> {
        let (open, key) = self.limiter(at, who, &extra)?;
        match open.limiter.take(key, cost, clock::now_ms()) {
            Ok(left) => {
                self.side_effects = true;
                Ok(TakeResult::Granted(granted(left)))
            }
            Err(refused) => limited(&open.windows, &refused).map(TakeResult::Limited),
        }
    }

    fn reserve(
        &mut self,
        at: u32,
        who: Subject,
        extra: String,
        estimate: u64,
        unit: Unit,
    ) -> Result<TakeResult, Failure> {
        let ledger = self.ledger()?;
        let (open, key) = self.limiter(at, who, &extra)?;
        match open.limiter.reserve(key, estimate, clock::now_ms()) {
            Ok(hold) => {
                let left = hold.granted();
                record(&ledger, Box::new(TokenClaim { hold, unit }))?;
                if let Some(of) = open.told.clone() {
                    ledger.note(Notice {
                        of,
                        window_seconds: left.window_seconds,
                        limit: left.limit,
                        remaining: left.remaining,
                        reset_ms: left.reset_ms,
                        taken: estimate,
                        refused_ms: None,
                    });
                }
                self.side_effects = true;
                Ok(TakeResult::Granted(granted(left)))
            }
            Err(refused) => {
                let limited = limited(&open.windows, &refused)?;
                if let Some(of) = open.told.clone() {
                    ledger.note(Notice {
                        of,
                        window_seconds: refused.window.seconds,
                        limit: refused.limit,
                        remaining: refused.remaining,
                        reset_ms: refused.reset_ms,
                        taken: 0,
                        refused_ms: Some(refused.retry_after_ms),
                    });
                }
                Ok(TakeResult::Limited(limited))
            }
        }
    }

    fn adjust(&mut self, at: u32, who: Subject, extra: String, delta: i64) -> Result<(), Failure> {
        let (open, key) = self.limiter(at, who, &extra)?;
        open.limiter
            .adjust(key, delta, clock::now_ms())
            .map_err(|_| Failure::Unavailable)?;
        self.side_effects = true;
        Ok(())
    }

    fn acquire_slot(
        &mut self,
        name: String,
        key: String,
        max: u32,
        scope: Scope,
    ) -> Result<bool, Failure> {
        let name = self.private_name(&name, scope, self.filter.grants.slots)?;
        if key.len() > SLOT_KEY_BYTES_MAX {
            return Err(Failure::TooLarge);
        }
        let ledger = self.ledger()?;
        let Some(slot) = self.services.slots.acquire(&name, &key, max) else {
            return Ok(false);
        };
        record(&ledger, Box::new(SlotClaim { _slot: slot }))?;
        self.side_effects = true;
        Ok(true)
    }
}

impl GuestState {
    /// The process-wide name of what this filter calls `name`. Only the last `/` parts them, so a
    /// name with one could be another filter's.
    fn private_name(&self, name: &str, scope: Scope, grant: bool) -> Result<String, Failure> {
        if self.pure || !grant {
            return Err(Failure::Denied);
        }
        if name.is_empty()
            || name.len() > NAME_BYTES_MAX
            || name.contains(|c: char| c == '/' || c.is_control())
        {
            return Err(Failure::Invalid);
        }
        match scope {
            Scope::Local => Ok(format!("{}/{name}", self.filter.name)),
            // There is no store shared between replicas yet.
            Scope::ClusterEventual | Scope::ClusterExact => Err(Failure::Unavailable),
        }
    }

    fn store(&self, at: u32) -> Result<&Arc<Kv>, Failure> {
        self.handles
            .stores
            .get(at as usize)
            .ok_or(Failure::NotFound)
    }

    /// An open limiter and the key of the subject in it.
    fn limiter(
        &mut self,
        at: u32,
        who: Subject,
        extra: &str,
    ) -> Result<(&OpenLimiter, &str), Failure> {
        if extra.len() > EXTRA_BYTES_MAX {
            return Err(Failure::TooLarge);
        }
        let handles = &mut self.handles;
        let open = handles.limiters.get(at as usize).ok_or(Failure::NotFound)?;
        state_key::compose(&mut handles.key, who, extra, self.current.as_deref())
            .ok_or(Failure::Invalid)?;
        Ok((open, &handles.key))
    }

    fn ledger(&self) -> Result<Arc<Ledger>, Failure> {
        let facts = self.current.as_deref().ok_or(Failure::Invalid)?;
        Ok(facts.ledger.clone())
    }
}

/// Gives a claim that finds no room back at once.
fn record(ledger: &Ledger, claim: Box<dyn Claim>) -> Result<(), Failure> {
    ledger.record(claim).map_err(|claim| {
        claim.settle(&Settlement::Refund);
        Failure::TooLarge
    })
}

struct TokenClaim {
    hold: Hold,
    unit: Unit,
}

impl Claim for TokenClaim {
    fn settle(self: Box<Self>, settlement: &Settlement) {
        let now_ms = clock::now_ms();
        let Settlement::Used(usage) = settlement else {
            return self.hold.refund(now_ms);
        };
        let actual = match self.unit {
            Unit::Requests => self.hold.reserved(),
            Unit::InputTokens => usage.input_tokens,
            Unit::OutputTokens => usage.output_tokens,
            Unit::TotalTokens => usage.input_tokens.saturating_add(usage.output_tokens),
        };
        self.hold.settle(actual, now_ms);
    }
}

/// Released by being dropped.
struct SlotClaim {
    _slot: SlotGuard,
}

impl Claim for SlotClaim {
    fn settle(self: Box<Self>, _: &Settlement) {}
}

fn dimension(unit: Unit) -> Dimension {
    match unit {
        Unit::Requests => Dimension::Requests,
        Unit::TotalTokens => Dimension::Tokens,
        Unit::InputTokens => Dimension::InputTokens,
        Unit::OutputTokens => Dimension::OutputTokens,
    }
}

fn granted(left: weir_store::Granted) -> Granted {
    Granted {
        remaining: left.remaining,
        limit: left.limit,
        reset_ms: ms(left.reset_ms),
    }
}

/// No room for one more key is no limit of anybody's.
fn limited(windows: &[Window], refused: &weir_store::Limited) -> Result<Limited, Failure> {
    if refused.why == Why::NoRoom {
        return Err(Failure::Unavailable);
    }
    let named = |window: &Window| {
        window.seconds == refused.window.seconds && window.budget == refused.window.budget
    };
    let window = windows
        .iter()
        .position(named)
        .and_then(|at| u32::try_from(at).ok());
    Ok(Limited {
        window: window.unwrap_or(0),
        limit: refused.limit,
        retry_after_ms: ms(refused.retry_after_ms),
    })
}

fn ms(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Most stores, and most limiters, one instance may have open.
const HANDLES_MAX: usize = 1024;
/// More than any limiter takes; the exact bound is the store's.
const WINDOWS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 128;
const EXTRA_BYTES_MAX: usize = 256;
const SLOT_KEY_BYTES_MAX: usize = 512;

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
