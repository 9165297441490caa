//! The requests of the scenarios, each made from a seed. Rates are per simulated second.

use std::time::Duration;

use fastrand::Rng;

use crate::schedule::{Arrival, Key, Segment, Zipf, around, exponential, poisson};

/// Kinds of text; those of one kind and number are equal.
const PREFIX: u8 = 1;
const SUFFIX: u8 = 2;
const TURN: u8 = 3;

/// Events of an answer, on average.
const OUTPUT: u32 = 4;

/// Requests over shared prefixes, each with a text of its own at the end.
struct Shared {
    rate: f64,
    keys: Zipf,
    prefix_tokens: u32,
    suffix_tokens: u32,
}

impl Shared {
    fn between(&self, random: &mut Rng, from: Duration, to: Duration) -> Vec<Arrival> {
        let times = poisson(random, self.rate, from, to);
        let arrival = |at| {
            let key = self.keys.draw(random);
            Arrival {
                at,
                key: Key::Body(key),
                prompt: vec![
                    Segment::new(PREFIX, u64::from(key), self.prefix_tokens),
                    unique(random, self.suffix_tokens),
                ],
                output: around(random, OUTPUT),
            }
        };
        times.into_iter().map(arrival).collect()
    }
}

/// Text nobody else has, of about that many tokens.
fn unique(random: &mut Rng, tokens: u32) -> Segment {
    let tokens = around(random, tokens);
    Segment::new(SUFFIX, random.u64(..) >> 8, tokens)
}

pub(crate) fn hotset(random: &mut Rng, length: Duration) -> Vec<Arrival> {
    let shared = Shared {
        rate: 14.0,
        keys: Zipf::new(64, 1.2),
        prefix_tokens: 2048,
        suffix_tokens: 768,
    };
    shared.between(random, Duration::ZERO, length)
}

pub(crate) fn sticky_hot_prefix(random: &mut Rng, length: Duration) -> Vec<Arrival> {
    let starts = poisson(random, 2.0, Duration::ZERO, length);
    let mut arrivals = Vec::new();
    for (number, start) in (0_u32..).zip(starts) {
        let talk = Talk {
            key: Key::Header(number),
            opening: vec![Segment::new(PREFIX, random.u64(0..4), 4096)],
            turns: 6,
            turn_tokens: 768,
            pause: 8.0,
        };
        arrivals.extend(talk.arrivals(random, number, start));
    }
    arrivals
}

pub(crate) fn prefix_reuse(random: &mut Rng, length: Duration) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for number in 0..24 {
        let talk = Talk {
            key: Key::Header(number),
            opening: vec![Segment::new(PREFIX, u64::from(number), 48 * 1024)],
            turns: 14,
            turn_tokens: 900,
            pause: length.as_secs_f64() / 20.0,
        };
        let start = length.mul_f64(0.25 * random.f64());
        arrivals.extend(talk.arrivals(random, number, start));
    }
    arrivals
}

pub(crate) fn bursty(random: &mut Rng, length: Duration) -> Vec<Arrival> {
    let steady = Shared {
        rate: 9.0,
        keys: Zipf::new(200, 0.5),
        prefix_tokens: 512,
        suffix_tokens: 512,
    };
    let mut arrivals = steady.between(random, Duration::ZERO, length);
    let every = Duration::from_secs(20);
    let mut begin = every / 2;
    let mut tenant = 1_000;
    while begin < length {
        let prefix = Segment::new(PREFIX, u64::from(tenant), 2048);
        let request = |_| Arrival {
            at: begin + Duration::from_millis(random.u64(0..1500)),
            key: Key::Body(tenant),
            prompt: vec![prefix, unique(random, 512)],
            output: around(random, OUTPUT),
        };
        arrivals.extend((0..48).map(request));
        begin += every;
        tenant += 1;
    }
    arrivals
}

pub(crate) fn cache_thrash(random: &mut Rng, length: Duration) -> Vec<Arrival> {
    let shared = Shared {
        rate: 4.5,
        keys: Zipf::new(300, 0.0),
        prefix_tokens: 6000,
        suffix_tokens: 256,
    };
    shared.between(random, Duration::ZERO, length)
}

pub(crate) fn overload(random: &mut Rng, length: Duration) -> Vec<Arrival> {
    let (third, two_thirds) = (length / 3, length * 2 / 3);
    let mut arrivals = Vec::new();
    for (rate, from, to) in [
        (4.5, Duration::ZERO, third),
        (10.0, third, two_thirds),
        (4.5, two_thirds, length),
    ] {
        let shared = Shared {
            rate,
            keys: Zipf::new(64, 0.6),
            prefix_tokens: 1024,
            suffix_tokens: 4096,
        };
        arrivals.extend(shared.between(random, from, to));
    }
    arrivals
}

pub(crate) fn steady(random: &mut Rng, length: Duration) -> Vec<Arrival> {
    let shared = Shared {
        rate: 12.0,
        keys: Zipf::new(100, 0.5),
        prefix_tokens: 1024,
        suffix_tokens: 1024,
    };
    shared.between(random, Duration::ZERO, length)
}

pub(crate) fn mixed_size(random: &mut Rng, length: Duration) -> Vec<Arrival> {
    let times = poisson(random, 9.0, Duration::ZERO, length);
    let arrival = |at| {
        let long = random.f64() < 0.15;
        let tokens = if long { 11_000 } else { 256 };
        let key = random.u32(0..200);
        // Half of the callers say which conversation it is.
        let key = if key < 100 { Key::Body(key) } else { Key::None };
        Arrival {
            at,
            key,
            prompt: vec![
                Segment::new(PREFIX, u64::from(key.number().unwrap_or(100)), 64),
                Segment::new(SUFFIX, random.u64(..) >> 8, around_less(random, tokens)),
            ],
            output: around(random, OUTPUT),
        }
    };
    times.into_iter().map(arrival).collect()
}

/// As [`around`], but at most a third more.
fn around_less(random: &mut Rng, mean: u32) -> u32 {
    around(random, mean).min(mean / 3 * 4)
}

/// A conversation: each turn sends everything said before again.
struct Talk {
    key: Key,
    opening: Vec<Segment>,
    turns: u32,
    /// Tokens a turn adds, question and answer together.
    turn_tokens: u32,
    /// Seconds between turns, on average.
    pause: f64,
}

impl Talk {
    fn arrivals(&self, random: &mut Rng, number: u32, start: Duration) -> Vec<Arrival> {
        let mut prompt = self.opening.clone();
        let mut at = start;
        let mut arrivals = Vec::new();
        for turn in 0..self.turns {
            let id = u64::from(number) << 16 | u64::from(turn);
            prompt.push(Segment::new(TURN, id, around(random, self.turn_tokens)));
            arrivals.push(Arrival {
                at,
                key: self.key,
                prompt: prompt.clone(),
                output: around(random, OUTPUT),
            });
            // Nobody asks on before the answer is read.
            at += Duration::from_secs_f64(self.pause * (0.5 + 0.5 * exponential(random)));
        }
        arrivals
    }
}
