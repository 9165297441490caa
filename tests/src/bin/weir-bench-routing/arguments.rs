//! What the command line asks for.

use std::io;
use std::time::Duration;

use crate::run::Tempo;

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    /// One scenario, one short run: whether it works at all.
    pub(crate) quick: bool,
    /// Runs of a scenario, each with a seed of its own.
    pub(crate) runs: u64,
    pub(crate) tempo: Tempo,
    scenarios: Vec<String>,
    contestants: Vec<String>,
}

impl Arguments {
    /// # Errors
    /// What is wrong with the command line.
    pub(crate) fn from_environment() -> io::Result<Self> {
        Self::parse(std::env::args().skip(1)).map_err(io::Error::other)
    }

    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut found = Self {
            quick: false,
            runs: RUNS,
            tempo: Tempo {
                real: RUN_REAL,
                time_scale: TIME_SCALE,
            },
            scenarios: Vec::new(),
            contestants: Vec::new(),
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => {
                    found.quick = true;
                    found.runs = 1;
                    found.tempo.real = QUICK_REAL;
                    found.scenarios = vec![QUICK_SCENARIO.to_owned()];
                }
                "--runs" => found.runs = number(&argument, &value()?, 1.0, 100.0)? as u64,
                "--seconds" => {
                    let seconds = number(&argument, &value()?, 2.0, 600.0)?;
                    found.tempo.real = Duration::from_secs_f64(seconds);
                }
                "--scenario" => found.scenarios.push(value()?),
                "--contestant" => found.contestants.push(value()?),
                _ => return Err(format!("unknown argument `{argument}`")),
            }
        }
        Ok(found)
    }

    /// Whether a scenario is to be run.
    pub(crate) fn wants_scenario(&self, name: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|wanted| wanted == name)
    }

    /// Whether a contestant takes part.
    pub(crate) fn wants_contestant(&self, name: &str) -> bool {
        self.contestants.is_empty() || self.contestants.iter().any(|wanted| wanted == name)
    }
}

fn number(argument: &str, text: &str, min: f64, max: f64) -> Result<f64, String> {
    let number = text.parse().ok();
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or(format!("{argument}: `{text}` is not from {min} to {max}"))
}

const RUNS: u64 = 3;
const RUN_REAL: Duration = Duration::from_secs(24);
const TIME_SCALE: f64 = 5.0;
const QUICK_REAL: Duration = Duration::from_secs(10);
const QUICK_SCENARIO: &str = "hotset";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn command_lines() {
        let all = parse("").unwrap();
        assert!(all.wants_scenario("bursty") && all.wants_contestant("random") && all.runs > 1);
        let quick = parse("--quick").unwrap();
        assert!(quick.quick && quick.wants_scenario("hotset") && !quick.wants_scenario("bursty"));
        let some = parse("--runs 5 --seconds 4 --scenario a --scenario b --contestant c").unwrap();
        assert_eq!((some.runs, some.tempo.real.as_secs()), (5, 4));
        assert!(some.wants_scenario("b") && !some.wants_contestant("a"));
        for wrong in ["--runs", "--runs x", "--seconds 1", "more"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
