//! Quarantine: a filter that keeps failing is left alone for a while, then tried once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// The state machine, free of clocks and locks. Times are milliseconds of one monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    state: State,
    /// The latest failures, oldest first: when, and the number of calls made until then.
    failures: VecDeque<(u64, u64)>,
    /// Length of the last quarantine.
    open_ms: u64,
    closed_at: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        until: u64,
    },
    /// One call is let through to find out.
    HalfOpen {
        probe_at: u64,
    },
}

/// What a call is told before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Call,
    Probe,
    Refuse,
}

impl Machine {
    /// Whether a call may be made now.
    pub(crate) fn admit(&mut self, now: u64) -> Admission {
        match self.state {
            State::Closed => Admission::Call,
            State::Open { until } if now < until => Admission::Refuse,
            // A probe whose caller left never reports: after a while there is another.
            State::HalfOpen { probe_at } if now < probe_at + PROBE_MS => Admission::Refuse,
            _ => {
                self.state = State::HalfOpen { probe_at: now };
                Admission::Probe
            }
        }
    }

    /// A probe went well.
    pub(crate) fn probe_passed(&mut self, now: u64) {
        if matches!(self.state, State::HalfOpen { .. }) {
            self.state = State::Closed;
            self.closed_at = now;
            self.failures.clear();
        }
    }

    /// A call failed; `calls` is how many there have been so far, this one included, `jitter`
    /// is in 0..1. Answers whether this opened the breaker.
    pub(crate) fn failed(&mut self, now: u64, calls: u64, jitter: f64) -> bool {
        match self.state {
            State::Open { .. } => return false,
            State::HalfOpen { .. } => {
                self.open(now, jitter);
                return true;
            }
            State::Closed => {}
        }
        if self.failures.len() >= KEPT {
            self.failures.pop_front();
        }
        self.failures.push_back((now, calls));
        let quick = self
            .nth_last(BURST)
            .is_some_and(|(at, _)| now.saturating_sub(at) <= BURST_MS);
        let span = calls.clamp(1, RATE_CALLS);
        let recent = self
            .failures
            .iter()
            .filter(|(_, call)| calls.saturating_sub(*call) < span)
            .count();
        let often = recent >= BURST && recent as u64 * 100 > span;
        if quick || often {
            self.open(now, jitter);
        }
        quick || often
    }

    /// Whether calls are being refused or probed.
    pub(crate) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    fn nth_last(&self, nth: usize) -> Option<(u64, u64)> {
        self.failures
            .get(self.failures.len().checked_sub(nth)?)
            .copied()
    }

    fn open(&mut self, now: u64, jitter: f64) {
        let again = self.is_open() || now.saturating_sub(self.closed_at) < OPEN_MAX_MS;
        self.open_ms = if again && self.open_ms > 0 {
            (self.open_ms * 2).min(OPEN_MAX_MS)
        } else {
            OPEN_MS
        };
        // 0.9 to 1.1 of the length, so that gateways do not probe together.
        let length = self.open_ms * 9 / 10 + (self.open_ms as f64 * 0.2 * jitter) as u64;
        self.state = State::Open {
            until: now + length,
        };
        self.failures.clear();
    }
}

/// The machine behind a lock that calls of a healthy filter never take.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    open: AtomicBool,
    calls: AtomicU64,
    trips: AtomicU64,
    machine: Mutex<Machine>,
}

impl Breaker {
    /// Whether a call may be made; counts it if so.
    pub(crate) fn admit(&self, now_ms: impl FnOnce() -> u64) -> Admission {
        let admission = if self.open.load(Ordering::Relaxed) {
            self.machine.lock().admit(now_ms())
        } else {
            Admission::Call
        };
        if admission != Admission::Refuse {
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
        admission
    }

    /// An admitted probe went well.
    pub(crate) fn probe_passed(&self, now_ms: u64) {
        let mut machine = self.machine.lock();
        machine.probe_passed(now_ms);
        self.open.store(machine.is_open(), Ordering::Relaxed);
    }

    /// An admitted call failed. Answers whether this opened the breaker.
    pub(crate) fn failed(&self, now_ms: u64) -> bool {
        let mut machine = self.machine.lock();
        let tripped = machine.failed(now_ms, self.calls.load(Ordering::Relaxed), fastrand::f64());
        self.open.store(machine.is_open(), Ordering::Relaxed);
        if tripped {
            self.trips.fetch_add(1, Ordering::Relaxed);
        }
        tripped
    }

    /// Whether the filter is in quarantine.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// How often it was put there.
    pub(crate) fn trips(&self) -> u64 {
        self.trips.load(Ordering::Relaxed)
    }

    /// Calls made.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

/// So many failures within [`BURST_MS`], or more than 1 % of the last [`RATE_CALLS`] and at
/// least so many.
const BURST: usize = 5;
const BURST_MS: u64 = 10_000;
const RATE_CALLS: u64 = 1_000;
/// One more than 1 % of [`RATE_CALLS`].
const KEPT: usize = 11;
const OPEN_MS: u64 = 1_000;
const OPEN_MAX_MS: u64 = 60_000;
const PROBE_MS: u64 = 30_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds failures as (ms, calls so far) and says at which one the breaker opened.
    fn opened_at(failures: &[(u64, u64)]) -> Option<usize> {
        let mut machine = Machine::default();
        failures
            .iter()
            .position(|&(now, calls)| machine.failed(now, calls, 0.5))
    }

    #[test]
    fn opens_on_a_burst_or_a_rate_and_on_nothing_less() {
        let slow = |n: u64, calls: u64| {
            (0..n)
                .map(|i| (i * 20_000, (i + 1) * calls))
                .collect::<Vec<_>>()
        };
        let late = |n: u64, calls: u64| {
            (0..n)
                .map(|i| (i * 20_000, 10_000 + i * calls))
                .collect::<Vec<_>>()
        };
        let table = [
            (
                "five in ten seconds",
                (0..5).map(|i| (i * 2_500, 100_000 * (i + 1))).collect(),
                Some(4),
            ),
            (
                "five in longer",
                (0..5).map(|i| (i * 2_501, 100_000 * (i + 1))).collect(),
                None,
            ),
            ("four at once", vec![(0, 1), (0, 2), (0, 3), (0, 4)], None),
            ("all of few calls", slow(5, 1), Some(4)),
            ("one in ninety from the start", slow(30, 90), Some(4)),
            ("one in ninety after many", late(30, 90), Some(10)),
            ("one in a hundred after many", late(30, 100), None),
            ("one in a thousand", slow(30, 1_000), None),
        ];
        for (name, failures, expected) in table {
            assert_eq!(opened_at(&failures), expected, "{name}");
        }
    }

    #[test]
    fn backs_off_probes_once_and_closes() {
        let mut machine = Machine::default();
        let mut now = 100_000;
        for calls in 1..=5 {
            machine.failed(now, calls, 0.5);
        }
        for length in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            assert_eq!(
                machine.admit(now + length - 1),
                Admission::Refuse,
                "{length}"
            );
            now += length;
            assert_eq!(machine.admit(now), Admission::Probe, "{length}");
            assert_eq!(machine.admit(now), Admission::Refuse, "one probe at a time");
            assert!(machine.failed(now, 6, 0.5), "{length}");
        }
        now += 60_000;
        assert_eq!(machine.admit(now), Admission::Probe);
        assert_eq!(
            machine.admit(now + PROBE_MS),
            Admission::Probe,
            "the first never reported"
        );
        machine.probe_passed(now);
        assert_eq!(machine.admit(now), Admission::Call);
        for calls in 7..=11 {
            machine.failed(now + OPEN_MAX_MS, calls, 0.5);
        }
        assert_eq!(
            machine.state,
            State::Open {
                until: now + OPEN_MAX_MS + OPEN_MS
            },
            "long ago is forgotten"
        );
    }
}
