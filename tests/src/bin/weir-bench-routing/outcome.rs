//! What a run came to for one contestant.

use std::time::Duration;

use crate::client::Answered;
use crate::figures::{Percentiles, capacity_balance, max_to_mean};
use crate::fleet::{Machine, Work};
use crate::movement::{Moved, Visit, switch_rate};
use crate::scenario::Event;
use crate::schedule::Arrival;

/// Figures of one contestant in one run. Times are simulated milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Requests after the warm-up, and those of them that were answered completely.
    pub(crate) asked: usize,
    pub(crate) answered: usize,
    /// Of the answered ones, in no order.
    pub(crate) ttft_ms: Vec<f64>,
    pub(crate) ttft: Percentiles,
    pub(crate) total: Percentiles,
    /// Answered per simulated second.
    pub(crate) requests_per_second: f64,
    /// Requests of the busiest machine over the mean.
    pub(crate) max_to_mean: f64,
    /// See [`capacity_balance`], of the tokens computed.
    pub(crate) capacity_balance: f64,
    /// Share of all prompt tokens that a cache had.
    pub(crate) hit_rate: f64,
    /// See [`switch_rate`].
    pub(crate) switch_rate: f64,
    /// When a machine left, and when it joined, where one did.
    pub(crate) left: Option<Moved>,
    pub(crate) joined: Option<Moved>,
    /// The first failures, for people.
    pub(crate) failures: Vec<String>,
}

/// What is known of a run before its answers.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) arrivals: &'a [Arrival],
    pub(crate) machines: &'a [Machine],
    pub(crate) events: &'a [(f64, Event)],
    pub(crate) length: Duration,
    pub(crate) time_scale: f64,
}

/// One answer, or why there is none: its place in the schedule and what came.
pub(crate) type Reply = (usize, Result<Answered, String>);

impl Outcome {
    /// Of the answers in any order, and what the machines worked.
    pub(crate) fn of(frame: Frame, replies: &[Reply], work: &[Work]) -> Self {
        let warm = frame.length.mul_f64(WARM_UP);
        let simulated_ms = |real: Duration| real.as_secs_f64() * 1e3 * frame.time_scale;
        let (mut ttft_ms, mut total_ms) = (Vec::new(), Vec::new());
        let (mut asked, mut failures) = (0, Vec::new());
        let mut by_machine = vec![0.0; frame.machines.len()];
        for (place, reply) in replies {
            let at = frame.arrivals.get(*place).map(|arrival| arrival.at);
            let counts = at.is_some_and(|at| at >= warm);
            asked += usize::from(counts);
            match reply {
                Ok(answered) => {
                    if let Some(count) = by_machine.get_mut(answered.server) {
                        *count += 1.0;
                    }
                    if counts {
                        ttft_ms.push(simulated_ms(answered.ttft));
                        total_ms.push(simulated_ms(answered.total));
                    }
                }
                Err(failure) if failures.len() < FAILURES_MAX => failures.push(failure.clone()),
                Err(_) => {}
            }
        }
        let sum = |part: fn(&Work) -> f64| work.iter().map(part).sum::<f64>();
        let computed: Vec<f64> = work.iter().map(|work| work.computed()).collect();
        let rates: Vec<f64> = frame
            .machines
            .iter()
            .map(|machine| machine.prefill_tokens_per_second)
            .collect();
        let visits = visits(frame.arrivals, replies);
        let span = (frame.length - warm).as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            asked,
            answered: ttft_ms.len(),
            ttft: Percentiles::of(&ttft_ms),
            total: Percentiles::of(&total_ms),
            requests_per_second: ttft_ms.len() as f64 / span,
            ttft_ms,
            max_to_mean: max_to_mean(&by_machine),
            capacity_balance: capacity_balance(&computed, &rates),
            hit_rate: sum(|work| work.cached_tokens)
                / sum(|work| work.prompt_tokens).max(f64::MIN_POSITIVE),
            switch_rate: switch_rate(&visits),
            left: moved(frame, &visits, true),
            joined: moved(frame, &visits, false),
            failures,
        }
    }

    /// Share (0 to 1) of the requests that were answered completely.
    pub(crate) fn success_rate(&self) -> f64 {
        self.answered as f64 / self.asked.max(1) as f64
    }
}

/// Answered requests of conversations in order of time.
fn visits(arrivals: &[Arrival], replies: &[Reply]) -> Vec<Visit> {
    let visit = |(place, reply): &Reply| {
        let arrival = arrivals.get(*place)?;
        Some(Visit {
            at: arrival.at,
            key: arrival.key.number()?,
            server: reply.as_ref().ok()?.server,
        })
    };
    let mut visits: Vec<Visit> = replies.iter().filter_map(visit).collect();
    visits.sort_by_key(|visit| visit.at);
    visits
}

/// The conversations moved by the first machine that left, or joined: between the span up to that
/// moment and the one after it, which end at the events before and after.
fn moved(frame: Frame, visits: &[Visit], leaving: bool) -> Option<Moved> {
    let changes: Vec<(f64, usize, bool)> = frame
        .events
        .iter()
        .filter_map(|(at, event)| match event {
            Event::Leave(place) => Some((*at, *place, true)),
            Event::Join(place) => Some((*at, *place, false)),
            Event::Slow(..) => None,
        })
        .collect();
    let nth = changes.iter().position(|(_, _, left)| *left == leaving)?;
    let (at, place, _) = changes.get(nth)?;
    let before = nth
        .checked_sub(1)
        .and_then(|nth| changes.get(nth))
        .map_or(0.0, |change| change.0);
    let after = changes.get(nth + 1).map_or(1.0, |change| change.0);
    let time = |share: f64| frame.length.mul_f64(share);
    // The gateway looks at its files now and then, so what follows the event at once is left out.
    let settled = time(*at) + SETTLE_REAL.mul_f64(frame.time_scale);
    let spans = ((time(before), time(*at)), (settled, time(after)));
    Some(Moved::between(visits, spans.0, spans.1, *place))
}

/// Share of a run whose requests are not timed: caches and averages fill.
const WARM_UP: f64 = 0.1;
const FAILURES_MAX: usize = 3;
const SETTLE_REAL: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Key, Segment};

    #[test]
    fn times_are_simulated_and_begin_after_the_warm_up() {
        let arrivals: Vec<Arrival> = (0..20)
            .map(|second| Arrival {
                at: Duration::from_secs(second),
                key: Key::Body(1),
                prompt: vec![Segment::new(1, 1, 16)],
                output: 1,
            })
            .collect();
        let frame = Frame {
            arrivals: &arrivals,
            machines: &[Machine::default(); 2],
            events: &[(0.5, Event::Leave(1))],
            length: Duration::from_secs(20),
            time_scale: 4.0,
        };
        let answered = |server| Answered {
            ttft: Duration::from_millis(10),
            total: Duration::from_millis(30),
            server,
        };
        let reply = |place: usize| match place {
            3 => (place, Err("cut".to_owned())),
            _ => (place, Ok(answered(usize::from(place < 10)))),
        };
        let replies: Vec<Reply> = (0..20).map(reply).collect();
        let work = Work {
            prompt_tokens: 100.0,
            cached_tokens: 60.0,
        };
        let outcome = Outcome::of(frame, &replies, &[work, Work::default()]);
        assert_eq!((outcome.asked, outcome.answered), (18, 17));
        assert_eq!((outcome.ttft.p99, outcome.total.p50), (40.0, 120.0));
        assert!((outcome.hit_rate - 0.6).abs() < 1e-9);
        assert!((outcome.capacity_balance - 0.5).abs() < 1e-9);
        assert_eq!(outcome.failures, ["cut"]);
        let left = outcome.left.unwrap_or_default();
        assert_eq!((left.keys, left.moved, left.needless), (1, 1, 0));
        assert_eq!(outcome.joined, None);
    }
}
