//! The command line as a whole: names, arguments and help texts of the commands.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cli::output::{self, complain, misused, say};
use crate::cli::{check, compile, filter, function, init, run, simulate};

/// An LLM gateway whose decisions are made by Wasm filters.
///
/// `weir run` serves; without a configuration it serves the built-in one, which has simulated
/// model servers: `curl -H 'Authorization: Bearer weir-demo-key' 127.0.0.1:8080/v1/models`.
#[derive(Parser)]
#[command(name = "weir", version, propagate_version = true, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a configuration, and take over its changes while it runs
    Run(run::RunArgs),
    /// Write a commented configuration to start from
    Init(init::InitArgs),
    /// Print everything that is wrong with a configuration, or a summary of it
    Check(check::CheckArgs),
    /// Compile the filters of a configuration into the cache, so that the next start is quick
    Compile(compile::CompileArgs),
    /// Serve a simulated model server: no GPU, no model, equal seeds answer alike
    Simulate(simulate::SimulateArgs),
    /// Write, build, test and look into filters
    #[command(subcommand)]
    Filter(filter::FilterCommand),
    /// Make, change, show and delete the functions of a running gateway
    #[command(subcommand)]
    Function(function::FunctionCommand),
}

/// Runs the command line of this process. 0: done; 1: errors were found; 2: it cannot be done.
#[must_use]
pub fn main() -> ExitCode {
    let parsed = match CommandLine::try_parse() {
        Ok(parsed) => parsed,
        Err(error) if error.use_stderr() => {
            complain(error.to_string().trim_end());
            return misused();
        }
        Err(help) => {
            say(help.to_string().trim_end());
            return ExitCode::SUCCESS;
        }
    };
    if !matches!(parsed.command, Command::Run(_)) {
        output::show_warnings();
    }
    match parsed.command {
        Command::Run(args) => run::run(args),
        Command::Init(args) => init::init(&args),
        Command::Check(args) => check::check(args),
        Command::Compile(args) => compile::compile(args),
        Command::Simulate(args) => simulate::simulate(args),
        Command::Filter(command) => filter::run(command),
        Command::Function(command) => function::run(command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
