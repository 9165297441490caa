//! weir-bench-routing [--quick] [--runs N] [--seconds S] [--scenario NAME] [--contestant NAME]:
//! routing methods against each other, through the real gateway, before simulated model servers.
//!
//! All contestants run side by side, each a gateway of its own before model servers of its own, and
//! get the same requests at the same time. Simulated time passes faster than real time, and
//! everything is reported in simulated time. See docs/benchmarks.md.

use std::io;
use std::process::ExitCode;

use crate::arguments::Arguments;
use crate::contestants::{CONTESTANTS, Contestant};
use crate::gateway::Gateway;
use crate::report::Measured;
use crate::run::Run;
use crate::scenario::Scenario;

mod arguments;
mod contestants;
mod scenario;
mod schedule;
mod traffic;

mod run;

mod client;
mod cpu;
mod fetch;
mod fleet;
mod gateway;

mod figures;
mod movement;
mod oracle;
mod outcome;

mod picture;
mod report;
mod verdict;

fn main() -> ExitCode {
    let ended = Arguments::from_environment().and_then(|arguments| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()?;
        runtime.block_on(bench(&arguments))
    });
    match ended {
        Ok(Conclusion::Passed) => ExitCode::SUCCESS,
        Ok(Conclusion::Failed) => ExitCode::from(1),
        Ok(Conclusion::None) => ExitCode::from(2),
        Err(error) => {
            eprintln!("weir-bench-routing: {error}");
            ExitCode::from(3)
        }
    }
}

/// What the figures allow to say.
enum Conclusion {
    Passed,
    Failed,
    /// Nothing: something made the figures worthless.
    None,
}

async fn bench(arguments: &Arguments) -> io::Result<Conclusion> {
    let (contestants, mut objections) = admitted(arguments)?;
    let mut measured = Vec::new();
    for scenario in Scenario::all() {
        if !arguments.wants_scenario(scenario.name) {
            continue;
        }
        let mut one = Measured {
            name: scenario.name,
            about: scenario.about,
            runs: Vec::new(),
        };
        for seed in 1..=arguments.runs * scenario.repeats {
            one.runs
                .push(Run::perform(&scenario, &contestants, seed, arguments.tempo).await?);
        }
        report::print(&one, &contestants)?;
        if one.machine_max() > BUSY_MAX {
            objections.push(format!(
                "{}: the processors were busy for {:.0} % of the time, more than {:.0} %: their time was measured too",
                one.name,
                100.0 * one.machine_max(),
                100.0 * BUSY_MAX
            ));
        }
        measured.push(one);
    }
    let lines = verdict::lines(&measured, &contestants);
    report::write(
        &measured,
        &contestants,
        &lines,
        &objections,
        arguments.tempo,
    )?;
    if arguments.quick {
        // Too short to judge, but everything must have been answered.
        let all = measured.iter().flat_map(|one| &one.runs);
        let complete = all
            .flat_map(|run| &run.outcomes)
            .all(|outcome| outcome.answered == outcome.asked && outcome.asked > 0);
        return Ok(if complete {
            Conclusion::Passed
        } else {
            Conclusion::Failed
        });
    }
    Ok(
        match (
            objections.is_empty(),
            lines.iter().all(verdict::Line::holds),
        ) {
            (false, _) => Conclusion::None,
            (true, true) => Conclusion::Passed,
            (true, false) => Conclusion::Failed,
        },
    )
}

/// The contestants that were asked for and that this gateway knows, and what is to be said of the
/// others.
fn admitted(arguments: &Arguments) -> io::Result<(Vec<Contestant>, Vec<String>)> {
    let mut admitted = Vec::new();
    let mut objections = Vec::new();
    for contestant in CONTESTANTS {
        if !arguments.wants_contestant(contestant.name) {
            continue;
        }
        match Gateway::objection(contestant)? {
            None => admitted.push(contestant),
            Some(objection) => objections.push(format!(
                "the gateway does not take {}: {objection}",
                contestant.name
            )),
        }
    }
    if admitted.is_empty() {
        return Err(io::Error::other(format!(
            "nobody takes part: {}",
            objections.join("; ")
        )));
    }
    Ok((admitted, objections))
}

/// Threads of the model servers and callers.
const WORKERS: usize = 2;
/// Share of the processors above which times are not simulated ones alone.
const BUSY_MAX: f64 = 0.7;
