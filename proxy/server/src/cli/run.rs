//! `weir run`: the gateway.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;
use weir_config::{Config, ConfigError, LogFormat};

use crate::boot::{self, BootError, Plan};

/// What `weir run` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Config file; without it the embedded default config runs.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Take the listening sockets over from a running process: start this one, then send the
    /// other SIGQUIT. Both need the same `server.upgrade_socket`.
    #[arg(long)]
    pub(crate) upgrade: bool,
}

/// Runs until told to end.
pub(crate) fn run(args: RunArgs) -> ExitCode {
    let loaded = match &args.config {
        Some(file) => weir_config::load(file),
        None => weir_config::parse(weir_config::REFERENCE, "embedded config")
            .map(|config| (config, weir_config::REFERENCE.to_owned())),
    };
    let (config, text) = match loaded {
        Ok(loaded) => loaded,
        Err(errors) => return refuse(&errors),
    };
    start_logging(&config);
    let plan = Plan {
        file: args.config,
        config,
        text,
        upgrade: args.upgrade,
    };
    match boot::run(plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(BootError::Config(errors)) => refuse(&errors),
        Err(BootError::Machine(message)) => {
            _ = writeln!(std::io::stderr(), "weir: {message}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(errors: &[ConfigError]) -> ExitCode {
    let mut out = std::io::stderr();
    for error in errors {
        _ = writeln!(out, "{error}");
    }
    _ = writeln!(out, "weir: {} config error(s), not started", errors.len());
    ExitCode::FAILURE
}

/// `WEIR_LOG`, else the config, says how much is told. pingora logs its own failed exchanges,
/// which the access log tells better.
fn start_logging(config: &Config) {
    let quiet = format!(
        "{},pingora_core=warn,pingora_proxy=error,pingora_runtime=warn,h2=warn",
        config.log.level
    );
    let directives = std::env::var("WEIR_LOG").unwrap_or(quiet);
    let filter = EnvFilter::try_new(&directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match config.log.format {
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
        LogFormat::Text => subscriber.with_ansi(false).try_init(),
    };
    if let Err(error) = started {
        _ = writeln!(std::io::stderr(), "weir: no log: {error}");
    }
}
