//! `weir check`: everything that is wrong with a configuration, found without serving it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use weir_config::ConfigError;
use weir_routing::Fleet;

use crate::cli::output::{OK, complain, counted, errors_found, misused, say};
use crate::cli::{config_file, module_cache};
use crate::compile::Compiler;
use crate::names::Names;
use crate::snapshot::Snapshot;
use crate::workers::registry::Workers;

/// Reads the configuration, loads every module, asks each filter about its own table, resolves
/// every address, and prints all errors with file, line, key and what to do.
#[derive(clap::Args)]
pub(crate) struct CheckArgs {
    /// The configuration file; by default `config/weir.toml` here, else the built-in one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Carries the command out.
pub(crate) fn check(args: CheckArgs) -> ExitCode {
    let found = match config_file::find(args.config) {
        Ok(found) => found,
        Err(errors) => return report(&errors),
    };
    let dir = module_cache::of(&found.config);
    let host = match module_cache::host(dir) {
        Ok(host) => host,
        Err(error) => {
            complain(error);
            return misused();
        }
    };
    let compiler = Compiler {
        host: &host,
        fleet: &Fleet::new(),
        workers: &Workers::default(),
        names: &Names::default(),
        idle: &Arc::default(),
        origin: &found.origin,
        previous: None,
    };
    match compiler.compile(found.config, Arc::clone(&found.text), 1) {
        Ok(snapshot) => {
            summarize(&found.origin.file, &snapshot);
            OK
        }
        Err(errors) => report(&errors),
    }
}

/// Prints errors of a configuration; the exit code for them.
pub(crate) fn report(errors: &[ConfigError]) -> ExitCode {
    for error in errors {
        complain(error);
    }
    complain(counted(errors.len(), "error"));
    errors_found()
}

fn summarize(file: &str, snapshot: &Snapshot) {
    let config = &snapshot.config;
    say(format_args!("{file} is good:"));
    for listener in &config.listeners {
        let tls = if listener.tls.is_some() {
            " with TLS"
        } else {
            ""
        };
        say(format_args!(
            "  listener {} on {}{tls}",
            listener.name, listener.listen
        ));
    }
    for (name, pipeline) in &config.pipelines {
        say(format_args!(
            "  pipeline {name}: {}",
            pipeline.filters.join(", ")
        ));
    }
    for (id, function) in &config.functions {
        for (model, table) in &function.models {
            say(format_args!(
                "  model {id}/{model}: pipeline {}, cluster {}",
                function.pipeline, table.cluster
            ));
        }
    }
    let counts = [
        counted(config.listeners.len(), "listener"),
        counted(config.filters.len(), "filter"),
        counted(config.pipelines.len(), "pipeline"),
        counted(config.clusters.len(), "cluster"),
        counted(
            config
                .functions
                .values()
                .map(|function| function.models.len())
                .sum(),
            "model",
        ),
    ];
    say(counts.join(", "));
}
