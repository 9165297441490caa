//! Whether ours is as good as it must be, against the same method as NVCF defines it.

use crate::contestants::Contestant;
use crate::figures::median;
use crate::report::Measured;

/// One thing that was to be shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// What is compared, for people.
    pub(crate) text: String,
    /// The figure found: not a number where nothing was measured.
    pub(crate) found: f64,
    /// The bound, and whether the figure must be at most (else at least) that.
    pub(crate) bound: f64,
    pub(crate) at_most: bool,
}

impl Line {
    /// Whether the figure keeps its bound.
    pub(crate) fn holds(&self) -> bool {
        if self.at_most {
            self.found <= self.bound
        } else {
            self.found >= self.bound
        }
    }
}

/// Every line that the contestants and scenarios measured give rise to.
pub(crate) fn lines(measured: &[Measured], contestants: &[Contestant]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (place, contestant) in contestants.iter().enumerate() {
        let named = |name| contestants.iter().position(|other| other.name == name);
        let nvcf = contestant.nvcf.filter(|_| contestant.judged);
        let nvcf = nvcf.and_then(named);
        for scenario in measured {
            if let Some(nvcf) = nvcf {
                lines.push(tail(scenario, contestant, place, nvcf));
            }
            if contestant.reuses && scenario.name == REUSE {
                lines.push(reuse(scenario, contestant, place));
            }
        }
    }
    lines
}

/// The 99th percentile of the time to the first token, ours to NVCF's within a run, median of runs.
fn tail(scenario: &Measured, contestant: &Contestant, place: usize, nvcf: usize) -> Line {
    let ratios = scenario.runs.iter().filter_map(|run| {
        let (ours, theirs) = (run.outcomes.get(place)?, run.outcomes.get(nvcf)?);
        Some(ours.ttft.p99 / theirs.ttft.p99)
    });
    let must_win = contestant.wins.contains(&scenario.name);
    Line {
        text: format!(
            "{} in {}: TTFT p99 against NVCF's",
            contestant.name, scenario.name
        ),
        found: median(ratios),
        bound: if must_win { BETTER } else { NO_WORSE },
        at_most: true,
    }
}

/// The share of prompt tokens found in caches, to the best possible, median of runs.
fn reuse(scenario: &Measured, contestant: &Contestant, place: usize) -> Line {
    let shares = scenario.runs.iter().filter_map(|run| {
        let outcome = run.outcomes.get(place)?;
        Some(outcome.hit_rate / run.best.hit_rate())
    });
    Line {
        text: format!(
            "{} in {}: cache hits against the best possible",
            contestant.name, scenario.name
        ),
        found: median(shares),
        bound: REUSED,
        at_most: false,
    }
}

/// Bounds of the ratio of the tails: nowhere worse by more than 5 %, better by at least 20 % where
/// it must win.
const NO_WORSE: f64 = 1.05;
const BETTER: f64 = 0.8;
/// Least share of the best possible.
const REUSED: f64 = 0.9;
const REUSE: &str = "prefix-reuse";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cpu::Shares;
    use crate::fleet::Work;
    use crate::oracle::Best;
    use crate::outcome::{Frame, Outcome};
    use crate::run::Run;

    fn outcome(p99: f64, hit_rate: f64) -> Outcome {
        let frame = Frame {
            arrivals: &[],
            machines: &[],
            events: &[],
            length: Duration::from_secs(1),
            time_scale: 1.0,
        };
        let mut outcome = Outcome::of(frame, &[], &[] as &[Work]);
        outcome.ttft.p99 = p99;
        outcome.hit_rate = hit_rate;
        outcome
    }

    fn measured(name: &'static str, tails: &[(f64, f64)]) -> Measured {
        let run = |(ours, theirs): &(f64, f64)| Run {
            seed: 0,
            best: Best {
                prompt_tokens: 10,
                cached_tokens: 8,
            },
            cpu: Shares::default(),
            late_ms: 0.0,
            outcomes: vec![outcome(*theirs, 0.1), outcome(*ours, 0.76)],
        };
        Measured {
            name,
            about: "",
            runs: tails.iter().map(run).collect(),
        }
    }

    #[test]
    fn ratios_are_paired_and_bounded() {
        let contestant = |name, nvcf| Contestant {
            name,
            method: "m",
            config: "",
            nvcf,
            judged: true,
            wins: &["hotset"],
            reuses: nvcf.is_some(),
        };
        let both = [
            contestant("theirs", None),
            contestant("ours", Some("theirs")),
        ];
        let table = [
            (
                measured("hotset", &[(7.0, 10.0), (1.0, 2.0), (90.0, 100.0)]),
                &[(0.7, true)][..],
            ),
            (measured("hotset", &[(9.0, 10.0)]), &[(0.9, false)]),
            (measured("bursty", &[(10.4, 10.0)]), &[(1.04, true)]),
            (measured("bursty", &[(11.0, 10.0)]), &[(1.1, false)]),
            (
                measured("prefix-reuse", &[(10.0, 10.0)]),
                &[(1.0, true), (0.95, true)],
            ),
            (measured("bursty", &[]), &[(f64::NAN, false)]),
        ];
        for (measured, expected) in table {
            let found = lines(&[measured], &both);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (line, (figure, holds)) in found.iter().zip(expected) {
                let is_same = (line.found - figure).abs() < 1e-9 || figure.is_nan();
                assert!(is_same && line.holds() == *holds, "{line:?}");
            }
        }
    }
}
