//! weir-bench [ROUNDS [SECONDS]]: what the gateway and its filters cost beside a bare pingora-proxy,
//! and what a tunnel costs beside a direct connection.
//!
//! All proxies stand in front of one simulated model server and are loaded in turns by one client,
//! so that what else the machine does falls on all of them alike. Ratios are taken within a round, then
//! their median over the rounds. CPU time is the kernel's own account of the proxy's process.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use crate::contestant::Stage;
use crate::round::{Kind, Round};

mod contestant;
mod pin;
mod round;

mod report;

fn main() -> ExitCode {
    match Settings::from_arguments().and_then(bench) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Settings {
    rounds: usize,
    /// Length of one load.
    load: Duration,
}

impl Settings {
    fn from_arguments() -> io::Result<Self> {
        let mut arguments = std::env::args().skip(1);
        let mut number = |default: f64| match arguments.next() {
            None => Ok(default),
            Some(text) => text
                .parse::<f64>()
                .ok()
                .filter(|n| *n > 0.0 && *n < 1_000.0)
                .ok_or_else(|| {
                    io::Error::other(format!("`{text}` is no number of rounds or seconds"))
                }),
        };
        let rounds = number(ROUNDS)?.ceil() as usize;
        Ok(Self {
            rounds,
            load: Duration::from_secs_f64(number(LOAD_SECONDS)?),
        })
    }
}

fn bench(settings: Settings) -> io::Result<()> {
    // Before the runtime, whose threads inherit it.
    let pins = pin::Pins::take()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stage = Stage::set(&pins).await?;
        eprintln!(
            "{} rounds of {:?} per load, {}",
            settings.rounds,
            settings.load,
            pins.describe()
        );
        let mut rounds = Vec::new();
        for kind in Kind::ALL {
            for contestant in &stage.contestants {
                round::measure(contestant, kind, settings.load / 2).await?;
            }
        }
        for number in 0..settings.rounds {
            for kind in Kind::ALL {
                rounds.push(Round::run(&stage.contestants, kind, number, settings.load).await?);
            }
            eprintln!("round {} of {} done", number + 1, settings.rounds);
        }
        report::write(&stage, &rounds, &pins)
    })
}

const ROUNDS: f64 = 7.0;
const LOAD_SECONDS: f64 = 3.0;
