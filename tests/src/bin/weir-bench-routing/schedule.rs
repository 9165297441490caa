//! What callers ask for, and when: a schedule is made from a seed once and is the same for everybody.

use std::time::Duration;

use fastrand::Rng;

/// One request to come. Times are simulated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Arrival {
    pub(crate) at: Duration,
    pub(crate) key: Key,
    pub(crate) prompt: Vec<Segment>,
    /// Events of the answer. One stands for some 32 tokens of a real one.
    pub(crate) output: u32,
}

/// How a request names its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Not at all.
    None,
    /// By the body's `prompt_cache_key`.
    Body(u32),
    /// By the header `x-multi-turn-session-id`.
    Header(u32),
}

/// A part of a prompt: equal parts have equal text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) tokens: u32,
}

impl Key {
    /// The number of the conversation.
    pub(crate) fn number(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Body(number) | Self::Header(number) => Some(number),
        }
    }

    /// The name a caller gives it.
    pub(crate) fn name(number: u32) -> String {
        format!("conversation-{number}")
    }
}

impl Segment {
    /// Text of a kind; `tokens` is rounded up to whole blocks of the cache.
    pub(crate) fn new(kind: u8, number: u64, tokens: u32) -> Self {
        Self {
            id: u64::from(kind) << 56 | number,
            tokens: tokens.max(1).div_ceil(BLOCK_TOKENS) * BLOCK_TOKENS,
        }
    }

    /// Four letters a token, which need no escapes in JSON.
    pub(crate) fn write(self, text: &mut String) {
        let mut random = Rng::with_seed(self.id);
        for _ in 0..self.tokens {
            let bits = random.u32(..);
            for shift in [0, 8, 16, 24] {
                let letter = b'a' + ((bits >> shift) & 15) as u8;
                text.push(char::from(letter));
            }
        }
    }
}

impl Arrival {
    pub(crate) fn prompt_tokens(&self) -> u64 {
        let tokens = self.prompt.iter().map(|part| u64::from(part.tokens));
        tokens.sum()
    }
}

/// Arrivals of a Poisson process of `rate` per second from `from` to `to`.
pub(crate) fn poisson(random: &mut Rng, rate: f64, from: Duration, to: Duration) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut at = from.as_secs_f64();
    loop {
        at += exponential(random) / rate.max(RATE_MIN);
        if at >= to.as_secs_f64() || times.len() >= ARRIVALS_MAX {
            return times;
        }
        times.push(Duration::from_secs_f64(at));
    }
}

/// A draw from the exponential distribution of mean 1.
pub(crate) fn exponential(random: &mut Rng) -> f64 {
    -(1.0 - random.f64()).ln()
}

/// A length around `mean`: log-uniform between half and twice of it.
pub(crate) fn around(random: &mut Rng, mean: u32) -> u32 {
    (f64::from(mean) * 2.0_f64.powf(2.0 * random.f64() - 1.0)) as u32
}

/// Draws of 0..n in which the k-th is drawn in proportion to k^-s.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(count: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=count).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        Self {
            sums: sums.collect(),
        }
    }

    pub(crate) fn draw(&self, random: &mut Rng) -> u32 {
        let total = self.sums.last().copied().unwrap_or(1.0);
        let ticket = random.f64() * total;
        let place = self.sums.partition_point(|sum| *sum <= ticket);
        u32::try_from(place.min(self.sums.len().saturating_sub(1))).unwrap_or(0)
    }

    /// Share of the draws that are 0.
    #[cfg(test)]
    fn first_share(&self) -> f64 {
        1.0 / self.sums.last().copied().unwrap_or(1.0)
    }
}

/// Tokens of a block of the simulators' cache.
const BLOCK_TOKENS: u32 = 16;
const RATE_MIN: f64 = 1e-6;
const ARRIVALS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poisson_process_has_its_rate_and_seed() {
        let times = |seed| {
            let mut random = Rng::with_seed(seed);
            poisson(
                &mut random,
                50.0,
                Duration::from_secs(10),
                Duration::from_secs(110),
            )
        };
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
        let found = times(3);
        assert!((4_700..5_300).contains(&found.len()), "{}", found.len());
        assert!(found.is_sorted());
        assert!(found.iter().all(|at| (10..110).contains(&at.as_secs())));
    }

    #[test]
    fn zipf_prefers_the_first() {
        let zipf = Zipf::new(64, 1.2);
        let mut random = Rng::with_seed(1);
        let mut counts = [0_u32; 64];
        for _ in 0..20_000 {
            if let Some(count) = counts.get_mut(zipf.draw(&mut random) as usize) {
                *count += 1;
            }
        }
        let share = f64::from(counts[0]) / 20_000.0;
        assert!((share - zipf.first_share()).abs() < 0.02, "{share}");
        assert!(counts[0] > counts[1] && counts[1] > counts[9] && counts.iter().all(|n| *n > 0));
    }

    #[test]
    fn equal_segments_have_equal_text_in_whole_blocks() {
        let text = |segment: Segment| {
            let mut text = String::new();
            segment.write(&mut text);
            text
        };
        let one = Segment::new(1, 7, 100);
        assert_eq!(one.tokens, 112);
        assert_eq!(text(one).len(), 448);
        assert_eq!(text(one), text(Segment::new(1, 7, 112)));
        assert_ne!(text(one), text(Segment::new(2, 7, 112)));
        assert!(text(one).bytes().all(|byte| byte.is_ascii_lowercase()));
    }
}
