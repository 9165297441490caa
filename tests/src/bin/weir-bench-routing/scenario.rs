//! What a scenario is: machines, what befalls them, and the traffic.

use std::time::Duration;

use fastrand::Rng;

use crate::schedule::Arrival;
use crate::{fleet::Machine, traffic};

/// One situation that routing has to cope with.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// One line for people.
    pub(crate) about: &'static str,
    pub(crate) machines: Vec<Machine>,
    /// What happens at which share (0 to 1) of the run.
    pub(crate) events: Vec<(f64, Event)>,
    /// How many times as many runs it takes. Of few requests the slowest hundredth is a handful, and
    /// says much of chance.
    pub(crate) repeats: u64,
    traffic: fn(&mut Rng, Duration) -> Vec<Arrival>,
}

/// Something that happens to a machine, named by its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Event {
    /// It becomes so many times slower than it was bought.
    Slow(usize, f64),
    /// It is taken out of the config.
    Leave(usize),
    /// It is put back into the config.
    Join(usize),
}

impl Scenario {
    /// All of them, in the order of the report.
    pub(crate) fn all() -> Vec<Self> {
        let fleet = |machine: Machine| vec![machine; MACHINES];
        let plain = |name, about, machine, traffic| Self {
            name,
            about,
            machines: fleet(machine),
            events: Vec::new(),
            repeats: 1,
            traffic,
        };
        let base = Machine::default();
        let mut all = vec![
            plain(
                "hotset",
                "64 shared prefixes; the hottest one is asked for more than one machine can answer",
                base,
                traffic::hotset,
            ),
            plain(
                "sticky-hot-prefix",
                "conversations of six turns that grow, all over four long common prefixes",
                base,
                traffic::sticky_hot_prefix,
            )
            .repeated(3),
            plain(
                "prefix-reuse",
                "24 conversations over contexts of 48k to 64k tokens, 14 turns each",
                Machine {
                    prefill_tokens_per_second: 24_000.0,
                    kv_tokens: 700_000,
                    ..base
                },
                traffic::prefix_reuse,
            )
            .repeated(3),
            plain(
                "bursty",
                "steady small requests, and every 20 s one tenant sends 48 at once",
                base,
                traffic::bursty,
            ),
            plain(
                "cache-thrash",
                "300 prefixes that need more than twice the cache there is",
                Machine {
                    kv_tokens: 100_000,
                    ..base
                },
                traffic::cache_thrash,
            )
            .repeated(3),
            plain(
                "overload",
                "a third of the time 1.4 times what all machines together can do",
                base,
                traffic::overload,
            ),
        ];
        all.extend(Self::troubled(base));
        all
    }

    /// Those in which machines differ or change.
    fn troubled(base: Machine) -> [Self; 3] {
        let with_rate = |rate: f64, weight| Machine {
            prefill_tokens_per_second: rate,
            weight,
            ..base
        };
        let mut mixed = vec![with_rate(8000.0, 4); MACHINES / 2];
        mixed.resize(MACHINES, with_rate(2000.0, 1));
        [
            Self {
                name: "backend-degradation",
                about: "one machine is four times slower for the middle third",
                machines: vec![base; MACHINES],
                events: vec![
                    (1.0 / 3.0, Event::Slow(0, 4.0)),
                    (2.0 / 3.0, Event::Slow(0, 1.0)),
                ],
                repeats: 1,
                traffic: traffic::steady,
            },
            Self {
                name: "mixed-size",
                about: "short prompts beside 12k tokens, on machines of 8000 and 2000 tokens/s",
                machines: mixed,
                events: Vec::new(),
                repeats: 3,
                traffic: traffic::mixed_size,
            },
            Self {
                name: "churn",
                about: "a machine leaves the config after a third and joins again after two",
                machines: vec![base; MACHINES],
                events: vec![(1.0 / 3.0, Event::Leave(3)), (2.0 / 3.0, Event::Join(3))],
                repeats: 1,
                traffic: traffic::steady,
            },
        ]
    }

    fn repeated(self, repeats: u64) -> Self {
        Self { repeats, ..self }
    }

    /// The requests of a run of that simulated length, in order of time. Equal seeds, equal requests.
    pub(crate) fn arrivals(&self, seed: u64, length: Duration) -> Vec<Arrival> {
        let mut random = Rng::with_seed(seed ^ u64::from(crc_of(self.name)));
        let mut arrivals = (self.traffic)(&mut random, length);
        arrivals.retain(|arrival| arrival.at < length);
        arrivals.sort_by_key(|arrival| arrival.at);
        arrivals
    }
}

/// A number of a name, so that scenarios of one seed differ.
fn crc_of(name: &str) -> u32 {
    name.bytes().fold(0, |sum: u32, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    })
}

const MACHINES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Best;

    #[test]
    fn schedules_depend_on_the_seed_only() {
        let length = Duration::from_secs(60);
        for scenario in Scenario::all() {
            let first = scenario.arrivals(1, length);
            assert_eq!(first, scenario.arrivals(1, length), "{}", scenario.name);
            assert_ne!(first, scenario.arrivals(2, length), "{}", scenario.name);
            assert!(
                first.is_sorted_by_key(|arrival| arrival.at),
                "{}",
                scenario.name
            );
            assert!(first.len() > 50, "{}: {}", scenario.name, first.len());
        }
    }

    #[test]
    fn scenarios_are_what_they_are_named_for() {
        let length = Duration::from_secs(160);
        for scenario in Scenario::all() {
            let arrivals = scenario.arrivals(1, length);
            let best = Best::of(&arrivals);
            let rates = scenario
                .machines
                .iter()
                .map(|machine| machine.prefill_tokens_per_second);
            let capacity = rates.sum::<f64>() * length.as_secs_f64();
            let needed = (best.prompt_tokens - best.cached_tokens) as f64 / capacity;
            assert!(
                (0.02..0.98).contains(&needed),
                "{}: {needed} of what the machines can do",
                scenario.name
            );
            let longest = arrivals.iter().map(Arrival::prompt_tokens).max();
            match scenario.name {
                "prefix-reuse" => {
                    assert!(
                        longest > Some(60_000) && longest < Some(70_000),
                        "{longest:?}"
                    );
                    assert!(best.hit_rate() > 0.9, "{}", best.hit_rate());
                }
                "mixed-size" => assert!(best.hit_rate() < 0.2, "{}", best.hit_rate()),
                _ => assert!(longest < Some(20_000), "{}: {longest:?}", scenario.name),
            }
        }
    }
}
