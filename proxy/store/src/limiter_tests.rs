//! Limits under concurrency, against a model, and over changed windows.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use super::*;
use crate::limiters::{LimiterStats, Limiters};

const WEEK: u32 = 7 * 24 * 3600;

fn windows(list: &[(u64, u32)]) -> Vec<Window> {
    let window = |(budget, seconds): &(u64, u32)| Window {
        budget: *budget,
        seconds: *seconds,
    };
    list.iter().map(window).collect()
}

fn limiter(list: &[(u64, u32)]) -> Arc<Limiter> {
    Limiters::default().open("test", &windows(list)).unwrap()
}

fn remaining(limiter: &Limiter, now_ms: u64) -> u64 {
    limiter.peek("k", now_ms).remaining
}

#[test]
fn a_budget_worth_100_admits_exactly_100_of_many_callers() {
    let weekly = limiter(&[(100 * 37, WEEK), (1_000_000, 1)]);
    let spread: Vec<Vec<Hold>> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let each = || (0..2_000).filter_map(|_| weekly.reserve("k", 37, 5).ok());
                scope.spawn(move || each().collect())
            })
            .collect();
        callers.into_iter().map(|c| c.join().unwrap()).collect()
    });
    let holds: Vec<Hold> = spread.into_iter().flatten().collect();
    assert_eq!(holds.len(), 100);
    assert_eq!(weekly.ledger.open_holds.load(Relaxed), 100);
    let mut used = 0;
    for (hold, actual) in holds.into_iter().zip(0..) {
        used += actual / 2;
        hold.settle(actual / 2, 5);
    }
    assert_eq!(
        remaining(&weekly, 5),
        3700 - used,
        "the balance is the real usage"
    );
    assert_eq!(weekly.ledger.open_holds.load(Relaxed), 0);
}

#[test]
fn settle_refund_and_drop_change_the_balance_as_told() {
    let check = |end: fn(Hold), expected: u64, abandoned: u64| {
        let hourly = limiter(&[(100, 3600)]);
        end(hourly.reserve("k", 40, 0).unwrap());
        assert_eq!(remaining(&hourly, 0), expected);
        assert_eq!(hourly.ledger.open_holds.load(Relaxed), 0);
        assert_eq!(hourly.ledger.abandoned.load(Relaxed), abandoned);
    };
    check(|hold| hold.settle(40, 0), 60, 0);
    check(|hold| hold.settle(10, 0), 90, 0);
    check(|hold| hold.settle(90, 0), 10, 0);
    check(|hold| hold.settle(500, 0), 0, 0);
    check(|hold| hold.refund(0), 100, 0);
    check(drop, 60, 1);
}

#[test]
fn debt_is_paid_off_before_anything_is_admitted() {
    let minutely = limiter(&[(60, 60)]);
    minutely.reserve("k", 10, 0).unwrap().settle(90, 0);
    let limited = minutely.take("k", 1, 0).unwrap_err();
    assert_eq!((limited.remaining, limited.retry_after_ms), (0, 31_000));
    assert!(minutely.take("k", 1, 30_999).is_err());
    assert!(minutely.take("k", 1, 31_000).is_ok());
    minutely.adjust("k", -1000, 31_000).unwrap();
    assert_eq!(remaining(&minutely, 31_000), 60, "never above the budget");
    minutely.adjust("k", 70, 31_000).unwrap();
    assert_eq!(minutely.peek("k", 31_000).reset_ms, 70_000);
}

#[test]
fn all_windows_are_taken_or_none_and_the_last_to_admit_is_named() {
    let both = limiter(&[(10, 1), (15, 3600)]);
    let granted = both.take("k", 10, 0).unwrap();
    assert_eq!((granted.window_seconds, granted.remaining), (1, 0));
    let limited = both.take("k", 6, 0).unwrap_err();
    assert_eq!((limited.window.seconds, limited.remaining), (3600, 5));
    assert_eq!(
        (limited.retry_after_ms, limited.reset_ms),
        (240_000, 2_400_000)
    );
    let granted = both.take("k", 5, 1000).unwrap();
    assert_eq!((granted.window_seconds, granted.remaining), (3600, 0));
    assert_eq!(both.take("k", 1, 1000).unwrap_err().why, Why::Spent);
}

#[test]
fn more_than_a_budget_is_never_admitted() {
    let check = |list: &[(u64, u32)], cost, why: Option<Why>| {
        let refused = limiter(list).take("k", cost, 0).err();
        assert_eq!(
            refused.map(|limited| limited.why),
            why,
            "{cost} of {list:?}"
        );
    };
    check(&[(10, 1)], 10, None);
    check(&[(10, 1)], 11, Some(Why::Never));
    check(&[(10, 1), (5, 60)], 6, Some(Why::Never));
    check(&[(0, 1)], 0, None);
    check(&[(0, 1)], 1, Some(Why::Never));
    check(&[(u64::MAX, u32::MAX)], u64::MAX, None);
}

#[test]
fn many_small_steps_refill_exactly_as_one_big() {
    for (budget, seconds) in [(7, 60), (1000, 1), (1, WEEK), (999_983, 3600)] {
        let (small, big) = (limiter(&[(budget, seconds)]), limiter(&[(budget, seconds)]));
        for each in [&small, &big] {
            each.adjust("k", i64::try_from(budget * 2).unwrap(), 0)
                .unwrap();
        }
        for now_ms in 0..=20_000 {
            _ = small.peek("k", now_ms);
        }
        assert_eq!(small.peek("k", 20_000), big.peek("k", 20_000));
    }
}

#[test]
fn a_clock_that_steps_back_refills_nothing_twice() {
    let secondly = limiter(&[(1000, 1)]);
    secondly.take("k", 1000, 1000).unwrap();
    assert_eq!(remaining(&secondly, 1100), 100);
    assert_eq!(remaining(&secondly, 900), 100);
    assert_eq!(remaining(&secondly, 1100), 100);
}

#[test]
fn changed_windows_keep_what_was_spent_in_the_same_span() {
    let all = Limiters::default();
    let open = |list: &[(u64, u32)]| all.open("l", &windows(list)).unwrap();
    let old = open(&[(100, WEEK), (1000, 3600)]);
    assert!(Arc::ptr_eq(&old, &open(&[(1000, 3600), (100, WEEK)])));
    let held = old.reserve("k", 60, 0).unwrap();
    let new = open(&[(200, WEEK), (50, 60)]);
    assert_eq!(new.peek("k", 0).remaining, 50);
    new.take("k", 50, 0).unwrap();
    assert_eq!(open(&[(200, WEEK)]).peek("k", 0).remaining, 90);
    assert_eq!(open(&[(80, WEEK)]).peek("k", 0).remaining, 0, "in debt");
    held.settle(10, 0);
    assert_eq!(open(&[(200, WEEK)]).peek("k", 0).remaining, 140);
    drop((old, new));
    assert_eq!(
        open(&[(100, WEEK)]).peek("k", 0).remaining,
        40,
        "kept by the registry"
    );
    assert_eq!(open(&[(1000, 3600)]).peek("k", 0).remaining, 990);
    all.retain(|_| false);
    assert!(all.stats().is_empty());
}

#[test]
fn bad_windows_are_refused() {
    let check = |list: &[(u64, u32)], ok: bool| {
        let opened = Limiters::default().open("l", &windows(list));
        assert_eq!(opened.is_ok(), ok, "{list:?}");
    };
    check(&[], false);
    check(&[(1, 0)], false);
    check(&[(1, 1), (2, 2)], true);
    check(&[(1, 1); 20], true);
    let nine: Vec<(u64, u32)> = (1..10).map(|seconds| (1, seconds)).collect();
    check(&nine, false);
}

#[test]
fn only_full_unclaimed_keys_make_room() {
    let all = Limiters::new(3);
    let one = all.open("l", &windows(&[(10, 1)])).unwrap();
    let held = one.reserve("held", 1, 0).unwrap();
    one.take("spent", 10, 4500).unwrap();
    one.take("idle", 1, 0).unwrap();
    assert!(one.take("new", 1, 5000).is_ok(), "idle made room");
    let refused = one.take("more", 1, 5001).unwrap_err();
    assert_eq!(refused.why, Why::NoRoom);
    held.settle(4, 5001);
    assert_eq!(one.peek("held", 5001).remaining, 7);
    assert!(one.take(&"x".repeat(513), 1, 9000).is_err());
    let stats = all.stats();
    assert_eq!((stats[0].keys, stats[0].open_holds), (3, 0));
}

#[test]
fn sums_are_kept_of_what_was_reserved_settled_and_refunded() {
    let all = Limiters::default();
    let hourly = all.open("l", &windows(&[(100, 3600)])).unwrap();
    let hold = |cost| hourly.reserve("k", cost, 0).unwrap();
    hold(40).settle(10, 0);
    hold(30).refund(0);
    hold(20).settle(50, 0);
    drop(hold(5));
    assert!(hourly.reserve("k", 90, 0).is_err(), "counts for nothing");
    _ = hourly.take("k", 1, 0);
    let stats = all.stats();
    let sums = |stats: &LimiterStats| (stats.reserved, stats.settled, stats.refunded);
    assert_eq!(sums(&stats[0]), (95, 60, 30));
    assert_eq!((stats[0].open_holds, stats[0].abandoned), (0, 1));
}

/// Every millisecond by itself, in whole parts of a token.
struct Model {
    window: Window,
    left: i128,
}

impl Model {
    fn parts(&self, tokens: i128) -> i128 {
        tokens * i128::from(self.window.seconds) * 1000
    }

    fn capacity(&self) -> i128 {
        self.parts(i128::from(self.window.budget))
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.left = self
                .capacity()
                .min(self.left + i128::from(self.window.budget));
        }
    }

    fn charge(&mut self, tokens: i128) {
        self.left = self.capacity().min(self.left - self.parts(tokens));
    }
}

#[test]
fn agrees_with_a_model_over_random_histories() {
    let mut seed = 0x5eed_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    for history in 0..40 {
        let list = windows(&[(1 + random(50), 1), (1 + random(200), 7), (300, 60)]);
        let subject = Limiters::default().open("l", &list).unwrap();
        let mut models: Vec<Model> = list
            .iter()
            .map(|w| Model {
                window: *w,
                left: 0,
            })
            .collect();
        models
            .iter_mut()
            .for_each(|model| model.left = model.capacity());
        let (mut holds, mut now_ms) = (Vec::new(), 0);
        for step in 0..400 {
            let pause_ms = random(60);
            now_ms += pause_ms;
            models.iter_mut().for_each(|model| model.pass(pause_ms));
            let cost = random(30);
            if random(3) > 0 || holds.is_empty() {
                let fits = models.iter().all(|m| m.left >= m.parts(i128::from(cost)));
                let taken = subject.reserve("k", cost, now_ms);
                assert_eq!(taken.is_ok(), fits, "history {history}, step {step}");
                if let Ok(hold) = taken {
                    models.iter_mut().for_each(|m| m.charge(i128::from(cost)));
                    holds.push(hold);
                }
            } else {
                let at = usize::try_from(random(holds.len() as u64)).unwrap();
                let hold = holds.swap_remove(at);
                let delta = i128::from(cost) - i128::from(hold.reserved());
                models.iter_mut().for_each(|model| model.charge(delta));
                hold.settle(cost, now_ms);
            }
            let left = models
                .iter()
                .map(|m| m.left.max(0) / m.parts(1))
                .min()
                .unwrap();
            let label = format!("history {history}, step {step}");
            assert_eq!(i128::from(remaining(&subject, now_ms)), left, "{label}");
        }
    }
}
