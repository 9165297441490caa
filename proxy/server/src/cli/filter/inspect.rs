//! `weir filter inspect`: what a filter imports, exports, says of itself and costs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use weir_host::{Host, Manifest, Module};
use weir_routing::Fleet;

use crate::cli::filter::measure::{self, Cost};
use crate::cli::filter::prepared::{self, Prepared};
use crate::cli::filter::{module_file, test};
use crate::cli::module_cache;
use crate::cli::output::{OK, complain, errors_found, misused, say};

/// Loads the module into the real host and prints its imports, the phases it exports, its
/// manifest, how long it takes to compile and to start, and what a call of each phase costs.
///
/// Costs are measured with a sample request, every grant and an empty table, or with those of
/// `--cases` (the first case of each phase), which a filter that needs a table of its own wants.
#[derive(clap::Args)]
pub(crate) struct InspectArgs {
    /// A .wasm file, builtin:NAME, or the folder of a filter crate, which is built first
    #[arg(value_name = "WASM|DIR")]
    filter: String,
    /// A table of cases as for `weir filter test`
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Everything there is to say.
#[derive(Serialize)]
struct Inspection {
    module: String,
    sha256: String,
    size_bytes: usize,
    imports: Vec<String>,
    phases: Vec<&'static str>,
    compile_ms: u64,
    /// From a compiled module to a filter: describe, validate, init.
    start_us: Option<u128>,
    manifest: Option<Manifest>,
    costs: Vec<Cost>,
    /// Why there is no manifest, or not all costs.
    problems: Vec<String>,
}

/// Carries the command out.
pub(crate) fn inspect(args: &InspectArgs) -> ExitCode {
    let (inspection, json) = match look(args) {
        Ok(inspection) => (inspection, args.json),
        Err(error) => {
            complain(error);
            return errors_found();
        }
    };
    if json {
        match serde_json::to_string_pretty(&inspection) {
            Ok(text) => say(text),
            Err(error) => {
                complain(error);
                return misused();
            }
        }
    } else {
        print(&inspection);
    }
    OK
}

fn look(args: &InspectArgs) -> Result<Inspection, String> {
    let found = module_file::find(&args.filter)?;
    let file = match &args.cases {
        Some(path) => test::read(path)?,
        None => measure::sample(&found.name)?,
    };
    // Without a cache, so that compilation is measured; the next command compiles anew as well.
    let host = module_cache::host(None).map_err(|error| error.to_string())?;
    let module = host
        .load(&found.bytes)
        .map_err(|error| format!("{}: {error}", found.name))?;
    let mut inspection = Inspection {
        module: found.name,
        sha256: module.sha256.clone(),
        size_bytes: module.size,
        imports: module.imports.clone(),
        phases: module.exports.clone(),
        compile_ms: module.compile_ms,
        start_us: None,
        manifest: None,
        costs: Vec::new(),
        problems: Vec::new(),
    };
    start(&host, &module, &file, &mut inspection)?;
    Ok(inspection)
}

fn start(
    host: &Arc<Host>,
    module: &Arc<Module>,
    file: &crate::cli::filter::cases::CaseFile,
    inspection: &mut Inspection,
) -> Result<(), String> {
    let began = Instant::now();
    let filter = match prepared::prepare(host, module, file) {
        Ok(filter) => filter,
        Err(problems) => {
            inspection.problems = problems;
            return Ok(());
        }
    };
    inspection.start_us = Some(began.elapsed().as_micros());
    inspection.manifest = Some(filter.manifest().clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let mut prepared = Prepared {
        host: host.clone(),
        filter,
        fleet: Fleet::new(),
        cluster: None,
    };
    match runtime.block_on(measure::costs(&mut prepared, file)) {
        Ok(costs) => inspection.costs = costs,
        Err(problem) => inspection.problems.push(problem),
    }
    Ok(())
}

fn print(of: &Inspection) {
    let list = |items: &[String]| {
        if items.is_empty() {
            "none".to_owned()
        } else {
            items.join(", ")
        }
    };
    say(&of.module);
    say(format_args!("  sha256    {}", of.sha256));
    say(format_args!("  size      {} bytes", of.size_bytes));
    say(format_args!("  phases    {}", of.phases.join(", ")));
    say("  imports");
    for import in &of.imports {
        say(format_args!("    {import}"));
    }
    if let Some(manifest) = &of.manifest {
        say(format_args!(
            "  manifest  {} {}: {}",
            manifest.name, manifest.version, manifest.about
        ));
        say(format_args!(
            "    reads headers   {}",
            list(&manifest.reads_headers)
        ));
        say(format_args!(
            "    writes headers  {}",
            list(&manifest.writes_headers)
        ));
        say(format_args!(
            "    reads the body  {}",
            if manifest.reads_body { "yes" } else { "no" }
        ));
        say(format_args!(
            "    writes JSON     {}",
            list(&manifest.writes_json)
        ));
        say(format!("    events          {:?}", manifest.events).to_lowercase());
        say(format_args!("    tick            {} ms", manifest.tick_ms));
        if manifest.affinity_by_session_key {
            say("    on-affinity     only with a session key, by nothing else");
        }
        if manifest.response_headers_after_scratch {
            say("    on-response-headers  only after it has set its scratch");
        }
    }
    say(format_args!("  compiles in {} ms", of.compile_ms));
    if let Some(start_us) = of.start_us {
        say(format_args!(
            "  starts in   {start_us} µs (describe, validate and init, each in a new instance)"
        ));
    }
    for cost in &of.costs {
        let (median, p99) = (as_us(cost.median_ns), as_us(cost.p99_ns));
        say(format_args!(
            "  {:<16} {median:>8} µs median, {p99} µs p99 of {} calls",
            cost.phase, cost.calls
        ));
    }
    for problem in &of.problems {
        say(format_args!("  not measured: {problem}"));
    }
    if !of.problems.is_empty() {
        say("  give its grants, its table and requests with --cases FILE");
    }
}

/// Microseconds with two digits behind the point.
fn as_us(ns: u64) -> String {
    format!("{}.{:02}", ns / 1_000, ns % 1_000 / 10)
}
