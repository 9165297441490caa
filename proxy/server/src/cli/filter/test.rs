//! `weir filter test`: a table of requests and expected outcomes, run in the real host.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::filter::cases::{Case, CaseFile};
use crate::cli::filter::prepared::Prepared;
use crate::cli::filter::{case_run, module_file};
use crate::cli::output::{OK, complain, counted, errors_found, misused, say};

/// Loads the module into the real host, with the grants and the table the cases give it, calls
/// one phase per case, and compares. Fails when a case does.
///
/// The table is a TOML file: `grants`, `limits` and `config` as in [filters.NAME] of a
/// configuration, then [[case]] with `name`, `phase`, `request`, `candidates` and `expect`;
/// `weir filter new` writes one to start from.
#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// The folder of a filter crate, which is built first, a .wasm file, or builtin:NAME
    #[arg(value_name = "DIR|WASM", default_value = ".")]
    filter: String,
    /// The table of cases; by default `tests.toml` beside the filter
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
}

/// Carries the command out.
pub(crate) fn test(args: &TestArgs) -> ExitCode {
    let found = match module_file::find(&args.filter) {
        Ok(found) => found,
        Err(error) => {
            complain(error);
            return errors_found();
        }
    };
    let path = args
        .cases
        .clone()
        .unwrap_or_else(|| found.folder.join("tests.toml"));
    let file = match read(&path) {
        Ok(file) => file,
        Err(error) => {
            complain(error);
            return misused();
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("no runtime: {error}"));
            return misused();
        }
    };
    match runtime.block_on(run_all(&found.bytes, &file)) {
        Ok(0) => {
            say(format_args!(
                "{}: all ok",
                counted(file.cases.len(), "case")
            ));
            OK
        }
        Ok(failed) => {
            complain(format_args!(
                "{}: {failed} FAILED",
                counted(file.cases.len(), "case")
            ));
            errors_found()
        }
        Err(errors) => {
            for error in errors {
                complain(format_args!("{}: {error}", found.name));
            }
            errors_found()
        }
    }
}

/// Reads the table of cases at `path`.
pub(crate) fn read(path: &std::path::Path) -> Result<CaseFile, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    CaseFile::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

async fn run_all(bytes: &[u8], file: &CaseFile) -> Result<usize, Vec<String>> {
    let mut prepared = Prepared::new(bytes, file)?;
    let mut failed = 0;
    for (place, case) in file.cases.iter().enumerate() {
        if case.fresh && place > 0 {
            prepared = Prepared::new(bytes, file)?;
        }
        let result = case_run::run(case, &mut prepared).await;
        failed += usize::from(result.is_err());
        print(case, result);
    }
    Ok(failed)
}

fn print(case: &Case, result: Result<Duration, Vec<String>>) {
    let phase = case.phase.as_str();
    match result {
        Ok(took) => say(format_args!(
            "ok      {phase}: {} ({:.1} µs)",
            case.name,
            took.as_secs_f64() * 1e6
        )),
        Err(lines) => {
            say(format_args!("FAILED  {phase}: {}", case.name));
            for line in lines {
                say(format_args!("          {line}"));
            }
        }
    }
}
