//! The arithmetic of one key's token buckets: exact, without clock or lock.

/// One budget over one span, continuously refilled: full at the start, `budget` tokens per
/// `seconds`, never more than `budget` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Most tokens at once, and tokens refilled per span.
    pub budget: u64,
    /// The span, at least 1.
    pub seconds: u32,
}

/// A taking that was granted, told of the window with the fewest tokens left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Tokens left; 0 in debt.
    pub remaining: u64,
    /// The window's budget.
    pub limit: u64,
    /// Milliseconds until the window is full again if nothing else is taken.
    pub reset_ms: u64,
    /// The window's span.
    pub window_seconds: u32,
}

/// A taking that was refused: nothing was taken from any window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// The window that admits the taking last.
    pub window: Window,
    /// Its budget.
    pub limit: u64,
    /// Tokens left in it; 0 in debt.
    pub remaining: u64,
    /// Milliseconds until it is full again if nothing is taken.
    pub reset_ms: u64,
    /// Milliseconds until the same taking would be granted if nothing else is taken; at most
    /// `u32::MAX` (49 days), which also stands for "not to be told".
    pub retry_after_ms: u64,
    /// Why it was refused.
    pub why: Why,
}

/// Why a taking was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The budget is spent for now.
    Spent,
    /// It asks for more than a whole budget, or of a budget of 0: waiting does not help.
    Never,
    /// The limiter cannot keep one more key, or one this long: nothing is known of it.
    NoRoom,
}

impl Limited {
    /// Waiting does not help.
    #[must_use]
    pub fn never(&self) -> bool {
        self.why == Why::Never
    }
}

/// All windows of one key. Windows are found by their span, so what was spent stays when the
/// configuration changes budgets, and comes back when a span does.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    tanks: Vec<Tank>,
}

/// One window's account. It keeps what was *spent*, in parts of a token so fine (a token
/// divided by the span in milliseconds) that each millisecond refills a whole number of them:
/// many small steps add up to exactly one big step.
#[derive(Debug, Clone, Copy)]
struct Tank {
    seconds: u32,
    /// The budget last used: the rate at which time since then refills.
    budget: u64,
    last_ms: u64,
    spent: u128,
}

impl Bucket {
    /// Takes `cost` from every window, or nothing.
    pub(crate) fn take(
        &mut self,
        windows: &[Window],
        cost: u64,
        now_ms: u64,
    ) -> Result<Granted, Limited> {
        let mut refusal: Option<Limited> = None;
        for (tank, window) in self.tanks(windows, now_ms) {
            if let Some(limited) = tank.refuses(window, cost) {
                let later = |known: &Limited| limited.retry_after_ms > known.retry_after_ms;
                if refusal.as_ref().is_none_or(later) {
                    refusal = Some(limited);
                }
            }
        }
        if let Some(limited) = refusal {
            return Err(limited);
        }
        self.charge(windows, i128::from(cost), now_ms);
        Ok(self.tightest(windows, now_ms))
    }

    /// Charges (may go into debt) or, negative, refunds (never above the budget).
    pub(crate) fn charge(&mut self, windows: &[Window], delta: i128, now_ms: u64) {
        for (tank, _) in self.tanks(windows, now_ms) {
            let parts = delta.unsigned_abs().saturating_mul(tank.parts_per_token());
            tank.spent = if delta < 0 {
                tank.spent.saturating_sub(parts)
            } else {
                tank.spent.saturating_add(parts)
            };
        }
    }

    /// The window with the fewest tokens left.
    pub(crate) fn tightest(&mut self, windows: &[Window], now_ms: u64) -> Granted {
        let mut tightest = Granted {
            remaining: u64::MAX,
            limit: u64::MAX,
            reset_ms: 0,
            window_seconds: 0,
        };
        for (tank, window) in self.tanks(windows, now_ms) {
            let remaining = tank.remaining();
            let order = (remaining, window.seconds);
            if tightest.window_seconds == 0 || order < (tightest.remaining, tightest.window_seconds)
            {
                tightest = Granted {
                    remaining,
                    limit: window.budget,
                    reset_ms: ms_to_refill(tank.spent, tank.budget),
                    window_seconds: window.seconds,
                };
            }
        }
        tightest
    }

    /// Every window is full: forgetting the key changes nothing.
    pub(crate) fn is_full(&self, now_ms: u64) -> bool {
        self.tanks.iter().all(|tank| {
            let mut refilled = *tank;
            refilled.refill(now_ms);
            refilled.spent == 0
        })
    }

    /// The accounts of these windows, refilled up to now.
    fn tanks<'a>(
        &'a mut self,
        windows: &'a [Window],
        now_ms: u64,
    ) -> impl Iterator<Item = (&'a mut Tank, &'a Window)> {
        let known = |tanks: &[Tank], window: &Window| {
            let same = |tank: &Tank| tank.seconds == window.seconds;
            tanks.iter().any(same)
        };
        if !windows.iter().all(|window| known(&self.tanks, window)) {
            // A new span means a changed configuration: let go of what is full by now.
            self.tanks.retain_mut(|tank| {
                tank.refill(now_ms);
                tank.spent > 0
            });
            for window in windows {
                if !known(&self.tanks, window) {
                    self.tanks.push(Tank {
                        seconds: window.seconds,
                        budget: window.budget,
                        last_ms: now_ms,
                        spent: 0,
                    });
                }
            }
        }
        self.tanks.iter_mut().filter_map(move |tank| {
            let same = |window: &&Window| window.seconds == tank.seconds;
            let window = windows.iter().find(same)?;
            tank.refill(now_ms);
            tank.budget = window.budget;
            Some((tank, window))
        })
    }
}

impl Tank {
    fn parts_per_token(&self) -> u128 {
        u128::from(self.seconds) * 1000
    }

    /// A clock that steps back refills nothing and loses nothing.
    fn refill(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.last_ms);
        self.last_ms = self.last_ms.max(now_ms);
        let refilled = u128::from(elapsed_ms) * u128::from(self.budget);
        self.spent = self.spent.saturating_sub(refilled);
    }

    fn remaining(&self) -> u64 {
        let capacity = u128::from(self.budget) * self.parts_per_token();
        let left = capacity.saturating_sub(self.spent) / self.parts_per_token().max(1);
        u64::try_from(left).unwrap_or(u64::MAX)
    }

    fn refuses(&self, window: &Window, cost: u64) -> Option<Limited> {
        let capacity = u128::from(self.budget) * self.parts_per_token();
        let asked = u128::from(cost) * self.parts_per_token();
        let missing = self.spent.saturating_add(asked).saturating_sub(capacity);
        if missing == 0 {
            return None;
        }
        let never = cost > window.budget || window.budget == 0;
        let wait_ms = ms_to_refill(missing, window.budget);
        Some(Limited {
            window: *window,
            limit: window.budget,
            remaining: self.remaining(),
            reset_ms: ms_to_refill(self.spent, window.budget),
            retry_after_ms: if never {
                RETRY_MS_MAX
            } else {
                wait_ms.min(RETRY_MS_MAX)
            },
            why: if never { Why::Never } else { Why::Spent },
        })
    }
}

fn ms_to_refill(parts: u128, budget: u64) -> u64 {
    if parts == 0 {
        return 0;
    }
    if budget == 0 {
        return u64::MAX;
    }
    u64::try_from(parts.div_ceil(u128::from(budget))).unwrap_or(u64::MAX)
}

pub(crate) const RETRY_MS_MAX: u64 = u32::MAX as u64;
