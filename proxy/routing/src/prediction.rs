//! How soon a candidate would answer: the figures of routing methods, computed from what is known.

use crate::load::Figure;

/// What an exchange asks of whoever serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Estimated input tokens.
    pub input_tokens: u64,
    /// Lower is served first; `u32::MAX` = none was set, which waits behind all.
    pub priority: u32,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            input_tokens: 0,
            priority: u32::MAX,
        }
    }
}

/// When the first byte of an answer is expected, by its parts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outlook {
    /// Round trip, microseconds.
    pub rtt_us: f64,
    /// Wait before work begins, microseconds.
    pub queue_us: f64,
    /// Work on the input at the known rate, microseconds, without the correction.
    pub plain_prefill_us: f64,
    /// What the work took of late over what was predicted, 0.25..=4.
    pub bias: f64,
}

impl Outlook {
    /// Work on the input, corrected.
    #[must_use]
    pub fn prefill_us(&self) -> f64 {
        self.plain_prefill_us * self.bias
    }

    /// All of it: `rtt + queue + prefill`.
    #[must_use]
    pub fn ttft_us(&self) -> f64 {
        self.rtt_us + self.queue_us + self.prefill_us()
    }
}

/// Where figures come from: a backend, read field by field, or a load already gathered.
pub(crate) trait Source {
    fn running(&self) -> u32;
    fn queued(&self) -> u32;
    fn queued_input_tokens(&self) -> u64;
    /// Input tokens of our own that no report knows of.
    fn pending_input_tokens(&self) -> u64;
    fn queue_ms(&self, priority: u32) -> Option<u32>;
    fn slots(&self) -> u32;
    fn kv_capacity_tokens(&self) -> u64;
    fn kv_used_tokens(&self) -> u64;
    fn kv_free_tokens(&self) -> u64;
    fn input_tps(&self) -> f32;
    /// Microseconds for one input token; 0 = the rate is unknown.
    fn input_token_us(&self) -> f64 {
        token_us(self.input_tps())
    }
    fn max_input_tps(&self) -> f32;
    fn output_tps(&self) -> f32;
    fn max_output_tps(&self) -> f32;
    fn ewma_ttft_us(&self) -> u32;
    fn error_permille(&self) -> u16;
    fn rtt_us(&self) -> u32;
    fn bias(&self) -> f32;
    fn age_ms(&self, now_ms: u64) -> u64;
}

/// One figure; reads no more than it needs. Counters above 2^53 lose their last digits.
#[allow(clippy::cast_precision_loss, reason = "figures are estimates")]
#[inline(always)]
pub(crate) fn figure(source: &impl Source, figure: Figure, demand: &Demand, now_ms: u64) -> f64 {
    match figure {
        Figure::Running => f64::from(source.running()),
        Figure::Queued => f64::from(source.queued()),
        Figure::QueuedInputTokens => source.queued_input_tokens() as f64,
        Figure::KvFreeTokens => source.kv_free_tokens() as f64,
        Figure::InputTps => f64::from(source.input_tps()),
        Figure::OutputTps => f64::from(source.output_tps()),
        Figure::EwmaTtftUs => f64::from(source.ewma_ttft_us()),
        Figure::ErrorPermille => f64::from(source.error_permille()),
        Figure::EstWaitUs => est_wait_us(source),
        Figure::TtftUs => outlook(source, demand).ttft_us(),
        Figure::QueueUs => queue_us(source, demand),
        Figure::PrefillUs => outlook_prefill_us(source, demand),
        Figure::InputWorkUs => input_work_us(source, demand),
        Figure::Utilization => f64::from(source.running()) / f64::from(source.slots().max(1)),
        Figure::Slots => f64::from(source.slots()),
        Figure::RttUs => f64::from(source.rtt_us()),
        Figure::MaxInputTps => f64::from(source.max_input_tps()),
        Figure::MaxOutputTps => f64::from(source.max_output_tps()),
        Figure::KvUsedTokens => source.kv_used_tokens() as f64,
        Figure::KvCapacityTokens => source.kv_capacity_tokens() as f64,
        Figure::AgeMs => source.age_ms(now_ms) as f64,
    }
}

/// The parts of the time to the first byte.
#[inline(always)]
pub(crate) fn outlook(source: &impl Source, demand: &Demand) -> Outlook {
    Outlook {
        rtt_us: f64::from(source.rtt_us()),
        queue_us: queue_us(source, demand),
        plain_prefill_us: plain_prefill_us(source, demand),
        bias: f64::from(source.bias()),
    }
}

fn outlook_prefill_us(source: &impl Source, demand: &Demand) -> f64 {
    plain_prefill_us(source, demand) * f64::from(source.bias())
}

/// Nothing while a slot is free; else what the backend says of the priority, and our own claims
/// that it cannot know of yet; else the queued input over the input rate.
#[inline(always)]
fn queue_us(source: &impl Source, demand: &Demand) -> f64 {
    let slots = source.slots();
    if slots > 0 && source.running() < slots {
        return 0.0;
    }
    match source.queue_ms(demand.priority) {
        Some(ms) => {
            let ours = work_us(source, source.pending_input_tokens());
            f64::from(ms) * 1e3 + ours.unwrap_or(0.0)
        }
        None => est_wait_us(source),
    }
}

#[inline(always)]
fn plain_prefill_us(source: &impl Source, demand: &Demand) -> f64 {
    if demand.input_tokens == 0 {
        return 0.0;
    }
    // No rate at all: what it took of late, and nothing for one that never served, so that it is
    // tried.
    work_us(source, demand.input_tokens).unwrap_or_else(|| f64::from(source.ewma_ttft_us()))
}

/// The queued input over the input rate where the rate is known, else the usual time to the
/// first byte once for every exchange in progress. One that has never answered is tried at once,
/// but gets no pile of exchanges before it has shown how fast it is.
fn est_wait_us(source: &impl Source) -> f64 {
    work_us(source, source.queued_input_tokens()).unwrap_or_else(|| {
        let usual_us = match source.ewma_ttft_us() {
            0 => UNTRIED_TTFT_US,
            us => us,
        };
        f64::from(usual_us) * f64::from(source.running())
    })
}

/// Infinite when there is work and no rate.
fn input_work_us(source: &impl Source, demand: &Demand) -> f64 {
    let tokens = source
        .queued_input_tokens()
        .saturating_add(demand.input_tokens);
    match tokens {
        0 => 0.0,
        tokens => work_us(source, tokens).unwrap_or(f64::INFINITY),
    }
}

/// How long so much input takes, if the rate is known.
#[inline(always)]
#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn work_us(source: &impl Source, tokens: u64) -> Option<f64> {
    let token_us = source.input_token_us();
    (token_us > 0.0).then_some(tokens as f64 * token_us)
}

/// Microseconds for one token at so many a second; 0 stays 0.
pub(crate) fn token_us(tps: f32) -> f64 {
    if tps > 0.0 { 1e6 / f64::from(tps) } else { 0.0 }
}

/// Assumed of who has never answered, while it has something to answer. Any time of this order will
/// do: it only has to count those who ask.
const UNTRIED_TTFT_US: u32 = 250_000;

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "exact by construction")]
mod tests {
    use super::*;
    use crate::load::Load;
    use crate::report::QueueTimes;

    const ASKED: Demand = Demand {
        input_tokens: 1000,
        priority: 5,
    };

    fn check(load: Load, figure: Figure, expected: f64) {
        let found = load.figure(figure, &ASKED);
        if found.is_infinite() && found == expected {
            return;
        }
        assert!(
            (found - expected).abs() < 1e-6,
            "{figure:?} {found} {load:?}"
        );
    }

    #[test]
    fn wait_is_by_rate_if_known_else_by_first_byte() {
        check(Load::default(), Figure::EstWaitUs, 0.0);
        let unknown_rate = Load {
            running: 3,
            ewma_ttft_us: 100,
            ..Load::default()
        };
        check(unknown_rate.clone(), Figure::EstWaitUs, 300.0);
        let known_rate = Load {
            queued_input_tokens: 500,
            input_tps: 1000.0,
            ..unknown_rate
        };
        check(known_rate, Figure::EstWaitUs, 500_000.0);
    }

    #[test]
    fn first_byte_is_round_trip_and_queue_and_work() {
        let base = Load {
            running: 4,
            queued_input_tokens: 500,
            pending_input_tokens: 100,
            input_tps: 1000.0,
            rtt_us: 7_000,
            bias: 2.0,
            ..Load::default()
        };
        let (rtt, queue, work) = (7_000.0, 500_000.0, 2_000_000.0);
        check(base.clone(), Figure::TtftUs, rtt + queue + work);
        check(base.clone(), Figure::InputWorkUs, 1_500_000.0);
        let free = Load {
            slots: 5,
            ..base.clone()
        };
        check(free.clone(), Figure::TtftUs, rtt + work);
        check(free, Figure::Utilization, 0.8);
        let full = Load {
            slots: 4,
            queue_times: QueueTimes::new([(0, 10), (5, 60), (9, 900)]),
            ..base
        };
        check(full, Figure::QueueUs, 60_000.0 + 100_000.0);
    }

    #[test]
    fn without_a_rate_experience_tells() {
        let unknown = Load {
            running: 1,
            ewma_ttft_us: 300,
            ..Load::default()
        };
        check(unknown.clone(), Figure::TtftUs, 600.0);
        check(unknown, Figure::InputWorkUs, f64::INFINITY);
        check(Load::default(), Figure::TtftUs, 0.0);
        let asked = Load {
            running: 2,
            ..Load::default()
        };
        check(asked, Figure::TtftUs, 500_000.0);
    }
}
