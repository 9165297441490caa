//! `weir compile`: the filters of a configuration compiled ahead into the cache.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use weir_config::ModuleRef;

use crate::builtin;
use crate::cli::output::{OK, complain, counted, errors_found, misused, say};
use crate::cli::{check, config_file, module_cache};

/// Compiles every module that the configuration names into the cache of `weir run`
/// (`server.cache_dir`), one line each: how long it took, or that it was there.
#[derive(clap::Args)]
pub(crate) struct CompileArgs {
    /// The configuration file; by default `config/weir.toml` here, else the built-in one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Carries the command out.
pub(crate) fn compile(args: CompileArgs) -> ExitCode {
    let found = match config_file::find(args.config) {
        Ok(found) => found,
        Err(errors) => return check::report(&errors),
    };
    let Some(dir) = module_cache::of(&found.config) else {
        complain("no folder for the cache: set `server.cache_dir` or HOME");
        return misused();
    };
    let modules: BTreeSet<String> = found
        .config
        .filters
        .values()
        .map(|filter| name(&filter.module))
        .collect();
    let results = modules
        .iter()
        .map(|module| fill(module, &found.origin.folder, &dir));
    let failed = results.filter(Result::is_err).count();
    if failed > 0 {
        complain(counted(failed, "error"));
        return errors_found();
    }
    say(format_args!(
        "{} in {}",
        counted(modules.len(), "module"),
        dir.display()
    ));
    OK
}

/// Compiles one module and makes sure that the next process finds it; says how that went.
fn fill(module: &str, folder: &Path, dir: &Path) -> Result<(), ()> {
    let load = |bytes: &[u8]| {
        let host =
            module_cache::host(Some(dir.to_path_buf())).map_err(|error| error.to_string())?;
        host.load(bytes).map_err(|error| error.to_string())
    };
    let loaded = bytes(module, folder).and_then(|bytes| {
        let loaded = load(&bytes)?;
        if loaded.cached || load(&bytes)?.cached {
            return Ok(loaded);
        }
        Err(format!(
            "compiled, but `{}` cannot keep it: the folder must be yours and writable by you alone",
            dir.display()
        ))
    });
    match loaded {
        Ok(loaded) => {
            let how = if loaded.cached { "cached" } else { "compiled" };
            say(format_args!(
                "{module}: {how}, {} ms, {} bytes",
                loaded.compile_ms, loaded.size
            ));
            Ok(())
        }
        Err(error) => {
            complain(format_args!("{module}: {error}"));
            Err(())
        }
    }
}

/// A module as the configuration writes it.
fn name(module: &ModuleRef) -> String {
    match module {
        ModuleRef::Builtin(name) => format!("builtin:{name}"),
        ModuleRef::Path(path) => path.display().to_string(),
    }
}

fn bytes(module: &str, folder: &Path) -> Result<Cow<'static, [u8]>, String> {
    if let Some(name) = module.strip_prefix("builtin:") {
        return builtin::module(name)
            .map(Cow::Borrowed)
            .ok_or_else(|| "no such built-in filter".to_owned());
    }
    let path = folder.join(module);
    fs::read(&path)
        .map(Cow::Owned)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}
