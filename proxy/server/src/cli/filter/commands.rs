//! `weir filter ...`: which of its commands is meant.

use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::filter::{build, inspect, new, test};

/// Commands for those who write filters.
#[derive(Subcommand)]
pub(crate) enum FilterCommand {
    /// Write the crate of a new filter, ready to build, with tests
    New(new::NewArgs),
    /// Build a filter crate into a Wasm module and look at what came out
    Build(build::BuildArgs),
    /// Run a table of requests and expected outcomes against a filter, in the real host
    Test(test::TestArgs),
    /// Show what a filter imports, exports and costs
    Inspect(inspect::InspectArgs),
}

/// Carries a command out.
pub(crate) fn run(command: FilterCommand) -> ExitCode {
    match command {
        FilterCommand::New(args) => new::new(&args),
        FilterCommand::Build(args) => build::build(&args),
        FilterCommand::Test(args) => test::test(&args),
        FilterCommand::Inspect(args) => inspect::inspect(&args),
    }
}
