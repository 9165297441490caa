//! A look at all candidates by what the gateway finds, so that no figures of all need be brought
//! here: the same choice as from the list of all, for far less.

use weir_sdk::candidates::{self, Figure};
use weir_sdk::host;

use crate::buckets;
use crate::power_of_two;
use crate::widening::{Look, Rules, has_room, least, with_short_queue};

/// Looks at all of `count`; none: only the list of all tells.
pub(crate) fn look(rules: &Rules<'_>, count: u32) -> Option<Look> {
    let horizon = Horizon::of(rules)?;
    let drawn = horizon.drawn(rules, count);
    drawn.map(Look::Pick).or_else(|| horizon.look(rules))
}

/// What the predicted first bytes of all say about who is open, see [`crate::buckets`].
struct Horizon {
    /// Whoever answers by then is open.
    surely_us: f64,
    /// Whoever answers later is not. For those between the two it matters where buckets begin.
    maybe_us: f64,
    first_end_us: f64,
    reach_us: f64,
}

impl Horizon {
    /// None when the first of all is not the first of those whose queue is short.
    fn of(rules: &Rules<'_>) -> Option<Self> {
        let first = candidates::least(Figure::TtftUs, &[])?;
        if !queue_is_short(rules, first) {
            return None;
        }
        let least_us = candidates::figure(first, Figure::TtftUs)?;
        let bucket_us = rules.bucket_ms * 1e3;
        let first_end_us = least_us + bucket_us;
        let reach_us = buckets::reach_us(least_us, rules.budget_ms * 1e3, rules.unlock_factor);
        let (surely_us, maybe_us) = if reach_us > first_end_us {
            (reach_us, reach_us + bucket_us)
        } else {
            (first_end_us, first_end_us)
        };
        Some(Self {
            surely_us,
            maybe_us,
            first_end_us,
            reach_us,
        })
    }

    /// The usual case: random ones are drawn until enough of them are open and have room. The
    /// same distribution as of a sample from the list, for what a few draws cost.
    fn drawn(&self, rules: &Rules<'_>, count: u32) -> Option<u32> {
        let mut looked: Vec<u32> = Vec::with_capacity(DRAWS_MAX);
        let mut sample: Vec<u32> = Vec::with_capacity(rules.sample_count as usize);
        for _ in 0..DRAWS_MAX {
            let position = host::random_below(count);
            if looked.contains(&position) || rules.tried.contains(&position) {
                continue;
            }
            looked.push(position);
            let ttft_us = candidates::figure(position, Figure::TtftUs);
            let is_open = ttft_us.is_some_and(|us| us <= self.surely_us);
            if is_open && queue_is_short(rules, position) && has_room(rules, position) {
                sample.push(position);
                if sample.len() >= rules.sample_count as usize {
                    return least(rules, &sample);
                }
            }
        }
        None
    }

    /// Those with room, and of them those that are open.
    fn look(&self, rules: &Rules<'_>) -> Option<Look> {
        let room = with_short_queue(rules, candidates::with_room(rules.max_queued, &[]));
        if room.is_empty() {
            // Whoever opens later has none either.
            return Some(Look::Wait(None));
        }
        let mut open = candidates::at_most(Figure::TtftUs, self.surely_us, &room);
        if self.maybe_us > self.surely_us {
            let maybe = candidates::at_most(Figure::TtftUs, self.maybe_us, &room);
            if maybe.len() > open.len() {
                return None;
            }
        }
        let sample = power_of_two::sample(&mut open, rules.sample_count);
        Some(match least(rules, sample) {
            Some(position) => Look::Pick(position),
            None => Look::Wait(self.opens_in_ms(rules, &room)),
        })
    }

    /// When the first of them may open, at the soonest: as the last of a bucket.
    fn opens_in_ms(&self, rules: &Rules<'_>, among: &[u32]) -> Option<f64> {
        let first = candidates::least(Figure::TtftUs, among)?;
        let first_us = candidates::figure(first, Figure::TtftUs)?;
        let begins_us = (first_us - rules.bucket_ms * 1e3).max(self.first_end_us);
        let opens_in_us = (begins_us - self.reach_us) * rules.unlock_factor;
        opens_in_us.is_finite().then_some(opens_in_us / 1e3)
    }
}

fn queue_is_short(rules: &Rules<'_>, position: u32) -> bool {
    rules.queue_ms_max.is_none_or(|limit_ms| {
        let queue_us = candidates::figure(position, Figure::QueueUs);
        queue_us.is_some_and(|us| us <= limit_ms * 1e3)
    })
}

/// Drawn before all are asked about.
const DRAWS_MAX: usize = 6;

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
mod tests {
    use fastrand::Rng;
    use weir_sdk::testing::{Exchange, backend, load};

    use super::*;
    use crate::config::Compared;
    use crate::weights::Weights;

    /// One fleet in many: who is open by the list of all, and who of them has room.
    struct Fleet {
        exchange: Exchange,
        ttfts_us: Vec<(f64, u32)>,
        queues_us: Vec<f64>,
        has_room: Vec<bool>,
    }

    impl Fleet {
        fn of(count: u32, mut next: impl FnMut(u32) -> u32) -> Self {
            let all = (0..count).map(|at| (backend(&format!("cluster-{at}"), 1), load(0)));
            let mut exchange = Exchange::new().model("demo", "sim").candidates(all);
            // Hardly anybody has room, or many have.
            let free_percent = [1, 10, 60][next(3) as usize];
            let (mut ttfts_us, mut queues_us, mut has_room) = (Vec::new(), Vec::new(), Vec::new());
            for at in 0..count {
                let (ttft_us, queue_us) = (f64::from(next(200)) * 1e3, f64::from(next(20)) * 1e3);
                let slots = if next(50) == 0 { 0 } else { 1 + next(3) };
                let is_free = next(100) < free_percent;
                exchange.set_figure(at, Figure::TtftUs, ttft_us);
                exchange.set_figure(at, Figure::QueueUs, queue_us);
                exchange.set_figure(at, Figure::Slots, f64::from(slots));
                let running = if is_free {
                    slots.max(1) - 1
                } else {
                    slots + next(2)
                };
                exchange.set_figure(at, Figure::Running, f64::from(running));
                ttfts_us.push((ttft_us, at));
                queues_us.push(queue_us);
                has_room.push(slots == 0 || is_free);
            }
            Self {
                exchange,
                ttfts_us,
                queues_us,
                has_room,
            }
        }
    }

    #[test]
    fn it_is_the_choice_from_the_list_of_all() {
        let mut random = Rng::with_seed(11);
        let mut next = |bound: u32| random.u32(..bound);
        let weights = Weights::of(&[]);
        let (mut picked, mut waited, mut full, mut unknown) = (0, 0, 0, 0);
        for round in 0..3_000 {
            let count = 17 + next(24);
            let mut fleet = Fleet::of(count, &mut next);
            let tried: Vec<u32> = (0..next(3)).map(|_| next(count)).collect();
            fleet.exchange = fleet.exchange.excluded(&tried);
            let queue_ms_max = (next(2) == 0).then(|| f64::from(next(20)));
            let rules = Rules {
                budget_ms: f64::from(next(20)),
                bucket_ms: 10.0,
                unlock_factor: f64::from(next(3)) * 0.25,
                max_queued: 0,
                sample_count: 2,
                comparators: &[Compared::Ttft],
                input_scale: 1.0,
                queue_ms_max,
                tried: &tried,
                weights: &weights,
            };
            let mut listed = fleet.ttfts_us.clone();
            listed.retain(|(_, at)| {
                let is_short = |limit| fleet.queues_us[*at as usize] <= limit * 1e3;
                !tried.contains(at) && queue_ms_max.is_none_or(is_short)
            });
            let (budget_us, factor) = (rules.budget_ms * 1e3, rules.unlock_factor);
            let open = buckets::open(&listed, budget_us, rules.bucket_ms * 1e3, factor);
            let has_room = |at: &u32| fleet.has_room[*at as usize];
            let fit: Vec<u32> = open.positions.into_iter().filter(has_room).collect();
            let nobody = !listed.iter().any(|(_, at)| has_room(at));
            match fleet.exchange.run(|| look(&rules, count)) {
                Some(Look::Pick(position)) => {
                    assert!(fit.contains(&position), "{round}: {position} of {fit:?}");
                    picked += 1;
                }
                Some(Look::Wait(opens)) => {
                    assert!(fit.is_empty(), "{round}: {fit:?}");
                    assert_eq!(opens.is_none(), nobody, "{round}: {opens:?}");
                    assert!(opens.is_none_or(|ms| ms >= 0.0), "{round}: {opens:?}");
                    waited += 1;
                    full += u32::from(nobody);
                }
                None => unknown += 1,
            }
        }
        let counts = [picked, waited, full, unknown];
        assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
    }
}
