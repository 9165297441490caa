//! The result: tables for people, `bench/routing.json` and a picture per scenario beside the build.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::contestants::Contestant;
use crate::figures::{Percentiles, median};
use crate::gateway::programs;
use crate::movement::Moved;
use crate::outcome::Outcome;
use crate::picture;
use crate::run::{Run, Tempo};
use crate::verdict::Line;

/// A scenario and all its runs.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) runs: Vec<Run>,
}

impl Measured {
    /// Median over the runs of a figure of one contestant.
    pub(crate) fn median(&self, contestant: usize, figure: impl Fn(&Outcome) -> f64) -> f64 {
        let outcomes = self.runs.iter();
        median(
            outcomes
                .filter_map(|run| run.outcomes.get(contestant))
                .map(figure),
        )
    }

    /// Median over the runs of the best possible hit rate.
    pub(crate) fn best_hit_rate(&self) -> f64 {
        median(self.runs.iter().map(|run| run.best.hit_rate()))
    }

    /// The busiest the machine was in any run, 0 to 1.
    pub(crate) fn machine_max(&self) -> f64 {
        self.runs
            .iter()
            .map(|run| run.cpu.machine)
            .fold(0.0, f64::max)
    }
}

/// Prints the table of one scenario.
///
/// # Errors
/// When the screen cannot be written to.
pub(crate) fn print(measured: &Measured, contestants: &[Contestant]) -> io::Result<()> {
    io::stdout().write_all(table(measured, contestants).as_bytes())
}

/// Prints the verdict and writes the files.
///
/// # Errors
/// When the files cannot be written.
pub(crate) fn write(
    measured: &[Measured],
    contestants: &[Contestant],
    lines: &[Line],
    objections: &[String],
    tempo: Tempo,
) -> io::Result<()> {
    let mut text =
        String::from("\nverdict (medians over the runs; ratios are taken within a run)\n");
    for line in lines {
        let sign = if line.at_most { "<=" } else { ">=" };
        let word = if line.holds() { "holds" } else { "FAILS" };
        let (what, found, bound) = (&line.text, line.found, line.bound);
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "  {word}  {what}: {found:.3} {sign} {bound}");
    }
    for objection in objections {
        let _infallible = writeln!(text, "  no conclusion: {objection}");
    }
    let folder = folder()?;
    std::fs::create_dir_all(&folder)?;
    for scenario in measured {
        let file = folder.join(format!("routing-{}.svg", scenario.name));
        std::fs::write(file, picture::draw(scenario, contestants))?;
    }
    let file = folder.join("routing.json");
    let result = result(measured, contestants, lines, objections, tempo);
    std::fs::write(&file, format!("{result:#}\n"))?;
    let _infallible = writeln!(text, "\nwritten to {}, pictures beside it", file.display());
    io::stdout().write_all(text.as_bytes())
}

fn folder() -> io::Result<PathBuf> {
    let programs = programs()?;
    let target = programs.parent();
    let target = target.ok_or_else(|| io::Error::other("no target directory"))?;
    Ok(target.join("bench"))
}

fn table(measured: &Measured, contestants: &[Contestant]) -> String {
    let worst = |figure: fn(&Run) -> f64| measured.runs.iter().map(figure).fold(0.0, f64::max);
    let mut text = format!(
        "\n{}: {}\n  cache hits at best {:.1} %; busy {:.0} % of the processors (gateways {:.0}, model servers and callers {:.0}); sent late by {:.1} ms\n",
        measured.name,
        measured.about,
        100.0 * measured.best_hit_rate(),
        100.0 * worst(|run| run.cpu.machine),
        100.0 * worst(|run| run.cpu.gateways),
        100.0 * worst(|run| run.cpu.own),
        worst(|run| run.late_ms),
    );
    let _infallible = writeln!(
        text,
        "  {:<22}{:>26}{:>26}{:>8}{:>7}{:>7}{:>7}{:>6}{:>7}{:>13}{:>13}",
        "simulated ms",
        "TTFT p50     p95     p99",
        "total p50     p95     p99",
        "ok %",
        "req/s",
        "max/m",
        "cap.b",
        "hit%",
        "move%",
        "left (need-)",
        "joined (-less)"
    );
    for (place, contestant) in contestants.iter().enumerate() {
        let figure = |of: fn(&Outcome) -> f64| measured.median(place, of);
        let change = |of: fn(&Outcome) -> Option<Moved>| {
            let share =
                measured.median(place, |outcome| of(outcome).map_or(f64::NAN, Moved::share));
            let needless = |outcome: &Outcome| of(outcome).map_or(f64::NAN, Moved::needless_share);
            let needless = measured.median(place, needless);
            if share.is_nan() {
                String::new()
            } else {
                format!("{:.0} % ({:.0})", 100.0 * share, 100.0 * needless)
            }
        };
        let _infallible = writeln!(
            text,
            "  {:<22}{:>10.0}{:>8.0}{:>8.0}{:>10.0}{:>8.0}{:>8.0}{:>8.2}{:>7.1}{:>7.2}{:>7.2}{:>6.1}{:>7.1}{:>13}{:>13}",
            contestant.name,
            figure(|outcome| outcome.ttft.p50),
            figure(|outcome| outcome.ttft.p95),
            figure(|outcome| outcome.ttft.p99),
            figure(|outcome| outcome.total.p50),
            figure(|outcome| outcome.total.p95),
            figure(|outcome| outcome.total.p99),
            100.0 * figure(Outcome::success_rate),
            figure(|outcome| outcome.requests_per_second),
            figure(|outcome| outcome.max_to_mean),
            figure(|outcome| outcome.capacity_balance),
            100.0 * figure(|outcome| outcome.hit_rate),
            100.0 * figure(|outcome| outcome.switch_rate),
            change(|outcome| outcome.left),
            change(|outcome| outcome.joined),
        );
        for failure in failures(measured, place) {
            let _infallible = writeln!(text, "    failed: {failure}");
        }
    }
    text
}

/// The first failures of a contestant in any run.
fn failures(measured: &Measured, place: usize) -> Vec<&String> {
    let outcomes = measured
        .runs
        .iter()
        .filter_map(|run| run.outcomes.get(place));
    outcomes
        .flat_map(|outcome| &outcome.failures)
        .take(2)
        .collect()
}

fn result(
    measured: &[Measured],
    contestants: &[Contestant],
    lines: &[Line],
    objections: &[String],
    tempo: Tempo,
) -> Value {
    let line = |line: &Line| {
        json!({
            "what": line.text, "found": line.found, "bound": line.bound,
            "at_most": line.at_most, "holds": line.holds(),
        })
    };
    let about = |contestant: &Contestant| {
        json!({
            "name": contestant.name, "method": contestant.method,
            "config": contestant.config, "nvcf": contestant.nvcf,
        })
    };
    json!({
        "time_scale": tempo.time_scale,
        "simulated_seconds": tempo.length().as_secs_f64(),
        "contestants": contestants.iter().map(about).collect::<Vec<_>>(),
        "scenarios": measured.iter().map(|one| scenario(one, contestants)).collect::<Vec<_>>(),
        "verdict": lines.iter().map(line).collect::<Vec<_>>(),
        "objections": objections,
    })
}

fn scenario(measured: &Measured, contestants: &[Contestant]) -> Value {
    let run = |run: &Run| {
        let outcomes = contestants.iter().zip(&run.outcomes);
        let outcomes = outcomes.map(|(contestant, outcome)| {
            let mut members = members(outcome);
            if let Value::Object(members) = &mut members {
                members.insert("contestant".into(), contestant.name.into());
            }
            members
        });
        json!({
            "seed": run.seed,
            "best_hit_rate": run.best.hit_rate(),
            "prompt_tokens": run.best.prompt_tokens,
            "cpu": { "machine": run.cpu.machine, "gateways": run.cpu.gateways, "own": run.cpu.own },
            "late_p99_ms": run.late_ms,
            "outcomes": outcomes.collect::<Vec<_>>(),
        })
    };
    json!({
        "name": measured.name,
        "about": measured.about,
        "runs": measured.runs.iter().map(run).collect::<Vec<_>>(),
    })
}

fn members(outcome: &Outcome) -> Value {
    let percentiles = |p: Percentiles| json!({ "p50": p.p50, "p95": p.p95, "p99": p.p99 });
    let moved = |moved: Option<Moved>| {
        moved.map(
            |moved| json!({ "keys": moved.keys, "moved": moved.moved, "needless": moved.needless }),
        )
    };
    json!({
        "asked": outcome.asked,
        "answered": outcome.answered,
        "success_rate": outcome.success_rate(),
        "requests_per_second": outcome.requests_per_second,
        "ttft_ms": percentiles(outcome.ttft),
        "total_ms": percentiles(outcome.total),
        "max_to_mean": outcome.max_to_mean,
        "capacity_balance": outcome.capacity_balance,
        "hit_rate": outcome.hit_rate,
        "switch_rate": outcome.switch_rate,
        "left": moved(outcome.left),
        "joined": moved(outcome.joined),
        "failures": outcome.failures,
    })
}
